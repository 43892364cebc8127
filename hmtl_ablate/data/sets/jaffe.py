"""JAFFE, the Japanese Female Facial Expressions (Lyons et al. 1998)."""

from __future__ import annotations

import re
from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import GENDERS, Builder, Source, images_in, need_folder, wrong_layout
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.data.sets._shared import BASIC, TWO_LETTERS

JAFFE_NAME = re.compile(r"([A-Z]{2})\.(AN|DI|FE|HA|NE|SA|SU)\d*\.", re.IGNORECASE)


def read_jaffe(path: Path, _: DataConfig) -> Source:
    """KA.AN1.39.tiff and so on in one folder: 213 images of ten women, who are the subjects."""
    need_folder(path)
    files = images_in(path)
    if not any(JAFFE_NAME.match(file.name) for file in files):
        raise wrong_layout(
            path,
            "JAFFE",
            "KA.AN1.39.tiff and so on",
            lambda p: any(JAFFE_NAME.match(file.name) for file in images_in(p)),
        )
    build = Builder(path, "images named as KA.AN1.39.tiff")
    build.add_named(
        files,
        JAFFE_NAME,
        "KA.AN1.39.tiff",
        lambda name: (
            {"emotion": BASIC.index(TWO_LETTERS[name[2].upper()]), "gender": GENDERS.index("female")},
            name[1].upper(),
        ),
    )
    return build.source({"emotion": BASIC, "gender": GENDERS})


register_dataset(
    "jaffe", read_jaffe, page="https://zenodo.org/records/3451524", licence="non-commercial research, access on request"
)
