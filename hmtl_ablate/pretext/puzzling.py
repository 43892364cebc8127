"""Puzzling: cut the image into n × n tiles, shuffle them, and predict their places (docs/paper.md, the method)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from hmtl_ablate.config import PuzzlingOptions
from hmtl_ablate.pretext.base import FeatureShape, PretextTask


def shuffle_tiles(images: Tensor, order: Tensor, grid: int) -> Tensor:
    """Shuffle the tiles of each image: position p shows tile order[p].

    images: [B, C, S, S]; order: [B, grid²], a permutation of 0 … grid² − 1 per image, row by row from the top left.
    Returns [B, C, S, S] in the memory format of `images`; the remainder at the edges, if grid does not divide S, is 0.
    """
    if images.is_contiguous(memory_format=torch.channels_last):
        return _shuffled(images.permute(0, 2, 3, 1), order, grid).permute(0, 3, 1, 2)
    channels = images.shape[1]
    planes = _shuffled(images.flatten(0, 1)[..., None], order.repeat_interleave(channels, 0), grid)
    return planes[..., 0].unflatten(0, (-1, channels))


def _shuffled(images: Tensor, order: Tensor, grid: int) -> Tensor:
    """The same for images [B, S, S, C]: each line of a tile, t pixels contiguous in memory, is copied as a whole."""
    batch, side, _, channels = images.shape
    tile = side // grid
    inner = grid * tile
    start = (side - inner) // 2
    lines = images[:, start : start + inner, start : start + inner].reshape(-1, tile * channels)
    first = torch.arange(batch, device=images.device).view(-1, 1, 1, 1) * grid
    line = torch.arange(tile, device=images.device).view(-1, 1)
    order = order.view(batch, grid, 1, grid)
    moved = lines.index_select(0, (((first + order // grid) * tile + line) * grid + order % grid).flatten())
    shown = moved.view(batch, inner, inner, channels)
    end = side - inner - start
    return F.pad(shown, (0, 0, start, end, start, end)) if inner < side else shown


class Puzzling(PretextTask):
    """For each of the n² positions a softmax over the n² tiles, from the pooled features."""

    metric = "accuracy"

    def __init__(self, options: PuzzlingOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.grid = options.grid
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(features.pooled, self.grid**4)

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Uniform permutations, int64 [count, n²]."""
        return torch.rand(count, self.grid**2, generator=generator).argsort(dim=1)

    def change(self, images: Tensor, draw: Tensor) -> Tensor:
        return shuffle_tiles(images, draw, self.grid)

    def forward(self, maps: Tensor, pooled: Tensor) -> Tensor:
        """Logits [B, n² positions, n² tiles]."""
        return self.head(self.dropout(pooled)).unflatten(1, (self.grid**2, self.grid**2))

    def loss(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """Cross-entropy averaged over the positions, so that its scale does not depend on n²."""
        return F.cross_entropy(output.float().transpose(1, 2), draw, reduction="none").mean(dim=1)

    def score(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """Share of positions whose tile is predicted correctly, 0 … 1."""
        return (output.argmax(dim=2) == draw).float().mean(dim=1)

    def rebuilt(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        """Each tile at its predicted place; a place that no tile is predicted for is 0."""
        places = self.grid**2
        predicted = output.argmax(dim=2)
        shown = torch.full_like(draw, places).scatter(
            1, predicted, draw
        )  # a true tile for each place, or `places`: none
        whole = shuffle_tiles(images, shown.clamp(max=places - 1), self.grid)
        seen = (shown < places).to(images.dtype).reshape(-1, 1, self.grid, self.grid)
        return whole * F.interpolate(seen, size=images.shape[-2:], mode="nearest")
