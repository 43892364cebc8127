"""Rendered faces: drawn by renderer.py, so this dataset needs no download."""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data import renderer
from hmtl_ablate.data.reading import EMOTIONS, GENDERS, TEST, TRAIN, VALID, Labels, Sample, Source
from hmtl_ablate.data.registry import register_dataset

DEFAULT_COUNT = 6_000
"""Images when `data.images` is not set."""


def read_rendered(_: Path, data: DataConfig) -> Source:
    """`data.images` faces of seed `data.seed`: of every ten, eight train, one is for validation and one for testing."""
    count = data.images or DEFAULT_COUNT
    samples = [
        Sample(f"face {i}", {8: VALID, 9: TEST}.get(i % 10, TRAIN), partial(_draw, data.seed, i)) for i in range(count)
    ]
    code = zlib.crc32(Path(renderer.__file__).read_bytes())  # a changed renderer draws other faces
    return Source(samples, {"emotion": EMOTIONS, "gender": GENDERS}, identity=(count, data.seed, code), drawn=True)


def _draw(seed: int, number: int, size: int) -> tuple[NDArray[np.uint8], Labels]:
    images, labels = renderer.render_faces(1, size, seed, number)
    return images[0], {
        "emotion": int(labels["emotion"][0]),
        "gender": int(labels["gender"][0]),
        "pose": tuple(float(angle) for angle in labels["pose"][0]),
        "affect": tuple(float(value) for value in labels["affect"][0]),
    }


register_dataset("rendered", read_rendered, needs_path=False)
