"""What a store holds, and what is wrong with it against the store of an undisturbed run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

EXPERIMENT = "hmtl-ablate"


@dataclass
class Faults:
    """What went wrong, one text each."""

    lost: list[str] = field(default_factory=list)
    """Trials that were finished, or should be, and are not."""
    doubled: list[str] = field(default_factory=list)
    """Trials trained twice, epochs or runs recorded twice."""
    wrong: list[str] = field(default_factory=list)
    """Totals and metrics that differ from those of the undisturbed run."""
    hung: list[str] = field(default_factory=list)
    """Commands without any progress for two minutes."""
    orphans: list[str] = field(default_factory=list)
    """Processes that outlived their command."""
    unclear: list[str] = field(default_factory=list)
    """Commands that ended with a traceback, exit code 70, or a signal that nobody sent them."""

    def add(self, other: Faults) -> None:
        for one in fields(self):
            getattr(self, one.name).extend(getattr(other, one.name))

    def counts(self) -> dict[str, int]:
        return {one.name: len(getattr(self, one.name)) for one in fields(self)}

    def lines(self) -> list[str]:
        return [f"{one.name}: {text}" for one in fields(self) for text in getattr(self, one.name)]


@dataclass(frozen=True)
class Trial:
    """One trial, by its folder or by its MLflow run; what depends on the clock is left out."""

    status: str
    metrics: Mapping[str, float]
    epochs: tuple[int, ...]
    """As recorded, in their order."""


@dataclass(frozen=True)
class Snapshot:
    """What a store says about its trials, in four places."""

    folders: Mapping[str, Trial]
    """trial_id → by result.json and metrics.jsonl."""
    runs: tuple[tuple[str, Trial], ...]
    """Variant and trial_id as one text → by MLflow; one entry for each run."""
    ended: Mapping[str, int]
    """trial_id → how often Optuna has it as ended."""
    rows: tuple[Mapping[str, Any], ...]
    """The report's rows."""


def take(store: Path) -> Snapshot:
    """Look at a store that no command uses at the moment."""
    return Snapshot(_folders(store), _runs(store), _told(store), _rows(store))


def finished(store: Path) -> dict[str, int]:
    """trial_id → time of its result.json in ns, for the trials that are finished."""
    found = {}
    for file in store.glob("trials/*/result.json"):
        if '"status": "finished"' in file.read_text():
            found[file.parent.name] = file.stat().st_mtime_ns
    return found


def kept(before: Mapping[str, int], after: Mapping[str, int]) -> Faults:
    """Compare what was finished before a run with what is after it."""
    return Faults(
        lost=[f"{name} was finished before the run and is not any more" for name in before if name not in after],
        doubled=[f"{name} was trained again" for name in before if after.get(name, before[name]) != before[name]],
    )


def compare(expected: Snapshot, found: Snapshot) -> Faults:
    """A complete study against the undisturbed one."""
    faults = Faults()
    for name, trial in expected.folders.items():
        own = found.folders.get(name)
        if own is None:
            faults.lost.append(f"{name} has no result")
        else:
            _compare_trials(f"folder of {name}", trial, own, faults)
    faults.wrong += [f"{name} is no trial of this study" for name in found.folders if name not in expected.folders]
    counted = Counter(name for name, _ in found.runs)
    for name, trial in expected.runs:
        if name not in counted:
            faults.lost.append(f"MLflow has no run of {name}")
        for own in (run for run_name, run in found.runs if run_name == name):
            _compare_trials(f"MLflow's run of {name}", trial, own, faults)
    faults.doubled += [f"MLflow has {number} runs of {name}" for name, number in counted.items() if number > 1]
    extra = counted.keys() - {name for name, _ in expected.runs}
    faults.wrong += [f"MLflow's run of {name} belongs to no trial" for name in sorted(extra)]
    faults.lost += [f"Optuna has no end of {name}" for name in expected.ended.keys() - found.ended.keys()]
    faults.doubled += [f"Optuna has {number} ends of {name}" for name, number in found.ended.items() if number > 1]
    if found.rows != expected.rows:
        faults.wrong.append(f"the report says {list(found.rows)}, not {list(expected.rows)}")
    return faults


def _compare_trials(what: str, expected: Trial, found: Trial, faults: Faults) -> None:
    if len(set(found.epochs)) < len(found.epochs):
        faults.doubled.append(f"{what}: epochs {found.epochs}")
    elif found.epochs != expected.epochs:
        faults.wrong.append(f"{what}: epochs {found.epochs}, not {expected.epochs}")
    if found.status != expected.status:
        faults.wrong.append(f"{what}: {found.status}, not {expected.status}")
    names = expected.metrics.keys() | found.metrics.keys()
    other = [name for name in sorted(names) if expected.metrics.get(name) != found.metrics.get(name)]
    if other:
        values = (f"{name} {found.metrics.get(name)}, not {expected.metrics.get(name)}" for name in other[:3])
        faults.wrong.append(f"{what}: {len(other)} metrics differ: {'; '.join(values)}")


# Where the four places are --------------------------------------------------------------------------------------------


def timeless(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Without what depends on the clock."""
    return {name: value for name, value in metrics.items() if "second" not in name}


def _folders(store: Path) -> dict[str, Trial]:
    found = {}
    for file in sorted(store.glob("trials/*/result.json")):
        result = json.loads(file.read_text())
        rows = [json.loads(line) for line in (file.parent / "metrics.jsonl").read_text().splitlines()]
        curve = {f"{name} @ {row['epoch']}": value for row in rows for name, value in timeless(row).items()}
        epochs = tuple(int(row["epoch"]) for row in rows)
        metrics = timeless(result["metrics"]) | curve | {"passes": result["image_passes"]}
        found[file.parent.name] = Trial(result["status"], metrics, epochs)
    return found


def _runs(store: Path) -> tuple[tuple[str, Trial], ...]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = []
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        tags = run.data.tags
        if tags["hmtl.kind"] != "trial":
            continue
        points = client.get_metric_history(run.info.run_id, "val/accuracy")
        epochs = tuple(sorted(point.step for point in points))
        name = f"{tags['hmtl.variant']} {tags['hmtl.trial_id']}"
        status = f"{tags['hmtl.status']} {run.info.status}"
        found.append((name, Trial(status, timeless(run.data.metrics), epochs)))
    return tuple(sorted(found, key=lambda pair: pair[0]))


def _told(store: Path) -> dict[str, int]:
    import optuna

    if not (store / "optuna.db").exists():
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(f"sqlite:///{store / 'optuna.db'}")
    trials = [trial for study in storage.get_all_studies() for trial in storage.get_all_trials(study._study_id)]
    ended = (trial for trial in trials if trial.state.is_finished() and "trial_id" in trial.user_attrs)
    return dict(Counter(trial.user_attrs["trial_id"] for trial in ended if "repeats" not in trial.user_attrs))


def _rows(store: Path) -> tuple[Mapping[str, Any], ...]:
    from hmtl_ablate.api import studies

    report = json.loads(studies.report(store, "json"))
    return tuple(timeless(row) for study in report["studies"] for row in study["rows"])
