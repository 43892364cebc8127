"""Supervised tasks: how wide a task's output is, its loss, its metrics, and what is kept of its predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.data.splits import labels_of
from hmtl_ablate.loss import class_weights
from hmtl_ablate.training.metrics import binary_metrics, classification_metrics, pose_metrics
from hmtl_ablate.training.pose import angles_of_matrix, geodesic, matrix_of_angles, matrix_of_six


class SupervisedTask(ABC):
    """One supervised task on one pack.

    labels: of all images of the pack, int64 [N] with -1 missing, or float32 [N, 3] with NaN missing; width: outputs of
    the head that are this task's.
    """

    width: int
    regression: bool = False
    classes: tuple[str, ...] = ()

    def __init__(self, labels: NDArray[Any]) -> None:
        self.labels = labels

    def targets(self, rows: NDArray[np.int64]) -> Tensor:
        """Labels of images `rows`: int64 [n], or float32 [n, 3]."""
        return torch.from_numpy(np.asarray(self.labels[rows]))

    @staticmethod
    @abstractmethod
    def present(targets: Tensor) -> Tensor:
        """bool [n]: which targets are there."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each image, [n], from outputs [n, width]; 0 where the target is missing."""

    @abstractmethod
    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """Metrics of a split; every image has a target."""

    @abstractmethod
    def kept(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """What the trial's folder keeps an image: the label and what was told."""


class Classification(SupervisedTask):
    """Emotion or gender: cross-entropy over the classes."""

    def __init__(self, labels: NDArray[Any], classes: tuple[str, ...], weights: Tensor, smoothing: float) -> None:
        super().__init__(labels)
        self.classes, self.weights, self.smoothing, self.width = classes, weights, smoothing, len(classes)

    @staticmethod
    def present(targets: Tensor) -> Tensor:
        return targets >= 0

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, times the weight of the class."""
        error = F.cross_entropy(outputs, targets, reduction="none", label_smoothing=self.smoothing, ignore_index=-1)
        return error * self.weights.to(outputs.device)[targets.clamp_min(0)]

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """loss, accuracy, macro_f1 and recall/<class>; of two classes balanced_accuracy and auc too."""
        found = classification_metrics(outputs, targets, self.classes)
        return found | (binary_metrics(outputs, targets) if self.width == 2 else {})

    def kept(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"label": targets, "probability": outputs.softmax(dim=1)}


class Pose(SupervisedTask):
    """Head pose: yaw, pitch, roll in degrees.

    regression: three outputs, angles in units of 45°, and the mean absolute error in radians. rotation6d: six outputs,
    and the geodesic distance in radians. So a weight means much the same for both.
    """

    regression = True
    UNIT = 45.0

    def __init__(self, labels: NDArray[Any], head: str) -> None:
        super().__init__(labels)
        self.six, self.width = head == "rotation6d", 6 if head == "rotation6d" else 3

    @staticmethod
    def present(targets: Tensor) -> Tensor:
        return ~targets.isnan().any(dim=1)

    def angles(self, outputs: Tensor) -> Tensor:
        """Yaw, pitch, roll in degrees, [n, 3], from outputs [n, width]."""
        return angles_of_matrix(matrix_of_six(outputs)) if self.six else outputs * self.UNIT

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        there = self.present(targets)
        targets = torch.where(there[:, None], targets, 0.0)
        if self.six:
            error = geodesic(matrix_of_six(outputs), matrix_of_angles(targets))
        else:
            error = torch.deg2rad(self.angles(outputs) - targets).abs().mean(dim=1)
        return torch.where(there, error, 0.0)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """mae, mae_yaw, mae_pitch, mae_roll and geodesic in degrees; loss in radians."""
        return {"loss": float(self.loss(outputs, targets).mean())} | pose_metrics(self.angles(outputs), targets)

    def kept(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"label": targets, "angles": self.angles(outputs)}


def build_tasks(config: TrialConfig, pack: Pack, train: NDArray[np.int64]) -> dict[str, SupervisedTask]:
    """The supervised tasks of a trial, in the config's order. train: rows whose classes are counted for class weights.

    Raises DataError when the pack has no labels for one of them.
    """
    found: dict[str, SupervisedTask] = {}
    for name in config.tasks:
        labels, classes = labels_of(pack, config.data, name)
        if name == "pose":
            found[name] = Pose(labels, config.model.pose_head)
            continue
        own = labels[train]
        counts = torch.from_numpy(np.bincount(own[own >= 0], minlength=len(classes)))
        found[name] = Classification(
            labels, classes, class_weights(counts, config.loss.class_weights), config.loss.label_smoothing
        )
    return found


def task_weights(config: TrialConfig) -> dict[str, float]:
    """Supervised task → its weight in the loss."""
    return {name: float(getattr(config.loss, f"{name}_weight")) for name in config.tasks}


def named(task: str, values: Mapping[str, float], alone: bool) -> dict[str, float]:
    """Metric names of one task: plain when it is the only one, else with its name in front."""
    return dict(values) if alone else {f"{task}/{name}": value for name, value in values.items()}
