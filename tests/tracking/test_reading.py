"""Records read from MLflow's SQLite file without MLflow are those that MLflow gives."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.reporting.results import load_results
from hmtl_ablate.tracking import Tracking
from hmtl_ablate.tracking.reading import read_records

Maker = Callable[..., Any]


def execute(store: Path, sql: str) -> None:
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        database.execute(sql)
        database.commit()


def test_the_same_as_from_mlflow(tracking: Tracking, store: Path, study: Maker, trial: Maker) -> None:
    """Fails with a new MLflow whose schema is not known yet: compare the tables, then set `SCHEMA`."""
    parent = tracking.study_run(study(variants={f"variant {n}": "k" for n in range(1000)}), "")
    record = trial(parent, metrics={"test/accuracy": 0.5, "test/recall/a(b)": 0.25})
    first = tracking.trial_run(record)
    tracking.log_epochs(first, [{"epoch": 1, "val/loss": 2.0}, {"epoch": 2, "val/loss": 1.0}])
    tracking.finish_trial(first, replace(record, status="finished"), {})
    tracking.trial_run(trial(parent, trial_id="def", seed=1))
    tracking.client.delete_run(tracking.trial_run(trial(parent, trial_id="fed", seed=2)))
    assert read_records(store / "mlflow.db") == (tracking.studies(), tracking.trials())

    execute(store, "DELETE FROM tags WHERE key = 'hmtl.config'")  # as runs of old versions were
    assert read_records(store / "mlflow.db") == (tracking.studies(), tracking.trials())


def test_a_run_that_is_none_is_left_out_with_a_warning(
    tracking: Tracking, store: Path, study: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    tracking.study_run(study(), "")
    execute(store, "UPDATE tags SET value = '[' WHERE key = 'hmtl.seeds'")
    with caplog.at_level(logging.WARNING):
        assert read_records(store / "mlflow.db") == ([], [])
    assert "hmtl.seeds" in caplog.text


def test_another_schema_is_left_to_mlflow(tracking: Tracking, store: Path, study: Maker, tmp_path: Path) -> None:
    assert read_records(tmp_path / "none.db") is None
    (tmp_path / "text.db").write_text("no database, but long enough to have a header of one " * 4)
    assert read_records(tmp_path / "text.db") is None
    assert read_records(store / "mlflow.db") is None  # without a run: MLflow says whether the experiment was deleted
    tracking.study_run(study(), "")
    assert len(load_results(None, store).studies) == 1
    execute(store, "UPDATE alembic_version SET version_num = 'another'")
    assert read_records(store / "mlflow.db") is None
