"""Dataset formats: each reads one layout on disk into a `Source`, a list of samples that are not decoded yet.

`register` adds a format; a module named by `--import` does it for a lab's own faces. What can't be used
is of three kinds. A row that its publisher marks as not for use (a FER+ tie, an AffectNet row without an emotion) is
left out and counted. A faulty row (wrong label, missing file) is listed by name in `Source.dropped`, or raises
`SampleError` when it is read. A path of another layout raises `DataError`.
"""

from __future__ import annotations

import csv
import math
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.config import DataConfig
from hmtl_ablate.errors import DataError, nearest

EMOTIONS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
"""Class order of PAPER.md (AffectNet's own)."""
FERPLUS_VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
"""Order of FER+'s vote columns (github.com/microsoft/FERPlus)."""
GENDERS = ("male", "female")
NO_SPLIT, TRAIN, VALID, TEST = -1, 0, 1, 2
SPLITS = ("train", "valid", "test")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")

Labels = Mapping[str, int | tuple[float, ...]]
"""Task → class index (emotion, gender) or numbers (pose: yaw, pitch, roll in degrees); a missing label has no key."""
Box = tuple[float, float, float, float]


class SampleError(Exception):
    """A sample that can't be used; its message is the reason, told in the manifest."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its labels, not decoded yet.

    name: how the user is told of it; split: TRAIN, VALID, TEST or NO_SPLIT; read: stored size in pixels → image (uint8
    [H, W], or [H, W, 3] in RGB; any size) and labels, or raises `SampleError`; files: the files read, which identify
    the dataset by name, size and time.
    """

    name: str
    split: int
    read: Callable[[int], tuple[NDArray[np.uint8], Labels]]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What a reader found.

    classes: task → class names; left_out: rows that are not meant for use, counted by reason; dropped: (name, reason)
    of faulty rows; files: label files; identity: what else a pack depends on.
    """

    samples: list[Sample]
    classes: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[tuple[str, str], ...] = ()
    files: tuple[str, ...] = ()
    identity: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Format:
    """A dataset format: its reader, and whether it reads from a path."""

    name: str
    read: Callable[[Path, DataConfig], Source]
    needs_path: bool = True


FORMATS: dict[str, Format] = {}


def register(name: str, read: Callable[[Path, DataConfig], Source], *, needs_path: bool = True) -> None:
    """Add a dataset format (or replace one); without `needs_path` the reader gets an empty path."""
    FORMATS[name] = Format(name, read, needs_path)


def read_source(data: DataConfig, path: Path | None) -> Source:
    """Read dataset `data.name` at `path`; raises `DataError` saying what is wrong with the name or the path."""
    if data.name not in FORMATS:
        raise DataError(f"there is no dataset {data.name!r}; {nearest(data.name, FORMATS)} (--import adds your own)")
    known = FORMATS[data.name]
    if not known.needs_path:
        if path is not None:
            raise DataError(f"dataset {data.name!r} takes no path, but was given {path}; write --data {data.name}")
        return known.read(Path(), data)
    if path is None:
        raise DataError(f"dataset {data.name!r} needs its path: --data {data.name}=PATH")
    try:
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder{_existing_part(path)}")
        if path.is_dir() and not any(path.iterdir()):
            raise DataError(f"{path}: this folder is empty")
        if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
            raise DataError(f"{path}: this is an archive; unpack it and give the folder")
        source = known.read(path, data)
    except PermissionError as error:
        raise DataError(f"{error.filename or path}: no permission to read this") from error
    except OSError as error:
        raise DataError(f"{error.filename or path}: {error.strerror or error}") from error
    if not source.samples:
        first = f", e.g. {source.dropped[0][0]}: {source.dropped[0][1]}" if source.dropped else ""
        raise DataError(f"{path}: no usable image as dataset {data.name!r} ({len(source.dropped)} dropped"
                        f"{first}; {sum(source.left_out.values())} left out)")
    return source


# --- reading images ---------------------------------------------------------------------------------------------------

def decode(raw: bytes) -> NDArray[np.uint8]:
    """Decode an image file's bytes to RGB uint8 [H, W, 3]; `SampleError` for what is empty, truncated or damaged.

    OpenCV fills the missing part of a truncated JPEG or PNG with grey, so the end of the file is checked here.
    """
    if not raw:
        raise SampleError("empty file")
    if raw.startswith(b"\xff\xd8"):
        # Inside a scan every 0xFF is escaped, so an end marker after the last scan's start is the real end.
        if raw.rfind(b"\xff\xd9") < raw.rfind(b"\xff\xda"):
            raise SampleError("truncated JPEG")
    elif raw.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(raw)
    try:
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SampleError("can't be decoded as an image") from error
    if image is None:
        raise SampleError("can't be decoded as an image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _check_png(raw: bytes) -> None:
    at = 8
    while at + 12 <= len(raw):
        length = int.from_bytes(raw[at:at + 4], "big")
        kind, end = raw[at + 4:at + 8], at + 8 + length
        if end + 4 > len(raw):
            break
        if zlib.crc32(raw[at + 4:end]) != int.from_bytes(raw[end:end + 4], "big"):
            raise SampleError("damaged PNG")
        if kind == b"IEND":
            return
        at = end + 4
    raise SampleError("truncated PNG")


def read_file(path: str, labels: Labels, box: Box | None, size: int) -> tuple[NDArray[np.uint8], Labels]:
    """Decode the image at `path`, cropped to `box`, whatever `size`; with three bound it is a `Sample.read`."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError as error:
        raise SampleError("file is missing") from error
    except OSError as error:
        raise SampleError(f"can't be read: {error.strerror}") from error
    image = decode(raw)
    return (crop(image, box) if box else image), labels


def crop(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The part of `image` inside `box` (x, y, width, height in pixels); `SampleError` when they do not overlap."""
    height, width = image.shape[:2]
    left, top = max(0, round(box[0])), max(0, round(box[1]))
    right, bottom = min(width, round(box[0] + box[2])), min(height, round(box[1] + box[3]))
    if right - left < 2 or bottom - top < 2:
        raise SampleError(f"face box {tuple(box)} lies outside the {width} × {height} image")
    return image[top:bottom, left:right]


def _given(image: NDArray[np.uint8], labels: Labels, size: int) -> tuple[NDArray[np.uint8], Labels]:
    return image, labels


# --- rendered ---------------------------------------------------------------------------------------------------------

DEFAULT_RENDERED = 6_000


def _read_rendered(_: Path, data: DataConfig) -> Source:
    from hmtl_ablate.data import rendered

    count = data.images or DEFAULT_RENDERED
    samples = [Sample(f"face {i}", {8: VALID, 9: TEST}.get(i % 10, TRAIN), partial(_draw, data.seed, i))
               for i in range(count)]
    renderer = zlib.crc32(Path(rendered.__file__).read_bytes())  # a changed renderer draws other faces
    return Source(samples, {"emotion": EMOTIONS, "gender": GENDERS}, identity=(count, data.seed, renderer))


def _draw(seed: int, number: int, size: int) -> tuple[NDArray[np.uint8], Labels]:
    from hmtl_ablate.data.rendered import render_faces

    images, labels = render_faces(1, size, seed, number)
    return images[0], {"emotion": int(labels["emotion"][0]), "gender": int(labels["gender"][0]),
                       "pose": tuple(float(angle) for angle in labels["pose"][0])}


# --- FER+ -------------------------------------------------------------------------------------------------------------

FERPLUS_FOLDERS = {"FER2013Train": TRAIN, "FER2013Valid": VALID, "FER2013Test": TEST}
KAGGLE_IMAGES = ("fer2013.csv", "icml_face_data.csv")
KAGGLE_VOTES = "fer2013new.csv"
KAGGLE_USAGE = {"training": TRAIN, "publictest": VALID, "privatetest": TEST}


def _read_ferplus(path: Path, _: DataConfig) -> Source:
    """Microsoft's folders with a label.csv each, or Kaggle's FER2013 table beside FER+'s fer2013new.csv."""
    if path.is_file() and path.name in (*KAGGLE_IMAGES, KAGGLE_VOTES):
        path = path.parent
    _need_folder(path)
    if any((path / folder).is_dir() for folder in FERPLUS_FOLDERS):
        return _ferplus_folders(path)
    tables = [path / name for name in KAGGLE_IMAGES if (path / name).is_file()]
    if tables and (path / KAGGLE_VOTES).is_file():
        return _ferplus_kaggle(tables[0], path / KAGGLE_VOTES)
    if tables:
        raise DataError(f"{tables[0]}: FER+'s votes are missing; put {KAGGLE_VOTES} beside it "
                        "(from github.com/microsoft/FERPlus)")
    if (path / KAGGLE_VOTES).is_file():
        raise DataError(f"{path / KAGGLE_VOTES}: the images are missing; put {' or '.join(KAGGLE_IMAGES)} beside it")
    raise DataError(f"{path}: no FER+ here (FER2013Train/ and FER2013Valid/ with label.csv each, or "
                    f"{' or '.join(KAGGLE_IMAGES)} beside {KAGGLE_VOTES})" + _right_level(
                        path, lambda p: (p / "FER2013Train").is_dir() or (p / KAGGLE_VOTES).is_file()))


def _ferplus_folders(root: Path) -> Source:
    build = _Builder(root)
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
        for number, row in enumerate(_rows(table)):
            if number == 0 and len(row) == 12 and not row[2].strip().lstrip("-").isdigit():
                continue
            shown = f"{name}/{row[0]}"
            emotion = _majority(row[2:]) if len(row) == 12 else f"{len(row)} columns in place of 12"
            if isinstance(emotion, str):
                build.refuse(shown, emotion)
            elif row[0] not in there:
                missing += 1
                build.refuse(shown, "file is missing")
            else:
                build.add(shown, split, folder / row[0], {"emotion": emotion})
        if missing and missing == len(build.samples) + len(build.dropped) - listed:
            raise DataError(f"{folder}: none of the {missing} images of label.csv is there, e.g. "
                            f"{build.dropped[-1][0]}; FER+'s own script makes them from fer2013.csv")
    return build.source({"emotion": EMOTIONS})


def _ferplus_kaggle(table: Path, votes: Path) -> Source:
    build = _Builder(table.parent)
    build.files += [str(table), str(votes)]
    label_rows = list(_table(votes, ("Usage", *FERPLUS_VOTES)))
    number = -1
    for number, row in enumerate(_table(table, ("pixels", "Usage"))):
        if number >= len(label_rows):
            break
        shown = f"{table.name} row {number + 2}"
        split = KAGGLE_USAGE.get(row["usage"].strip().lower())
        emotion = _majority([label_rows[number][name.lower()] for name in FERPLUS_VOTES])
        if split is None:
            build.refuse(shown, f"Usage {row['usage']!r} is none of Training, PublicTest, PrivateTest")
        elif label_rows[number]["usage"].strip().lower() != row["usage"].strip().lower():
            raise DataError(f"{votes}: row {number + 2} has Usage {label_rows[number]['usage']!r}, {table.name} has "
                            f"{row['usage']!r}; the two files do not belong together")
        elif isinstance(emotion, str):
            build.refuse(shown, emotion)
        else:
            image = _pixels(row["pixels"])
            if isinstance(image, str):
                build.refuse(shown, image)
            else:
                build.samples.append(Sample(shown, split, partial(_given, image, {"emotion": emotion})))
    if number + 1 != len(label_rows):
        raise DataError(f"{table} and {votes} have different numbers of rows (the second {len(label_rows)}); "
                        "they do not belong together")
    return build.source({"emotion": EMOTIONS})


def _majority(votes: list[str]) -> int | str:
    """Emotion that most raters chose; a reason in words when the row is not used. A reason in LEFT_OUT is no fault."""
    try:
        counts = [int(vote) for vote in votes]
    except ValueError:
        return "votes are not numbers"
    if min(counts) < 0:
        return "negative votes"
    top = max(counts)
    if top == 0:
        return "no votes"
    winners = [name for name, count in zip(FERPLUS_VOTES, counts, strict=True) if count == top]
    if len(winners) > 1:
        return "tie"
    return winners[0] if winners[0] in LEFT_OUT else EMOTIONS.index(winners[0])


def _pixels(text: str) -> NDArray[np.uint8] | str:
    try:
        values = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        return "pixels are not numbers"
    side = math.isqrt(len(values))
    if side < 8 or side * side != len(values):
        return f"{len(values)} pixels in place of 48 × 48"
    if values.min() < 0 or values.max() > 255:
        return "pixels outside 0 to 255"
    return values.astype(np.uint8).reshape(side, side)


# --- AffectNet --------------------------------------------------------------------------------------------------------

AFFECTNET_COLUMNS = ("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks",
                     "expression", "valence", "arousal")
AFFECTNET_LATER = {"train_set": TRAIN, "val_set": VALID}


def _read_affectnet(path: Path, _: DataConfig) -> Source:
    """The official lists and image tree, or the later release (train_set/ and val_set/). No test set was published."""
    _need_folder(path)
    if any((path / folder).is_dir() for folder in AFFECTNET_LATER):
        return _affectnet_later(path)
    for folder in (path, path / "Manually_Annotated_file_lists", path / "Manually_Annotated"):
        if (folder / "training.csv").is_file() or (folder / "validation.csv").is_file():
            return _affectnet_lists(path, folder)
    if (path / "Manually_Annotated_Images").is_dir():
        raise DataError(f"{path}: no labels file; training.csv and validation.csv belong beside "
                        "Manually_Annotated_Images/")
    raise DataError(f"{path}: no AffectNet here (training.csv and validation.csv beside Manually_Annotated_Images/, or "
                    "train_set/ and val_set/)" + _right_level(
                        path, lambda p: (p / "training.csv").is_file() or (p / "train_set").is_dir()))


def _affectnet_lists(root: Path, lists: Path) -> Source:
    images = next((folder for folder in (root / "Manually_Annotated_Images",
                                         root / "Manually_Annotated" / "Manually_Annotated_Images")
                   if folder.is_dir()), None)
    if images is None:
        raise DataError(f"{root}: no Manually_Annotated_Images/ with AffectNet's images")
    build = _Builder(root)
    for name, split in (("training.csv", TRAIN), ("validation.csv", VALID)):
        table = lists / name
        if not table.is_file():
            raise DataError(f"{lists}: {name} is missing")
        build.files.append(str(table))
        columns: dict[str, int] = {column.lower(): at for at, column in enumerate(AFFECTNET_COLUMNS)}
        before = len(build.samples)
        for number, row in enumerate(_rows(table)):
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


def _affectnet_row(build: _Builder, place: str, images: Path, split: int, row: list[str],
                   columns: dict[str, int]) -> None:
    def cell(name: str) -> str:
        return row[columns[name.lower()]].strip()

    try:
        shown, expression = cell("subDirectory_filePath"), cell("expression")
        box_cells = [cell(name) for name in AFFECTNET_COLUMNS[1:5]]
    except IndexError:
        build.refuse(place, f"{len(row)} columns in place of {len(columns)}")
        return
    if shown.lower().endswith((".tif", ".bmp")):
        build.refuse(shown, ".tif or .bmp file")
    elif not expression.isdigit() or int(expression) > 10:
        build.refuse(shown, f"expression {expression!r} is not 0 to 10")
    elif int(expression) >= len(EMOTIONS):
        build.refuse(shown, "none, uncertain or no face")
    else:
        try:
            x, y, width, height = (float(value) for value in box_cells)
        except ValueError:
            build.refuse(shown, f"face box {', '.join(box_cells)} is not four numbers")
            return
        build.add(shown, split, images / shown, {"emotion": int(expression)}, (x, y, width, height))


def _affectnet_later(root: Path) -> Source:
    build = _Builder(root)
    for name, split in AFFECTNET_LATER.items():
        images, annotations = root / name / "images", root / name / "annotations"
        for folder in (images, annotations):
            if not folder.is_dir():
                raise DataError(f"{root}: {name}/{folder.name}/ is missing")
        found = _images_in(images)
        if not found:
            raise DataError(f"{images}: no images")
        for file in found:
            label = annotations / f"{file.stem}_exp.npy"
            build.samples.append(Sample(build.shown(file), split, partial(_read_annotated, str(file), str(label)),
                                        (str(file), str(label))))
        if not any(os.path.exists(sample.files[1]) for sample in build.samples[-len(found):]):
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


# --- folder -----------------------------------------------------------------------------------------------------------

FOLDER_SPLITS = {"train": TRAIN, "training": TRAIN, "valid": VALID, "val": VALID, "validation": VALID, "test": TEST,
                 "testing": TEST}


def _read_folder(path: Path, _: DataConfig) -> Source:
    """One sub-folder a class; optionally train/, valid/ (or val/) and test/ above them."""
    _need_folder(path)
    folders = _folders_in(path)
    tops: list[tuple[Path, int]] = [(path, NO_SPLIT)]
    named = [(folder, FOLDER_SPLITS[folder.name.lower()]) for folder in folders
             if folder.name.lower() in FOLDER_SPLITS]
    if named and len(named) == len(folders):
        tops = named
        if len({split for _, split in named}) < len(named):
            raise DataError(f"{path}: two folders for one split: {', '.join(folder.name for folder, _ in named)}")
        if not any(split == TRAIN for _, split in named):
            raise DataError(f"{path}: has {', '.join(folder.name for folder, _ in named)} but no train folder"
                            + _right_level(path, _holds_classes))
    elif named:
        odd = [folder.name for folder in folders if folder.name.lower() not in FOLDER_SPLITS]
        raise DataError(f"{path}: {named[0][0].name}/ is a split but {odd[0]}/ is not; keep one sub-folder a class, or "
                        "one a split with the classes below")
    found: list[tuple[Path, int, str]] = []
    for top, split in tops:
        for folder in _folders_in(top):
            found += [(file, split, folder.name) for file in _images_below(folder)]
    names = sorted({name for _, _, name in found})
    if len(names) < 2 or (len(tops) == 1 and not _holds_classes(path)):
        what = "images but no class folders" if _images_in(path) else (
            f"one class folder only, {names[0]}" if names else "no class folders with images")
        raise DataError(f"{path}: holds {what}; a folder dataset has one sub-folder a class"
                        + _right_level(path, _holds_classes))
    classes, index = class_order(names)
    build = _Builder(path)
    for file, split, name in found:
        build.add(build.shown(file), split, file, {"emotion": index[name]})
    return build.source({"emotion": classes})


EMOTION_NAMES = {
    **{name: name for name in EMOTIONS}, "happy": "happiness", "sad": "sadness", "surprised": "surprise",
    "fearful": "fear", "afraid": "fear", "disgusted": "disgust", "angry": "anger"}
"""Names that stand for one of the eight emotions."""


def class_order(names: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names, and the class index of each of `names`: PAPER.md's order when all name emotions, else sorted."""
    known = {name: EMOTION_NAMES.get(name.lower()) for name in names}
    if None not in known.values():
        classes = tuple(emotion for emotion in EMOTIONS if emotion in known.values())
        return classes, {name: classes.index(str(emotion)) for name, emotion in known.items()}
    classes = tuple(sorted(known))
    return classes, {name: classes.index(name) for name in classes}


def _holds_classes(path: Path) -> bool:
    """Whether at least two sub-folders of `path` (or of its train folder) hold images themselves or below."""
    folders = _folders_in(path)
    if any(folder.name.lower() in FOLDER_SPLITS for folder in folders):
        folders = [inner for folder in folders if FOLDER_SPLITS.get(folder.name.lower()) == TRAIN
                   for inner in _folders_in(folder)]
    with_images = 0
    for folder in folders[:50]:
        with_images += any(entry.name.lower().endswith(IMAGE_ENDINGS) for entry in _entries(folder))
        if with_images >= 2:
            return True
    return False


# --- csv --------------------------------------------------------------------------------------------------------------

CSV_COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "img", "image_path",
             "image_name", "name", "subdirectory_filepath"),
    "emotion": ("emotion", "expression", "label", "class", "category", "target"),
    "gender": ("gender", "sex"),
    "yaw": ("yaw",), "pitch": ("pitch",), "roll": ("roll",),
    "split": ("split", "usage", "subset", "set", "fold", "partition")}
CSV_SPLITS = {**FOLDER_SPLITS, **KAGGLE_USAGE, "dev": VALID, "eval": TEST}
GENDER_NAMES = {"male": 0, "m": 0, "man": 0, "female": 1, "f": 1, "woman": 1}
EMOTION_SHARE = 0.9
"""csv: the labels are the eight emotions when at least this share of rows has one of their names."""


def _read_csv(path: Path, _: DataConfig) -> Source:
    """A table with a header: image paths (relative to it, or to images/ beside it) and label columns."""
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

    whole = [row for row in rows if len(row) == len(header)]
    base = _image_base(table, [text(row, "path") for row in whole])
    classes, emotion_of = _csv_emotions([text(row, "emotion") for row in whole])
    build = _Builder(base)
    build.files.append(str(table))
    for number, row in enumerate(rows):
        if len(row) != len(header):
            build.refuse(f"{table.name} row {number + 2}", f"{len(row)} columns in place of {len(header)}")
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
                labels["pose"] = _angles([row[at] for at in pose])
            if not labels:
                raise SampleError("no label")
            if split is None:
                raise SampleError(f"split {text(row, 'split')!r} is none of train, valid, test")
            if not text(row, "path"):
                raise SampleError("no path")
        except SampleError as fault:
            build.refuse(shown, str(fault))
            continue
        build.add(shown, split, base / text(row, "path"), labels)
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
    raise DataError(f"{path}: no labels file (.csv) here" + _right_level(
        path, lambda p: any(file.suffix.lower() == ".csv" for file in _files(p))))


def _header_and_rows(table: Path) -> tuple[list[str], list[list[str]]]:
    if table.suffix.lower() in IMAGE_ENDINGS:
        raise DataError(f"{table}: this is an image; give the .csv file or its folder")
    rows = _rows(table)
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
        raise DataError(f"{table}: none of its images is there, e.g. {some[0]}; looked in {table.parent} and "
                        f"{table.parent / 'images'}")
    raise DataError(f"{table}: has no rows with a path")


def _csv_emotions(values: list[str]) -> tuple[tuple[str, ...], Callable[[str], int]]:
    """Class names of a label column, and the function from a cell to its index (raises `SampleError`)."""
    counts = Counter(value for value in values if value)
    total = sum(counts.values())
    if total and sum(n for value, n in counts.items() if _whole(value) is not None) >= EMOTION_SHARE * total:
        return EMOTIONS, _numbered_emotion
    named = [value for value in counts if value.lower() in EMOTION_NAMES]
    most = sum(counts[value] for value in named) >= EMOTION_SHARE * total
    classes, index = class_order(named if most else counts)
    return classes, partial(_named_class, index)


def _whole(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _numbered_emotion(text: str) -> int:
    number = _whole(text)
    if number is None or not 0 <= number < len(EMOTIONS):
        raise SampleError(f"label {text!r} is not 0 to {len(EMOTIONS) - 1}")
    return number


def _named_class(index: Mapping[str, int], text: str) -> int:
    if text not in index:
        raise SampleError(f"label {text!r} is none of the emotions; {nearest(text.lower(), EMOTIONS)}")
    return index[text]


def _gender(text: str) -> int:
    value = GENDER_NAMES.get(text.lower(), _whole(text))
    if value not in (0, 1):
        raise SampleError(f"gender {text!r} is none of male, female, 0 (male), 1 (female)")
    return value


def _angles(cells: list[str]) -> tuple[float, ...]:
    try:
        angles = tuple(float(cell) for cell in cells)
    except ValueError as error:
        raise SampleError(f"yaw, pitch, roll {', '.join(cells)} are not numbers") from error
    if not all(abs(angle) <= 180 for angle in angles):
        raise SampleError(f"yaw, pitch, roll {', '.join(cells)} are not within ±180°")
    return angles


# --- shared -----------------------------------------------------------------------------------------------------------

LEFT_OUT = frozenset({"tie", "unknown", "NF", "no votes", ".tif or .bmp file", "none, uncertain or no face"})
"""Reasons that are the publisher's own marks, not faults of the file."""


class _Builder:
    """Collects samples, faulty rows and rows left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.samples: list[Sample] = []
        self.dropped: list[tuple[str, str]] = []
        self.left_out: Counter[str] = Counter()
        self.files: list[str] = []

    def shown(self, file: Path) -> str:
        return file.relative_to(self.root).as_posix()

    def refuse(self, name: str, reason: str) -> None:
        if reason in LEFT_OUT:
            self.left_out[reason] += 1
        else:
            self.dropped.append((name, reason))

    def add(self, name: str, split: int, file: Path, labels: Labels, box: Box | None = None) -> None:
        path = str(file)
        self.samples.append(Sample(name, split, partial(read_file, path, labels, box), (path,)))

    def source(self, classes: Mapping[str, tuple[str, ...]]) -> Source:
        return Source(self.samples, classes, dict(sorted(self.left_out.items())), tuple(self.dropped),
                      tuple(self.files))


def _rows(table: Path) -> Iterator[list[str]]:
    """Rows of a CSV file; the delimiter is the one of comma, semicolon and tab that its first line has most of."""
    csv.field_size_limit(1 << 24)
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            yield from (row for row in csv.reader(file, delimiter=delimiter) if row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: not a CSV file in UTF-8 ({error})") from error


def _table(table: Path, needed: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Rows of a CSV file with a header, by lower-case column name; all of `needed` must be there."""
    rows = _rows(table)
    header = [cell.strip().lower() for cell in next(rows, [])]
    missing = [name for name in needed if name.lower() not in header]
    if missing:
        raise DataError(f"{table}: no column {', '.join(missing)}; its columns are {', '.join(header) or 'none'}")
    for row in rows:
        yield dict(zip(header, [*row, *[""] * len(header)], strict=False))


def _need_folder(path: Path) -> None:
    if not path.is_dir():
        raise DataError(f"{path}: this is a file; give the dataset's folder")


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if not e.name.startswith((".", "__"))), key=lambda e: e.name)
    except OSError:
        return []


def _folders_in(path: Path) -> list[Path]:
    return [path / entry.name for entry in _entries(path) if entry.is_dir()]


def _files(path: Path) -> list[Path]:
    return [path / entry.name for entry in _entries(path) if entry.is_file()]


def _images_in(path: Path) -> list[Path]:
    return [file for file in _files(path) if file.name.lower().endswith(IMAGE_ENDINGS)]


def _images_below(path: Path) -> list[Path]:
    found = _images_in(path)
    for folder in _folders_in(path):
        found += _images_below(folder)
    return found


def _right_level(path: Path, fits: Callable[[Path], bool]) -> str:
    """A hint that names the folder nearby where `fits` holds: one or two levels down, or up to three up."""
    below = _folders_in(path)[:100]
    deeper = [inner for folder in below[:20] for inner in _folders_in(folder)[:20]]
    for folder in (*below, *deeper, *list(path.absolute().parents)[:3]):
        if fits(folder):
            return f"; the right level seems to be {folder}"
    return ""


def _existing_part(path: Path) -> str:
    """A hint for a missing path: the sibling with a similar name, or how much of the path exists."""
    there = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if there is None:
        return ""
    missing = path.absolute().relative_to(there).parts[0]
    names = [entry.name for entry in _entries(there)]
    hint = nearest(missing, names)
    return f"; {hint} in {there}" if hint.startswith("did you mean") else f"; {there} is there, {missing} in it is not"


register("rendered", _read_rendered, needs_path=False)
register("ferplus", _read_ferplus)
register("affectnet", _read_affectnet)
register("folder", _read_folder)
register("csv", _read_csv)
