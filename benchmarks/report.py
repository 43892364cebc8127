"""How long `hmtl-ablate report` takes, from its start to its end, over the runs of a store."""

from __future__ import annotations

import math
import os
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import Record, Row, alone
from hmtl_ablate.config import parse_config
from hmtl_ablate.tracking import StudyRecord, TrialRecord, open_tracking
from hmtl_ablate.tracking.records import RunData

GOALS = {13: 2, 2_000: 5, 10_000: 20}
"""Runs → most seconds."""
A_STUDY = 100
"""Most runs of one study: its own, 40 of arms, the others of its search."""
COMMAND = "import sys; from hmtl_ablate.cli import main; sys.exit(main())"
Rows = list[tuple[RunData, int]]
"""Runs, and when each was started."""


def report(repeats: int, tiny: bool) -> Record:
    """Seconds of the clock and of the processor that the command takes."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        for runs, goal in {13: 2}.items() if tiny else GOALS.items():
            store = Path(name) / str(runs)
            make_store(store, runs)
            for form in ("terminal", "json"):
                _timed(store, form)
                found = [_timed(store, form) for _ in range(repeats)]
                rows.append(alone(f"{runs:,} runs, {form}", [wall for wall, _ in found], "s", f"≤ {goal}"))
                rows.append(alone(f"{runs:,} runs, {form}: processor time", [busy for _, busy in found], "s"))
    return Record(
        "report",
        "How long does the report take?",
        rows,
        [
            f"The whole command. Studies of at most {A_STUDY} runs: eight arms with five seeds, and a search with one "
            "seed; configs, tags and metrics as of a training run, in MLflow's SQLite."
        ],
    )


def make_store(store: Path, runs: int) -> None:
    """A store with so many runs of studies that were never trained."""
    store.mkdir()
    open_tracking(None, store).client._tracking_client.store.engine.dispose()
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        experiment = database.execute("SELECT experiment_id FROM experiments WHERE name = 'hmtl-ablate'").fetchone()[0]
        for start in range(0, runs, A_STUDY):
            _insert(database, experiment, _study(start, min(A_STUDY, runs - start) - 1))
        database.commit()


def _insert(database: sqlite3.Connection, experiment: int, runs: Rows) -> None:
    """The rows that MLflow would write for these runs."""
    for data, started in runs:
        run = f"{started:032x}"
        database.execute(
            "INSERT INTO runs (run_uuid, name, status, start_time, lifecycle_stage, experiment_id) "
            "VALUES (?, 'run', 'FINISHED', ?, 'active', ?)",
            (run, started, experiment),
        )
        for table, cells in (("tags", data.tags), ("params", data.params)):
            rows = [(key, value, run) for key, value in cells.items()]
            database.executemany(f"INSERT INTO {table} (key, value, run_uuid) VALUES (?, ?, ?)", rows)
        database.executemany(
            "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, 0, 0, 0, ?)",
            [(key, value, run) for key, value in data.metrics.items()],
        )


def _study(start: int, trials: int) -> Rows:
    """A study's run and those of its trials."""
    arms = [f"arm {number}" for number in range(8)]
    pairs = [(arm, seed) for seed in range(5) for arm in arms][: max(trials * 2 // 3, trials - 60)]
    about = {"objective": "val/accuracy", "direction": "max", "racing": 1, "keys": ["training.lr", "data.views"]}
    study = StudyRecord(
        name=f"study {start}",
        profile="quick",
        metric="test/accuracy",
        data="rendered",
        variants={arm: f"key of {arm}" for arm in arms},
        seeds=tuple(range(5)),
        search={"": {**about, "confirm": 0}},
    )
    chance = random.Random(start)
    make = partial(_trial, chance, f"{start + 1:032x}")
    rest = trials - len(pairs)
    records = [make(arm, seed) for arm, seed in pairs] + [make("search", 0) for _ in range(rest)]
    return [(study.to_run(), start + 1), *((one.to_run(), start + 2 + n) for n, one in enumerate(records))]


def _trial(chance: random.Random, parent: str, variant: str, seed: int) -> TrialRecord:
    searched = variant == "search"
    config: dict[str, Any] = {
        "training": {"lr": 10 ** chance.uniform(-4, -1)},
        "data": {"views": chance.choice([1, 2])},
    }
    score = chance.gauss(0.6, 0.05) - 0.05 * abs(2 + math.log10(config["training"]["lr"]))
    recalls = {f"{split}/recall/class {n}": score for split in ("val", "test") for n in range(7)}
    return TrialRecord(
        parent=parent,
        trial_id=f"{chance.getrandbits(64):016x}",
        variant=variant,
        variant_key="" if searched else f"key of {variant}",
        seed=seed,
        data="rendered",
        fingerprint="f" * 16,
        protocol="selection",
        task="emotion",
        numerics=1,
        config=parse_config({**(config if searched else {}), "seed": seed}).model_dump(mode="json"),
        status="finished",
        ending="finished",
        draw="random" if searched else "",
        metrics={
            **recalls,
            "search/score" if searched else "test/accuracy": score,
            "best/val/accuracy": score,
            "image_passes": 1000.0,
            "seconds": 60.0,
        },
        environment={"device": "cpu", "version.torch": "2.15.0"},
    )


def _timed(store: Path, form: str) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    arguments = [sys.executable, "-c", COMMAND, "report", "--runs", str(store), "--format", form]
    started = time.perf_counter()
    with (store / "report.txt").open("w") as output:
        process = os.posix_spawn(
            sys.executable, arguments, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, output.fileno(), 1)]
        )
        _, status, used = os.wait4(process, 0)
    if status != 0:
        raise RuntimeError("hmtl-ablate report failed")
    return time.perf_counter() - started, used.ru_utime + used.ru_stime
