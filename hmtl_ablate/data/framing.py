"""How an image becomes the square that a pack stores: the one place where faces are cropped, padded and resized.

Every reader's images go through here, and none is squeezed: one scale applies to both axes. The square is

- around the face, where the reader knows its box: as large as the box's longer side, widened by `data.face_margin`;
- the whole image, padded to the longer side, without a box or with `data.face_crop: none`;
- the centred square of the shorter side, where a reader asks for it (`CENTRE`; CK+ frames without landmarks).

What is outside the image is black, as in the authors' script (docs/paper.md, face crop).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.data.reading import CENTRE, Frame, SampleError

if TYPE_CHECKING:
    from hmtl_ablate.config import DataConfig

MAX_BOX = 4
"""A face box with a side of more than so many times the image's is an error in the data."""


@dataclass(frozen=True)
class Cut:
    """The part of an image that is seen, and where it is in a square."""

    part: NDArray[np.uint8]
    """[h, w, C]; a view of the image."""
    left: float
    """Offset in the square, as a share of its side from 0 to 1, as are the others."""
    top: float
    right: float
    bottom: float


def cut(image: NDArray[np.uint8], frame: Frame, data: DataConfig) -> Cut:
    """The square of an image uint8 [H, W, C]; raises `SampleError` for a box that does not overlap the image."""
    height, width = image.shape[:2]
    left, top, side = _square(width, height, frame if data.face_crop == "box" else None, data.face_margin)
    x0, x1 = max(0, left), min(width, left + side)
    y0, y1 = max(0, top), min(height, top + side)
    return Cut(image[y0:y1, x0:x1], (x0 - left) / side, (y0 - top) / side, (x1 - left) / side, (y1 - top) / side)


def placed(found: Cut, size: int) -> NDArray[np.uint8]:
    """A cut as it is stored, uint8 [size, size, C]; black around it."""
    x0, x1 = _pixels(found.left, found.right, size)
    y0, y1 = _pixels(found.top, found.bottom, size)
    part = resized(found.part, x1 - x0, y1 - y0)
    if (x1 - x0, y1 - y0) == (size, size):
        return part
    square = np.zeros((size, size, part.shape[2]), np.uint8)
    square[y0:y1, x0:x1] = part
    return square


def resized(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """`image` resized: by area when it shrinks, so that no pixel is skipped, else bilinear."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] * image.shape[1] > width * height
    found = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(found, dtype=np.uint8).reshape(height, width, *image.shape[2:])


def _square(width: int, height: int, frame: Frame, margin: float) -> tuple[int, int, int]:
    """Left, top and side of the square in pixels; it may reach beyond the image."""
    if frame is None or frame == CENTRE:
        side = max(width, height) if frame is None else min(width, height)
        return (width - side) // 2, (height - side) // 2, side
    x, y, w, h = (float(value) for value in frame)
    if not all(math.isfinite(value) for value in (x, y, w, h)):
        raise SampleError(f"face box {tuple(frame)} is not four numbers")
    if min(x + w, width) - max(x, 0) < 2 or min(y + h, height) - max(y, 0) < 2:
        raise SampleError(f"face box {tuple(frame)} is outside the {width} × {height} image")
    if max(w, h) > MAX_BOX * max(width, height):
        raise SampleError(f"face box {tuple(frame)} is far larger than the {width} × {height} image")
    side = max(2, round(max(w, h) * (1 + 2 * margin)))
    return round(x + w / 2 - side / 2), round(y + h / 2 - side / 2), side


def _pixels(start: float, end: float, size: int) -> tuple[int, int]:
    """The pixels of a square of `size` that a part from `start` to `end` fills: at least one."""
    first = min(round(start * size), size - 1)
    return first, max(first + 1, round(end * size))
