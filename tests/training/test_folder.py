"""The trial's folder: history, result, locks, imports."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hmtl_ablate.config import TrialConfig, parse_config
from hmtl_ablate.errors import CheckpointError, StoreError
from hmtl_ablate.training.folder import (
    TrialFolder,
    TrialResult,
    import_trials,
    is_complete,
    passes_before,
)

ID = "0123456789abcdef"


def result(status: str = "finished", **changes: object) -> TrialResult:
    values = {"trial_id": ID, "status": status, "epochs": 2, "best_epoch": 1, "image_passes": 64, "seconds": 1.5}
    return TrialResult.model_validate(values | changes)


def written(path: Path, status: str | None = "finished") -> TrialFolder:
    folder = TrialFolder(path)
    folder.write_config(TrialConfig())
    if status is not None:
        folder.write_result(result(status))
    return folder


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False), max_size=3), max_size=4))
def test_history_is_read_as_it_was_written(tmp_path: Path, rows: list[dict[str, float]]) -> None:
    folder = TrialFolder(tmp_path)
    folder.write_history(rows[:1])
    for row in rows[1:]:
        folder.append_history(row)
    assert folder.history() == rows


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert TrialFolder(tmp_path).history() == [{"epoch": 1}, {"epoch": 2}]
    assert TrialFolder(tmp_path / "none").history() == []


def test_config_and_result_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "x")
    config = parse_config({"pretext": {"puzzling": {"grid": 3}}, "seed": 4})
    folder.write_config(config)
    assert folder.result() is None
    folder.write_failure("Traceback")
    folder.write_result(result(metrics={"test/accuracy": 0.5}))
    assert (folder.config(), folder.result()) == (config, result(metrics={"test/accuracy": 0.5}))
    assert folder.failure() is None  # a result ends it


@pytest.mark.parametrize("content", ["", "{", '{"status": "finished"}'])
def test_a_damaged_result_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(StoreError, match=r"result\.json.*next run"):
        TrialFolder(tmp_path).result()


def test_a_lock_is_exclusive_and_is_released(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "x")
    with folder.lock(), pytest.raises(StoreError, match="in use"), folder.lock():
        pass
    assert not folder.busy()
    with folder.lock():
        assert folder.busy()


@pytest.mark.parametrize(
    ("status", "metrics", "evaluate_test", "complete"),
    [
        ("finished", {"test/accuracy": 0.5}, True, True),
        ("finished", {"best/val/accuracy": 0.5}, False, True),
        ("finished", {"best/val/accuracy": 0.5}, True, False),  # a search trial that a variant needs too
        ("pruned", {"test/accuracy": 0.5}, False, False),
        ("failed", {}, True, True),
    ],
)
def test_completeness(status: str, metrics: dict[str, float], evaluate_test: bool, complete: bool) -> None:
    assert is_complete(TrialConfig(), result(status, metrics=metrics), evaluate_test) is complete


def test_pre_training_has_no_test_to_measure() -> None:
    config = parse_config({"training": {"supervised": False}, "pretext": {"puzzling": {}}})
    assert is_complete(config, result(metrics={}), True)


def test_passes_of_the_trial_that_the_weights_name_count(tmp_path: Path) -> None:
    config = parse_config({"model": {"weights": f"trial:{ID}"}})
    assert passes_before(TrialConfig(), tmp_path) == 0
    with pytest.raises(CheckpointError, match="no finished trial"):
        passes_before(config, tmp_path)
    written(tmp_path / ID, "pruned")
    with pytest.raises(CheckpointError, match="no finished trial"):
        passes_before(config, tmp_path)
    written(tmp_path / ID)
    assert passes_before(config, tmp_path) == 64


def test_trials_are_imported_once_and_bad_ones_are_named(tmp_path: Path) -> None:
    source, trials = tmp_path / "source", tmp_path / "store" / "trials"
    written(source / "trials" / ID)
    written(source / "trials" / "f", None)  # no trial_id
    (source / "trials" / ID / "secret.txt").write_text("not part of a trial")
    found = import_trials(source, trials)
    assert (found.taken, found.known) == ((ID,), ())
    assert [(path.name, "trial_id" in why) for path, why in found.refused] == [("f", True)]
    assert TrialFolder(trials / ID).result() == result()
    assert not (trials / ID / "secret.txt").exists()
    assert import_trials(source, trials).known == (ID,)
    with pytest.raises(StoreError, match="no trial folder"):
        import_trials(tmp_path / "empty", trials)


def test_a_result_of_another_trial_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "source" / ("f" * 16))
    found = import_trials(tmp_path / "source", tmp_path / "trials")
    assert f"is of trial {ID}" in found.refused[0][1]


def test_json_is_plain(tmp_path: Path) -> None:
    written(tmp_path / ID)
    assert json.loads((tmp_path / ID / "result.json").read_text())["image_passes"] == 64


def test_the_predictions_of_one_split_are_read_alone(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    assert folder.predictions("test") == {}
    folder.write_predictions({"val_index": np.arange(3), "test_index": np.arange(2)})
    assert sorted(folder.predictions()) == ["test_index", "val_index"]
    assert folder.predictions("test")["test_index"].tolist() == [0, 1]
    assert list(folder.predictions("val")) == ["val_index"]
