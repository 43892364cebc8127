"""UTKFace (Zhang et al. 2017): gender."""

from __future__ import annotations

import re
from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import GENDERS, Builder, Labels, Source, folders_in, images_in, need_folder, wrong_layout
from hmtl_ablate.data.registry import register_dataset

UTKFACE_NAME = re.compile(r"\d{1,3}_([01])_[0-4]_\d")
UTKFACE_FOLDERS = (("UTKFace",), ("part1", "part2", "part3"))


def read_utkface(path: Path, _: DataConfig) -> Source:
    """age_gender_race_date.jpg.chip.jpg and so on, in the folder itself, in UTKFace/, or in part1/, part2/ and part3/.

    The few images whose names lack a part are faulty. Age and race are not read.
    """
    need_folder(path)
    files = _utkface_images(path)
    if not files:
        raise wrong_layout(
            path,
            "UTKFace",
            "25_1_0_20170116174525125.jpg.chip.jpg and so on, or UTKFace/ with them",
            lambda p: bool(_utkface_images(p)),
        )
    build = Builder(path, "images named as age_gender_race_date.jpg")
    build.add_named(files, UTKFACE_NAME, "age_gender_race_date.jpg", _utkface_labels)
    return build.source({"gender": GENDERS})


def _utkface_images(path: Path) -> list[Path]:
    """The images in `path`, or else in its known sub-folders; none unless one is named as in UTKFace."""
    files = images_in(path)
    for names in UTKFACE_FOLDERS:
        files = files or [file for folder in folders_in(path) if folder.name in names for file in images_in(folder)]
    return files if any(UTKFACE_NAME.match(file.name) for file in files) else []


def _utkface_labels(name: re.Match[str]) -> tuple[Labels, str]:
    return {"gender": int(name[1])}, ""


register_dataset("utkface", read_utkface, page="https://susanqq.github.io/UTKFace/", licence="non-commercial research")
