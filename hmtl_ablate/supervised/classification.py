"""Emotion and gender: one class per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        """loss, accuracy, macro_f1, ece, balanced_accuracy and recall/<class>; of two classes auc too."""
        found = classification_metrics(outputs, targets, self.classes)
        return found | (binary_metrics(outputs, targets) if self.width == 2 else {})

    def predictions(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """label: int64 [n]; probability: float32 [n, K]."""
        return {"label": targets, "probability": outputs.softmax(dim=1)}

    def outputs(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Logarithms of the probabilities, which have the same softmax; at least about −87, where one is 0."""
        probability = arrays["probability"]
        return probability.clamp_min(probability.new_tensor(1.2e-38)).log()


def classification_metrics(logits: Tensor, targets: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """loss (cross-entropy, unweighted), accuracy, macro_f1, ece, balanced_accuracy and recall/<class>; all but the loss
    from 0 to 1.

    logits: float [N, K]; targets: int64 [N]. macro F1 and recall are of the classes that occur; balanced_accuracy is
    the mean of those recalls, and is undefined, and left out, when one class alone occurs.
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
        "ece": calibration_error(logits, targets),
    }
    if int(present.sum()) > 1:
        metrics["balanced_accuracy"] = float(recall[present].mean())
    return metrics | {f"recall/{name}": float(recall[k]) for k, name in enumerate(classes) if present[k]}


def calibration_error(logits: Tensor, targets: Tensor, bins: int = 15) -> float:
    """Expected calibration error, from 0 to 1: the mean over the images of |accuracy - mean confidence| of their bin.

    logits: float [N, K], N ≥ 1; targets: int64 [N]. The confidence is the largest probability; the bins are equally
    wide, each without its lower end and with its upper one (Guo et al. 2017, On Calibration of Modern Neural Networks,
    eq. 3).
    """
    import torch

    confidence, predicted = logits.double().softmax(dim=1).max(dim=1)
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    # |Σ (correct - confidence)| of a bin is its images times the difference of both means
    gap = torch.zeros(bins, dtype=torch.float64)
    gap.index_add_(0, torch.bucketize(confidence, edges), (predicted == targets).double() - confidence)
    return float(gap.abs().sum() / len(targets))


def binary_metrics(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """auc: area under the ROC curve of class 1, from 0 to 1.

    logits: float [N, 2]; targets: int64 [N] of 0 and 1. It is undefined, and left out, when one class alone occurs.
    """
    if len(targets.unique()) < 2:
        return {}
    return {"auc": float(_torchmetrics().binary_auroc(logits.softmax(dim=1)[:, 1], targets))}


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
_BALANCED = Metric("max", "balanced accuracy", "%")
_MACRO_F1 = Metric("max", "macro F1", "%")
_ECE = Metric("min", "calibration error (ECE)", "%")
_LOSS = Metric("min", "loss")
_RECALL = {"recall": Metric("max", "recall", "%")}

register_supervised_task(
    "emotion",
    Classification,
    {"accuracy": _ACCURACY, "macro_f1": _MACRO_F1, "loss": _LOSS, "balanced_accuracy": _BALANCED, "ece": _ECE},
    _RECALL,
)
register_supervised_task(
    "gender",
    Classification,
    {
        "accuracy": _ACCURACY,
        "balanced_accuracy": _BALANCED,
        "auc": Metric("max", "AUC", "%"),
        "macro_f1": _MACRO_F1,
        "loss": _LOSS,
        "ece": _ECE,
    },
    _RECALL,
)
