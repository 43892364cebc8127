"""Models in MLflow: logged with the run that trained them, and versions of a registered model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hmtl_ablate.errors import TrackingError
from hmtl_ablate.tracking.records import TRIAL_TEXTS
from hmtl_ablate.tracking.store import PROXY, Tracking, artifacts_folder

FORBIDDEN = "/:'\"%\\"
"""Characters that no model's name may have: MLflow's own, and those that its searches can't quote."""

Save = Callable[[Path, str], None]
"""Writes an MLflow model into a folder that does not exist yet, for a logged model of this id."""


def check_model_name(name: str) -> None:
    """Raise TrackingError for a name that no registered model can have."""
    if not name.strip() or any(letter in FORBIDDEN or not letter.isprintable() for letter in name):
        raise TrackingError(
            f"--register {name!r}: a registered model's name has at least one letter, and none of {FORBIDDEN}"
        )


def register_model(tracking: Tracking, name: str, *, run_id: str, trial_id: str, text: str, save: Save) -> str:
    """Log a trial's model with its run, and make it a version of the registered model `name`. Returns the version.

    A trial that has a version of that name already gets no second one. text: description of the version. Raises
    TrackingError when MLflow refuses.
    """
    from mlflow.exceptions import MlflowException

    check_model_name(name)
    client = tracking.client
    with tracking.writing():
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = client.search_model_versions(f"name='{name}'")
        if same := next((one for one in known if one.tags.get(TRIAL_TEXTS["trial_id"]) == trial_id), None):
            return str(same.version)
        model = client.create_logged_model(tracking.experiment_id, name, run_id, model_type="pyfunc")
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            save(folder / "model", model.model_id)
            if tracking.holds(model.artifact_location):
                inside = model.artifact_location.removeprefix(PROXY).lstrip("/")
                shutil.copytree(folder / "model", artifacts_folder(tracking.store) / inside)
            else:
                client.log_model_artifacts(model.model_id, str(folder / "model"))
        client.finalize_logged_model(model.model_id, "READY")
        source = model.artifact_location  # a database's registry would look up models:/ID in the default store
        version = client.create_model_version(
            name, source, run_id, {TRIAL_TEXTS["trial_id"]: trial_id}, None, text, 0, model.model_id
        )
    return str(version.version)
