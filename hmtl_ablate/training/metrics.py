"""Metrics of a split from its probabilities, by torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from hmtl_ablate.training.pose import ANGLES, geodesic, matrix_of_angles


def _torchmetrics() -> ModuleType:
    """Its import takes 2 s, on each actor: at the first epoch's end, and not before the first step."""
    from torchmetrics.functional import classification

    return classification


def classification_metrics(logits: Tensor, targets: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """loss (cross-entropy, unweighted), accuracy, macro_f1 and recall/<class>, shares in 0 … 1.

    logits: float [N, K]; targets: int64 [N]. macro F1 is over the classes that occur; so is recall.
    """
    library, count = _torchmetrics(), len(classes)
    recall = library.multiclass_recall(logits, targets, num_classes=count, average="none")
    present = torch.bincount(targets, minlength=count) > 0
    metrics = {
        "loss": float(F.cross_entropy(logits, targets)),
        "accuracy": float(library.multiclass_accuracy(logits, targets, num_classes=count, average="micro")),
        "macro_f1": float(library.multiclass_f1_score(logits, targets, num_classes=count, average="macro")),
    }
    return metrics | {f"recall/{name}": float(recall[k]) for k, name in enumerate(classes) if present[k]}


def confusion_matrix(logits: Tensor, targets: Tensor, classes: Sequence[str]) -> list[list[int]]:
    """Counts [K][K], rows true and columns predicted."""
    matrix = _torchmetrics().multiclass_confusion_matrix(logits, targets, num_classes=len(classes))
    counts: list[list[int]] = matrix.tolist()
    return counts


def binary_metrics(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """balanced_accuracy (the mean of both recalls) and auc (area under the ROC curve of class 1), 0 … 1.

    logits: float [N, 2]; targets: int64 [N] of 0 and 1. With one class alone neither means anything: both are left out.
    """
    if len(targets.unique()) < 2:
        return {}
    library = _torchmetrics()
    return {
        "balanced_accuracy": float(library.multiclass_recall(logits, targets, num_classes=2, average="macro")),
        "auc": float(library.binary_auroc(logits.softmax(dim=1)[:, 1], targets)),
    }


def pose_metrics(angles: Tensor, targets: Tensor) -> dict[str, float]:
    """mae_yaw, mae_pitch, mae_roll, their mean mae, and the mean geodesic error; all in degrees.

    angles, targets: float [N, 3], yaw, pitch and roll in degrees. A full turn is no error.
    """
    apart = (angles - targets).abs() % 360
    errors = torch.minimum(apart, 360 - apart).mean(dim=0)
    turned = torch.rad2deg(geodesic(matrix_of_angles(angles.double()), matrix_of_angles(targets.double())))
    return {
        "mae": float(errors.mean()),
        **{f"mae_{name}": float(errors[k]) for k, name in enumerate(ANGLES)},
        "geodesic": float(turned.mean()),
    }
