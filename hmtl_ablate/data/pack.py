"""Packs: a dataset decoded and resized once, then memory-mapped, so that all trials on a machine share its pixels.

A pack is a folder: images.npy (uint8 [N, S, S, C]), labels.npz (labels, split, group, subject and a digest of each
image) and manifest.json. This module defines and reads it; build.py makes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from hmtl_ablate.config import DataConfig, Frozen
from hmtl_ablate.data.reading import SHARES, SampleError, read_bytes
from hmtl_ablate.errors import DataError

PACK_FORMAT = 3
"""Version of the layout and of the rules by which rows are dropped. It is part of the name of a pack's folder, so packs
of an older version are rebuilt, but not of the fingerprint, so trials on them keep their ids."""
FINGERPRINT_LABELS = ("emotion", "gender", "pose")
"""The labels that the fingerprint covers. Never add to them: trial ids are made from fingerprints, and a pack that gets
another column of labels must not rename the trials that do not read it. Every other column has a digest of its own,
which only the ids of trials that read it depend on (`Pack.identity`)."""
HEADER = 128
"""Bytes before the pixels in images.npy."""
SAMPLED = 64
"""Images that are compared with the fingerprint whenever a pack is opened."""
DIGESTS = "digest"
"""Name of the array in labels.npz that holds the sha256 of each image, uint8 [N, 32]."""
MANIFEST_BYTES, ROW_BYTES, HEAD_BYTES = 1 << 28, 4096, 1 << 20
"""Largest manifest.json; largest labels.npz once unpacked, for each image and in addition."""
LABEL = "label."
"""Prefix of the names of label arrays in labels.npz."""


Progress = Callable[[int, int, str], None]
"""Called with the number of items done, their total, and the name of the current step."""


class Dropped(Frozen):
    """A faulty row."""

    file: str
    reason: str


class DroppedDuplicate(Frozen):
    """A duplicate that was dropped, and the image it duplicates."""

    file: str
    of: str
    kind: str
    """exact or near"""
    reason: str


class Manifest(Frozen):
    """The content of a pack, and what was left out of it, with the reasons."""

    format: int
    name: str
    source: str
    """Path that it was built from; "" for a dataset without one."""
    stored: int
    """Side of the images in pixels."""
    channels: int
    """1 when every image is grey, else 3 (RGB)."""
    count: int
    splits: dict[str, int]
    """Images in train, valid and test; or in "all" without official splits."""
    classes: dict[str, tuple[str, ...]]
    """Task → class names; tasks whose labels are numbers have none."""
    histogram: dict[str, dict[str, dict[str, int]]]
    """Task with classes → split → class → images."""
    labelled: dict[str, dict[str, int]]
    """Task → split → images that have its label."""
    layout: str = ""
    """Which layout of the dataset was recognised."""
    notes: tuple[str, ...] = ()
    """What else its reader says: rules that were applied, warnings, links that were not followed."""
    unread: dict[str, int] = {}
    """Files in the dataset's folder that were not read: ending ("" for none) → count."""
    ranges: dict[str, tuple[tuple[float, float, float], ...]] = {}
    """Task whose labels are numbers → smallest, mean and largest value of each number."""
    rows: int
    """Rows that were meant for use: images, faulty rows and duplicates."""
    left_out: dict[str, int]
    """Rows that their publisher marks as not for use, by reason."""
    dropped: tuple[Dropped, ...]
    duplicates: tuple[DroppedDuplicate, ...]
    fingerprint: str
    """16 hexadecimal digits over images, splits, groups, subjects, and the labels and classes of
    `FINGERPRINT_LABELS`."""
    label_digests: dict[str, str]
    """Task → 16 hexadecimal digits over its labels and classes, for all other tasks."""


@dataclass(frozen=True)
class Pack:
    """A pack of N images, memory-mapped read-only."""

    folder: Path
    manifest: Manifest
    images: NDArray[np.uint8]
    """[N, S, S, C]; C is 1 (grey) or 3 (RGB)."""
    labels: dict[str, NDArray[Any]]
    """Task, or task.shares (of votes) → labels. Classes: int64 [N], −1 = missing. Numbers: float32 [N, width], NaN =
    missing; "pose" is yaw, pitch and roll in degrees, "affect" valence and arousal from −1 to 1."""
    split: NDArray[np.int8]
    """[N]; 0 train, 1 valid, 2 test, −1 = the data has no official split."""
    group: NDArray[np.int64]
    """[N]; equal for images that are duplicates of one another."""
    subject: NDArray[np.int64]
    """[N]; equal for images of one person, −1 = the data does not say."""
    classes: dict[str, tuple[str, ...]]
    """Task → class names."""
    fingerprint: str
    """As in the manifest."""

    def identity(self, tasks: Sequence[str]) -> str:
        """What the id of a trial on `tasks` depends on: the fingerprint, and digests of the other labels it reads."""
        digests = self.manifest.label_digests
        read = {*tasks, *(f"{task}{SHARES}" for task in tasks)}
        return self.fingerprint + "".join(f"+{label}:{digests[label]}" for label in sorted(read & {*digests}))


class DamagedPack(DataError):
    """A pack whose content is not what was written."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(f"{folder}: this pack is damaged ({why}); delete the folder to rebuild it")
        self.why = why


def load_pack(folder: Path, *, whole: bool = False, progress: Progress | None = None) -> Pack:
    """Map the pack in `folder` and compare its content with its fingerprint: all labels, and `SAMPLED` images or,
    with `whole`, all of them.

    Raises `DamagedPack` when they differ, and `DataError` when the pack is missing, unfinished or of another format.
    """
    try:
        manifest = _load_manifest(folder)
        for name in ("images.npy", "labels.npz"):
            if not stat.S_ISREG(os.stat(folder / name).st_mode):
                raise ValueError(f"{name} is not a regular file")
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        arrays = _load_arrays(folder / "labels.npz", manifest.count)
        labels = labels_in(arrays)
        split, group, digests = arrays["split"], arrays["group"], arrays[DIGESTS]
        subject = arrays.get("subject", np.full(len(split), -1, np.int64))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no finished pack here ({Path(error.filename).name} is missing)") from error
    except PermissionError as error:
        raise DataError(f"{error.filename}: no permission to read this") from error
    except ValidationError as error:
        raise DamagedPack(folder, "manifest.json") from error
    except (OSError, ValueError, KeyError, EOFError, MemoryError, SampleError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedPack(folder, str(error)) from error
    shape = (manifest.count, manifest.stored, manifest.stored, manifest.channels)
    arrays_fit = all(len(array) == manifest.count for array in arrays.values())
    if images.shape != shape or images.dtype != np.uint8 or not arrays_fit:
        raise DamagedPack(folder, f"images {images.shape}, manifest {shape}")
    if not _labels_fit(manifest, arrays):
        raise DamagedPack(folder, "its labels are not those of its fingerprint")
    for row in _other_rows(images, digests, whole, progress):
        raise DamagedPack(folder, f"image {row} is not the one of its fingerprint")
    return Pack(folder, manifest, images, labels, split, group, subject, manifest.classes, manifest.fingerprint)


def _load_manifest(folder: Path) -> Manifest:
    os.stat(folder / "manifest.json")  # FileNotFoundError names the file
    text = read_bytes(folder / "manifest.json", MANIFEST_BYTES)
    found = json.loads(text)
    version = found.get("format") if isinstance(found, dict) else None
    if isinstance(version, int) and version != PACK_FORMAT:
        raise DataError(
            f"{folder}: this pack has format {version}, and this version reads {PACK_FORMAT}; give the dataset's own "
            "path to rebuild it"
        )
    return Manifest.model_validate_json(text)


def _load_arrays(file: Path, count: int) -> dict[str, NDArray[Any]]:
    """The arrays of labels.npz; raises ValueError when they unpack to far more than `count` images need."""
    with zipfile.ZipFile(file) as packed:
        size = sum(member.file_size for member in packed.infolist())
    if size > count * ROW_BYTES + HEAD_BYTES:
        raise ValueError(f"labels.npz unpacks to {size:,} bytes for {count} images")
    with np.load(file, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _labels_fit(manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether labels, splits and digests of images are those of the manifest's fingerprint."""
    others = {
        task: label_digest(values, manifest.classes.get(task, ()))
        for task, values in labels_in(arrays).items()
        if task not in FINGERPRINT_LABELS
    }
    found = fingerprint_of([row.tobytes() for row in arrays[DIGESTS]], arrays, manifest.classes)
    return found == manifest.fingerprint and others == manifest.label_digests


def _other_rows(
    images: NDArray[np.uint8], digests: NDArray[np.uint8], whole: bool, progress: Progress | None
) -> Iterator[int]:
    """Positions of the images that do not have their digest, of `SAMPLED` evenly spaced ones or of all."""
    count = len(images)
    rows = np.arange(count) if whole else np.unique(np.linspace(0, count - 1, min(SAMPLED, count)).round().astype(int))
    for done, row in enumerate(rows.tolist()):
        if image_digest(images[row]) != digests[row].tobytes():
            yield row
        if progress and done % 256 == 0:
            progress(done, len(rows), "comparing images with their fingerprint")


def image_digest(image: NDArray[np.uint8]) -> bytes:
    """sha256 of a stored image, uint8 [S, S, C]; a grey one as three equal channels."""
    rgb = image if image.shape[2] == 3 else np.repeat(image, 3, axis=2)
    return hashlib.sha256(np.ascontiguousarray(rgb).tobytes()).digest()


def open_built(data: DataConfig, path: Path, *, whole: bool = False, progress: Progress | None = None) -> Pack:
    """The pack in folder `path`, as `load_pack`; raises `DataError` when it is not of this dataset and size."""
    pack = load_pack(path, whole=whole, progress=progress)
    if pack.manifest.name != data.name:
        raise DataError(
            f"{path}: this is a pack of {pack.manifest.name!r}, not of {data.name!r}; write --data "
            f"{pack.manifest.name}={path}"
        )
    if pack.manifest.stored != data.stored_size:
        raise DataError(
            f"{path}: this pack has images of {pack.manifest.stored} px, the config asks for "
            f"{data.stored_size}; set data.stored to {pack.manifest.stored}"
        )
    return pack


def is_pack(folder: Path) -> bool:
    return os.path.isfile(folder / "manifest.json")  # unlike Path.is_file it is False without permission


def labels_in(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(LABEL): array for name, array in arrays.items() if name.startswith(LABEL)}


def fingerprint_of(
    images: Sequence[bytes], arrays: Mapping[str, NDArray[Any]], classes: Mapping[str, tuple[str, ...]]
) -> str:
    digest = hashlib.sha256(b"".join(images))
    for name in sorted({*arrays} - {DIGESTS}):
        if not name.startswith(LABEL) or name.removeprefix(LABEL) in FINGERPRINT_LABELS:
            digest.update(name.encode() + arrays[name].tobytes())
    covered = {task: list(names) for task, names in classes.items() if task in FINGERPRINT_LABELS}
    digest.update(json.dumps(covered, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def label_digest(labels: NDArray[Any], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(labels.tobytes())
    digest.update(json.dumps([labels.shape, classes]).encode())
    return digest.hexdigest()[:16]
