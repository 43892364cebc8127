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
    """EmoLabel/list_patition_label.txt and the faces in Image/aligned/, in the folder itself or in basic/.

    Or, as in the copy that many later papers train on (https://www.kaggle.com/datasets/shuvoalok/raf-db-dataset),
    train/ and test/ with one folder per class, named by RAF-DB's number of the emotion, 1 to 7.
    """
    need_folder(path)
    if numbered := _numbered_folders(path):
        return _rafdb_folders(path, numbered)
    root = path / "basic" if (path / "basic").is_dir() else path
    table, images = root / RAFDB_LIST, root / "Image" / "aligned"
    if not table.is_file() and not (root / "Image").is_dir():
        raise wrong_layout(
            path,
            "RAF-DB",
            f"{RAFDB_LIST} and Image/aligned/, or basic/ with them, or train/ and test/ with folders 1 to 7",
            lambda p: (p / RAFDB_LIST).is_file() or bool(_numbered_folders(p)),
        )
    if not table.is_file():
        raise DataError(f"{root}: no labels file {RAFDB_LIST} next to Image/")
    faces = by_stem(images_in(images))
    if not faces:
        raise DataError(f"{images}: no images; unpack Image/aligned.zip there")
    build = Builder(root, f"as published: {RAFDB_LIST} and Image/aligned/")
    build.files.append(str(table))
    for number, row in enumerate(rows_of(table)):
        name, *label = " ".join(row).split() or [""]
        split = {"train": TRAIN, "test": TEST}.get(name.split("_")[0])
        file = faces.get(f"{Path(name).stem}_aligned".lower())
        with build.row(name):
            if len(label) != 1:
                raise SampleError(f"row {number + 1} is not a name and a number")
            if split is None:
                raise SampleError("its name does not start with train_ or test_")
            emotion = numbered_emotion(label[0], RAFDB_EMOTIONS, 1, BASIC)
            if file is None:
                raise SampleError("file is missing")
            build.add(build.shown(file), split, file, {"emotion": emotion})
    return build.source({"emotion": BASIC})


def _rafdb_folders(root: Path, folders: list[tuple[Path, int]]) -> Source:
    build = Builder(root, "train/ and test/ with folders 1 to 7, RAF-DB's numbers of the emotions")
    for folder, split in folders:
        emotion = numbered_emotion(folder.name, RAFDB_EMOTIONS, 1, BASIC)
        for file in images_in(folder):
            build.add(build.shown(file), split, file, {"emotion": emotion})
    return build.source({"emotion": BASIC})


def _numbered_folders(path: Path) -> list[tuple[Path, int]]:
    """The folders 1 to 7 in train/ and test/, and their splits; [] unless both have all of them."""
    found = [
        (path / top / str(number), split)
        for top, split in (("train", TRAIN), ("test", TEST))
        for number in range(1, len(RAFDB_EMOTIONS) + 1)
    ]
    return found if all(folder.is_dir() for folder, _ in found) else []


register_dataset(
    "rafdb",
    read_rafdb,
    page="http://www.whdeng.cn/RAF/model1.html",
    licence="non-commercial research, password by e-mail",
)
