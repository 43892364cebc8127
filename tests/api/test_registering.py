"""The best model of a study in MLflow's registry: loaded without a pickle, with equal predictions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import hmtl_ablate as ha
from hmtl_ablate.api.registering import best_trial, register_best
from hmtl_ablate.data.renderer import render_faces
from hmtl_ablate.errors import StoreError, TrackingError
from hmtl_ablate.tracking import Tracking
from hmtl_ablate.tracking.models import check_model_name

CONFIG = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one trial; its folder."""
    return ha.train(CONFIG, store=tmp_path_factory.mktemp("trained")).folder


def outcome(rows: list[dict[str, Any]], means: dict[str, float | None], metric: str = "test/accuracy") -> Any:
    shown = [SimpleNamespace(variant=name, score=SimpleNamespace(mean=mean)) for name, mean in means.items()]
    table = SimpleNamespace(name="s", metric=metric, rows=shown)
    return SimpleNamespace(tables=(table,), results=SimpleNamespace(declared=lambda: pd.DataFrame(rows)))


def row(variant: str, seed: int, val: float, test: float, **more: Any) -> dict[str, Any]:
    scores = {"metrics.best/val/accuracy": val, "metrics.test/accuracy": test}
    return {"variant": variant, "seed": seed, "status": "finished", "trial_id": "", "run_id": ""} | scores | more


def test_the_best_trial_is_the_best_variant_s_seed_that_validation_prefers() -> None:
    rows = [row("SL", 0, 0.9, 0.9), row("HMTL", 0, 0.5, 0.8), row("HMTL", 1, 0.6, 0.7)]
    rows.append(row("HMTL", 2, 0.99, 0.1, status="failed"))
    variant, found = best_trial(outcome(rows, {"SL": 0.6, "HMTL": 0.7, "probe": None}))
    assert (variant, found["seed"]) == ("HMTL", 1)
    unseen = [one | {"metrics.best/val/accuracy": np.nan} for one in rows]  # the official split alone
    assert best_trial(outcome(unseen, {"SL": 0.6, "HMTL": 0.7}))[1]["seed"] == 0
    with pytest.raises(StoreError, match="no variant of the study has a result"):
        best_trial(outcome(rows, {"SL": None}))


@pytest.mark.slow  # MLflow's models take seconds to load
def test_a_registered_model_predicts_what_its_trial_does(
    trained: Path, tracking: Tracking, store: Path, tmp_path: Path
) -> None:
    (store / "trials").mkdir()
    (store / "trials" / trained.name).symlink_to(trained)
    run = tracking.client.create_run(tracking.experiment_id)
    found = outcome([row("SL", 3, 0.5, 0.5, trial_id=trained.name, run_id=run.info.run_id)], {"SL": 0.5})
    for _ in range(2):  # the same trial has one version
        assert register_best(found, tracking, store, "faces") == "models:/faces/1"
    [version] = tracking.client.search_model_versions("name='faces'")
    assert version.description == f"SL, seed 3, of study s; trial {trained.name}"
    assert version.run_id == run.info.run_id

    [folder] = [file.parent for file in (store / "artifacts").rglob("MLmodel")]
    assert not [file for file in folder.rglob("*") if file.suffix in (".pkl", ".pickle", ".pt", ".bin")]
    import mlflow

    model = mlflow.pyfunc.load_model(str(folder))
    faces, _ = render_faces(3, 32, 7)
    predicted = model.predict(faces)
    own = ha.load_model(trained)
    for number, face in enumerate(faces):
        expected = own.predict(face)["emotion"]
        assert predicted["emotion"][number] == expected.label
        for name, value in expected.values.items():
            assert predicted[f"emotion/{name}"][number] == pytest.approx(value, abs=1e-6)
    assert model.input_example.shape == (1, 32, 32, 3)
    assert model.metadata.signature.outputs.input_names()[0] == "emotion"
    assert tracking.client.get_logged_model(model.metadata.model_id).source_run_id == run.info.run_id

    (store / "trials" / trained.name).unlink()
    with pytest.raises(StoreError, match="has no weights"):
        register_best(found, tracking, store, "faces")


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "it's", "a\nb"])
def test_a_name_that_mlflow_refuses_is_refused_before_anything_is_trained(name: str) -> None:
    with pytest.raises(TrackingError, match="--register"):
        ha.run({"name": "s", "base": CONFIG, "variants": {"SL": {}}}, register=name, progress=False)
    check_model_name("HMTL + puzzling, 2026")


def test_a_store_that_was_down_has_nothing_to_register(tracking: Tracking, store: Path) -> None:
    with pytest.raises(TrackingError, match="was down"):
        register_best(None, tracking, store, "faces")
