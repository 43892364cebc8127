"""What the readers of datasets share: samples, decoding, a builder of sources, labels, tables and folders.

Three things can't be used. A row that its publisher or its benchmark does not use (`LeftOut`: a FER+ tie, a profile of
KDEF) is counted. A faulty row (wrong label, missing file) is listed by name in `Source.dropped`, or raises
`SampleError` when it is read. A path of another layout raises `DataError`.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import stat
import threading
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from hmtl_ablate.errors import DataError

EMOTIONS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
"""The order of the emotion classes, which is AffectNet's own (docs/paper.md)."""
EMOTION_NAMES = {
    **{name: name for name in EMOTIONS},
    "happy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
    "fearful": "fear",
    "afraid": "fear",
    "disgusted": "disgust",
    "angry": "anger",
}
"""Accepted names of the eight emotions."""
GENDERS = ("male", "female")
NO_SPLIT, TRAIN, VALID, TEST = -1, 0, 1, 2
SPLITS = ("train", "valid", "test")
FOLDER_SPLITS = {
    "train": TRAIN,
    "training": TRAIN,
    "valid": VALID,
    "val": VALID,
    "validation": VALID,
    "test": TEST,
    "testing": TEST,
}
KAGGLE_USAGE = {"training": TRAIN, "publictest": VALID, "privatetest": TEST}
"""Column Usage of Kaggle's FER2013."""
IMAGE_ENDINGS = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
MAX_PIXELS = 100_000_000
"""An image with more is not decoded; its header says how many there are."""
LARGE = 16_000_000
"""Images with more pixels are decoded one at a time, whatever the number of threads."""
_ONE_LARGE = threading.Lock()
IMAGE_BYTES, LABEL_BYTES, TABLE_BYTES = 1 << 28, 1 << 22, 1 << 30
"""Largest file of an image, of one image's labels, and of a table."""
LINE = 1 << 24
"""Longest first line, and longest cell, of a table, in characters."""
MAX_ANGLE = 99
"""Degrees; benchmarks of head pose use no face beyond it."""

# What is wrong with a file is listed with its name: what libraries print of it on the way would only hide that.
warnings.filterwarnings("ignore", category=PIL.Image.DecompressionBombWarning, module="PIL")
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

Labels = Mapping[str, int | tuple[float, ...]]
"""Task → label; a missing label has no key. A class index for emotion and gender; numbers for pose (yaw, pitch, roll in
degrees) and affect (valence, arousal, each −1 to 1)."""
SHARES = ".shares"
"""Suffix of a label that holds the share of each class of a task in its raters' votes, e.g. "emotion.shares": numbers
from 0 to 1 that sum to 1, in the order of the classes. They are training targets in place of the class index."""
Box = tuple[float, float, float, float]
"""x, y, width, height in pixels of the stored image."""
CENTRE: Literal["centre"] = "centre"
Frame = Box | Literal["centre"] | None
"""Which part of an image is the face: a box, the centred square of the shorter side, or None, the whole image. How it
becomes the pack's square: framing.py."""


class SampleError(Exception):
    """A sample that can't be used; its message is the reason, which the manifest lists."""


class LeftOut(SampleError):
    """A sample that its publisher or its benchmark does not use: not a fault, and counted by reason."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its labels, not decoded yet."""

    name: str
    """Its name in messages and in the manifest."""
    split: int
    """TRAIN, VALID, TEST or NO_SPLIT."""
    read: Callable[[int], tuple[NDArray[np.uint8], Labels]]
    """Takes the stored size in pixels; returns the image (uint8 [H, W], or [H, W, 3] in RGB; of any size) and its
    labels, or raises `SampleError`."""
    files: tuple[str, ...] = ()
    """The files that `read` reads: a pack is rebuilt when the name, size or time of one changes."""
    subject: str = ""
    """The person in the image; "" when the data does not say."""
    frame: Frame = None
    """Which part of the image is the face."""


@dataclass(frozen=True)
class Source:
    """What a reader found."""

    samples: list[Sample]
    classes: Mapping[str, tuple[str, ...]]
    """Task → class names; tasks whose labels are numbers have none."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Rows that are not meant for use: reason → count."""
    dropped: tuple[tuple[str, str], ...] = ()
    """Faulty rows: (name, reason)."""
    files: tuple[str, ...] = ()
    """Files of labels, in addition to those of the samples."""
    layout: str = ""
    """Which of its layouts the reader recognised, in one line."""
    notes: tuple[str, ...] = ()
    """What else a user should know: rules that were applied, warnings. One line each."""
    identity: tuple[Any, ...] = ()
    """Whatever else the content depends on; JSON values."""
    drawn: bool = False
    """The samples are rendered in Python: threads would only contend for the GIL (two take twice as long as one)."""


# --- files ------------------------------------------------------------------------------------------------------------


def open_regular(path: str | Path, limit: int) -> BinaryIO:
    """Open a regular file of at most `limit` bytes; raises `SampleError` for anything else.

    A named pipe would block for ever, and a device such as /dev/zero has no end.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SampleError("not a regular file")
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except FileNotFoundError as error:
        raise SampleError("file is missing") from error
    except OSError as error:
        raise SampleError(f"can't be read: {error.strerror}") from error
    except ValueError as error:  # a NUL in the path
        raise SampleError(f"can't be read: {error}") from error
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_size <= limit:
        return file
    file.close()
    raise SampleError(f"{found.st_size:,} bytes, more than {limit:,}")


def read_bytes(path: str | Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes; raises `SampleError` for anything else."""
    with open_regular(path, limit) as file:
        return file.read(limit)  # not more, even if it grows meanwhile


def reason_of(error: Exception) -> str:
    """Why a row can't be used, in one line: the one guard around reading a row, whatever its reader raises."""
    if isinstance(error, SampleError | DataError):
        return str(error)
    if isinstance(error, MemoryError):
        return "larger than the memory"
    return f"can't be read: {type(error).__name__}: {error}"


def printable(text: str) -> str:
    """`text` with a replacement mark for what is not UTF-8, as in file names of older systems."""
    try:
        return os.fsencode(text).decode("utf-8", "replace")
    except UnicodeEncodeError:  # half a character, from a reader of one's own
        return text.encode("utf-8", "replace").decode()


# --- images -----------------------------------------------------------------------------------------------------------


def decode(raw: bytes, upright: bool = True) -> NDArray[np.uint8]:
    """Decode an image file's bytes to RGB uint8 [H, W, 3], of at most `MAX_PIXELS`.

    upright: turn it as its orientation note (EXIF) says; False where labels or boxes refer to the stored pixels.

    Raises `SampleError` when they are empty, truncated or damaged. OpenCV fills the missing part of a truncated JPEG or
    PNG with grey, so the end of the file is checked here.
    """
    if not raw:
        raise SampleError("empty file")
    if raw.startswith(b"\xff\xd8"):
        # Inside a scan every 0xFF is escaped, so an end marker after the last scan's start is the real end.
        if raw.rfind(b"\xff\xd9") < raw.rfind(b"\xff\xda"):
            raise SampleError("truncated JPEG")
    elif raw.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(raw)
    pixels = _pixels_in(raw)
    if pixels > MAX_PIXELS:
        raise SampleError(f"more than {MAX_PIXELS // 1_000_000} megapixels")
    with _ONE_LARGE if pixels > LARGE else nullcontext():
        return _decoded(raw, upright)


def _decoded(raw: bytes, upright: bool) -> NDArray[np.uint8]:
    try:
        flags = cv2.IMREAD_COLOR if upright else cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), flags)
    except cv2.error as error:
        raise SampleError("can't be decoded as an image") from error
    if image is None:
        raise SampleError("can't be decoded as an image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _pixels_in(raw: bytes) -> int:
    """Width × height, from the header alone: a small file may say that it is larger than the memory."""
    try:
        with PIL.Image.open(io.BytesIO(raw)) as image:
            return image.width * image.height
    except PIL.Image.DecompressionBombError:
        return MAX_PIXELS + 1
    except Exception as error:  # a damaged header makes Pillow raise almost anything
        raise SampleError("can't be decoded as an image") from error


def _check_png(raw: bytes) -> None:
    at = 8
    while at + 12 <= len(raw):
        length = int.from_bytes(raw[at : at + 4], "big")
        kind, end = raw[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(raw):
            break
        if zlib.crc32(raw[at + 4 : end]) != int.from_bytes(raw[end : end + 4], "big"):
            raise SampleError("damaged PNG")
        if kind == b"IEND":
            return
        at = end + 4
    raise SampleError("truncated PNG")


def read_file(path: str, labels: Labels, upright: bool, size: int) -> tuple[NDArray[np.uint8], Labels]:
    """Decode the image at `path`, as `decode` does; with all but `size`, which is unused, bound: a `Sample.read`."""
    return decode(read_bytes(path, IMAGE_BYTES), upright), labels


def in_memory(image: NDArray[np.uint8], labels: Labels, size: int) -> tuple[NDArray[np.uint8], Labels]:
    """Return `image` and `labels`; with all but `size`, which is unused, bound: a `Sample.read`."""
    return image, labels


# --- building a source ------------------------------------------------------------------------------------------------


class Builder:
    """Collects the samples, the faulty rows and the rows left out of a dataset; `source` returns them."""

    def __init__(self, root: Path, layout: str = "", *, upright: bool = True) -> None:
        """root: the dataset's folder, which names of files are relative to; layout: as in `Source`; upright: as
        `decode`."""
        self.root, self.layout, self.upright = root, layout, upright
        self.notes: list[str] = []
        self.samples: list[Sample] = []
        self.dropped: list[tuple[str, str]] = []
        self.left_out: Counter[str] = Counter()
        self.files: list[str] = []

    def shown(self, file: Path) -> str:
        """The name of `file` in messages: its path below the root."""
        return printable(file.relative_to(self.root).as_posix())

    def refuse(self, name: str, fault: SampleError) -> None:
        """Count a row that is left out, or list a faulty one."""
        if isinstance(fault, LeftOut):
            self.left_out[str(fault)] += 1
        else:
            self.dropped.append((name, str(fault)))

    @contextmanager
    def row(self, name: str) -> Iterator[None]:
        """A guard around reading one row: whatever is wrong with it, it is counted or listed and the next one follows.

        A `DataError` is raised: it is about the whole dataset.
        """
        try:
            yield
        except SampleError as fault:
            self.refuse(name, fault)
        except DataError:
            raise
        except Exception as error:
            self.drop(name, reason_of(error))

    def drop(self, name: str, reason: str) -> None:
        """List a faulty row."""
        self.dropped.append((name, reason))

    def add(
        self,
        name: str,
        split: int,
        file: Path,
        labels: Labels,
        frame: Frame = None,
        *,
        subject: str = "",
        label_files: Iterable[Path] = (),
    ) -> None:
        """Add the image in `file`; `label_files` hold its labels or box, if they have files of their own."""
        path = str(file)
        read = partial(read_file, path, labels, self.upright)
        self.samples.append(Sample(name, split, read, (path, *map(str, label_files)), subject, frame))

    def add_named(
        self,
        files: Iterable[Path],
        pattern: re.Pattern[str],
        example: str,
        meaning: Callable[[re.Match[str]], tuple[Labels, str]],
    ) -> None:
        """Add files whose names contain their labels.

        meaning: returns labels and subject of a name that matches `pattern`, or raises `SampleError`; example: a valid
        name, for the message about one that does not match.
        """
        for file in files:
            with self.row(self.shown(file)):
                found = pattern.match(file.name)
                if found is None:
                    raise SampleError(f"its name is not like {example}")
                labels, subject = meaning(found)
                self.add(self.shown(file), NO_SPLIT, file, labels, subject=subject)

    def source(self, classes: Mapping[str, tuple[str, ...]]) -> Source:
        """Everything collected; classes: task → class names."""
        turned = "images are turned upright by their orientation note (EXIF)"
        stored = "orientation notes of images (EXIF) are ignored: labels or boxes refer to the stored pixels"
        files = [turned if self.upright else stored] if any(sample.files for sample in self.samples) else []
        return Source(
            self.samples,
            classes,
            dict(sorted(self.left_out.items())),
            tuple(self.dropped),
            tuple(self.files),
            self.layout,
            (*self.notes, *files),
        )


# --- labels -----------------------------------------------------------------------------------------------------------


def class_order(names: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names, and the class index of each of `names`; sorted, or as in `EMOTIONS` when all are emotions."""
    known = {name: EMOTION_NAMES.get(name.lower()) for name in names}
    if None not in known.values():
        classes = tuple(emotion for emotion in EMOTIONS if emotion in known.values())
        return classes, {name: classes.index(str(emotion)) for name, emotion in known.items()}
    classes = tuple(sorted(known))
    return classes, {name: classes.index(name) for name in classes}


def whole(text: str) -> int | None:
    """The whole number in `text`, also when written as "3.0"; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def head_pose(yaw: float, pitch: float, roll: float) -> tuple[float, float, float]:
    """The angles in degrees; raises `LeftOut` beyond ±99°, and `SampleError` when one is not a finite number."""
    angles = (yaw, pitch, roll)
    if not all(math.isfinite(angle) for angle in angles):
        raise SampleError(f"yaw, pitch, roll {', '.join(map(str, angles))} are not numbers")
    if max(map(abs, angles)) > MAX_ANGLE:
        raise LeftOut(f"pose beyond ±{MAX_ANGLE}°")
    return angles


def affect_label(valence: str, arousal: str) -> tuple[float, float] | None:
    """Valence and arousal, each −1 to 1; None when one is missing: empty, not a number, or out of range.

    AffectNet writes −2 where annotators saw no face or were uncertain.
    """
    try:
        label = (float(valence), float(arousal))
    except ValueError:
        return None
    return label if all(-1 <= value <= 1 for value in label) else None  # False for NaN


def native(base: Path, name: str) -> str:
    r"""The path of an image in a table, with / where another system wrote \ and no file in `base` has that name."""
    return name if "\\" not in name or os.path.exists(base / name) else name.replace("\\", "/")


# --- tables -----------------------------------------------------------------------------------------------------------


def rows_of(table: Path) -> Iterator[list[str]]:
    """Rows of a CSV file; the delimiter is whichever of comma, semicolon and tab is most frequent in its first line.

    A byte that is not UTF-8 is read as in names of files, so that a row can name any of them; in the first line it is
    an error.
    """
    csv.field_size_limit(LINE)
    try:
        opened = open_regular(table, TABLE_BYTES)
    except SampleError as error:
        raise DataError(f"{table}: {error}") from error
    try:
        with io.TextIOWrapper(opened, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            first = file.readline(LINE)
            first.encode()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            yield from (row for row in csv.reader(file, delimiter=delimiter) if row)
    except (UnicodeError, csv.Error) as error:
        raise DataError(f"{table}: not a CSV file in UTF-8 ({error})") from error


def table_of(table: Path, needed: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Rows of a CSV file with a header, by lower-case column name; raises `DataError` without one of `needed`."""
    rows = rows_of(table)
    header = [cell.strip().lower() for cell in next(rows, [])]
    missing = [name for name in needed if name.lower() not in header]
    if missing:
        raise DataError(f"{table}: no column {', '.join(missing)}; its columns are {', '.join(header) or 'none'}")
    for row in rows:
        yield dict(zip(header, [*row, *[""] * len(header)], strict=False))


def numbers_in(file: Path) -> list[float]:
    """The numbers in a text file; raises `SampleError` when it does not exist or holds anything else."""
    if not os.path.lexists(file):
        raise SampleError(f"no {file.name}")
    try:
        return [float(word) for word in read_bytes(file, LABEL_BYTES).decode().split()]
    except SampleError as error:
        raise SampleError(f"{file.name}: {error}") from error
    except ValueError as error:
        raise SampleError(f"{file.name} does not hold numbers") from error


# --- folders ----------------------------------------------------------------------------------------------------------


def need_folder(path: Path) -> None:
    """Raise `DataError` unless `path` is a folder."""
    if not path.is_dir():
        raise DataError(f"{path}: this is a file; give the dataset's folder")


def entries(path: Path) -> list[os.DirEntry[str]]:
    """Files and folders in `path`, sorted by name, without hidden ones; none when it can't be read."""
    try:
        with os.scandir(path) as entries:
            return sorted((e for e in entries if not e.name.startswith((".", "__"))), key=lambda e: e.name)
    except OSError:
        return []


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; False for a link that leads nowhere or to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def leads_up(link: Path) -> bool:
    """Whether `link` is a link to a folder that it is in: to follow it would never end."""
    if not link.is_symlink():
        return False
    target, above = os.path.realpath(link), os.path.realpath(link.parent)
    return f"{above}/".startswith(f"{target.rstrip('/')}/") or target in map(os.path.realpath, link.parents)


def folders_in(path: Path) -> list[Path]:
    """The folders in `path`, without links to a folder that `path` is in."""
    found = [path / entry.name for entry in entries(path) if is_folder(entry)]
    return [folder for folder in found if not leads_up(folder)]


def files_in(path: Path) -> list[Path]:
    """What is in `path` and no folder: broken links too, which are faulty files."""
    return [path / entry.name for entry in entries(path) if not is_folder(entry)]


def images_in(path: Path) -> list[Path]:
    return [file for file in files_in(path) if file.name.lower().endswith(IMAGE_ENDINGS)]


def images_below(path: Path) -> list[Path]:
    """The images in `path` and in all folders below it."""
    found = images_in(path)
    for folder in folders_in(path):
        found += images_below(folder)
    return found


def suggest_level(path: Path, fits: Callable[[Path], bool]) -> str:
    """A hint naming a nearby folder where `fits` is true, at most two levels down or three up; "" if there is none."""
    below = folders_in(path)[:100]
    deeper = [inner for folder in below[:20] for inner in folders_in(folder)[:20]]
    for folder in (*below, *deeper, *list(path.absolute().parents)[:3]):
        if fits(folder):
            return f"; did you mean {folder}?"
    return ""


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Files by their lower-case names without the ending, which differs between copies of a dataset."""
    return {file.stem.lower(): file for file in files}


def wrong_layout(path: Path, name: str, expected: str, fits: Callable[[Path], bool]) -> DataError:
    """The error for a `path` that does not hold dataset `name`; `fits` is true of a folder that does."""
    names = [entry.name + "/" * entry.is_dir() for entry in entries(path)]
    found = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return DataError(
        f"{path}: no {name} here: expected {expected}; found {found or 'nothing'}" + suggest_level(path, fits)
    )
