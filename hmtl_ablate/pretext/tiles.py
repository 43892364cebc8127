"""Images as grids of tiles: cut and join."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cut(images: Tensor, grid: int) -> Tensor:
    """Tiles [B, grid², C, t, t] of images [B, C, S, S], t = S // grid, row by row from the top left.

    When grid does not divide S, the remainder at the edges belongs to no tile.
    """
    batch, channels, side, _ = images.shape
    tile = side // grid
    start, inner = (side - grid * tile) // 2, grid * tile
    centre = images[:, :, start : start + inner, start : start + inner]
    tiles = centre.reshape(batch, channels, grid, tile, grid, tile).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(batch, grid * grid, channels, tile, tile)


def join(tiles: Tensor, side: int) -> Tensor:
    """Images [B, C, side, side] of tiles [B, grid², C, t, t].

    The remainder at the edges is 0 (the mean colour of a normalised image), so that no tile can be recognised by the
    border it continues.
    """
    batch, count, channels, tile, _ = tiles.shape
    grid = round(count**0.5)
    inner = grid * tile
    centre = tiles.reshape(batch, grid, grid, channels, tile, tile).permute(0, 3, 1, 4, 2, 5)
    centre = centre.reshape(batch, channels, inner, inner)
    start = (side - inner) // 2
    margin = side - inner - start
    return F.pad(centre, (start, margin, start, margin)) if inner < side else centre
