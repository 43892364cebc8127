"""Single trials: by name, a study's best, and two side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

import hmtl_ablate as ha
from hmtl_ablate.api import best
from hmtl_ablate.errors import StoreError
from hmtl_ablate.reporting.results import results_of
from hmtl_ablate.tracking.records import StudyRecord, TrialRecord

SMALL = {"data": {"images": 160, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}


def write_predictions(trial: ha.TrainedTrial, folder: Path, **arrays: object) -> ha.TrainedTrial:
    """The trial in another folder, with other predictions."""
    folder.mkdir()
    for name in ("config.json", "result.json", "metrics.jsonl"):
        (folder / name).write_bytes((trial.folder / name).read_bytes())
    saved = {key: np.asarray(value) for key, value in arrays.items()}
    np.savez(folder / "predictions.npz", **saved)  # type: ignore[arg-type]
    return ha.load_trial(folder)


def one_hot(*classes: int) -> np.ndarray:
    return np.eye(8, dtype=np.float32)[list(classes)]


def test_images_are_counted_by_who_is_right(trial: ha.TrainedTrial, tmp_path: Path) -> None:
    """By hand: six images; their order in the files does not matter, and one without a label does not count."""
    labels = [0, 0, 1, 1, 2, -1]
    first = write_predictions(
        trial,
        tmp_path / "a",
        test_index=[5, 6, 7, 8, 9, 4],
        test_label=labels,
        test_probability=one_hot(0, 0, 1, 0, 0, 0),
    )
    order = [4, 2, 0, 1, 3, 5]
    second = write_predictions(
        trial,
        tmp_path / "b",
        test_index=np.array([5, 6, 7, 8, 9, 4])[order],
        test_label=np.array(labels)[order],
        test_probability=one_hot(0, 3, 1, 0, 0, 0)[order],
    )
    [found] = ha.compare(first, second).images
    assert (found.images, found.both, found.only_first, found.only_second, found.neither) == (5, 2, 1, 0, 2)
    assert found.p == 1.0  # of one image that one alone is right about
    assert found.classes == {"neutral": (2, 1.0, 0.5), "happiness": (2, 0.5, 0.5), "sadness": (1, 0.0, 0.0)}
    assert found.disagree == (6,)


def test_other_images_are_not_compared(trial: ha.TrainedTrial, tmp_path: Path) -> None:
    own = {"test_label": [0, 1], "test_probability": one_hot(0, 1)}
    first = write_predictions(trial, tmp_path / "a", test_index=[1, 2], **own)
    second = write_predictions(trial, tmp_path / "b", test_index=[1, 3], **own)
    found = ha.compare(first, second)
    assert (found.images, found.unpaired) == ((), "they were measured on other test images")
    (tmp_path / "b" / "predictions.npz").unlink()
    assert ha.compare(first, second).unpaired == f"there are no predictions of test by {trial.trial_id}"


def test_errors_of_numbers_are_compared_image_by_image(tmp_path: Path) -> None:
    """By hand: errors 1, 3 and 2, 2: differences −1 and 1."""
    trial = ha.train({**SMALL, "task": "pose"}, store=tmp_path / "runs")
    own = {"test_index": [0, 1], "test_label": np.zeros((2, 3), np.float32)}
    first = write_predictions(trial, tmp_path / "a", test_angles=np.array([[1, 1, 1], [3, 3, 3]], np.float32), **own)
    second = write_predictions(trial, tmp_path / "b", test_angles=np.array([[2, -2, 2], [2, 2, -2]], np.float32), **own)
    [found] = ha.compare(first, second).images
    assert (found.images, found.p, found.classes) == (2, None, {})
    assert found.error is not None
    assert (found.error.mean, found.error.n) == (0.0, 2)
    assert found.error.low == pytest.approx(-12.706, abs=0.001)  # t(1, 0.975) × sd √2 / √2


def test_options_and_metrics_that_differ(tmp_path: Path) -> None:
    first = ha.train(SMALL, store=tmp_path)
    second = ha.train({**SMALL, "pretext": {"puzzling": {}}}, seed=1, store=tmp_path)
    found = ha.compare(first.trial_id[:8], second, store=tmp_path)
    assert found.options["seed"] == (0, 1)
    assert found.options["pretext.puzzling.grid"] == (None, 2)
    assert "data.images" not in found.options
    assert found.metrics["test/accuracy"] == (first.metrics["test/accuracy"], second.metrics["test/accuracy"])


def test_a_trial_that_has_not_ended_is_said(trial: ha.TrainedTrial, tmp_path: Path) -> None:
    folder = tmp_path / trial.trial_id
    folder.mkdir()
    (folder / "config.json").write_bytes((trial.folder / "config.json").read_bytes())
    with pytest.raises(StoreError, match=r"has not ended \(0 epochs so far\); run its study again"):
        ha.load_trial(folder)


def test_the_best_of_a_study_with_an_unknown_task_names_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = StudyRecord(name="s", profile="q", metric="test/accuracy", variants={"M": "m"}, seeds=(0,), run_id="p")
    trial = TrialRecord(
        parent="p",
        trial_id="0" * 16,
        variant="M",
        variant_key="m",
        seed=0,
        config={"pretext": {"mirror": {"weight": 1.0}}},
        status="finished",
        metrics={"best/val/accuracy": 0.5},
    )
    monkeypatch.setattr(best, "require_runs", lambda uri, store: None)
    monkeypatch.setattr(best, "load_results", lambda uri, store: results_of([study], [trial]))
    with pytest.raises(StoreError, match=r"(?s)s/M/0 can't be read: .*mirror.*--import"):
        ha.best("s", tmp_path)


@pytest.mark.slow
def test_the_best_of_a_study_is_yaml_that_gives_the_same_config(tmp_path: Path) -> None:
    study = {"name": "s", "base": SMALL, "variants": {"SL": {}, "HMTL": {"pretext": {"puzzling": {"grid": 3}}}}}
    ha.run(ha.load_study(study, seeds=[0, 1]), store=tmp_path, progress=False)
    found = ha.best("s", tmp_path)
    trial = ha.load_trial("best:s", tmp_path)
    assert found.trial_id == trial.trial_id
    assert found.score == trial.metrics["best/val/accuracy"]
    [(name, options)] = YAML(typ="safe").load(found.yaml).items()
    assert found.name == f"s/{name}/{trial.config.seed}"
    again = ha.load_study({"name": "s", "base": SMALL, "variants": {"again": options}})
    assert again.variants[0].config(trial.config.seed) == trial.config
    assert json.loads(json.dumps(options)) == options
