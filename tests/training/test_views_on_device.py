"""Training whose views are drawn on the device: a GPU's path, driven on the CPU."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import TrialInterrupted
from hmtl_ablate.training import batches, parts
from hmtl_ablate.training.batches import TrainingBatches
from hmtl_ablate.training.device import Setup, select_device
from hmtl_ablate.training.supervised import build_tasks


def drawing(*given: Any) -> Setup:
    return replace(select_device(*given), draws_views=True)


@pytest.fixture(autouse=True)
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "select_device", drawing)


def curve(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if "seconds" not in key and "second" not in key} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("feed", ["siamese", "shared", "mixed"])
def test_a_trial_learns_and_continues_as_if_it_never_stopped(make, run, tmp_path: Path, feed: str) -> None:
    config = make(
        pretext={"puzzling": {"feed": feed}, "inpainting": {"feed": feed}}, data__augment="strong", training__epochs=4
    )
    run(config, "whole")
    rows = curve(tmp_path / "whole")
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    calls = iter(range(100))
    with pytest.raises(TrialInterrupted):
        run(config, "parts", stop=lambda: next(calls) == 4)
    run(config, "parts")
    assert curve(tmp_path / "parts") == rows


def test_a_pack_that_fits_gives_the_views_of_one_that_does_not(
    make, pack: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, rows = make(data__augment="weak", data__views=2), np.flatnonzero(pack.split == 0)
    found = []
    for fits in (True, False):
        monkeypatch.setattr(batches, "fits", lambda size, where, fits=fits: fits)
        made = TrainingBatches(config, pack, rows, build_tasks(config, pack, rows), 0, 1, drawing("auto"))
        found.append(made[1].views)
    assert found[0].shape == (2, 32, 3, 32, 32)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0][0], found[0][1])


def test_a_mirrored_face_has_its_yaw_and_roll_negated(make, pack: Pack) -> None:
    config, rows = make(task="pose", data__augment="none"), np.flatnonzero(pack.split == 0)
    made = TrainingBatches(config, pack, rows, build_tasks(config, pack, rows), 0, 1, drawing("auto"))
    order, first = made._ordered(1)[:32], made[0]
    signs = first.targets["pose"][0] / torch.from_numpy(pack.labels["pose"][order])
    mirrored = signs[:, 0] < 0
    assert 4 < int(mirrored.sum()) < 28
    assert torch.equal(signs[:, 1], torch.ones(32))
    assert torch.equal(signs[:, 0], signs[:, 2])
    for place in range(32):  # none crops to 0.69 … 0.80 of the side
        shown = first.views[0, place].permute(1, 2, 0).numpy()
        whole = cv2.resize(pack.images[order[place]][4:28, 4:28], (32, 32)) / 255
        near = np.argmin([np.abs(whole - shown).mean(), np.abs(whole[:, ::-1] - shown).mean()])
        assert bool(near) == bool(mirrored[place])


def test_workers_share_a_batch(make, pack: Pack) -> None:
    config, rows = make(data__augment="weak"), np.flatnonzero(pack.split == 0)
    tasks = build_tasks(config, pack, rows)
    whole, *shares = (
        TrainingBatches(config, pack, rows, tasks, rank, size, drawing("auto"))[0].views
        for rank, size in ((0, 1), (0, 2), (1, 2))
    )
    for rank, share in enumerate(shares):
        torch.testing.assert_close(share, whole[:, rank::2])


@pytest.mark.slow
def test_a_gpu_machine_needs_the_training_core_alone(make, pack: Pack, tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules |= dict.fromkeys(("albumentations", "ray", "mlflow", "optuna", "pandas"))  # not installed
from dataclasses import replace
from pathlib import Path
from hmtl_ablate.config import parse_config
from hmtl_ablate.data.pack import load_pack
from hmtl_ablate.training import device, loop, parts
select = device.select_device
parts.select_device = lambda *given: replace(select(*given), draws_views=True)
config = parse_config({make(training__epochs=1).model_dump(mode="json")!r})
pack, folder = load_pack(Path({str(pack.folder)!r})), Path({str(tmp_path / "trial")!r})
result = loop.train(config, pack, folder, evaluate_test=True)
print(result.status, "test/accuracy" in result.metrics)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["finished", "True"], done.stderr
