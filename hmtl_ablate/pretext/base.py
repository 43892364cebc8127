"""The interface of a pretext task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor, nn

from hmtl_ablate.config import PretextOptions


@dataclass(frozen=True)
class FeatureShape:
    """Shape of a backbone's features of one image: a map [channels, height, width] and pooled features [pooled]."""

    size: int
    """Side of the image in pixels."""
    channels: int
    height: int
    width: int
    pooled: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of the three channels, 0 … 1, by which the backbone's images are normalised."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Their standard deviation, 0 … 1."""


class PretextTask(nn.Module, ABC):
    """A transform of the images, a head that predicts it from the backbone's features, and a loss.

    Images are normalised float tensors [B, 3, S, S]. A draw is the random part of the transform, a tensor whose first
    dimension is B; it is drawn on the CPU for a whole batch, so that its numbers depend neither on the device nor on
    how the batch is split over workers. `change`, `loss` and `score` treat each image independently of the others. No
    method is called without images: where a worker's share has none for the task, its loss there is 0.
    """

    metric: ClassVar[str]
    """Name of the metric that `score` computes, e.g. accuracy."""
    regression: ClassVar[bool] = False
    """Whether the loss is a distance rather than a cross-entropy; uncertainty weighting treats them differently."""
    draw_is_answer: ClassVar[bool] = True
    """Whether the head predicts the draw. False where the draw says only where to look, as a mask does, and the answer
    is in the images. With `answers: random` the loss gets another draw where this is True, and other images always."""

    def __init__(self, options: PretextOptions, features: FeatureShape) -> None:
        super().__init__()
        self.weight = options.weight

    def frozen(self) -> list[tuple[nn.Module, str, str]]:
        """Frozen networks that the loss uses: the module, its timm name, and the source of its weights.

        They are not among the task's parameters or state; `_apply` must move them with the task.
        """
        return []

    @abstractmethod
    def draw(self, count: int, generator: Generator) -> Tensor:
        """The random part of the transform for `count` images, on the CPU: [count, …]."""

    @abstractmethod
    def change(self, images: Tensor, draw: Tensor) -> Tensor:
        """The changed images, of the shape of `images` [B, 3, S, S]."""

    @abstractmethod
    def forward(self, maps: Tensor, pooled: Tensor) -> Tensor:
        """The head's output from feature maps [B, C, h, w] and pooled features [B, P] of the changed images.

        h and w differ from FeatureShape's at images of another side.
        """

    @abstractmethod
    def loss(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """Loss of each image, [B]; `images` are those before this task's change."""

    @abstractmethod
    def score(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """The metric of each image, [B]."""

    @abstractmethod
    def rebuilt(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """The images as the head would restore them, [B, 3, S, S], for pictures."""
