"""The interface of a supervised task.

A task is one file in this package, or a module that `--import` names. It ends in its own call:

    register_supervised_task("age", Age, {"mae_years": Metric("min", "MAE years"), "loss": Metric("min", "loss")})

The configuration asks each task for its name, metrics and rules, and light commands (`--help`, `plan`, `schema`) load
the configuration. So a task's module must be importable without torch: import torch, torchmetrics and the like inside
the methods that compute, and for type hints under `TYPE_CHECKING`. For the same reason this package imports neither the
configuration nor the data: a task is built from `Labels` and `TaskOptions`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """What a split is measured by."""

    direction: Literal["max", "min"]
    """Is higher or lower better?"""
    title: str
    """The name as people read it, e.g. "macro F1" or "MAE yaw"."""
    unit: Literal["", "%", "°"] = ""
    """"%": logged as a fraction from 0 to 1, shown as a percentage."""


@dataclass(frozen=True)
class Labels:
    """The labels of one task on one pack."""

    values: NDArray[Any]
    """Of all images: int64 [N] with -1 missing, or float32 [N, d] with NaN missing."""
    classes: tuple[str, ...]
    """Class names; () for a task without classes."""
    train: NDArray[np.int64]
    """Rows of the training images: class weights count these alone."""
    shares: NDArray[np.float32] | None = None
    """Share of each class in the votes of an image's raters, float32 [N, K], NaN missing: training targets in place of
    `values`. None: `values` are the targets."""


class LossOptions(Protocol):
    """Options of the supervised loss."""

    @property
    def class_weights(self) -> Literal["none", "inverse", "effective"]: ...

    @property
    def label_smoothing(self) -> float: ...


class ModelOptions(Protocol):
    """Options of the supervised head."""

    @property
    def pose_head(self) -> Literal["regression", "rotation6d"]: ...


class TaskOptions(Protocol):
    """The options that the tasks of this package read; a TrialConfig has them all."""

    @property
    def loss(self) -> LossOptions: ...

    @property
    def model(self) -> ModelOptions: ...


class SupervisedTask(ABC):
    """One supervised task on one pack.

    Outputs are the task's own columns of the model's outputs, float32 [n, width]; targets are rows of its labels, int64
    [n] or float32 [n, d].
    """

    has_classes: ClassVar[bool] = False
    """Are the labels class indices? Only such a task has a confusion matrix and can be probed."""
    regression: ClassVar[bool] = False
    """Is the loss a distance, not a cross-entropy? Uncertainty weighting halves a distance."""
    rotation_safe: ClassVar[bool] = True
    """Does a label stay true when the image is rotated in its plane? If not, augmentation does not rotate, and the
    rotation pretext task must not show rotated images to the supervised head."""

    width: int
    """Number of outputs."""
    classes: tuple[str, ...] = ()
    """Class names, in the order of the outputs; () without classes."""

    value_names: tuple[str, ...] = ()
    """Names of the numbers predicted per image, e.g. yaw, pitch, roll; () for a task with classes."""

    def __init__(self, labels: NDArray[Any]) -> None:
        """labels: of all images of the pack, as `Labels.values`."""
        self.labels = labels

    @classmethod
    def build(cls, labels: Labels, options: TaskOptions) -> Self:
        """The task of one trial; override it for a task that needs the classes, the training images or options."""
        return cls(labels.values)

    def targets(self, rows: NDArray[np.int64]) -> Tensor:
        """Labels of images `rows`: int64 [n], or float32 [n, d]."""
        import torch

        return torch.from_numpy(self.labels[rows])

    def training_targets(self, rows: NDArray[np.int64]) -> Tensor:
        """What `loss` compares the outputs with in training; the labels, unless a task has softer targets."""
        return self.targets(rows)

    def class_targets(self, targets: Tensor) -> Tensor:
        """The class index of each of `training_targets`, int64 [n], for a task with classes."""
        return targets

    @staticmethod
    def present(targets: Tensor) -> Tensor:
        """bool [n]: which images have a label. One number of d missing makes the label missing."""
        return targets >= 0 if targets.ndim == 1 else ~targets.isnan().any(dim=1)

    def flip(self, targets: Tensor) -> Tensor:
        """Targets [n] or [n, d] of the horizontally mirrored images; flipping twice gives the first ones again."""
        return targets

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each image, [n]; 0, with gradient 0, where the target is missing."""

    @abstractmethod
    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """The metrics that the task was registered with, on a split; every image has a target."""

    def predictions(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Arrays saved per image: label and prediction. All have first dimension n."""
        return {"label": targets, "prediction": outputs}

    def outputs(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """The inverse of `predictions`: outputs float [n, width] with the same metrics, from what was saved per image.

        Override it with `predictions`; without it, `hmtl-ablate verify` can't recompute the metrics (KeyError).
        """
        return arrays["prediction"]
