"""Views of an image: the numbers of the authors' augmentation levels, and the validation view (PAPER.md, the recipe).

augment.py draws training views image by image on the CPU, augment_batch.py whole batches on a GPU; both read the
numbers here. Lengths that the scripts give in pixels of their 112 px input are shares of a side; crops are shares of
the stored image's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

cv2.setNumThreads(1)  # trials run side by side: threads of OpenCV would only fight for the cores

JITTER = {"brightness": (0.68, 1.32), "contrast": (0.68, 1.32), "saturation": (0.68, 1.32), "hue": (-0.08, 0.08)}
"""Factors of brightness, contrast and saturation; shift of the hue in turns."""
BLUR_SIGMA, BLUR_SIDE = 1.5, 3
DOWNSCALE = (64 / 112, 0.99)
NOISE = (0.0, 0.05)
"""Standard deviation of the noise on the 0 … 1 scale."""
HOLE, HOLE_FILL = 40 / 112, 127


@dataclass(frozen=True)
class Level:
    """turn: largest rotation in degrees; crop: range of the square crop's side; anywhere: not about the centre alone;
    jitter, grey, blur, downscale: probabilities; noisy: noise and a hole."""

    crop: tuple[float, float]
    turn: float = 0.0
    anywhere: bool = False
    jitter: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    downscale: float = 0.0
    noisy: bool = False


LEVELS = {
    "none": Level(crop=(0.69, 0.80)),
    "weak": Level(crop=(0.69, 0.99), turn=15, jitter=0.4, grey=0.2),
    "strong": Level(
        crop=(0.75, 1.0), turn=25, anywhere=True, jitter=0.9, grey=0.3, blur=0.2, downscale=0.2, noisy=True
    ),
}


def validation_view(image: np.ndarray, size: int) -> np.ndarray:
    """A stored image uint8 [S, S, C] as the model sees it when it is measured, uint8 [size, size, 3]: the central crop
    of 0.85 (0.80 from 224 px on), resized."""
    share = 0.80 if size >= 224 else 0.85
    side = max(1, round(len(image) * share))
    start = (len(image) - side) // 2
    interpolation = cv2.INTER_AREA if len(image) * share > size else cv2.INTER_LINEAR
    crop = image[start : start + side, start : start + side]
    view = cv2.resize(crop, (size, size), interpolation=interpolation)
    return np.repeat(view[..., None], 3, axis=-1) if view.ndim == 2 else view
