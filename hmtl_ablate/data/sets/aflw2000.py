"""AFLW2000-3D (Zhu et al. 2016): head pose, a benchmark."""

from __future__ import annotations

import re
from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import NO_SPLIT, Source, files_in, need_folder, wrong_layout
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.data.sets._shared import read_with_mats


def read_aflw2000(path: Path, _: DataConfig) -> Source:
    """image00002.jpg next to image00002.mat and so on, in one folder; 1,969 of 2,000 are within ±99°.

    Images are cropped to the face (`MARGIN` in _shared.py). The benchmarks test on all of it; here it has no official
    split, so that trials can be trained on it too.
    """
    need_folder(path)

    def fits(folder: Path) -> bool:
        return any(re.match(r"image\d{5}\.", file.name) for file in files_in(folder))

    if not fits(path):
        raise wrong_layout(path, "AFLW2000-3D", "image00002.jpg next to image00002.mat and so on", fits)
    return read_with_mats(path, [path], NO_SPLIT)


register_dataset(
    "aflw2000",
    read_aflw2000,
    page="http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm",
    licence="research only",
)
