"""The best model of a study in MLflow's registry, and how MLflow loads it: from safetensors, without a pickle.

MLflow's model is a folder with the trial's config, result and weights, and the name of this module, whose
`_load_pyfunc` reads them; so the package has to be installed where the model is loaded.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.api.models import TrainedModel, load_model, row_of
from hmtl_ablate.errors import StoreError, TrackingError
from hmtl_ablate.reporting.naming import best_trial
from hmtl_ablate.storage import bring
from hmtl_ablate.tracking.models import register_model
from hmtl_ablate.training.folder import TrialFolder

if TYPE_CHECKING:
    import pandas as pd

    from hmtl_ablate.running.outcome import Outcome
    from hmtl_ablate.tracking import Tracking

FILES = ("config.json", "result.json", "best.safetensors")
"""What a model needs of its trial's folder."""


class ImageModel:
    """What `mlflow.pyfunc.load_model` wraps."""

    def __init__(self, model: TrainedModel) -> None:
        self.model = model

    def predict(self, images: NDArray[np.uint8], params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per image, uint8 [N, H, W, 3] (RGB): for a task with classes the most probable one as `TASK`, and
        `TASK/CLASS`, its probability; for another task `TASK/NAME`, each predicted number.
        """
        import pandas as pd

        return pd.DataFrame([row_of(self.model.predict(image)) for image in images])


def _load_pyfunc(path: str) -> ImageModel:
    """Called by MLflow with the folder of FILES."""
    return ImageModel(load_model(Path(path)))


def register_best(outcome: Outcome | None, tracking: Tracking, store: Path, name: str) -> str:
    """Register the best model of a study under a name in MLflow. Returns its address, models:/NAME/VERSION.

    It is the trial that best:STUDY names (`best_trial`). Raises StoreError when the study has no such trial, or its
    weights are not on this machine, and TrackingError when MLflow refuses.
    """
    if outcome is None or outcome.results is None:
        raise TrackingError(f"--register {name}: MLflow was down at the end of the run; run the same command again")
    if not outcome.tables:
        raise StoreError(f"--register {name}: no variant of the study has a result yet")
    study = outcome.tables[0]
    row = best_trial(f"{study.name}@{study.profile}", outcome.results)
    folder = TrialFolder(store / "trials" / row["trial_id"])
    if not all(bring(folder.path / file).is_file() for file in FILES):
        raise StoreError(f"--register {name}: {folder.path} has no weights; run on the machine that has the store")
    version = register_model(
        tracking,
        name,
        run_id=row["run_id"],
        trial_id=row["trial_id"],
        text=f"{row['variant']}, seed {row['seed']}, of study {study.name}; trial {row['trial_id']}",
        save=partial(save_model, folder.path),
    )
    return f"models:/{name}/{version}"


def save_model(trial: Path, target: Path, model_id: str = "") -> None:
    """Write a trial's network as an MLflow model: signature, a drawn face as input example, no pickle.

    trial: its folder; target: where the model goes, which must not exist; model_id: of MLflow's logged model.
    """
    import mlflow
    from mlflow.models import Model, ModelSignature, infer_signature
    from mlflow.types import Schema, TensorSpec

    import hmtl_ablate
    from hmtl_ablate.data.renderer import render_faces

    model = load_model(trial)
    face, _ = render_faces(1, model.config.data.stored_size, 0)
    outputs = infer_signature(face, ImageModel(model).predict(face)).outputs
    signature = ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]), outputs)
    files = target.with_name("trial")
    files.mkdir()
    for file in FILES:
        shutil.copyfile(trial / file, files / file)
    mlflow.pyfunc.save_model(
        str(target),
        loader_module=__name__,
        data_path=str(files),
        mlflow_model=Model(model_id=model_id or None),
        signature=signature,
        input_example=face,
        pip_requirements=[f"hmtl-ablate=={hmtl_ablate.__version__}"],
    )
