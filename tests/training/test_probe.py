"""Probes of a frozen backbone, and the trials that they look at."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hmtl_ablate.config import trial_id
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import CheckpointError, ConfigError, DataError
from hmtl_ablate.training.folder import TrialFolder
from hmtl_ablate.training.probe import nearest_vote


@pytest.fixture
def trained(make, run, pack: Pack) -> str:
    config = make(training__epochs=2)
    run(config)
    return f"trial:{trial_id(config, pack.fingerprint)}"


def test_neighbours_vote_by_similarity() -> None:
    known = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    votes = nearest_vote(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), known, torch.tensor([0, 0, 1]), 2, 2)
    assert votes.argmax(dim=1).tolist() == [0, 1]
    assert votes.exp().sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
    # the second face: cosines 1 and 0.0995 of its two nearest, as exp(cos / 0.07)
    share = 1 / (1 + math.exp((0.1 / math.hypot(1, 0.1) - 1) / 0.07))
    assert votes[1, 1].exp().item() == pytest.approx(share, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "nonlinear", "knn"])
def test_every_probe_measures_val_and_test_and_repeats(make, run, trained: str, tmp_path: Path, kind: str) -> None:
    config = make(model__weights=trained, probe={"kind": kind}, training__epochs=4)
    first, second = run(config, "a"), run(config, "b")
    assert first.metrics == second.metrics
    assert {"best/val/accuracy", "test/accuracy", "test/macro_f1"} <= first.metrics.keys()
    source = TrialFolder(tmp_path / trained.removeprefix("trial:")).result()
    assert source is not None
    assert first.image_passes == source.image_passes  # what the backbone cost
    with np.load(tmp_path / "a" / "predictions.npz") as saved:
        correct = saved["test_probability"].argmax(axis=1) == saved["test_label"]
    assert correct.mean() == pytest.approx(first.metrics["test/accuracy"])


def test_folds_predict_every_image_once(make, run, trained: str, pack: Pack, tmp_path: Path) -> None:
    result = run(make(model__weights=trained, probe={"kind": "linear", "folds": 4}, training__epochs=2), "x")
    with np.load(tmp_path / "x" / "predictions.npz") as saved:
        assert saved["test_index"].tolist() == list(range(len(pack.images)))
    assert sum(map(sum, result.confusion["test"])) == len(pack.images)
    assert not any(name.startswith("best/") for name in result.metrics)


def test_a_search_trial_keeps_away_from_test(make, run, trained: str) -> None:
    result = run(make(model__weights=trained, probe={"kind": "linear"}, training__epochs=1), "x", evaluate_test=False)
    assert not any(name.startswith("test/") for name in result.metrics)


def test_direct_is_the_trained_model_on_all_images(make, run, trained: str, pack: Pack, tmp_path: Path) -> None:
    result = run(make(model__weights=trained, probe={"kind": "direct"}), "x")
    with (
        np.load(tmp_path / trained.removeprefix("trial:") / "predictions.npz") as before,
        np.load(tmp_path / "x" / "predictions.npz") as saved,
    ):
        assert len(saved["test_index"]) == len(pack.images)
        rows = np.searchsorted(saved["test_index"], before["test_index"])
        assert np.allclose(saved["test_probability"][rows], before["test_probability"], atol=1e-4)
    assert "test/accuracy" in result.metrics


def test_direct_of_another_task_is_refused(make, run, trained: str) -> None:
    with pytest.raises(DataError, match="trained for emotion"):
        run(make(task="gender", model__weights=trained, probe={"kind": "direct"}), "x")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"probe": {"kind": "linear"}, "pretext": {"puzzling": {}}}, "trains no pretext task"),
        ({"probe": {"kind": "linear"}, "task": "pose"}, "one task with classes"),
        ({"probe": {"kind": "direct"}}, "needs a trained head"),
        ({"probe": {"kind": "linear"}, "data": {"views": 2}}, "once, whole"),
    ],
)
def test_impossible_probes_are_refused(make, changes, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(**changes)


def test_an_unknown_source_is_named(make, run) -> None:
    with pytest.raises(CheckpointError, match=r"trial:0{16}"):
        run(make(model__weights="trial:" + "0" * 16), "x")


def test_pre_training_then_fine_tuning_starts_from_the_backbone(make, run, pack: Pack, tmp_path: Path) -> None:
    stage = make(training__supervised=False, pretext={"puzzling": {}}, training__epochs=2)
    name = trial_id(stage, pack.fingerprint)
    before = run(stage)
    assert before.best_epoch == 2  # nothing selects: the last epoch's weights stay
    assert not any("accuracy" in metric and "puzzling" not in metric for metric in before.metrics)
    assert not (tmp_path / name / "predictions.npz").exists()
    result = run(make(model__weights=f"trial:{name}", training__epochs=1), "tuned")
    train = int((pack.split == 0).sum())
    assert result.image_passes == before.image_passes + train // 32 * 32
    fresh = run(make(training__epochs=1), "fresh")
    assert fresh.metrics != result.metrics
    log = [json.loads(line) for line in (tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["image_passes"] == result.image_passes
