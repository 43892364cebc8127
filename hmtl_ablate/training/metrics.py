"""Metrics of a split from its probabilities, by torchmetrics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_recall,
)


def classification_metrics(logits: Tensor, targets: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """loss (cross-entropy, unweighted), accuracy, macro_f1 and recall/<class>, shares in 0 … 1.

    logits: float [N, K]; targets: int64 [N]. macro F1 is over the classes that occur; so is recall.
    """
    count = len(classes)
    recall = multiclass_recall(logits, targets, num_classes=count, average="none")
    present = torch.bincount(targets, minlength=count) > 0
    metrics = {"loss": float(F.cross_entropy(logits, targets)),
               "accuracy": float(multiclass_accuracy(logits, targets, num_classes=count, average="micro")),
               "macro_f1": float(multiclass_f1_score(logits, targets, num_classes=count, average="macro"))}
    return metrics | {f"recall/{name}": float(recall[k]) for k, name in enumerate(classes) if present[k]}


def confusion_matrix(logits: Tensor, targets: Tensor, classes: Sequence[str]) -> list[list[int]]:
    """Counts [K][K], rows true and columns predicted."""
    matrix: list[list[int]] = multiclass_confusion_matrix(logits, targets, num_classes=len(classes)).tolist()
    return matrix
