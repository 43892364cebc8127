"""FER+: FER2013's images with the votes of ten raters each (Barsoum et al. 2016)."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    EMOTIONS,
    KAGGLE_USAGE,
    SHARES,
    TEST,
    TRAIN,
    VALID,
    Builder,
    Labels,
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
VOTE_RULES = {
    "majority": "labels: single votes dropped, then more than half of the rest (data.votes: majority, FER+'s own rule)",
    "plurality": "labels: the most frequent vote, also of faces that raters disagree on (data.votes: plurality)",
    "soft": "labels: as by majority; training targets: shares of the votes without single ones (data.votes: soft)",
}
"""What `data check` says of each value of data.votes."""


def read_ferplus(path: Path, data: DataConfig) -> Source:
    """Microsoft's folders with a label.csv each, or Kaggle's FER2013 table and FER+'s fer2013new.csv in one folder.

    `data.votes` decides which faces are used, and their labels. The official rule (`majority`) is that of FER+'s own
    script (github.com/microsoft/FERPlus, src/ferplus.py, `_process_data`): 25,045 training faces, a plurality 26,940.
    """
    if path.is_file() and path.name in (*KAGGLE_IMAGES, KAGGLE_VOTES):
        path = path.parent
    need_folder(path)
    if any((path / folder).is_dir() for folder in FERPLUS_FOLDERS):
        return _ferplus_folders(path, data.votes)
    table = kaggle_table(path)
    if table and (path / KAGGLE_VOTES).is_file():
        return _ferplus_kaggle(table, path / KAGGLE_VOTES, data.votes)
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


def _ferplus_folders(root: Path, rule: str) -> Source:
    build = Builder(root, "Microsoft's folders with a label.csv each")
    build.notes.append(VOTE_RULES[rule])
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
            with build.row(shown):
                if len(row) != 12:
                    raise SampleError(f"{len(row)} columns instead of 12")
                labels = _labels(row[2:], rule)
                if row[0] not in there:
                    missing += 1
                    raise SampleError("file is missing")
                build.add(shown, split, folder / row[0], labels)
        if missing and missing == len(build.samples) + len(build.dropped) - listed:
            raise DataError(
                f"{folder}: none of the {missing} images in label.csv exists, e.g. "
                f"{build.dropped[-1][0]}; FER+'s own script makes them from fer2013.csv"
            )
    return build.source({"emotion": EMOTIONS})


def _ferplus_kaggle(table: Path, votes: Path, rule: str) -> Source:
    build = Builder(table.parent, f"Kaggle's {table.name} with {votes.name}")
    build.notes.append(VOTE_RULES[rule])
    build.files += [str(table), str(votes)]
    label_rows = list(table_of(votes, ("Usage", *FERPLUS_VOTES)))
    number = -1
    for number, row in enumerate(table_of(table, ("pixels", "Usage"))):
        if number >= len(label_rows):
            break
        shown = f"{table.name} row {number + 2}"
        with build.row(shown):
            split, image = kaggle_face(row)
            if KAGGLE_USAGE.get(label_rows[number]["usage"].strip().lower()) != split:
                raise DataError(
                    f"{votes}: row {number + 2} has Usage {label_rows[number]['usage']!r}, {table.name} "
                    f"has {row['usage']!r}; the two files do not belong together"
                )
            labels = _labels([label_rows[number][name.lower()] for name in FERPLUS_VOTES], rule)
            build.samples.append(Sample(shown, split, partial(in_memory, image, labels)))
    if number + 1 != len(label_rows):
        raise DataError(
            f"{table} and {votes} have different numbers of rows (the second {len(label_rows)}); "
            "they do not belong together"
        )
    return build.source({"emotion": EMOTIONS})


def _labels(votes: list[str], rule: str) -> Labels:
    """Emotion, and for the rule `soft` the shares of the eight emotions, from ten columns of votes.

    Raises `LeftOut` when the rule does not use the row, and `SampleError` when the votes are no counts.
    """
    try:
        counts = [int(vote) for vote in votes]
    except ValueError as error:
        raise SampleError("votes are not numbers") from error
    if min(counts) < 0:
        raise SampleError("negative votes")
    if max(counts) == 0:
        raise LeftOut("no votes")
    if rule == "plurality":
        return {"emotion": _winner(counts, max(counts), "tie")}
    left = [count if count > 1 else 0 for count in counts]  # a single vote counts as an outlier
    label = {"emotion": _winner(left, sum(left) // 2 + 1, "no majority")}
    if rule == "majority":
        return label
    of = {name: count for name, count in zip(FERPLUS_VOTES, left, strict=True) if name in EMOTIONS}
    return {**label, f"emotion{SHARES}": tuple(of[name] / sum(of.values()) for name in EMOTIONS)}


def _winner(counts: list[int], least: int, otherwise: str) -> int:
    """The emotion with `least` votes or more; raises `LeftOut` unless exactly one column has so many."""
    winners = [name for name, count in zip(FERPLUS_VOTES, counts, strict=True) if count >= least]
    if len(winners) != 1:
        raise LeftOut(otherwise)
    if winners[0] not in EMOTIONS:
        raise LeftOut({"NF": "not a face"}.get(winners[0], winners[0]))
    return EMOTIONS.index(winners[0])


register_dataset(
    "ferplus",
    read_ferplus,
    page="https://github.com/microsoft/FERPlus",
    licence="labels: MIT; images: the terms of Kaggle's FER2013",
    options=("votes",),
)
