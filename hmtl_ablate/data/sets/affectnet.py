"""AffectNet (Mollahosseini et al. 2017): emotion, valence and arousal."""

from __future__ import annotations

import io
import math
import os
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    EMOTIONS,
    LABEL_BYTES,
    TRAIN,
    VALID,
    Builder,
    Labels,
    LeftOut,
    Sample,
    SampleError,
    Source,
    affect_label,
    images_in,
    native,
    need_folder,
    read_bytes,
    read_file,
    rows_of,
    wrong_layout,
)
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.errors import DataError

COLUMNS = (
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)
LATER_FOLDERS = {"train_set": TRAIN, "val_set": VALID}


def read_affectnet(path: Path, _: DataConfig) -> Source:
    """The official lists and image tree, or the later release (train_set/ and val_set/); no test set was published.

    Faces that annotators could not rate have an emotion but no valence and arousal.
    """
    need_folder(path)
    if any((path / folder).is_dir() for folder in LATER_FOLDERS):
        return _affectnet_later(path)
    for folder in (path, path / "Manually_Annotated_file_lists", path / "Manually_Annotated"):
        if (folder / "training.csv").is_file() or (folder / "validation.csv").is_file():
            return _affectnet_lists(path, folder)
    if (path / "Manually_Annotated_Images").is_dir():
        raise DataError(
            f"{path}: no labels file; put training.csv and validation.csv next to Manually_Annotated_Images/"
        )
    raise wrong_layout(
        path,
        "AffectNet",
        "training.csv and validation.csv next to Manually_Annotated_Images/, or train_set/ and val_set/",
        lambda p: (p / "training.csv").is_file() or (p / "train_set").is_dir(),
    )


def _affectnet_lists(root: Path, lists: Path) -> Source:
    images = next(
        (
            folder
            for folder in (
                root / "Manually_Annotated_Images",
                root / "Manually_Annotated" / "Manually_Annotated_Images",
            )
            if folder.is_dir()
        ),
        None,
    )
    if images is None:
        raise DataError(f"{root}: no Manually_Annotated_Images/ with AffectNet's images")
    build = Builder(root, "the lists training.csv and validation.csv, with face boxes", upright=False)
    for name, split in (("training.csv", TRAIN), ("validation.csv", VALID)):
        table = lists / name
        if not table.is_file():
            raise DataError(f"{lists}: {name} is missing")
        build.files.append(str(table))
        columns: dict[str, int] = {column.lower(): at for at, column in enumerate(COLUMNS)}
        before = len(build.samples)
        for number, row in enumerate(rows_of(table)):
            if number == 0 and any(cell.strip().lower() == "expression" for cell in row):
                columns = {cell.strip().lower(): at for at, cell in enumerate(row)}
                missing = [c for c in (*COLUMNS[:5], "expression") if c.lower() not in columns]
                if missing:
                    raise DataError(f"{table}: no column {', '.join(missing)}")
                continue
            place = f"{name} row {number + 1}"
            with build.row(place):
                _affectnet_row(build, place, images, split, row, columns)
        new = build.samples[before:]
        if new and not any(os.path.exists(sample.files[0]) for sample in new[:200]):
            raise DataError(f"{images}: none of the first images in {name} exists, e.g. {new[0].name}")
    return build.source({"emotion": EMOTIONS})


def _affectnet_row(
    build: Builder, place: str, images: Path, split: int, row: list[str], columns: dict[str, int]
) -> None:
    def cell(name: str) -> str:
        return row[columns[name.lower()]].strip()

    def optional(name: str) -> str:
        at = columns.get(name, len(row))
        return row[at] if at < len(row) else ""

    try:
        shown, expression = cell("subDirectory_filePath"), cell("expression")
        box_cells = [cell(name) for name in COLUMNS[1:5]]
    except IndexError:
        build.drop(place, f"{len(row)} columns instead of {len(columns)}")
        return
    shown = native(images, shown)
    if shown.lower().endswith((".tif", ".bmp")):
        build.refuse(shown, LeftOut(".tif or .bmp file"))
    elif not expression.isdecimal() or int(expression) > 10:
        build.drop(shown, f"expression {expression!r} is not 0 to 10")
    elif int(expression) >= len(EMOTIONS):
        build.refuse(shown, LeftOut("none, uncertain or no face"))
    else:
        try:
            x, y, width, height = (float(value) for value in box_cells)
        except ValueError:
            build.drop(shown, f"face box {', '.join(box_cells)} is not four numbers")
            return
        labels = _labels(int(expression), optional("valence"), optional("arousal"))
        build.add(shown, split, images / shown, labels, (x, y, width, height))


def _affectnet_later(root: Path) -> Source:
    build = Builder(root, "the later release, train_set/ and val_set/, without face boxes", upright=False)
    for name, split in LATER_FOLDERS.items():
        images, annotations = root / name / "images", root / name / "annotations"
        for folder in (images, annotations):
            if not folder.is_dir():
                raise DataError(f"{root}: {name}/{folder.name}/ is missing")
        found = images_in(images)
        if not found:
            raise DataError(f"{images}: no images")
        for file in found:
            files = (str(file), *(str(annotations / f"{file.stem}_{kind}.npy") for kind in ("exp", "val", "aro")))
            build.samples.append(Sample(build.shown(file), split, partial(_read_annotated, files), files))
        if not any(os.path.exists(sample.files[1]) for sample in build.samples[-len(found) :]):
            raise DataError(f"{annotations}: no labels file *_exp.npy belongs to one of the images")
    return build.source({"emotion": EMOTIONS})


def _read_annotated(files: tuple[str, ...], size: int) -> tuple[NDArray[np.uint8], Labels]:
    """A face of the later release; `files` are its image and the annotations of expression, valence and arousal."""
    image, expression_file, valence_file, arousal_file = files
    value = _annotation(expression_file)
    try:
        expression = float(value)
    except ValueError:
        expression = math.nan
    if expression not in range(len(EMOTIONS)):
        raise SampleError(f"expression {value!r} is not 0 to {len(EMOTIONS) - 1}")
    try:
        valence, arousal = _annotation(valence_file), _annotation(arousal_file)
    except SampleError:
        valence = arousal = ""
    return read_file(image, _labels(int(expression), valence, arousal), False, size)


def _annotation(file: str) -> str:
    name = os.path.basename(file)
    try:
        if not os.path.lexists(file):
            raise SampleError(f"no annotation {name}")
        values = np.load(io.BytesIO(read_bytes(file, LABEL_BYTES)), allow_pickle=False)
        return str(values.reshape(-1)[0]).strip()
    except SampleError:
        raise
    except Exception as error:  # of a damaged header NumPy raises almost anything: MemoryError, tokenize.TokenError …
        raise SampleError(f"annotation {name} can't be read") from error


def _labels(expression: int, valence: str, arousal: str) -> Labels:
    affect = affect_label(valence, arousal)
    return {"emotion": expression} if affect is None else {"emotion": expression, "affect": affect}


register_dataset(
    "affectnet", read_affectnet, page="http://mohammadmahoor.com/affectnet/", licence="research only, signed agreement"
)
