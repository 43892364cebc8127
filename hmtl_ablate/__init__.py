"""Ablate Hybrid Multi-Task Learning on faces.

    import hmtl_ablate as ha

    trial = ha.train({"data": {"images": 2000}, "pretext": {"puzzling": {}}})
    model = ha.load_model(trial)

Every name in `__all__` is public; docs/python.md shows each. Importing the package is cheap: a name's module, with
torch, Ray or MLflow where it needs them, is imported when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hmtl_ablate.api.best import BestTrial, best
    from hmtl_ablate.api.bundles import bundle, import_bundle, retrain, verify
    from hmtl_ablate.api.cleaning import CleanPlan, clean
    from hmtl_ablate.api.comparing import PairedImages, TrialComparison, compare, load_trial
    from hmtl_ablate.api.evaluating import Evaluation, TaskScores, evaluate
    from hmtl_ablate.api.exporting import Exported, export
    from hmtl_ablate.api.models import Prediction, TrainedModel, load_model
    from hmtl_ablate.api.predicting import Predicted, predict
    from hmtl_ablate.api.studies import StudyRun, estimate, figures, load_results, plan, report, run
    from hmtl_ablate.api.trials import TrainedTrial, train
    from hmtl_ablate.config import TrialConfig
    from hmtl_ablate.data.registry import register_dataset
    from hmtl_ablate.pretext import register_pretext_task
    from hmtl_ablate.study import load_study
    from hmtl_ablate.supervised import register_supervised_task

__version__ = "0.1.0"

__all__ = [
    "BestTrial",
    "CleanPlan",
    "Evaluation",
    "Exported",
    "PairedImages",
    "Predicted",
    "Prediction",
    "StudyRun",
    "TaskScores",
    "TrainedModel",
    "TrainedTrial",
    "TrialComparison",
    "TrialConfig",
    "__version__",
    "best",
    "bundle",
    "clean",
    "compare",
    "estimate",
    "evaluate",
    "export",
    "figures",
    "import_bundle",
    "load_model",
    "load_results",
    "load_study",
    "load_trial",
    "plan",
    "predict",
    "register_dataset",
    "register_pretext_task",
    "register_supervised_task",
    "report",
    "retrain",
    "run",
    "train",
    "verify",
]

_MODULES = {
    "BestTrial": "hmtl_ablate.api.best",
    "CleanPlan": "hmtl_ablate.api.cleaning",
    "Evaluation": "hmtl_ablate.api.evaluating",
    "Exported": "hmtl_ablate.api.exporting",
    "PairedImages": "hmtl_ablate.api.comparing",
    "Predicted": "hmtl_ablate.api.predicting",
    "Prediction": "hmtl_ablate.api.models",
    "StudyRun": "hmtl_ablate.api.studies",
    "TaskScores": "hmtl_ablate.api.evaluating",
    "TrainedModel": "hmtl_ablate.api.models",
    "TrainedTrial": "hmtl_ablate.api.trials",
    "TrialComparison": "hmtl_ablate.api.comparing",
    "TrialConfig": "hmtl_ablate.config",
    "best": "hmtl_ablate.api.best",
    "bundle": "hmtl_ablate.api.bundles",
    "clean": "hmtl_ablate.api.cleaning",
    "compare": "hmtl_ablate.api.comparing",
    "estimate": "hmtl_ablate.api.studies",
    "evaluate": "hmtl_ablate.api.evaluating",
    "export": "hmtl_ablate.api.exporting",
    "figures": "hmtl_ablate.api.studies",
    "import_bundle": "hmtl_ablate.api.bundles",
    "load_model": "hmtl_ablate.api.models",
    "load_results": "hmtl_ablate.api.studies",
    "load_study": "hmtl_ablate.study",
    "load_trial": "hmtl_ablate.api.comparing",
    "plan": "hmtl_ablate.api.studies",
    "predict": "hmtl_ablate.api.predicting",
    "register_dataset": "hmtl_ablate.data.registry",
    "register_pretext_task": "hmtl_ablate.pretext",
    "register_supervised_task": "hmtl_ablate.supervised",
    "report": "hmtl_ablate.api.studies",
    "retrain": "hmtl_ablate.api.bundles",
    "run": "hmtl_ablate.api.studies",
    "train": "hmtl_ablate.api.trials",
    "verify": "hmtl_ablate.api.bundles",
}
"""Public name → the module that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
