"""ha.predict: many images, some of which can't be read."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import hmtl_ablate as ha
from hmtl_ablate.data.pack import load_pack
from hmtl_ablate.errors import HmtlError


@pytest.fixture
def faces(workplace: Path, trial: ha.TrainedTrial, tmp_path: Path) -> list[Path]:
    """Seven faces of the trial's pack as files."""
    pack = load_pack(next((workplace / "runs" / "packs").iterdir()))
    paths = [tmp_path / f"{number}.png" for number in range(7)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), np.array(pack.images[number])[..., ::-1])
    return paths


def test_batches_give_what_single_images_give(trial: ha.TrainedTrial, faces: list[Path]) -> None:
    model, seen = ha.load_model(trial), []
    found = ha.predict(model, faces, batch_size=3, progress=lambda *at: seen.append(at))
    assert seen == [(3, 7, "images"), (6, 7, "images"), (7, 7, "images")]
    assert [one.image for one in found] == [str(path) for path in faces]
    for one, path in zip(found, faces, strict=True):
        alone = model.predict(path)["emotion"]
        assert one.tasks["emotion"].label == alone.label
        assert one.tasks["emotion"].values == pytest.approx(alone.values, abs=1e-5)


def test_an_image_that_can_t_be_read_has_a_fault_and_the_others_are_predicted(
    trial: ha.TrainedTrial, faces: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    found = ha.predict(trial, [faces[0], bad, tmp_path / "missing.png", faces[1]])
    assert [bool(one.fault) for one in found] == [False, True, True, False]
    assert str(bad) in found[1].fault
    assert [sorted(one.tasks) for one in found] == [["emotion"], [], [], ["emotion"]]
    assert ha.predict(trial, [bad])[0].tasks == {}


def test_a_name_finds_the_model(trial: ha.TrainedTrial, faces: list[Path], workplace: Path) -> None:
    named = ha.predict(trial.trial_id[:6], faces[:1], store=workplace / "runs")
    assert named == ha.predict(trial, faces[:1])
    with pytest.raises(HmtlError, match="batch_size 0"):
        ha.predict(trial, faces, batch_size=0)
