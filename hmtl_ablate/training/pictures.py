"""Pictures of a trial: pretext inputs with the model's reconstructions, and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from hmtl_ablate.storage.files import write_atomically

GAP = 4
SCALE = 0.4
"""Size of the text in a confusion matrix."""
SMALLEST = 0.28
"""Size below which text can't be read."""


def save_rows(path: Path, rows: Sequence[tuple[str, Tensor]]) -> None:
    """Write a PNG of named rows of images, each float [N, 3, S, S] on the 0 … 1 scale."""
    drawn = []
    for name, images in rows:
        pixels = (images.float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        zoom = max(1, round(96 / pixels.shape[1]))
        tiles = [
            np.pad(_zoomed(image, zoom), ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255) for image in pixels
        ]
        label = np.full((tiles[0].shape[0], 90, 3), 255, np.uint8)
        cv2.putText(label, name, (4, label.shape[0] // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        drawn.append(np.concatenate([label, *tiles], axis=1))
    _write(path, np.concatenate(drawn, axis=0))


def save_confusion(path: Path, counts: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
    """Write a PNG of a confusion matrix: rows true, columns predicted, shaded by share of the row."""
    matrix = np.asarray(counts, dtype=np.int64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    cell, margin = 62, 96
    side = margin + cell * len(classes) + GAP
    canvas = np.full((side, side, 3), 255, np.uint8)
    for row, name in enumerate(classes):
        top = margin + row * cell
        _text(canvas, name, (4, top + cell // 2 + 4), margin - 8)
        _text(canvas, name, (top + 2, margin - 8), cell - 4)
        for column in range(len(classes)):
            left, share = margin + column * cell, float(shares[row, column])
            shade = (255 - int(200 * share), 255 - int(120 * share), 255 - int(40 * share))
            cv2.rectangle(canvas, (left, top), (left + cell - 2, top + cell - 2), shade, -1)
            _text(canvas, str(matrix[row, column]), (left + 6, top + 28))
            _text(canvas, f"{100 * share:.0f} %", (left + 6, top + 48))
    _text(canvas, "true: rows", (4, 20))
    _text(canvas, "predicted: columns", (4, 40))
    _write(path, canvas)


def _zoomed(image: np.ndarray, zoom: int) -> np.ndarray:
    return image.repeat(zoom, axis=0).repeat(zoom, axis=1)


def fitted(text: str, width: int) -> tuple[str, float]:
    """The text and its scale for `width` pixels: smaller when it is long, then cut, with two dots at the end."""
    for cut in range(len(text)):
        shown = text if not cut else text[:-cut] + ".."
        scale = SCALE * min(1.0, width / max(_width(shown), 1))
        if scale >= SMALLEST:
            return shown, scale
    return text[:1], SMALLEST


def _width(text: str) -> int:
    """Width in pixels at SCALE."""
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, SCALE, 1)[0][0])


def _text(canvas: np.ndarray, text: str, at: tuple[int, int], width: int | None = None) -> None:
    """Write text at its lower left corner; no wider than `width` pixels."""
    shown, scale = fitted(text, width) if width is not None else (text, SCALE)
    cv2.putText(canvas, shown, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, cv2.imencode(".png", image[..., ::-1])[1].tobytes())  # OpenCV's order is BGR
