"""Rotation: predict by how many quarter turns the image, or each of its tiles, is rotated.

Of the image: Gidaris, Singh and Komodakis 2018, *Unsupervised Representation Learning by Predicting Image Rotations*.
Of the tiles, with or without shuffling: the authors' code and the companion paper (docs/paper.md, the method).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from hmtl_ablate.config import RotationOptions
from hmtl_ablate.pretext.base import FeatureShape, PretextTask
from hmtl_ablate.pretext.tiles import cut, join

TURNS = 4


def turn_tiles(images: Tensor, turns: Tensor, grid: int) -> Tensor:
    """Rotate each tile of images [B, C, S, S] counter-clockwise by turns int64 [B, grid²] quarter turns, 0 … 3."""
    tiles = cut(images, grid)
    chosen = turns[:, :, None, None, None]
    turned = tiles
    for number in range(1, TURNS):
        turned = torch.where(chosen == number, torch.rot90(tiles, number, dims=(-2, -1)), turned)
    return join(turned, images.shape[-1])


class Rotation(PretextTask):
    """For each tile (grid 1: for the image) a softmax over the four turns, from the pooled features."""

    metric = "accuracy"

    def __init__(self, options: RotationOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.grid = options.grid
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(features.pooled, TURNS * self.grid**2)

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Uniform quarter turns, int64 [count, n²]."""
        return torch.randint(TURNS, (count, self.grid**2), generator=generator)

    def change(self, images: Tensor, draw: Tensor) -> Tensor:
        return turn_tiles(images, draw, self.grid)

    def forward(self, maps: Tensor, pooled: Tensor) -> Tensor:
        """Logits [B, n² tiles, 4 turns]."""
        return self.head(self.dropout(pooled)).unflatten(1, (self.grid**2, TURNS))

    def loss(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """Cross-entropy averaged over the tiles, so that its scale does not depend on n²."""
        return F.cross_entropy(output.float().transpose(1, 2), draw, reduction="none").mean(dim=1)

    def score(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """Share of tiles whose rotation is predicted correctly, 0 … 1."""
        return (output.argmax(dim=2) == draw).float().mean(dim=1)

    def rebuilt(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """The changed image with each tile rotated back by its predicted turns."""
        return turn_tiles(self.change(images, draw), (-output.argmax(dim=2)) % TURNS, self.grid)
