"""Images without labels, for self-supervised pre-training."""

from __future__ import annotations

from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import IMAGE_ENDINGS, NO_SPLIT, Builder, Source, images_below, need_folder
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.errors import DataError


def read_images(path: Path, _: DataConfig) -> Source:
    """All images in a folder and below it."""
    need_folder(path)
    build = Builder(path, "every image in the folder and below")
    for file in images_below(path):
        build.add(build.shown(file), NO_SPLIT, file, {})
    if not build.samples:
        raise DataError(f"{path}: no images here or below ({', '.join(IMAGE_ENDINGS)})")
    return build.source({})


register_dataset("images", read_images)
