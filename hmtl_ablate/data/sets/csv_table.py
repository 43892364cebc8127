"""A CSV table of image paths and labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

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
    VALID,
    Builder,
    Labels,
    LeftOut,
    SampleError,
    Source,
    affect_label,
    class_order,
    files_in,
    head_pose,
    native,
    rows_of,
    suggest_level,
    whole,
)
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.errors import DataError, nearest

COLUMNS = {
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
    "valence": ("valence",),
    "arousal": ("arousal",),
    "split": ("split", "usage", "subset", "set", "fold", "partition"),
}
"""Meaning of a column → accepted names, in lower case."""
TOGETHER = {"pose": ("yaw", "pitch", "roll"), "affect": ("valence", "arousal")}
"""Task → the columns that make its label; a table has all of them or none."""
SPLIT_NAMES = {**FOLDER_SPLITS, **KAGGLE_USAGE, "dev": VALID, "eval": TEST}
GENDER_NAMES = {"male": 0, "m": 0, "man": 0, "female": 1, "f": 1, "woman": 1}
EMOTION_SHARE = 0.9
"""The labels are the eight emotions when at least this share of rows has one of their names (or numbers)."""


@dataclass(frozen=True)
class _Table:
    file: Path
    columns: dict[str, int]
    """Meaning → position."""

    def text(self, row: list[str], meaning: str) -> str:
        """The cell of a row; "" when the table has no such column."""
        return row[self.columns[meaning]].strip() if meaning in self.columns else ""

    def cells(self, row: list[str], task: str) -> list[str]:
        """The cells that make the label of a task of `TOGETHER`; [] when all are empty."""
        cells = [self.text(row, meaning) for meaning in TOGETHER[task]]
        return cells if any(cells) else []


def read_csv(path: Path, _: DataConfig) -> Source:
    """A table with a header: image paths (relative to it, or to images/ next to it) and label columns.

    A head pose beyond ±99° counts as missing, as does a valence or arousal outside ±1 (such as AffectNet's −2). A row
    without any label is faulty; one whose only label is such a pose is left out.
    """
    file = path if path.is_file() else _only_table(path)
    header, rows = _header_and_rows(file)
    table = _Table(file, _columns(file, header))
    complete = [row for row in rows if len(row) == len(header)]
    base = _image_base(file, [table.text(row, "path") for row in complete])
    classes, emotion_of = _csv_emotions([table.text(row, "emotion") for row in complete])
    build = Builder(base, _layout(table, header, base), upright="yaw" not in table.columns)
    build.files.append(str(file))
    for number, row in enumerate(rows):
        place = f"{file.name} row {number + 2}"
        if len(row) != len(header):
            build.drop(place, f"{len(row)} columns instead of {len(header)}")
            continue
        image, split = table.text(row, "path"), table.text(row, "split")
        with build.row(image or place):
            labels = _labels(table, row, emotion_of)
            if "split" in table.columns and split.lower() not in SPLIT_NAMES:
                raise SampleError(f"split {split!r} is not one of train, valid, test")
            if not image:
                raise SampleError("no path")
            official = SPLIT_NAMES[split.lower()] if "split" in table.columns else NO_SPLIT
            file_of = base / native(base, image)
            build.add(image, official, file_of, labels, subject=table.text(row, "subject"))
    known = {"emotion": classes, "gender": GENDERS}
    return build.source({task: names for task, names in known.items() if task in table.columns})


def _layout(table: _Table, header: list[str], base: Path) -> str:
    read = [f"{meaning} in {header[at]}" if header[at] != meaning else meaning for meaning, at in table.columns.items()]
    unread = [name for at, name in enumerate(header) if at not in table.columns.values()]
    where = "the table's folder" if base == table.file.parent else f"{base.name}/"
    return (
        f"{table.file.name} with {', '.join(read)}; images in {where}"
        + f"; columns not read: {', '.join(unread)}" * bool(unread)
    )


def _columns(file: Path, header: list[str]) -> dict[str, int]:
    """Meaning → position of its column; raises `DataError` when there is no path or no complete label."""
    columns: dict[str, int] = {}
    for meaning, aliases in COLUMNS.items():
        for alias in aliases:
            if alias in header and header.index(alias) not in columns.values():
                columns[meaning] = header.index(alias)
                break
    found = f"its columns are {', '.join(header)}"
    for meanings in TOGETHER.values():
        present = [meaning for meaning in meanings if meaning in columns]
        if "path" in columns and present and len(present) < len(meanings):
            raise DataError(f"{file}: {', '.join(meanings[:-1])} and {meanings[-1]} belong together; {found}")
    if "path" not in columns or not {"emotion", "gender", "yaw", "valence"} & set(columns):
        raise DataError(
            f"{file}: {found}; it needs a path column (path, image, file …) and a label: emotion (or label); gender; "
            "yaw, pitch and roll; or valence and arousal"
        )
    return columns


def _labels(table: _Table, row: list[str], emotion_of: Callable[[str], int]) -> Labels:
    """The labels of a row; raises `SampleError` when one is wrong or there is none."""
    labels: dict[str, int | tuple[float, ...]] = {}
    if emotion := table.text(row, "emotion"):
        labels["emotion"] = emotion_of(emotion)
    if gender := table.text(row, "gender"):
        labels["gender"] = _gender(gender)
    cells = table.cells(row, "affect")
    if cells and (affect := affect_label(*cells)) is not None:
        labels["affect"] = affect
    if angles := table.cells(row, "pose"):
        try:
            labels["pose"] = _angles(angles)
        except LeftOut:
            if not labels:  # else its other labels are still valid
                raise
    if not labels:
        raise SampleError(f"valence, arousal {', '.join(cells)} are not within ±1" if cells else "no label")
    return labels


def _only_table(path: Path) -> Path:
    tables = sorted(file for file in path.iterdir() if file.suffix.lower() in (".csv", ".tsv") and file.is_file())
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise DataError(f"{path}: which of {', '.join(file.name for file in tables)}? give the file itself")
    raise DataError(
        f"{path}: no labels file (.csv) here"
        + suggest_level(path, lambda p: any(file.suffix.lower() == ".csv" for file in files_in(p)))
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
    """The folder that image paths are relative to: the table's own, or images/ in it."""
    some = [path for path in paths[:500] if path]
    for base in (table.parent, table.parent / "images"):
        if any(os.path.exists(base / native(base, path)) for path in some):
            return base
    if some:
        raise DataError(
            f"{table}: none of its images exists, e.g. {some[0]}; looked in {table.parent} and "
            f"{table.parent / 'images'}"
        )
    raise DataError(f"{table}: no row has a path")


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
        raise SampleError(f"label {text!r} is not one of the emotions; {nearest(text.lower(), EMOTIONS)}")
    return index[text]


def _gender(text: str) -> int:
    value = GENDER_NAMES.get(text.lower(), whole(text))
    if value not in (0, 1):
        raise SampleError(f"gender {text!r} is not one of male, female, 0 (male), 1 (female)")
    return value


def _angles(cells: list[str]) -> tuple[float, float, float]:
    try:
        yaw, pitch, roll = (float(cell) for cell in cells)
    except ValueError as error:
        raise SampleError(f"yaw, pitch, roll {', '.join(cells)} are not numbers") from error
    if not all(abs(angle) <= 180 for angle in (yaw, pitch, roll)):
        raise SampleError(f"yaw, pitch, roll {', '.join(cells)} are not within ±180°")
    return head_pose(yaw, pitch, roll)


register_dataset("csv", read_csv)
