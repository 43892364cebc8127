"""All records of a SQLite file that MLflow made, read without MLflow.

MLflow's import and its store take 2 to 3 s of processor time, and its objects 0.7 ms per run, for four plain tables; a
report should take less than that. Only a schema that is known here is read; of any other file the answer is None, and
MLflow itself reads it (`open_tracking`). Nothing is written.
"""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from hmtl_ablate.tracking.records import CONFIG, EXPERIMENT, KIND, StudyRecord, TrialRecord
from hmtl_ablate.tracking.store import readable, without_gc

SCHEMA = "dc11669786a5"
"""Version of MLflow's schema, of MLflow 3.17."""
_RUNS = """
SELECT run_uuid, start_time FROM runs JOIN experiments USING (experiment_id)
WHERE experiments.name = ? AND experiments.lifecycle_stage = 'active' AND runs.lifecycle_stage = 'active'
ORDER BY start_time DESC, run_uuid
"""


@dataclass
class _Info:
    run_id: str
    start_time: int


@dataclass
class _Data:
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class _Run:
    """What a record reads of MLflow's run."""

    info: _Info
    data: _Data = field(default_factory=_Data)


def read_records(file: Path) -> tuple[list[StudyRecord], list[TrialRecord]] | None:
    """Every study and every trial of the file, the newest first, as `Tracking.studies` and `Tracking.trials` give them,
    with a warning about runs that can't be read; None for a file that is not of a known schema or can't be read."""
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=10)) as database,
            without_gc(),
        ):
            database.execute("BEGIN")  # all tables as of one moment
            if database.execute("SELECT version_num FROM alembic_version").fetchall() != [(SCHEMA,)]:
                return None
            runs = {run: _Run(_Info(run, started)) for run, started in database.execute(_RUNS, (EXPERIMENT,))}
            _fill(database, runs)
            kinds = {run: own.data.tags.get(KIND) for run, own in runs.items()}
            studies = readable(StudyRecord.from_run, (own for run, own in runs.items() if kinds[run] == "study"))
            trials = readable(TrialRecord.from_run, (own for run, own in runs.items() if kinds[run] == "trial"))
    except sqlite3.Error:
        return None
    return (studies, trials) if runs else None


def _fill(database: sqlite3.Connection, runs: dict[str, _Run]) -> None:
    """Tags and last metrics of all runs; parameters where a run of an old version has its config nowhere else."""
    for run, key, value in database.execute("SELECT run_uuid, key, value FROM tags"):
        if run in runs:
            runs[run].data.tags[key] = value
    for run, key, value, nan in database.execute("SELECT run_uuid, key, value, is_nan FROM latest_metrics"):
        if run in runs:
            runs[run].data.metrics[key] = math.nan if nan else value
    if all(CONFIG in own.data.tags for own in runs.values() if own.data.tags.get(KIND) == "trial"):
        return
    for run, key, value in database.execute("SELECT run_uuid, key, value FROM params"):
        if run in runs:
            runs[run].data.params[key] = value
