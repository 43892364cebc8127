"""Emotion and gender: one class per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from hmtl_ablate.supervised.base import Labels, Metric, SupervisedTask, TaskOptions
from hmtl_ablate.supervised.registry import register_supervised_task

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class Classification(SupervisedTask):
    """Cross-entropy over the classes; its training targets are class indices, or shares of votes where there are some.

    Metrics and predictions always compare with the class index.
    """

    has_classes: ClassVar[bool] = True

    def __init__(
        self,
        labels: NDArray[Any],
        classes: tuple[str, ...],
        weights: Tensor,
        smoothing: float,
        shares: NDArray[np.float32] | None = None,
    ) -> None:
        """labels: int64 [N], -1 missing; weights: float [K], of each class in the loss; smoothing: 0 ≤ ε < 1; shares:
        float32 [N, K], as in `Labels`."""
        from hmtl_ablate.to_device import Constant

        super().__init__(labels)
        self.classes, self.weights, self.smoothing, self.width = classes, Constant(weights), smoothing, len(classes)
        self.shares = shares

    @classmethod
    def build(cls, labels: Labels, options: TaskOptions) -> Self:
        import numpy as np
        import torch

        from hmtl_ablate.loss import class_weights

        own = labels.values[labels.train]
        counts = torch.from_numpy(np.bincount(own[own >= 0], minlength=len(labels.classes)))
        weights = class_weights(counts, options.loss.class_weights)
        return cls(labels.values, labels.classes, weights, options.loss.label_smoothing, labels.shares)

    def training_targets(self, rows: NDArray[np.int64]) -> Tensor:
        """int64 [n], or float32 [n, K] with shares."""
        import torch

        return self.targets(rows) if self.shares is None else torch.from_numpy(self.shares[rows])

    def class_targets(self, targets: Tensor) -> Tensor:
        """The class with the largest share, -1 where the target is missing."""
        return targets if targets.ndim == 1 else targets.argmax(dim=1).where(self.present(targets), -1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy times the weight of the class; of shares q, -Σ q log p times the mean weight Σ q w."""
        import torch.nn.functional as F

        weights = self.weights.on(outputs.device)
        if targets.ndim == 2:
            shares = targets.nan_to_num(0.0)  # a missing target then has no loss and no gradient
            error = F.cross_entropy(outputs, shares, reduction="none", label_smoothing=self.smoothing)
            return (error * (shares @ weights.to(shares.dtype))).where(self.present(targets), error.new_zeros(()))
        error = F.cross_entropy(outputs, targets, reduction="none", label_smoothing=self.smoothing, ignore_index=-1)
        return error * weights[targets.clamp_min(0)]

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """loss, accuracy, macro_f1 and recall/<class>; of two classes balanced_accuracy and auc too."""
        found = classification_metrics(outputs, targets, self.classes)
        return found | (binary_metrics(outputs, targets) if self.width == 2 else {})

    def predictions(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """label: int64 [n]; probability: float32 [n, K]."""
        return {"label": targets, "probability": outputs.softmax(dim=1)}


def classification_metrics(logits: Tensor, targets: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """loss (cross-entropy, unweighted), accuracy, macro_f1 and recall/<class>, the last three from 0 to 1.

    logits: float [N, K]; targets: int64 [N]. macro F1 and recall are of the classes that occur.
    """
    import torch
    import torch.nn.functional as F

    library, count = _torchmetrics(), len(classes)
    recall = library.multiclass_recall(logits, targets, num_classes=count, average="none")
    present = torch.bincount(targets, minlength=count) > 0
    metrics = {
        "loss": float(F.cross_entropy(logits, targets)),
        "accuracy": float(library.multiclass_accuracy(logits, targets, num_classes=count, average="micro")),
        "macro_f1": float(library.multiclass_f1_score(logits, targets, num_classes=count, average="macro")),
    }
    return metrics | {f"recall/{name}": float(recall[k]) for k, name in enumerate(classes) if present[k]}


def binary_metrics(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """balanced_accuracy (the mean of both recalls) and auc (area under the ROC curve of class 1), from 0 to 1.

    logits: float [N, 2]; targets: int64 [N] of 0 and 1. Both are undefined, and left out, when one class alone occurs.
    """
    if len(targets.unique()) < 2:
        return {}
    library = _torchmetrics()
    return {
        "balanced_accuracy": float(library.multiclass_recall(logits, targets, num_classes=2, average="macro")),
        "auc": float(library.binary_auroc(logits.softmax(dim=1)[:, 1], targets)),
    }


def confusion_matrix(logits: Tensor, targets: Tensor, classes: Sequence[str]) -> list[list[int]]:
    """Counts [K][K], rows true and columns predicted, from logits float [N, K] and targets int64 [N]."""
    matrix = _torchmetrics().multiclass_confusion_matrix(logits, targets, num_classes=len(classes))
    counts: list[list[int]] = matrix.tolist()
    return counts


def _torchmetrics() -> ModuleType:
    """Importing it takes 2 s in each actor: do so at the end of the first epoch, not before the first step."""
    from torchmetrics.functional import classification

    return classification


_ACCURACY = Metric("max", "accuracy", "%")
_MACRO_F1 = Metric("max", "macro F1", "%")
_LOSS = Metric("min", "loss")
_RECALL = {"recall": Metric("max", "recall", "%")}

register_supervised_task(
    "emotion", Classification, {"accuracy": _ACCURACY, "macro_f1": _MACRO_F1, "loss": _LOSS}, _RECALL
)
register_supervised_task(
    "gender",
    Classification,
    {
        "accuracy": _ACCURACY,
        "balanced_accuracy": Metric("max", "balanced accuracy", "%"),
        "auc": Metric("max", "AUC", "%"),
        "macro_f1": _MACRO_F1,
        "loss": _LOSS,
    },
    _RECALL,
)
