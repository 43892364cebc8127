"""Packs: a dataset decoded and resized once, then memory-mapped, so that all trials on a machine share its pixels.

A pack is a folder: images.npy (uint8 [N, S, S, C]), labels.npz (labels, split, group, subject) and manifest.json. This
module defines and reads it; build.py makes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from hmtl_ablate.config import DataConfig, Frozen
from hmtl_ablate.data.reading import SHARES
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
LABEL = "label."
"""Prefix of the names of label arrays in labels.npz."""


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


def load_pack(folder: Path) -> Pack:
    """Map the pack in `folder`; raises `DataError` when it is missing, unfinished, damaged or of another format."""
    try:
        manifest = _load_manifest(folder)
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        with np.load(folder / "labels.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        labels = labels_in(arrays)
        split, group = arrays["split"], arrays["group"]
        subject = arrays.get("subject", np.full(len(split), -1, np.int64))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no finished pack here ({Path(error.filename).name} is missing)") from error
    except PermissionError as error:
        raise DataError(f"{error.filename}: no permission to read this") from error
    except ValidationError as error:
        raise DataError(f"{folder}: manifest.json is damaged; delete this folder to rebuild the pack") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{folder}: this pack is damaged ({error}); delete the folder to rebuild it") from error
    shape = (manifest.count, manifest.stored, manifest.stored, manifest.channels)
    arrays_fit = all(len(array) == manifest.count for array in (*labels.values(), split, group, subject))
    if images.shape != shape or images.dtype != np.uint8 or not arrays_fit:
        raise DataError(
            f"{folder}: this pack is damaged (images {images.shape}, manifest {shape}); delete the folder to rebuild it"
        )
    return Pack(folder, manifest, images, labels, split, group, subject, manifest.classes, manifest.fingerprint)


def _load_manifest(folder: Path) -> Manifest:
    text = (folder / "manifest.json").read_bytes()
    found = json.loads(text)
    version = found.get("format") if isinstance(found, dict) else None
    if isinstance(version, int) and version != PACK_FORMAT:
        raise DataError(
            f"{folder}: this pack has format {version}, and this version reads {PACK_FORMAT}; give the dataset's own "
            "path to rebuild it"
        )
    return Manifest.model_validate_json(text)


def open_built(data: DataConfig, path: Path) -> Pack:
    """The pack in folder `path`; raises `DataError` when it is not of this dataset and size."""
    pack = load_pack(path)
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
    for name in sorted(arrays):
        if not name.startswith(LABEL) or name.removeprefix(LABEL) in FINGERPRINT_LABELS:
            digest.update(name.encode() + arrays[name].tobytes())
    covered = {task: list(names) for task, names in classes.items() if task in FINGERPRINT_LABELS}
    digest.update(json.dumps(covered, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def label_digest(labels: NDArray[Any], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(labels.tobytes())
    digest.update(json.dumps([labels.shape, classes]).encode())
    return digest.hexdigest()[:16]
