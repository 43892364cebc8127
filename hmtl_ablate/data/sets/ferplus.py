"""FER+: FER2013's images with the votes of ten raters each (Barsoum et al. 2016)."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    EMOTIONS,
    KAGGLE_USAGE,
    TEST,
    TRAIN,
    VALID,
    Builder,
    LeftOut,
    Sample,
    SampleError,
    Source,
    in_memory,
    need_folder,
    rows_of,
    table_of,
    wrong_layout,
)
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.data.sets._shared import KAGGLE_IMAGES, kaggle_face, kaggle_table
from hmtl_ablate.errors import DataError

FERPLUS_VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
"""FER+'s vote columns in their order."""
FERPLUS_FOLDERS = {"FER2013Train": TRAIN, "FER2013Valid": VALID, "FER2013Test": TEST}
KAGGLE_VOTES = "fer2013new.csv"


def read_ferplus(path: Path, _: DataConfig) -> Source:
    """Microsoft's folders with a label.csv each, or Kaggle's FER2013 table and FER+'s fer2013new.csv in one folder."""
    if path.is_file() and path.name in (*KAGGLE_IMAGES, KAGGLE_VOTES):
        path = path.parent
    need_folder(path)
    if any((path / folder).is_dir() for folder in FERPLUS_FOLDERS):
        return _ferplus_folders(path)
    table = kaggle_table(path)
    if table and (path / KAGGLE_VOTES).is_file():
        return _ferplus_kaggle(table, path / KAGGLE_VOTES)
    if table:
        raise DataError(
            f"{table}: FER+'s votes are missing; put {KAGGLE_VOTES} next to it (from github.com/microsoft/FERPlus)"
        )
    if (path / KAGGLE_VOTES).is_file():
        raise DataError(f"{path / KAGGLE_VOTES}: the images are missing; put {' or '.join(KAGGLE_IMAGES)} next to it")
    raise wrong_layout(
        path,
        "FER+",
        f"FER2013Train/ and FER2013Valid/ with label.csv each, or {' or '.join(KAGGLE_IMAGES)} next to {KAGGLE_VOTES}",
        lambda p: (p / "FER2013Train").is_dir() or (p / KAGGLE_VOTES).is_file(),
    )


def _ferplus_folders(root: Path) -> Source:
    build = Builder(root)
    for name, split in FERPLUS_FOLDERS.items():
        folder = root / name
        if not folder.is_dir():
            if split != TEST:
                raise DataError(f"{root}: {name}/ is missing")
            continue
        table = folder / "label.csv"
        if not table.is_file():
            raise DataError(f"{folder}: no label.csv; it comes with FER+ (github.com/microsoft/FERPlus, data/{name}/)")
        build.files.append(str(table))
        listed = len(build.samples) + len(build.dropped)
        there = set(os.listdir(folder))
        missing = 0
        for number, row in enumerate(rows_of(table)):
            if number == 0 and len(row) == 12 and not row[2].strip().lstrip("-").isdigit():
                continue
            shown = f"{name}/{row[0]}"
            try:
                if len(row) != 12:
                    raise SampleError(f"{len(row)} columns instead of 12")
                emotion = _majority(row[2:])
            except SampleError as fault:
                build.refuse(shown, fault)
                continue
            if row[0] in there:
                build.add(shown, split, folder / row[0], {"emotion": emotion})
            else:
                missing += 1
                build.drop(shown, "file is missing")
        if missing and missing == len(build.samples) + len(build.dropped) - listed:
            raise DataError(
                f"{folder}: none of the {missing} images in label.csv exists, e.g. "
                f"{build.dropped[-1][0]}; FER+'s own script makes them from fer2013.csv"
            )
    return build.source({"emotion": EMOTIONS})


def _ferplus_kaggle(table: Path, votes: Path) -> Source:
    build = Builder(table.parent)
    build.files += [str(table), str(votes)]
    label_rows = list(table_of(votes, ("Usage", *FERPLUS_VOTES)))
    number = -1
    for number, row in enumerate(table_of(table, ("pixels", "Usage"))):
        if number >= len(label_rows):
            break
        shown = f"{table.name} row {number + 2}"
        try:
            split, image = kaggle_face(row)
            if KAGGLE_USAGE.get(label_rows[number]["usage"].strip().lower()) != split:
                raise DataError(
                    f"{votes}: row {number + 2} has Usage {label_rows[number]['usage']!r}, {table.name} "
                    f"has {row['usage']!r}; the two files do not belong together"
                )
            emotion = _majority([label_rows[number][name.lower()] for name in FERPLUS_VOTES])
        except SampleError as fault:
            build.refuse(shown, fault)
        else:
            build.samples.append(Sample(shown, split, partial(in_memory, image, {"emotion": emotion})))
    if number + 1 != len(label_rows):
        raise DataError(
            f"{table} and {votes} have different numbers of rows (the second {len(label_rows)}); "
            "they do not belong together"
        )
    return build.source({"emotion": EMOTIONS})


def _majority(votes: list[str]) -> int:
    """The emotion that most raters chose; raises `LeftOut` when FER+'s own rules do not use the row."""
    try:
        counts = [int(vote) for vote in votes]
    except ValueError as error:
        raise SampleError("votes are not numbers") from error
    if min(counts) < 0:
        raise SampleError("negative votes")
    if max(counts) == 0:
        raise LeftOut("no votes")
    winners = [name for name, count in zip(FERPLUS_VOTES, counts, strict=True) if count == max(counts)]
    if len(winners) > 1:
        raise LeftOut("tie")
    if winners[0] not in EMOTIONS:
        raise LeftOut(winners[0])
    return EMOTIONS.index(winners[0])


register_dataset(
    "ferplus",
    read_ferplus,
    page="https://github.com/microsoft/FERPlus",
    licence="labels: MIT; images: the terms of Kaggle's FER2013",
)
