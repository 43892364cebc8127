"""How an image becomes the square that a pack stores."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`image` resized to size × size: by area when it shrinks, so that no pixel is skipped, else bilinear."""
    if image.shape[:2] == (size, size):
        return image
    shrinks = image.shape[0] * image.shape[1] > size * size
    return np.asarray(
        cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), dtype=np.uint8
    )
