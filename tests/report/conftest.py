"""A real MLflow store on SQLite, and a way to log studies into it in the layout that `run` writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

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
    """Logs synthetic runs; clock ticks so that later runs are newer."""

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
    ) -> str:
        tags = {
            "kind": "study",
            "study": name,
            "profile": profile,
            "question": question,
            "metric": metric,
            "data": data,
            "variants": json.dumps(variants),
            "seeds": json.dumps(seeds),
            "evaluations": json.dumps(evaluations or {}),
        }
        return self._run({f"hmtl.{key}": value for key, value in tags.items()})

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
        params: dict[str, str] | None = None,
    ) -> str:
        tags = {
            "kind": "trial",
            "variant": variant,
            "variant_key": key,
            "seed": str(seed),
            "status": status,
            "reason": reason,
            "data": data,
            "data_fingerprint": fingerprint,
            "protocol": protocol,
            "task": "emotion",
            "trial_id": trial_id or f"{key}-{seed}-{fingerprint}",
        }
        if evaluation:
            tags["evaluation"] = evaluation
        metrics: dict[str, float] = {f"val/recall/{index}": 0.5 for index in range(classes)}
        if status == "finished":
            metrics |= {"image_passes": passes, "seconds": seconds} | ({"images": images} if images else {})
        if value is not None:
            metrics[metric] = value
        return self._run(
            {f"hmtl.{name}": text for name, text in tags.items()} | {"mlflow.parentRunId": parent},
            DEFAULTS | {"data.name": data} | (params or {}),
            metrics,
        )

    def _run(
        self, tags: dict[str, str], params: dict[str, str] | None = None, metrics: dict[str, float] | None = None
    ) -> str:
        self.clock += 1000
        run_id: str = self.client.create_run(self.experiment, start_time=self.clock).info.run_id
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, value, self.clock, 0) for key, value in (metrics or {}).items()],
            params=[Param(key, value) for key, value in (params or {}).items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        return run_id


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
