"""A real MLflow store on SQLite, and a way to log studies into it as `run` does."""

from __future__ import annotations

import ast
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from hmtl_ablate.reporting.results import Results, load_results, results_of
from hmtl_ablate.tracking.records import Registration, RunData, StudyRecord, TrialRecord, TrialStatus, nested

DEFAULTS = {
    "task": "emotion",
    "data.name": "rendered",
    "data.size": "48",
    "data.stored": "None",
    "data.fraction": "1.0",
    "data.views": "1",
    "data.seed": "0",
    "data.protocol": "selection",
    "model.backbone": "test_resnet",
    "training.epochs": "8",
}


class Store:
    """Logs synthetic runs; its clock ticks, so that later runs are newer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.client = MlflowClient(f"sqlite:///{path / 'mlflow.db'}")
        found = self.client.get_experiment_by_name("hmtl-ablate")
        self.experiment = (
            found.experiment_id
            if found
            else self.client.create_experiment("hmtl-ablate", artifact_location=str(path / "artifacts"))
        )
        self.clock = 1_700_000_000_000

    def study(
        self,
        variants: dict[str, str],
        seeds: list[int],
        *,
        name: str = "puzzling",
        profile: str = "quick",
        metric: str = "test/accuracy",
        data: str = "rendered",
        question: str = "Does it help?",
        evaluations: dict[str, str] | None = None,
        controls: dict[str, dict[str, Any]] | None = None,
        designs: dict[str, dict[str, Any]] | None = None,
        verdict: dict[str, float] | None = None,
        file: str = "",
        registered: Registration | None = None,
        asked: dict[str, list[int]] | None = None,
        decide: dict[str, Any] | None = None,
    ) -> str:
        """Log a study; gives its run_id."""
        record = StudyRecord(
            name=name,
            profile=profile,
            metric=metric,
            data=data,
            question=question,
            variants=variants,
            evaluations=evaluations or {},
            seeds=tuple(seeds),
            asked=asked or {},
            controls=controls or {},
            designs=designs or {},
            verdict=verdict or {},
            file=file,
            registered=registered,
            decide=decide or {},
        )
        return self.add(record)

    def trial(
        self,
        parent: str,
        variant: str,
        key: str,
        seed: int,
        value: float | None = None,
        *,
        status: str = "finished",
        reason: str = "",
        ending: str = "",
        data: str = "rendered",
        fingerprint: str = "f0",
        protocol: str = "selection",
        metric: str = "test/accuracy",
        passes: float = 24_000,
        seconds: float = 30,
        classes: int = 8,
        evaluation: str = "",
        trial_id: str = "",
        images: int = 0,
        numerics: int = 0,
        stage: bool = False,
        params: dict[str, str] | None = None,
        more: dict[str, float] | None = None,
        environment: dict[str, str] | None = None,
    ) -> str:
        """Log a trial; gives its run_id. params: dotted option → its value as Python writes it."""
        metrics: dict[str, float] = {f"val/recall/{index}": 0.5 for index in range(classes)}
        if status == "finished":
            metrics |= {"image_passes": passes, "seconds": seconds} | ({"images": images} if images else {})
        if value is not None:
            metrics[metric] = value
        metrics |= more or {}
        options = DEFAULTS | {"data.name": data} | (params or {})
        record = TrialRecord(
            parent=parent,
            trial_id=trial_id or f"{key}-{seed}-{fingerprint}",
            variant=variant,
            variant_key=key,
            seed=seed,
            data=data,
            fingerprint=fingerprint,
            protocol=protocol,
            task="emotion",
            evaluation=evaluation,
            stage=stage,
            numerics=numerics,
            config=nested({key: _value(text) for key, text in options.items()}),
            status=cast(TrialStatus, status),
            reason=reason,
            ending=ending,
            metrics=metrics,
            environment=environment or {},
        )
        return self.add(record)

    def results(self) -> Results:
        """What the store holds."""
        return load_results(None, self.path)

    def add(self, record: StudyRecord | TrialRecord) -> str:
        """Log a record; gives its run_id."""
        return self.log(record.to_run())

    def log(self, data: RunData) -> str:
        """Log a run as it is; gives its run_id."""
        self.clock += 1000
        run_id: str = self.client.create_run(self.experiment, start_time=self.clock).info.run_id
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, value, self.clock, 0) for key, value in data.metrics.items()],
            params=[Param(key, value) for key, value in data.params.items()],
            tags=[RunTag(key, value) for key, value in data.tags.items()],
        )
        return run_id


class Records(Store):
    """The same without MLflow, which takes a hundred times as long."""

    def __init__(self) -> None:
        self.clock = 1_700_000_000_000
        self.studies: list[StudyRecord] = []
        self.trials: list[TrialRecord] = []

    def results(self) -> Results:
        return results_of(self.studies, self.trials)

    def add(self, record: StudyRecord | TrialRecord) -> str:
        self.clock += 1000
        run_id = f"run {self.clock}"
        if isinstance(record, StudyRecord):
            self.studies.append(replace(record, run_id=run_id, started=self.clock))
        else:
            self.trials.append(replace(record, run_id=run_id, started=self.clock))
        return run_id


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's schema takes seconds to create, so it is created once and copied."""
    folder = tmp_path_factory.mktemp("schema")
    Store(folder)
    return folder / "mlflow.db"


@pytest.fixture
def store(empty_database: Path, tmp_path: Path) -> Store:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return Store(tmp_path)


@pytest.fixture
def records() -> Records:
    return Records()
