"""Readers of what is no published set: rendered faces, class folders, tables, and images without labels."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    EMOTION_NAMES,
    EMOTIONS,
    FOLDER_SPLITS,
    GENDERS,
    IMAGE_ENDINGS,
    KAGGLE_USAGE,
    NO_SPLIT,
    TEST,
    TRAIN,
    VALID,
    Builder,
    Labels,
    LeftOut,
    Sample,
    SampleError,
    Source,
    class_order,
    entries,
    files_in,
    folders_in,
    head_pose,
    images_below,
    images_in,
    need_folder,
    right_level,
    rows_of,
    whole,
)
from hmtl_ablate.errors import DataError, nearest

# --- rendered ---------------------------------------------------------------------------------------------------------

DEFAULT_RENDERED = 6_000


def read_rendered(_: Path, data: DataConfig) -> Source:
    from hmtl_ablate.data import rendered

    count = data.images or DEFAULT_RENDERED
    samples = [
        Sample(f"face {i}", {8: VALID, 9: TEST}.get(i % 10, TRAIN), partial(_draw, data.seed, i)) for i in range(count)
    ]
    renderer = zlib.crc32(Path(rendered.__file__).read_bytes())  # a changed renderer draws other faces
    return Source(samples, {"emotion": EMOTIONS, "gender": GENDERS}, identity=(count, data.seed, renderer), drawn=True)


def _draw(seed: int, number: int, size: int) -> tuple[NDArray[np.uint8], Labels]:
    from hmtl_ablate.data.rendered import render_faces

    images, labels = render_faces(1, size, seed, number)
    return images[0], {
        "emotion": int(labels["emotion"][0]),
        "gender": int(labels["gender"][0]),
        "pose": tuple(float(angle) for angle in labels["pose"][0]),
    }


# --- folder -----------------------------------------------------------------------------------------------------------


def read_folder(path: Path, _: DataConfig) -> Source:
    """One sub-folder a class; optionally train/, valid/ (or val/) and test/ above them."""
    need_folder(path)
    folders = folders_in(path)
    tops: list[tuple[Path, int]] = [(path, NO_SPLIT)]
    named = [(folder, FOLDER_SPLITS[folder.name.lower()]) for folder in folders if folder.name.lower() in FOLDER_SPLITS]
    if named and len(named) == len(folders):
        tops = named
        if len({split for _, split in named}) < len(named):
            raise DataError(f"{path}: two folders for one split: {', '.join(folder.name for folder, _ in named)}")
        if not any(split == TRAIN for _, split in named):
            raise DataError(
                f"{path}: has {', '.join(folder.name for folder, _ in named)} but no train folder"
                + right_level(path, _holds_classes)
            )
    elif named:
        odd = [folder.name for folder in folders if folder.name.lower() not in FOLDER_SPLITS]
        raise DataError(
            f"{path}: {named[0][0].name}/ is a split but {odd[0]}/ is not; keep one sub-folder a class, or "
            "one a split with the classes below"
        )
    found: list[tuple[Path, int, str]] = []
    for top, split in tops:
        for folder in folders_in(top):
            found += [(file, split, folder.name) for file in images_below(folder)]
    names = sorted({name for _, _, name in found})
    if len(names) < 2 or (len(tops) == 1 and not _holds_classes(path)):
        what = (
            "images but no class folders"
            if images_in(path)
            else (f"one class folder only, {names[0]}" if names else "no class folders with images")
        )
        raise DataError(
            f"{path}: holds {what}; a folder dataset has one sub-folder a class" + right_level(path, _holds_classes)
        )
    classes, index = class_order(names)
    build = Builder(path)
    for file, split, name in found:
        build.add(build.shown(file), split, file, {"emotion": index[name]})
    return build.source({"emotion": classes})


def _holds_classes(path: Path) -> bool:
    """Whether at least two sub-folders of `path` (or of its train folder) hold images themselves or below."""
    folders = folders_in(path)
    if any(folder.name.lower() in FOLDER_SPLITS for folder in folders):
        folders = [
            inner
            for folder in folders
            if FOLDER_SPLITS.get(folder.name.lower()) == TRAIN
            for inner in folders_in(folder)
        ]
    with_images = 0
    for folder in folders[:50]:
        with_images += any(entry.name.lower().endswith(IMAGE_ENDINGS) for entry in entries(folder))
        if with_images >= 2:
            return True
    return False


# --- csv --------------------------------------------------------------------------------------------------------------

CSV_COLUMNS = {
    "path": (
        "path",
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "image",
        "img",
        "image_path",
        "image_name",
        "name",
        "subdirectory_filepath",
    ),
    "emotion": ("emotion", "expression", "label", "class", "category", "target"),
    "gender": ("gender", "sex"),
    "subject": ("subject", "identity", "person"),
    "yaw": ("yaw",),
    "pitch": ("pitch",),
    "roll": ("roll",),
    "split": ("split", "usage", "subset", "set", "fold", "partition"),
}
CSV_SPLITS = {**FOLDER_SPLITS, **KAGGLE_USAGE, "dev": VALID, "eval": TEST}
GENDER_NAMES = {"male": 0, "m": 0, "man": 0, "female": 1, "f": 1, "woman": 1}
EMOTION_SHARE = 0.9
"""csv: the labels are the eight emotions when at least this share of rows has one of their names."""


def read_csv(path: Path, _: DataConfig) -> Source:
    """A table with a header: image paths (relative to it, or to images/ beside it) and label columns.

    A head pose beyond ±99° is no label; a row with nothing else is left out.
    """
    table = path if path.is_file() else _only_table(path)
    header, rows = _header_and_rows(table)
    columns: dict[str, int] = {}
    for meaning, aliases in CSV_COLUMNS.items():
        for alias in aliases:
            if alias in header and header.index(alias) not in columns.values():
                columns[meaning] = header.index(alias)
                break
    pose = [columns[angle] for angle in ("yaw", "pitch", "roll") if angle in columns]
    wanted = "it needs a path column (path, image, file …) and emotion (or label), gender, or yaw, pitch and roll"
    if "path" not in columns or not ("emotion" in columns or "gender" in columns or pose):
        raise DataError(f"{table}: its columns are {', '.join(header)}; {wanted}")
    if pose and len(pose) < 3:
        raise DataError(f"{table}: yaw, pitch and roll belong together; its columns are {', '.join(header)}")

    def text(row: list[str], meaning: str) -> str:
        return row[columns[meaning]].strip() if meaning in columns else ""

    complete = [row for row in rows if len(row) == len(header)]
    base = _image_base(table, [text(row, "path") for row in complete])
    classes, emotion_of = _csv_emotions([text(row, "emotion") for row in complete])
    build = Builder(base)
    build.files.append(str(table))
    for number, row in enumerate(rows):
        if len(row) != len(header):
            build.drop(f"{table.name} row {number + 2}", f"{len(row)} columns in place of {len(header)}")
            continue
        shown = text(row, "path") or f"{table.name} row {number + 2}"
        split = CSV_SPLITS.get(text(row, "split").lower()) if "split" in columns else NO_SPLIT
        try:
            labels: dict[str, int | tuple[float, ...]] = {}
            if text(row, "emotion"):
                labels["emotion"] = emotion_of(text(row, "emotion"))
            if text(row, "gender"):
                labels["gender"] = _gender(text(row, "gender"))
            if pose and any(row[at].strip() for at in pose):
                try:
                    labels["pose"] = _angles([row[at] for at in pose])
                except LeftOut:  # its other labels are as good as ever
                    if not labels:
                        raise
            if not labels:
                raise SampleError("no label")
            if split is None:
                raise SampleError(f"split {text(row, 'split')!r} is none of train, valid, test")
            if not text(row, "path"):
                raise SampleError("no path")
        except SampleError as fault:
            build.refuse(shown, fault)
            continue
        build.add(shown, split, base / text(row, "path"), labels, subject=text(row, "subject"))
    known: dict[str, tuple[str, ...]] = {}
    if "emotion" in columns:
        known["emotion"] = classes
    if "gender" in columns:
        known["gender"] = GENDERS
    return build.source(known)


def _only_table(path: Path) -> Path:
    tables = sorted(file for file in path.iterdir() if file.suffix.lower() in (".csv", ".tsv") and file.is_file())
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise DataError(f"{path}: which of {', '.join(file.name for file in tables)}? Give the file itself")
    raise DataError(
        f"{path}: no labels file (.csv) here"
        + right_level(path, lambda p: any(file.suffix.lower() == ".csv" for file in files_in(p)))
    )


def _header_and_rows(table: Path) -> tuple[list[str], list[list[str]]]:
    if table.suffix.lower() in IMAGE_ENDINGS:
        raise DataError(f"{table}: this is an image; give the .csv file or its folder")
    rows = rows_of(table)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{table}: this file is empty")
    header = [cell.strip().lower() for cell in first]
    return header, [row for row in rows if row]


def _image_base(table: Path, paths: list[str]) -> Path:
    """The folder that image paths are relative to: the table's own, or images/ beside it."""
    some = [path for path in paths[:500] if path]
    for base in (table.parent, table.parent / "images"):
        if any((base / path).exists() for path in some):
            return base
    if some:
        raise DataError(
            f"{table}: none of its images is there, e.g. {some[0]}; looked in {table.parent} and "
            f"{table.parent / 'images'}"
        )
    raise DataError(f"{table}: has no rows with a path")


def _csv_emotions(values: list[str]) -> tuple[tuple[str, ...], Callable[[str], int]]:
    """Class names of a label column, and the function from a cell to its index (raises `SampleError`)."""
    counts = Counter(value for value in values if value)
    total = sum(counts.values())
    if total and sum(n for value, n in counts.items() if whole(value) is not None) >= EMOTION_SHARE * total:
        return EMOTIONS, _numbered_emotion
    named = [value for value in counts if value.lower() in EMOTION_NAMES]
    most = sum(counts[value] for value in named) >= EMOTION_SHARE * total
    classes, index = class_order(named if most else counts)
    return classes, partial(_named_class, index)


def _numbered_emotion(text: str) -> int:
    number = whole(text)
    if number is None or not 0 <= number < len(EMOTIONS):
        raise SampleError(f"label {text!r} is not 0 to {len(EMOTIONS) - 1}")
    return number


def _named_class(index: Mapping[str, int], text: str) -> int:
    if text not in index:
        raise SampleError(f"label {text!r} is none of the emotions; {nearest(text.lower(), EMOTIONS)}")
    return index[text]


def _gender(text: str) -> int:
    value = GENDER_NAMES.get(text.lower(), whole(text))
    if value not in (0, 1):
        raise SampleError(f"gender {text!r} is none of male, female, 0 (male), 1 (female)")
    return value


def _angles(cells: list[str]) -> tuple[float, float, float]:
    try:
        yaw, pitch, roll = (float(cell) for cell in cells)
    except ValueError as error:
        raise SampleError(f"yaw, pitch, roll {', '.join(cells)} are not numbers") from error
    if not all(abs(angle) <= 180 for angle in (yaw, pitch, roll)):
        raise SampleError(f"yaw, pitch, roll {', '.join(cells)} are not within ±180°")
    return head_pose(yaw, pitch, roll)


# --- images -----------------------------------------------------------------------------------------------------------


def read_images(path: Path, _: DataConfig) -> Source:
    """All images in a folder and below it, without labels: for self-supervised pre-training."""
    need_folder(path)
    build = Builder(path)
    for file in images_below(path):
        build.add(build.shown(file), NO_SPLIT, file, {})
    if not build.samples:
        raise DataError(f"{path}: no images here or below ({', '.join(IMAGE_ENDINGS)})")
    return build.source({})
