"""RAF-DB, basic emotions (Li et al. 2017)."""

from __future__ import annotations

from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    TEST,
    TRAIN,
    Builder,
    SampleError,
    Source,
    by_stem,
    images_in,
    need_folder,
    rows_of,
    wrong_layout,
)
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.data.sets._shared import BASIC, numbered_emotion
from hmtl_ablate.errors import DataError

RAFDB_EMOTIONS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
"""RAF-DB's own numbers, from 1."""
RAFDB_LIST = Path("EmoLabel", "list_patition_label.txt")  # "patition" is as published


def read_rafdb(path: Path, _: DataConfig) -> Source:
    """EmoLabel/list_patition_label.txt and the faces in Image/aligned/, in the folder itself or in basic/."""
    need_folder(path)
    root = path / "basic" if (path / "basic").is_dir() else path
    table, images = root / RAFDB_LIST, root / "Image" / "aligned"
    if not table.is_file() and not (root / "Image").is_dir():
        raise wrong_layout(
            path,
            "RAF-DB",
            f"{RAFDB_LIST} and Image/aligned/, or basic/ with them",
            lambda p: (p / RAFDB_LIST).is_file(),
        )
    if not table.is_file():
        raise DataError(f"{root}: no labels file {RAFDB_LIST} next to Image/")
    faces = by_stem(images_in(images))
    if not faces:
        raise DataError(f"{images}: no images; unpack Image/aligned.zip there")
    build = Builder(root)
    build.files.append(str(table))
    for number, row in enumerate(rows_of(table)):
        name, *label = " ".join(row).split() or [""]
        split = {"train": TRAIN, "test": TEST}.get(name.split("_")[0])
        file = faces.get(f"{Path(name).stem}_aligned".lower())
        try:
            if len(label) != 1:
                raise SampleError(f"row {number + 1} is not a name and a number")
            if split is None:
                raise SampleError("its name does not start with train_ or test_")
            emotion = numbered_emotion(label[0], RAFDB_EMOTIONS, 1, BASIC)
            if file is None:
                raise SampleError("file is missing")
        except SampleError as fault:
            build.refuse(name, fault)
        else:
            build.add(build.shown(file), split, file, {"emotion": emotion})
    return build.source({"emotion": BASIC})


register_dataset(
    "rafdb",
    read_rafdb,
    page="http://www.whdeng.cn/RAF/model1.html",
    licence="non-commercial research, password by e-mail",
)
