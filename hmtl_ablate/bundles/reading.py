"""Reads a bundle as what it is: a file from a stranger.

Names are compared with a list of what a bundle has, so that none can lead out of the folder; sizes are limited before
anything is unpacked, also those of the arrays inside predictions.npz; nothing is unpickled, imported or run.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from hmtl_ablate.bundles.layout import (
    DATA,
    ENTRIES,
    FORMAT,
    HISTORY,
    MANIFEST,
    MIB,
    PREDICTIONS,
    RATIO,
    RECORDS,
    REPORT,
    REQUIRED,
    TOTAL,
    TRIAL_SIZES,
    BundleError,
    Difference,
    limit,
)
from hmtl_ablate.bundles.rebuilding import Content, Records, read_content, read_records
from hmtl_ablate.errors import first_line

ARRAYS = 64
"""Arrays that predictions.npz may have."""
BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)
"""What zipfile and NumPy raise for a file that is cut, changed or of another kind."""


@dataclass(frozen=True)
class Bundle:
    """A bundle, unpacked and checked for safety; nothing in it has been compared with anything else."""

    root: Path
    """The folder of its files, with `trials/<trial_id>/` as in a store."""
    manifest: dict[str, Any]
    changed: tuple[Difference, ...]
    """Files that are not those of the manifest."""
    records: Records
    data: dict[str, Any]
    """Fingerprint → what identifies the labels."""
    report: Any
    """report.json."""
    contents: dict[str, Content]
    """trial_id → the trial's folder."""


@contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """The bundle in a temporary folder, which is removed at the end of the block. Raises BundleError."""
    with tempfile.TemporaryDirectory(prefix="hmtl-bundle-") as folder:
        root = Path(folder)
        unpack(path, root)
        yield _bundle(path, root)


def unpack(path: Path, root: Path) -> None:
    """Write a bundle's files below `root`. Raises BundleError before a file is written that is none of a bundle's."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BundleError(f"{path} is no file")
        if path.stat().st_size > TOTAL:
            raise BundleError(f"{path} is larger than a bundle may be ({TOTAL // MIB:,} MiB)")
        with zipfile.ZipFile(path) as archive:
            _check_entries(path, archive.infolist())
            for entry in archive.infolist():
                target = root / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.read(entry)
                target.write_bytes(content)
    except FileNotFoundError as error:
        raise BundleError(f"there is no file {path}") from error
    except BROKEN as error:
        raise BundleError(f"{path} can't be read: it is damaged, or no bundle ({_said(error)})") from error
    missing = [name for name in REQUIRED if not (root / name).is_file()]
    if missing:
        raise BundleError(f"{path} is no bundle of hmtl-ablate: it has no {', '.join(missing)}")
    for file in sorted(root.glob(f"trials/*/{PREDICTIONS}")):
        _check_arrays(file)


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Raise BundleError unless each entry is a plain file with a bundle's name and size."""
    if len(entries) > ENTRIES:
        raise BundleError(f"{path} has {len(entries):,} files; a bundle has at most {ENTRIES:,}")
    names: set[str] = set()
    for entry in entries:
        name, most = entry.filename, limit(entry.filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if most is None or kind not in (0, stat.S_IFREG) or entry.flag_bits & 1:
            raise BundleError(f"{path} has a file that no bundle has, so nothing of it was unpacked: {name[:200]!r}")
        if name in names:
            raise BundleError(f"{path} has the file {name!r} twice")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(f"{path}: {name} is compressed in a way that bundles are not")
        if entry.file_size > most:
            raise BundleError(f"{path}: {name} has {entry.file_size:,} bytes; it may have {most:,}")
        names.add(name)
    total = sum(entry.file_size for entry in entries)
    if total > min(TOTAL, 10 * MIB + RATIO * path.stat().st_size):
        raise BundleError(f"{path} would unpack to {total:,} bytes, which is more than it may")


def _check_arrays(path: Path) -> None:
    """Raise BundleError unless each array is one of plain numbers, as large as its header says."""
    name, most = "/".join(path.parts[-3:]), TRIAL_SIZES[PREDICTIONS]
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if len(entries) > ARRAYS or total > min(most, 10 * MIB + RATIO * path.stat().st_size):
                raise BundleError(f"{name}: more or larger arrays than a trial has")
            for entry in entries:
                if not re.fullmatch(r"[\w.-]+\.npy", entry.filename) or entry.flag_bits & 1:
                    raise BundleError(f"{name}: {entry.filename[:100]!r} is no array")
                with archive.open(entry) as file:
                    _check_array(file, entry.file_size, f"{name}: {entry.filename}")
            if archive.testzip() is not None:
                raise BundleError(f"{name} is damaged")
    except BROKEN as error:
        raise BundleError(f"{name} can't be read: it is damaged, or holds no plain arrays ({_said(error)})") from error


def _check_array(file: IO[bytes], size: int, name: str) -> None:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise BundleError(f"{name}: an array of an unknown format")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind not in "iufb" or dtype.hasobject:
        raise BundleError(f"{name}: an array of {str(dtype)[:50]}, not of numbers")
    if any(side < 0 for side in shape) or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise BundleError(f"{name}: its header says {str(shape)[:50]}, its content another size")


def _bundle(path: Path, root: Path) -> Bundle:
    manifest = _object(root / MANIFEST)
    if manifest.get("format") != FORMAT or not isinstance(manifest.get("files"), dict):
        raise BundleError(f"{path}: a bundle of another version (format {str(manifest.get('format'))[:20]})")
    for file in sorted(root.glob(f"trials/*/{HISTORY}")):
        _check_history(file)
    folders = sorted(folder for folder in root.glob("trials/*") if folder.is_dir())
    return Bundle(
        root=root,
        manifest=manifest,
        changed=tuple(_changed(root, manifest["files"])),
        records=read_records(_object(root / RECORDS)),
        data=_object(root / DATA),
        report=_object(root / REPORT),
        contents={folder.name: read_content(folder) for folder in folders},
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path.name} is no JSON: {_said(error)}") from error
    if not isinstance(found, dict):
        raise BundleError(f"{path.name} is not what hmtl-ablate writes")
    return found


def _check_history(path: Path) -> None:
    try:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row["epoch"], int | float):
                raise ValueError("an epoch is an object")
            if not all(isinstance(value, int | float) and _small(value) for value in row.values()):
                raise ValueError("its values are numbers")
    except (ValueError, KeyError, RecursionError) as error:
        raise BundleError(f"{'/'.join(path.parts[-3:])} is not what hmtl-ablate writes: {_said(error)}") from error


def _small(value: float) -> bool:
    """Whether a number fits into a float; JSON has integers of any length."""
    return not isinstance(value, int) or abs(value) < 2**63


def _changed(root: Path, listed: dict[Any, Any]) -> Iterator[Difference]:
    """Files whose checksum is not that of the manifest, or that one of both lacks."""
    there = {str(file.relative_to(root)): file for file in sorted(root.rglob("*")) if file.is_file()}
    for name in sorted({*there, *listed} - {MANIFEST}):
        if name not in there:
            yield Difference(name[:200], "", "is listed in the manifest, but missing")
        elif name not in listed:
            yield Difference(name, "", "is not listed in the manifest")
        elif hashlib.sha256(there[name].read_bytes()).hexdigest() != listed[name]:
            yield Difference(name, "", "was changed: its SHA-256 is not that of the manifest")


def _said(error: BaseException) -> str:
    """What an error says, in one line; texts of a bundle may be long."""
    return first_line(error)[:200]
