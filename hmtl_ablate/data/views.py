"""The parameters of the authors' augmentation levels, and the validation view (docs/paper.md).

augment.py draws training views image by image on the CPU, augment_batch.py whole batches on a GPU; both use these
parameters. Lengths that the authors' scripts give in pixels of their 112 px input are shares of a side here.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

cv2.setNumThreads(1)  # trials run in parallel: OpenCV's threads would only contend for the cores

JITTER = {"brightness": (-0.32, 0.32), "contrast": (0.68, 1.32), "saturation": (0.68, 1.32), "hue": (-0.08, 0.08)}
"""Ranges: what is added to values from 0 to 1 (brightness); factors of contrast and saturation; shift of the hue in
turns."""
BLUR_SIGMA, BLUR_SIDE = 1.5, 3
"""Standard deviation and side of the Gaussian kernel in pixels."""
DOWNSCALE = (64 / 112, 0.99)
"""Range of the factor by which a view is shrunk and enlarged again."""
NOISE = (0.0, 0.05)
"""Range of the noise's standard deviation, for values from 0 to 1."""
HOLE = 40 / 112
"""Side of the hole as a share of the view's. Its values are 0, as are those outside a rotated image."""


@dataclass(frozen=True)
class Level:
    """Parameters of one augmentation level."""

    crop: tuple[float, float]
    """Range of the square crop's side, as a share of the stored image's."""
    turn: float = 0.0
    """Largest rotation in degrees."""
    anywhere: bool = False
    """The crop may be anywhere, not only at the centre."""
    jitter: float = 0.0
    """Probability of the colour jitter."""
    grey: float = 0.0
    """Probability of greyscale."""
    blur: float = 0.0
    """Probability of blur."""
    downscale: float = 0.0
    """Probability of down-scaling."""
    noisy: bool = False
    """Always add noise and a hole."""


LEVELS = {
    "none": Level(crop=(0.69, 0.80)),
    "weak": Level(crop=(0.69, 0.99), turn=15, jitter=0.4, grey=0.2),
    "strong": Level(
        crop=(0.75, 1.0), turn=25, anywhere=True, jitter=0.9, grey=0.3, blur=0.2, downscale=0.2, noisy=True
    ),
}


def validation_view(image: np.ndarray, size: int) -> np.ndarray:
    """The view for validation and testing, uint8 [size, size, 3], of a stored image, uint8 [S, S, C].

    It is the central crop of 0.85 of the side (0.80 from 224 px on), resized.
    """
    share = validation_share(size)
    side = max(1, round(len(image) * share))
    start = (len(image) - side) // 2
    interpolation = cv2.INTER_AREA if len(image) * share > size else cv2.INTER_LINEAR
    crop = image[start : start + side, start : start + side]
    view = cv2.resize(crop, (size, size), interpolation=interpolation)
    return np.repeat(view[..., None], 3, axis=-1) if view.ndim == 2 else view


def validation_share(size: int) -> float:
    """Side of the crop that `validation_view` takes for views of `size` px, as a share of the stored image's."""
    return 0.80 if size >= 224 else 0.85
