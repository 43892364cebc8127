"""ha.evaluate: the trial's own numbers again, other data, exported models, every task."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import hmtl_ablate as ha
from hmtl_ablate.data.pack import is_pack
from hmtl_ablate.errors import HmtlError
from tests.api.conftest import CONFIG


def of_test(trial: ha.TrainedTrial) -> dict[str, float]:
    return {name: value for name, value in trial.metrics.items() if name.startswith("test/")}


def test_the_trial_s_own_test_split_gives_its_stored_values_exactly(trial: ha.TrainedTrial) -> None:
    found = ha.evaluate(trial)
    assert found.metrics == of_test(trial)
    assert (found.model, found.data, found.split) == (trial.trial_id, "rendered", "test")
    counts = np.array(trial.result.confusion["test"])
    scores = found.tasks["emotion"]
    assert list(scores.images.values()) == counts.sum(axis=1).tolist()
    assert found.n == scores.n == counts.sum()
    assert scores.recall == {
        name.removeprefix("test/recall/"): pytest.approx(value)
        for name, value in of_test(trial).items()
        if name.startswith("test/recall/")
    }


def test_val_gives_the_values_of_the_best_epoch(trial: ha.TrainedTrial) -> None:
    best = {name.removeprefix("best/"): value for name, value in trial.metrics.items() if name.startswith("best/")}
    found = ha.evaluate(trial, split="val").metrics
    assert found == {name: best[name] for name in found}


@pytest.mark.parametrize("task", ["pose", "affect", ["emotion", "gender", "pose"]])
def test_every_task_gives_its_stored_values(task: Any, workplace: Path) -> None:
    trial = ha.train({**CONFIG, "task": task}, store=workplace / "runs", progress=False)
    found = ha.evaluate(trial)
    assert found.metrics == of_test(trial)
    assert set(found.tasks) == set(trial.config.tasks)


@pytest.mark.slow
def test_an_exported_model_gives_the_trial_s_values(trial: ha.TrainedTrial, workplace: Path, tmp_path: Path) -> None:
    ha.export(trial, tmp_path / "model", store=workplace / "runs")
    pack = next(filter(is_pack, (workplace / "runs" / "packs").glob("rendered-32px-*")))
    found = ha.evaluate(tmp_path / "model", {"rendered": pack}, store=workplace / "runs")
    assert found.metrics == pytest.approx(of_test(trial), abs=1e-5)
    with pytest.raises(HmtlError, match="has no data of its own; name a dataset"):
        ha.evaluate(tmp_path / "model")


def folder_of(place: Path, names: list[str]) -> Path:
    """A dataset of the reader `folder`: four faces of each class."""
    draw = np.random.default_rng(0)
    for part in ("train", "valid", "test"):
        for name in names:
            (place / part / name).mkdir(parents=True)
            for number in range(4):
                pixels = draw.integers(0, 255, (40, 40, 3)).astype(np.uint8)
                cv2.imwrite(str(place / part / name / f"{number}.png"), pixels)
    return place


@pytest.fixture
def own_store(trial: ha.TrainedTrial, tmp_path: Path) -> Path:
    """The trial's folder in a store of its own, which gets the packs of other datasets."""
    return Path(shutil.copytree(trial.folder, tmp_path / "runs" / "trials" / trial.folder.name))


def test_another_dataset_with_the_same_classes(trial: ha.TrainedTrial, own_store: Path, tmp_path: Path) -> None:
    names = trial.result.classes
    found = ha.evaluate(own_store, {"folder": folder_of(tmp_path / "faces", names)})
    assert (found.data, found.n) == ("folder", 4 * len(names))
    assert found.tasks["emotion"].images == dict.fromkeys(names, 4)


def test_other_classes_are_one_message_that_names_the_difference(
    trial: ha.TrainedTrial, own_store: Path, tmp_path: Path
) -> None:
    names = [name for name in trial.result.classes if name != "contempt"]
    with pytest.raises(HmtlError, match="'folder' has other emotion classes than the model: it lacks contempt"):
        ha.evaluate(own_store, {"folder": folder_of(tmp_path / "faces", names)})
