"""The interface of a pretext task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, Tensor, nn

from hmtl_ablate.config import PretextOptions


@dataclass(frozen=True)
class FeatureShape:
    """What a backbone gives for one image of side `size` px: a map [channels, height, width] and a pooled [pooled].

    mean, std: of the three channels on the 0 … 1 scale, by which the images it is given are normalised.
    """

    size: int
    channels: int
    height: int
    width: int
    pooled: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class PretextTask(nn.Module, ABC):
    """A transform of the images, a head that undoes it from the backbone's features, and a loss.

    Images are normalised float tensors [B, 3, S, S]. A draw is the random part of the transform, a tensor whose first
    dimension is B; it is made on the CPU for a whole batch, so that its numbers depend neither on the device nor on
    how the batch is split over workers. All of `change`, `loss` and `score` work on the whole batch at once.
    """

    metric: ClassVar[str]
    """Name of what `score` gives, e.g. accuracy."""
    regression: ClassVar[bool] = False
    """Is the loss a distance, not a cross-entropy? Uncertainty weighting asks."""

    def __init__(self, options: PretextOptions, features: FeatureShape) -> None:
        super().__init__()
        self.weight = options.weight

    def frozen(self) -> list[tuple[nn.Module, str, str]]:
        """Networks that the loss looks through: the module, its timm name, and the source of its weights.

        They are no part of the task's parameters and state; `_apply` must move them along.
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
        """The head's output from feature maps [B, C, h, w] and pooled features [B, P] of the changed images."""

    @abstractmethod
    def loss(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """Loss of each image, [B]; `images` are as they were before this task's change."""

    @abstractmethod
    def score(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """What `metric` names, for each image, [B]."""

    @abstractmethod
    def rebuilt(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """The images as the head would restore them, [B, 3, S, S]: what a person looks at."""
