"""Views of an image: the augmentation levels of the authors' scripts, and the validation view (PAPER.md, the recipe).

Lengths that the scripts give in pixels of their 112 px input are scaled to the size asked for; crops are shares of the
stored image's side.
"""

from __future__ import annotations

import os
import random
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # albumentations asks PyPI for its newest version on import otherwise

import albumentations as A
import cv2
import numpy as np

cv2.setNumThreads(1)  # trials run side by side: threads of OpenCV would only fight for the cores

JITTER = {"brightness": (0.68, 1.32), "contrast": (0.68, 1.32), "saturation": (0.68, 1.32), "hue": (-0.08, 0.08)}
"""Strong level: 0.32 around 1 for brightness, contrast and saturation, 0.08 for hue."""


class CentredCrop(A.ImageOnlyTransform):
    """A square about the centre whose side is a share of the image's, drawn uniformly from `scale`."""

    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__(p=1.0)
        self.scale = scale

    def get_params(self) -> dict[str, float]:
        return {"share": self.py_random.uniform(*self.scale)}

    def apply(self, img: np.ndarray, share: float = 1.0, **params: Any) -> np.ndarray:
        side = max(1, round(img.shape[0] * share))
        start = (img.shape[0] - side) // 2
        return img[start:start + side, start:start + side]


class RandomCrop(CentredCrop):
    """The same, anywhere in the image."""

    def get_params(self) -> dict[str, float]:
        return super().get_params() | {"top": self.py_random.random(), "left": self.py_random.random()}

    def apply(self, img: np.ndarray, share: float = 1.0, **params: Any) -> np.ndarray:
        top, left = params["top"], params["left"]
        side = max(1, round(img.shape[0] * share))
        y, x = round((img.shape[0] - side) * top), round((img.shape[1] - side) * left)
        return img[y:y + side, x:x + side]


class Flip(A.HorizontalFlip):
    """A horizontal flip that remembers whether it happened: a mirrored head has another yaw and roll."""

    flipped = False

    def apply(self, img: np.ndarray, **params: Any) -> np.ndarray:
        self.flipped = True
        return np.asarray(super().apply(img, **params))


class View:
    """Turns a stored image uint8 [S, S, C] into what the model sees, uint8 [size, size, 3].

    The result depends on the image and the seed alone. A grey image becomes three equal channels first.
    `flipped` says whether the last image came out mirrored.
    """

    def __init__(self, steps: list[A.BasicTransform]) -> None:
        self._compose = A.Compose(steps)
        self._flip = next((step for step in steps if isinstance(step, Flip)), None)

    @property
    def flipped(self) -> bool:
        return self._flip is not None and self._flip.flipped

    def __call__(self, image: np.ndarray, seed: int) -> np.ndarray:
        if self._flip is not None:
            self._flip.flipped = False
        if image.shape[-1] == 1:
            image = np.repeat(image, 3, axis=-1)
        # One pair of generators for all steps: Compose.set_random_seed gives each step its own, of one seed, so that
        # all would draw the same numbers and, say, only flipped faces would get other colours.
        self._compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
        view: np.ndarray = self._compose(image=np.ascontiguousarray(image))["image"]
        return view


def training_view(level: str, stored: int, size: int, channels: int, turn: bool = True) -> View:
    """The training view at augmentation `level`: none, weak or strong; without `turn` it is never rotated."""
    resize = A.Resize(size, size, interpolation=cv2.INTER_AREA if stored > size else cv2.INTER_LINEAR)
    colour = channels > 1  # a grey set stays grey: hue and saturation have nothing to act on
    if level == "none":
        return View([CentredCrop((0.69, 0.80)), Flip(p=0.5), resize])
    if level == "weak":
        steps = [*_turn(15, turn), CentredCrop((0.69, 0.99)), Flip(p=0.5), resize, _jitter(0.4, colour)]
        return View(steps + ([A.ToGray(num_output_channels=3, p=0.2)] if colour else []))
    hole = round(size * 40 / 112)
    steps = [*_turn(25, turn), RandomCrop((0.75, 1.0)), Flip(p=0.5), resize, _jitter(0.9, colour)]
    steps += [A.ToGray(num_output_channels=3, p=0.3)] if colour else []
    return View([*steps,
                 A.GaussianBlur(blur_limit=(3, 3), sigma_limit=(1.5, 1.5), p=0.2),
                 A.Downscale(scale_range=(64 / 112, 0.99), interpolation_pair={
                     "downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}, p=0.2),
                 A.GaussNoise(std_range=(0.0, 0.05), p=1.0),
                 A.CoarseDropout(num_holes_range=(1, 1), hole_height_range=(hole, hole),
                                 hole_width_range=(hole, hole), fill=127, p=1.0)])


def validation_view(image: np.ndarray, size: int) -> np.ndarray:
    """A stored image uint8 [S, S, C] as the model sees it when it is measured, uint8 [size, size, 3]: the central crop
    of 0.85 (0.80 from 224 px on), resized."""
    share = 0.80 if size >= 224 else 0.85
    side = max(1, round(len(image) * share))
    start = (len(image) - side) // 2
    interpolation = cv2.INTER_AREA if len(image) * share > size else cv2.INTER_LINEAR
    crop = image[start:start + side, start:start + side]
    view = cv2.resize(crop, (size, size), interpolation=interpolation)
    return np.repeat(view[..., None], 3, axis=-1) if view.ndim == 2 else view


def _turn(degrees: int, turn: bool) -> list[A.BasicTransform]:
    return [A.Rotate(limit=(-degrees, degrees), border_mode=cv2.BORDER_REFLECT_101, p=1.0)] if turn else []


def _jitter(p: float, colour: bool) -> A.BasicTransform:
    still = {} if colour else {"saturation": (1.0, 1.0), "hue": (0.0, 0.0)}
    return A.ColorJitter(**(JITTER | still), p=p)
