"""Training views drawn image by image on the CPU, with albumentations; the parameters are in views.py."""

from __future__ import annotations

import os
import random
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # otherwise albumentations asks PyPI for its newest version on import

import albumentations as A
import cv2
import numpy as np

from hmtl_ablate.data.views import BLUR_SIDE, BLUR_SIGMA, DOWNSCALE, HOLE, JITTER, LEVELS, NOISE


class CentredCrop(A.ImageOnlyTransform):
    """A square at the centre whose side is a share of the image's, drawn uniformly from `scale`."""

    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__(p=1.0)
        self.scale = scale

    def get_params(self) -> dict[str, float]:
        return {"share": self.py_random.uniform(*self.scale)}

    def apply(self, img: np.ndarray, share: float = 1.0, **params: Any) -> np.ndarray:
        side = max(1, round(img.shape[0] * share))
        start = (img.shape[0] - side) // 2
        return img[start : start + side, start : start + side]


class RandomCrop(CentredCrop):
    """A square of such a side anywhere in the image."""

    def get_params(self) -> dict[str, float]:
        return super().get_params() | {"top": self.py_random.random(), "left": self.py_random.random()}

    def apply(self, img: np.ndarray, share: float = 1.0, **params: Any) -> np.ndarray:
        top, left = params["top"], params["left"]
        side = max(1, round(img.shape[0] * share))
        y, x = round((img.shape[0] - side) * top), round((img.shape[1] - side) * left)
        return img[y : y + side, x : x + side]


class Flip(A.HorizontalFlip):
    """A horizontal flip that records whether it happened, because a mirrored head has another yaw and roll."""

    flipped = False

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        self.flipped = True
        return np.asarray(super().apply(img, **params))


class View:
    """Turns a stored image, uint8 [S, S, C], into the view that the model sees, uint8 [size, size, 3].

    The view depends on the image and the seed alone. A grey image becomes three equal channels.
    """

    def __init__(self, steps: list[A.BasicTransform]) -> None:
        self._compose = A.Compose(steps)
        self._flip = next((step for step in steps if isinstance(step, Flip)), None)

    @property
    def flipped(self) -> bool:
        """Whether the last view is mirrored."""
        return self._flip is not None and self._flip.flipped

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        if self._flip is not None:
            self._flip.flipped = False
        if image.shape[-1] == 1:
            image = np.repeat(image, 3, axis=-1)
        # One pair of generators for all steps: Compose.set_random_seed seeds each step's own generator alike, so all
        # steps would draw the same numbers and, for example, only flipped faces would get colour jitter.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        view: np.ndarray = self._compose(image=np.ascontiguousarray(image))["image"]
        return view


def training_view(level: str, stored: int, size: int, channels: int, turn: bool = True) -> View:
    """The training view at augmentation `level` (none, weak or strong); without `turn` it is never rotated.

    stored, size: sides of the stored image and of the view in pixels; channels: of the stored image, 1 or 3.
    """
    drawn = LEVELS[level]
    colour = channels > 1  # grey images have no hue and saturation to change
    steps: list[A.BasicTransform] = []
    if drawn.turn and turn:
        steps.append(A.Rotate(limit=(-drawn.turn, drawn.turn), border_mode=cv2.BORDER_CONSTANT, fill=0, p=1.0))
    steps += [
        (RandomCrop if drawn.anywhere else CentredCrop)(drawn.crop),
        Flip(p=0.5),
        A.Resize(size, size, interpolation=cv2.INTER_AREA if stored > size else cv2.INTER_LINEAR),
    ]
    if drawn.jitter:
        steps.append(_jitter(drawn.jitter, colour))
    if drawn.grey and colour:
        steps.append(A.ToGray(num_output_channels=3, p=drawn.grey))
    if drawn.blur:
        steps.append(
            A.GaussianBlur(blur_limit=(BLUR_SIDE, BLUR_SIDE), sigma_limit=(BLUR_SIGMA, BLUR_SIGMA), p=drawn.blur)
        )
    if drawn.downscale:
        steps.append(
            A.Downscale(
                scale_range=DOWNSCALE,
                p=drawn.downscale,
                interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR},
            )
        )
    if drawn.noisy:
        hole = round(size * HOLE)
        steps += [
            A.GaussNoise(std_range=NOISE, p=1.0),
            A.CoarseDropout(
                num_holes_range=(1, 1),
                hole_height_range=(hole, hole),
                hole_width_range=(hole, hole),
                fill=0,
                p=1.0,
            ),
        ]
    return View(steps)


def _jitter(p: float, colour: bool) -> A.BasicTransform:
    still = {} if colour else {"saturation": (1.0, 1.0), "hue": (0.0, 0.0)}
    low, high = JITTER["brightness"]
    jitter = A.ColorJitter(**(JITTER | still | {"brightness": (1 + low, 1 + high)}), p=p)
    jitter.transforms[0] = _brighten  # albumentations multiplies
    return jitter


def _brighten(image: np.ndarray, factor: float) -> np.ndarray:
    """Add factor − 1 of the white value, 255, to a uint8 image."""
    return np.clip(image.astype(np.int16) + round(255 * (factor - 1)), 0, 255).astype(np.uint8)
