"""The best model of a study in MLflow's registry: loaded without a pickle, with equal predictions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hmtl_ablate as ha
from hmtl_ablate.api.registering import register_best
from hmtl_ablate.data.renderer import render_faces
from hmtl_ablate.errors import StoreError, TrackingError
from hmtl_ablate.reporting.results import results_of
from hmtl_ablate.tracking import Tracking
from hmtl_ablate.tracking.models import check_model_name
from hmtl_ablate.tracking.records import StudyRecord, TrialRecord

CONFIG = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one trial; its folder."""
    return ha.train(CONFIG, store=tmp_path_factory.mktemp("trained")).folder


def outcome(trial_id: str, run_id: str) -> Any:
    """Of a study with one finished trial."""
    study = StudyRecord(
        name="s",
        profile="quick",
        metric="test/accuracy",
        data="rendered",
        question="",
        variants={"SL": "k"},
        seeds=(3,),
        run_id="study",
    )
    trial = TrialRecord(
        trial_id=trial_id,
        config={},
        variant="SL",
        variant_key="k",
        seed=3,
        status="finished",
        parent="study",
        run_id=run_id,
        data="rendered",
        fingerprint="f",
        metrics={"best/val/accuracy": 0.5, "test/accuracy": 0.5},
    )
    return SimpleNamespace(tables=(SimpleNamespace(name="s", profile="quick"),), results=results_of([study], [trial]))


@pytest.mark.slow  # MLflow's models take seconds to load
def test_a_registered_model_predicts_what_its_trial_does(
    trained: Path, tracking: Tracking, store: Path, tmp_path: Path
) -> None:
    (store / "trials").mkdir()
    (store / "trials" / trained.name).symlink_to(trained)
    run = tracking.client.create_run(tracking.experiment_id)
    found = outcome(trained.name, run.info.run_id)
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
