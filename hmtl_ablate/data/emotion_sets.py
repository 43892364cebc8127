"""Readers of the emotion sets: FER+, FER2013, AffectNet, RAF-DB, CK+, KDEF and JAFFE, each as it is published."""

from __future__ import annotations

import math
import os
import re
import zipfile
from collections.abc import Sequence
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
    by_stem,
    files_in,
    folders_in,
    given,
    images_below,
    images_in,
    need_folder,
    numbers_in,
    read_file,
    rows_of,
    table_of,
    whole,
    wrong_layout,
)
from hmtl_ablate.errors import DataError

BASIC = tuple(emotion for emotion in EMOTIONS if emotion != "contempt")
"""The six basic emotions and neutral: all that most sets have."""
CODES = {
    "AF": "fear",
    "AN": "anger",
    "DI": "disgust",
    "FE": "fear",
    "HA": "happiness",
    "NE": "neutral",
    "SA": "sadness",
    "SU": "surprise",
}
"""Two letters in the file names of KDEF and JAFFE."""


def _numbered(text: str, names: Sequence[str], first: int, classes: Sequence[str]) -> int:
    """Class index of the emotion that a publisher numbers; `names` in his order, the first one numbered `first`."""
    number = whole(text)
    if number is None or not first <= number < first + len(names):
        raise SampleError(f"emotion {text!r} is not {first} to {first + len(names) - 1}")
    return classes.index(names[number - first])


# --- FER+ and FER2013 -------------------------------------------------------------------------------------------------

FERPLUS_VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
"""Order of FER+'s vote columns (github.com/microsoft/FERPlus)."""
FERPLUS_FOLDERS = {"FER2013Train": TRAIN, "FER2013Valid": VALID, "FER2013Test": TEST}
FER2013_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""Order of FER2013's own numbers, from 0."""
KAGGLE_IMAGES = ("fer2013.csv", "icml_face_data.csv")
KAGGLE_VOTES = "fer2013new.csv"


def read_ferplus(path: Path, _: DataConfig) -> Source:
    """FER+: Microsoft's folders with a label.csv each, or Kaggle's FER2013 table beside FER+'s fer2013new.csv.

    https://github.com/microsoft/FERPlus; the labels under MIT, the images under the terms of Kaggle's FER2013.
    """
    if path.is_file() and path.name in (*KAGGLE_IMAGES, KAGGLE_VOTES):
        path = path.parent
    need_folder(path)
    if any((path / folder).is_dir() for folder in FERPLUS_FOLDERS):
        return _ferplus_folders(path)
    table = _kaggle_table(path)
    if table and (path / KAGGLE_VOTES).is_file():
        return _ferplus_kaggle(table, path / KAGGLE_VOTES)
    if table:
        raise DataError(
            f"{table}: FER+'s votes are missing; put {KAGGLE_VOTES} beside it (from github.com/microsoft/FERPlus)"
        )
    if (path / KAGGLE_VOTES).is_file():
        raise DataError(f"{path / KAGGLE_VOTES}: the images are missing; put {' or '.join(KAGGLE_IMAGES)} beside it")
    raise wrong_layout(
        path,
        "FER+",
        f"FER2013Train/ and FER2013Valid/ with label.csv each, or {' or '.join(KAGGLE_IMAGES)} beside {KAGGLE_VOTES}",
        lambda p: (p / "FER2013Train").is_dir() or (p / KAGGLE_VOTES).is_file(),
    )


def _ferplus_folders(root: Path) -> Source:
    build = Builder(root)
    for name, split in FERPLUS_FOLDERS.items():
        folder = root / name
        if not folder.is_dir():
            if split != TEST:
                raise DataError(f"{root}: {name}/ is missing beside the other FER+ folders")
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
                    raise SampleError(f"{len(row)} columns in place of 12")
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
                f"{folder}: none of the {missing} images of label.csv is there, e.g. "
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
            split, image = _kaggle_face(row)
            if KAGGLE_USAGE.get(label_rows[number]["usage"].strip().lower()) != split:
                raise DataError(
                    f"{votes}: row {number + 2} has Usage {label_rows[number]['usage']!r}, {table.name} "
                    f"has {row['usage']!r}; the two files do not belong together"
                )
            emotion = _majority([label_rows[number][name.lower()] for name in FERPLUS_VOTES])
        except SampleError as fault:
            build.refuse(shown, fault)
        else:
            build.samples.append(Sample(shown, split, partial(given, image, {"emotion": emotion})))
    if number + 1 != len(label_rows):
        raise DataError(
            f"{table} and {votes} have different numbers of rows (the second {len(label_rows)}); "
            "they do not belong together"
        )
    return build.source({"emotion": EMOTIONS})


def _majority(votes: list[str]) -> int:
    """Emotion that most raters chose; raises `LeftOut` when FER+'s own rules do not use the row."""
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


def read_fer2013(path: Path, _: DataConfig) -> Source:
    """FER2013: Kaggle's table (fer2013.csv or icml_face_data.csv), or train/ and test/ with one folder an emotion.

    The table has official valid and test sets; the folders' test/ holds both of them.
    https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge (the folders:
    https://www.kaggle.com/datasets/msambare/fer2013); under the competition's rules.
    """
    table = path if path.is_file() and path.name in KAGGLE_IMAGES else None
    if table is None:
        need_folder(path)
        table = _kaggle_table(path)
    if table:
        return _fer2013_table(table)
    build = Builder(path)
    tops = [
        (folder, FOLDER_SPLITS[folder.name.lower()])
        for folder in folders_in(path)
        if folder.name.lower() in FOLDER_SPLITS
    ]
    if not {TRAIN, TEST} <= {split for _, split in tops}:
        raise wrong_layout(
            path,
            "FER2013",
            f"{' or '.join(KAGGLE_IMAGES)}, or train/ and test/ with one folder an emotion",
            lambda p: _kaggle_table(p) is not None or ((p / "train").is_dir() and (p / "test").is_dir()),
        )
    for top, split in tops:
        for folder, emotion in _emotion_folders(top, BASIC):
            for file in images_below(folder):
                build.add(build.shown(file), split, file, {"emotion": BASIC.index(emotion)})
    return build.source({"emotion": BASIC})


def _fer2013_table(table: Path) -> Source:
    build = Builder(table.parent)
    build.files.append(str(table))
    for number, row in enumerate(table_of(table, ("emotion", "pixels", "Usage"))):
        shown = f"{table.name} row {number + 2}"
        try:
            emotion = _numbered(row["emotion"], FER2013_EMOTIONS, 0, BASIC)
            split, image = _kaggle_face(row)
        except SampleError as fault:
            build.refuse(shown, fault)
        else:
            build.samples.append(Sample(shown, split, partial(given, image, {"emotion": emotion})))
    return build.source({"emotion": BASIC})


def _kaggle_table(path: Path) -> Path | None:
    return next((path / name for name in KAGGLE_IMAGES if (path / name).is_file()), None)


def _kaggle_face(row: dict[str, str]) -> tuple[int, NDArray[np.uint8]]:
    """Split and image of a row of FER2013's table."""
    split = KAGGLE_USAGE.get(row["usage"].strip().lower())
    if split is None:
        raise SampleError(f"Usage {row['usage']!r} is none of Training, PublicTest, PrivateTest")
    try:
        values = np.array(row["pixels"].split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise SampleError("pixels are not numbers") from error
    side = math.isqrt(len(values))
    if side < 8 or side * side != len(values):
        raise SampleError(f"{len(values)} pixels in place of 48 × 48")
    if values.min() < 0 or values.max() > 255:
        raise SampleError("pixels outside 0 to 255")
    return split, values.astype(np.uint8).reshape(side, side)


def _emotion_folders(top: Path, classes: Sequence[str]) -> list[tuple[Path, str]]:
    """Sub-folders of `top` and their emotions; raises `DataError` for one that names none of `classes`."""
    found = []
    for folder in folders_in(top):
        emotion = EMOTION_NAMES.get(folder.name.lower(), "")
        if emotion not in classes:
            raise DataError(f"{top}: {folder.name}/ is none of the emotions {', '.join(classes)}")
        found.append((folder, emotion))
    if not found:
        raise DataError(f"{top}: no emotion folders (such as {classes[1]}/) here")
    return found


# --- AffectNet --------------------------------------------------------------------------------------------------------

AFFECTNET_COLUMNS = (
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
AFFECTNET_LATER = {"train_set": TRAIN, "val_set": VALID}


def read_affectnet(path: Path, _: DataConfig) -> Source:
    """AffectNet: the official lists and image tree, or the later release (train_set/ and val_set/).

    No test set was published. http://mohammadmahoor.com/affectnet/; research only, for those who sign its agreement.
    """
    need_folder(path)
    if any((path / folder).is_dir() for folder in AFFECTNET_LATER):
        return _affectnet_later(path)
    for folder in (path, path / "Manually_Annotated_file_lists", path / "Manually_Annotated"):
        if (folder / "training.csv").is_file() or (folder / "validation.csv").is_file():
            return _affectnet_lists(path, folder)
    if (path / "Manually_Annotated_Images").is_dir():
        raise DataError(
            f"{path}: no labels file; training.csv and validation.csv belong beside Manually_Annotated_Images/"
        )
    raise wrong_layout(
        path,
        "AffectNet",
        "training.csv and validation.csv beside Manually_Annotated_Images/, or train_set/ and val_set/",
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
    build = Builder(root)
    for name, split in (("training.csv", TRAIN), ("validation.csv", VALID)):
        table = lists / name
        if not table.is_file():
            raise DataError(f"{lists}: {name} is missing")
        build.files.append(str(table))
        columns: dict[str, int] = {column.lower(): at for at, column in enumerate(AFFECTNET_COLUMNS)}
        before = len(build.samples)
        for number, row in enumerate(rows_of(table)):
            if number == 0 and any(cell.strip().lower() == "expression" for cell in row):
                columns = {cell.strip().lower(): at for at, cell in enumerate(row)}
                missing = [c for c in (*AFFECTNET_COLUMNS[:5], "expression") if c.lower() not in columns]
                if missing:
                    raise DataError(f"{table}: no column {', '.join(missing)}")
                continue
            _affectnet_row(build, f"{name} row {number + 1}", images, split, row, columns)
        new = build.samples[before:]
        if new and not any(os.path.exists(sample.files[0]) for sample in new[:200]):
            raise DataError(f"{images}: none of the first images of {name} is there, e.g. {new[0].name}")
    return build.source({"emotion": EMOTIONS})


def _affectnet_row(
    build: Builder, place: str, images: Path, split: int, row: list[str], columns: dict[str, int]
) -> None:
    def cell(name: str) -> str:
        return row[columns[name.lower()]].strip()

    try:
        shown, expression = cell("subDirectory_filePath"), cell("expression")
        box_cells = [cell(name) for name in AFFECTNET_COLUMNS[1:5]]
    except IndexError:
        build.drop(place, f"{len(row)} columns in place of {len(columns)}")
        return
    if shown.lower().endswith((".tif", ".bmp")):
        build.refuse(shown, LeftOut(".tif or .bmp file"))
    elif not expression.isdigit() or int(expression) > 10:
        build.drop(shown, f"expression {expression!r} is not 0 to 10")
    elif int(expression) >= len(EMOTIONS):
        build.refuse(shown, LeftOut("none, uncertain or no face"))
    else:
        try:
            x, y, width, height = (float(value) for value in box_cells)
        except ValueError:
            build.drop(shown, f"face box {', '.join(box_cells)} is not four numbers")
            return
        build.add(shown, split, images / shown, {"emotion": int(expression)}, (x, y, width, height))


def _affectnet_later(root: Path) -> Source:
    build = Builder(root)
    for name, split in AFFECTNET_LATER.items():
        images, annotations = root / name / "images", root / name / "annotations"
        for folder in (images, annotations):
            if not folder.is_dir():
                raise DataError(f"{root}: {name}/{folder.name}/ is missing")
        found = images_in(images)
        if not found:
            raise DataError(f"{images}: no images")
        for file in found:
            label = annotations / f"{file.stem}_exp.npy"
            build.samples.append(
                Sample(
                    build.shown(file), split, partial(_read_annotated, str(file), str(label)), (str(file), str(label))
                )
            )
        if not any(os.path.exists(sample.files[1]) for sample in build.samples[-len(found) :]):
            raise DataError(f"{annotations}: no labels file *_exp.npy belongs to the images")
    return build.source({"emotion": EMOTIONS})


def _read_annotated(image: str, label: str, size: int) -> tuple[NDArray[np.uint8], Labels]:
    name = os.path.basename(label)
    try:
        value = str(np.load(label, allow_pickle=False).reshape(-1)[0]).strip()
    except FileNotFoundError as error:
        raise SampleError(f"no annotation {name}") from error
    except (OSError, ValueError, EOFError, IndexError, zipfile.BadZipFile) as error:
        raise SampleError(f"annotation {name} can't be read") from error
    try:
        expression = float(value)
    except ValueError:
        expression = math.nan
    if expression not in range(len(EMOTIONS)):
        raise SampleError(f"expression {value!r} is not 0 to {len(EMOTIONS) - 1}")
    return read_file(image, {"emotion": int(expression)}, None, size)


# --- RAF-DB -----------------------------------------------------------------------------------------------------------

RAFDB_EMOTIONS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
"""Order of RAF-DB's own numbers, from 1."""
RAFDB_LIST = Path("EmoLabel", "list_patition_label.txt")  # "patition" is as published


def read_rafdb(path: Path, _: DataConfig) -> Source:
    """RAF-DB, basic emotions: EmoLabel/list_patition_label.txt and the faces of Image/aligned/, in basic/ or here.

    http://www.whdeng.cn/RAF/model1.html; non-commercial research, the password comes by e-mail.
    """
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
        raise DataError(f"{root}: no labels file {RAFDB_LIST} beside Image/")
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
                raise SampleError("its name starts with neither train_ nor test_")
            emotion = _numbered(label[0], RAFDB_EMOTIONS, 1, BASIC)
            if file is None:
                raise SampleError("file is missing")
        except SampleError as fault:
            build.refuse(name, fault)
        else:
            build.add(build.shown(file), split, file, {"emotion": emotion})
    return build.source({"emotion": BASIC})


# --- CK+ --------------------------------------------------------------------------------------------------------------

CKPLUS = tuple(emotion for emotion in EMOTIONS if emotion != "neutral")
CKPLUS_EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
"""Order of CK+'s own numbers, from 1; 0, neutral, is the label of no sequence."""
CKPLUS_IMAGES = ("cohn-kanade-images", "extended-cohn-kanade-images/cohn-kanade-images")
CKPLUS_LABELS = ("Emotion", "Emotion_labels/Emotion", "Emotion_labels")
CKPLUS_48 = re.compile(r"(S\d{3})_\d{3}_\d+\.", re.IGNORECASE)


def read_ckplus(path: Path, _: DataConfig) -> Source:
    """CK+: the last frame, which is the peak, of each sequence with a file in Emotion/; 327 at full size, 7 emotions.

    Or the 48-pixel release on Kaggle (CK+48): one folder an emotion, with the last three frames of each sequence.
    https://www.jeffcohn.net/Resources/ (CK+48: https://www.kaggle.com/datasets/shawon10/ckplus); non-commercial
    research, for those who sign its agreement.
    """
    need_folder(path)
    images = next((path / name for name in CKPLUS_IMAGES if (path / name).is_dir()), None)
    labels = next((path / name for name in CKPLUS_LABELS if (path / name).is_dir()), None)
    if images and labels:
        return _ckplus_sequences(path, images, labels)
    if images:
        raise DataError(
            f"{path}: no Emotion/ beside {images.name}/; the labels come in an archive of their own, Emotion_labels.zip"
        )
    if not _is_ckplus_48(path):
        raise wrong_layout(
            path,
            "CK+",
            "cohn-kanade-images/ and Emotion/, or one folder an emotion (CK+48)",
            lambda p: any((p / name).is_dir() for name in CKPLUS_IMAGES) or _is_ckplus_48(p),
        )
    build = Builder(path)
    for folder, emotion in _emotion_folders(path, CKPLUS):
        build.add_named(
            images_in(folder), CKPLUS_48, "S010_004_00000017.png", partial(_ckplus_48_labels, CKPLUS.index(emotion))
        )
    return build.source({"emotion": CKPLUS})


def _is_ckplus_48(path: Path) -> bool:
    return any(EMOTION_NAMES.get(folder.name.lower()) in CKPLUS and images_in(folder) for folder in folders_in(path))


def _ckplus_48_labels(emotion: int, name: re.Match[str]) -> tuple[Labels, str]:
    return {"emotion": emotion}, name[1].upper()


def _ckplus_sequences(root: Path, images: Path, labels: Path) -> Source:
    build = Builder(root)
    for subject in folders_in(images):
        for sequence in folders_in(subject):
            frames = sorted(images_in(sequence), key=lambda frame: frame.stem)
            told = [
                file for file in files_in(labels / subject.name / sequence.name) if file.name.endswith("_emotion.txt")
            ]
            try:
                if not told:
                    raise LeftOut("sequence without an emotion label")
                if not frames:
                    raise SampleError("no images of this sequence")
                number = numbers_in(told[0])
                emotion = _numbered(" ".join(f"{value:g}" for value in number), CKPLUS_EMOTIONS, 1, CKPLUS)
            except SampleError as fault:
                build.refuse(build.shown(sequence), fault)
            else:
                build.add(
                    build.shown(frames[-1]),
                    NO_SPLIT,
                    frames[-1],
                    {"emotion": emotion},
                    subject=subject.name,
                    label_file=told[0],
                )
    if not build.samples and not build.dropped:
        raise DataError(
            f"{labels}: no emotion file belongs to a sequence of {images}, e.g. "
            f"{labels.name}/S005/001/S005_001_00000011_emotion.txt"
        )
    return build.source({"emotion": CKPLUS})


# --- KDEF and JAFFE ---------------------------------------------------------------------------------------------------

KDEF_NAME = re.compile(r"[AB]([FM])(\d\d)(AF|AN|DI|HA|NE|SA|SU)(FL|HL|S|HR|FR)\.", re.IGNORECASE)
KDEF_PERSON = re.compile(r"[AB][FM]\d\d", re.IGNORECASE)
JAFFE_NAME = re.compile(r"([A-Z]{2})\.(AN|DI|FE|HA|NE|SA|SU)\d*\.", re.IGNORECASE)


def read_kdef(path: Path, _: DataConfig) -> Source:
    """KDEF: AF01AFS.JPG and so on, in one folder a person and session (AF01/), or all in one folder.

    The straight views only, 980 at full size. A person's two sessions are one subject, F01.
    https://kdef.se/; non-commercial research, never redistributed.
    """
    need_folder(path)
    files = _kdef_images(path)
    if KDEF_PERSON.fullmatch(path.absolute().name) or not files:  # one person's folder is not the set
        raise wrong_layout(
            path,
            "KDEF",
            "AF01/AF01AFS.JPG and so on, or all images in one folder",
            lambda p: not KDEF_PERSON.fullmatch(p.name) and bool(_kdef_images(p)),
        )
    build = Builder(path)
    build.add_named(files, KDEF_NAME, "AF01AFS.JPG", _kdef_labels)
    return build.source({"emotion": BASIC, "gender": GENDERS})


def _kdef_images(path: Path) -> list[Path]:
    """The images in the folders of persons, or in `path` itself when one of those has a name of KDEF."""
    persons = [folder for folder in folders_in(path) if KDEF_PERSON.fullmatch(folder.name)]
    files = [file for folder in persons for file in images_in(folder)] or images_in(path)
    return files if any(KDEF_NAME.match(file.name) for file in files) else []


def _kdef_labels(name: re.Match[str]) -> tuple[Labels, str]:
    sex, person, emotion, view = (part.upper() for part in name.groups())
    if view != "S":
        raise LeftOut("not a frontal view")
    return {"emotion": BASIC.index(CODES[emotion]), "gender": "MF".index(sex)}, sex + person


def read_jaffe(path: Path, _: DataConfig) -> Source:
    """JAFFE: KA.AN1.39.tiff and so on in one folder, 213 at full size; ten women, who are the subjects.

    https://zenodo.org/records/3451524; non-commercial research, access on request.
    """
    need_folder(path)
    files = images_in(path)
    if not any(JAFFE_NAME.match(file.name) for file in files):
        raise wrong_layout(
            path,
            "JAFFE",
            "KA.AN1.39.tiff and so on",
            lambda p: any(JAFFE_NAME.match(file.name) for file in images_in(p)),
        )
    build = Builder(path)
    build.add_named(
        files,
        JAFFE_NAME,
        "KA.AN1.39.tiff",
        lambda name: (
            {"emotion": BASIC.index(CODES[name[2].upper()]), "gender": GENDERS.index("female")},
            name[1].upper(),
        ),
    )
    return build.source({"emotion": BASIC, "gender": GENDERS})
