"""Packs: a dataset decoded once, resized and memory-mapped, so that every trial on a machine maps the same pixels.

A pack is a folder: images.npy (uint8 [N, S, S, C]), labels.npz (labels, split, group, subject) and manifest.json. It is
built in a temporary folder under a lock and renamed when complete, manifest last, so a pack that has its name is whole.

    pack = open_pack(DataConfig(name="ferplus"), Path("ferplus"), store=Path("runs"))
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from hmtl_ablate.config import DataConfig, Frozen
from hmtl_ablate.data.duplicates import THUMB, Judgement, judge
from hmtl_ablate.data.formats import read_source
from hmtl_ablate.data.reading import NO_SPLIT, SPLITS, Sample, SampleError, Source
from hmtl_ablate.errors import DataError, StoreError

PACK_FORMAT = 1
"""Version of the layout and of the rules by which rows are dropped; part of a pack's key."""
MAX_FAULTS = 0.01
"""Largest share of faulty rows that a pack is built with."""
CHUNK = 64
"""Images a task of the thread pool."""
HEADER = 128
"""Bytes before the pixels in images.npy."""

Progress = Callable[[int, int, str], None]
"""Called with what is done, the total, and a few words on what is going on."""


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
    """What is in a pack, and what is not, with the reasons."""

    format: int
    name: str
    source: str
    """Path that it was built from; "" for rendered faces."""
    stored: int
    """Side of the images in pixels."""
    channels: int
    """1 when every image is grey, else 3 (RGB)."""
    count: int
    splits: dict[str, int]
    """Images in train, valid and test; or in "all" without official splits."""
    classes: dict[str, tuple[str, ...]]
    histogram: dict[str, dict[str, dict[str, int]]]
    """Task → split → class → images."""
    rows: int
    """Rows that were meant for use: images, faulty rows and duplicates."""
    left_out: dict[str, int]
    """Rows that their publisher marks as not for use, by reason."""
    dropped: tuple[Dropped, ...]
    duplicates: tuple[DroppedDuplicate, ...]
    fingerprint: str
    """16 hexadecimal digits over images, labels, classes and splits."""


@dataclass(frozen=True)
class Pack:
    """A pack, memory-mapped read-only.

    images: uint8 [N, S, S, C], C = 1 (grey) or 3 (RGB); labels: "emotion", "gender": int64 [N], -1 = missing; "pose":
    float32 [N, 3], yaw, pitch and roll in degrees, NaN = missing; split: int8 [N], 0 train, 1 valid, 2 test, -1 = the
    data has no official split; group: int64 [N], equal for duplicates of one another; subject: int64 [N], equal for
    images of one person, -1 = the data does not say; classes: task → class names.
    """

    folder: Path
    manifest: Manifest
    images: NDArray[np.uint8]
    labels: dict[str, NDArray[Any]]
    split: NDArray[np.int8]
    group: NDArray[np.int64]
    subject: NDArray[np.int64]
    classes: dict[str, tuple[str, ...]]
    fingerprint: str


def load_pack(folder: Path) -> Pack:
    """Map the pack in `folder`; raises `DataError` when it is missing, unfinished or damaged."""
    try:
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        with np.load(folder / "labels.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        labels = {name.removeprefix("label."): array for name, array in arrays.items() if name.startswith("label.")}
        split, group = arrays["split"], arrays["group"]
        subject = arrays.get("subject", np.full(len(split), -1, np.int64))
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no finished pack here ({Path(error.filename).name} is missing)") from error
    except PermissionError as error:
        raise DataError(f"{error.filename}: no permission to read this") from error
    except ValidationError as error:
        raise DataError(
            f"{folder}: manifest.json is damaged or of another version; delete this folder to build the pack anew"
        ) from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{folder}: this pack is damaged ({error}); delete the folder to build it anew") from error
    if manifest.format != PACK_FORMAT:
        raise DataError(
            f"{folder}: a pack of format {manifest.format}, this version reads {PACK_FORMAT}; build it anew"
        )
    shape = (manifest.count, manifest.stored, manifest.stored, manifest.channels)
    arrays_fit = all(len(array) == manifest.count for array in (*labels.values(), split, group, subject))
    if images.shape != shape or images.dtype != np.uint8 or not arrays_fit:
        raise DataError(
            f"{folder}: this pack is damaged (images {images.shape}, manifest {shape}); delete the folder "
            "to build it anew"
        )
    return Pack(folder, manifest, images, labels, split, group, subject, manifest.classes, manifest.fingerprint)


def open_pack(
    data: DataConfig,
    path: Path | None,
    store: Path,
    progress: Progress | None = None,
    *,
    max_faults: float = MAX_FAULTS,
    threads: int | None = None,
) -> Pack:
    """The pack of `data` read from `path`: mapped from `store`/packs, or built there first.

    `path` may also be a pack's own folder. Raises `DataError` for what is wrong with the data, or when more than
    `max_faults` of its rows are faulty, and `StoreError` when the store can't be written.
    """
    path = path.expanduser() if path else None
    if path is not None and _is_pack(path):
        return _given_pack(data, path)
    source = read_source(data, path)
    folder = store / "packs" / f"{data.name}-{data.stored_size}px-{_key(data, source, path)}"
    if not _is_pack(folder):
        try:
            _build(data, source, path, folder, progress, max_faults, threads or _cpus())
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR):
                raise StoreError(
                    f"{folder.parent}: the pack of {data.name!r} can't be written here: {error.strerror}; "
                    "choose another store with --runs DIR"
                ) from error
            raise StoreError(f"{folder}: the pack can't be written: {error}") from error
    return load_pack(folder)


def check_data(
    data: DataConfig, path: Path | None, progress: Progress | None = None, *, threads: int | None = None
) -> Manifest:
    """Read every file of a dataset as `open_pack` does, write nothing, and tell what a pack of it would hold.

    Faulty rows are told whatever their share; `refuse_faults` judges it.
    """
    path = path.expanduser() if path else None
    if path is not None and _is_pack(path):
        return _given_pack(data, path).manifest
    source = read_source(data, path)
    scan = _scan(source, data.stored_size, None, progress, threads or _cpus())
    return _summarise(data, source, path, scan, _judge(source, scan, progress, threads or _cpus()))[0]


def refuse_faults(manifest: Manifest, limit: float = MAX_FAULTS) -> None:
    """Raise `DataError` when more than a share `limit` of a dataset's rows is faulty."""
    _refuse_faults(
        manifest.name, manifest.source, [(row.file, row.reason) for row in manifest.dropped], manifest.rows, limit
    )


def _refuse_faults(name: str, source: str, faults: Sequence[tuple[str, str]], rows: int, limit: float) -> None:
    if len(faults) > limit * rows:
        first = "".join(f"\n  {file}: {reason}" for file, reason in faults[:5])
        more = f"\n  and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DataError(
            f"dataset {name!r} at {source}: {len(faults)} of {rows} rows are faulty, more than "
            f"{100 * limit:g} %:{first}{more}\nmend or remove them; "
            f"`hmtl-ablate data check {name}={source}` lists all"
        )


def _given_pack(data: DataConfig, path: Path) -> Pack:
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


def _key(data: DataConfig, source: Source, path: Path | None) -> str:
    """Hash of what a pack is made from: the format, the size, and each file's name, size and time."""
    digest = hashlib.sha256(json.dumps([PACK_FORMAT, data.name, data.stored_size, *source.identity]).encode())
    root = path if path and path.is_dir() else path.parent if path else Path()
    for file in (*source.files, *(file for sample in source.samples for file in sample.files)):
        name = os.path.relpath(file, root)
        try:
            stat = os.stat(file)
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
        except OSError:
            digest.update(f"{name}\0missing\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:12]


def _is_pack(folder: Path) -> bool:
    return os.path.isfile(folder / "manifest.json")  # unlike Path.is_file it is False without permission


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- building ---------------------------------------------------------------------------------------------------------


@dataclass
class _Scan:
    """What is known of each of N samples after reading it; `fault` is "" for a usable one."""

    fault: list[str]
    labels: list[Mapping[str, int | tuple[float, ...]]]
    pixels: list[bytes]
    """Hash of the decoded pixels, before resizing."""
    stored: list[bytes]
    """Hash of the pixels that the pack stores."""
    grey: NDArray[np.bool_]
    thumbs: NDArray[np.uint8]


def _build(
    data: DataConfig,
    source: Source,
    path: Path | None,
    folder: Path,
    progress: Progress | None,
    max_faults: float,
    threads: int,
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f".{folder.name}.lock", progress):
        if _is_pack(folder):  # another process built it while this one waited
            return
        work = folder.with_name(f".{folder.name}.building")
        for leftover in (work, folder):
            if leftover.exists():
                shutil.rmtree(leftover)
        work.mkdir()
        try:
            with open(work / "images.npy", "w+b") as file:
                scan = _scan(source, data.stored_size, file.fileno(), progress, threads)
                faults = _faults(source, scan)
                _refuse_faults(data.name, str(path or ""), faults, _rows(source), max_faults)
                judgement = _judge(source, scan, progress, threads)
                manifest, rows, arrays = _summarise(data, source, path, scan, judgement)
                if manifest.count == 0:
                    raise DataError(
                        f"{path}: no usable image is left as dataset {data.name!r}; {len(faults)} faulty, "
                        f"{len(judgement.duplicates)} duplicates"
                    )
                _compact(file.fileno(), rows, data.stored_size, manifest.channels)
                os.fsync(file.fileno())
            np.savez_compressed(work / "labels.npz", allow_pickle=False, **arrays)
            (work / "manifest.json.part").write_text(
                json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8"
            )
            os.replace(work / "manifest.json.part", work / "manifest.json")
            os.rename(work, folder)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


@contextmanager
def _locked(path: Path, progress: Progress | None) -> Iterator[None]:
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if progress:
                progress(0, 0, "waiting for another process that builds this pack")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _scan(source: Source, size: int, file: int | None, progress: Progress | None, threads: int) -> _Scan:
    """Read all samples in parallel; with `file`, write their pixels there, [N, size, size, 3] after the header."""
    count = len(source.samples)
    scan = _Scan(
        [""] * count,
        [{}] * count,
        [b""] * count,
        [b""] * count,
        np.ones(count, np.bool_),
        np.zeros((count, THUMB, THUMB), np.uint8),
    )
    row = size * size * 3
    threads = 1 if source.drawn else threads

    def read(start: int) -> int:
        part = source.samples[start : start + CHUNK]
        block = np.zeros((len(part), size, size, 3), np.uint8)
        for offset, sample in enumerate(part):
            _read_one(scan, start + offset, sample, block[offset])
        if file is not None:
            os.pwrite(file, block.data, HEADER + start * row)
        return len(part)

    # A window of tasks keeps memory small, and Ctrl-C quick, whatever the number of images.
    with ThreadPoolExecutor(threads) as pool:
        starts = iter(range(0, count, CHUNK))
        pending: set[Future[int]] = {pool.submit(read, start) for start in islice(starts, 4 * threads)}
        done = 0
        try:
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                done += sum(task.result() for task in finished)
                pending |= {pool.submit(read, start) for start in islice(starts, len(finished))}
                if progress:
                    progress(done, count, "reading images")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return scan


def _read_one(scan: _Scan, position: int, sample: Sample, out: NDArray[np.uint8]) -> None:
    size = out.shape[0]
    try:
        image, scan.labels[position] = sample.read(size)
    except SampleError as fault:
        scan.fault[position] = str(fault)
        return
    image = np.ascontiguousarray(image)
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    scan.pixels[position] = hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).digest()
    out[:] = resized(rgb, size)
    scan.stored[position] = hashlib.sha256(out.tobytes()).digest()
    scan.grey[position] = bool((out[..., 0] == out[..., 1]).all() and (out[..., 1] == out[..., 2]).all())
    scan.thumbs[position] = resized(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), THUMB)


def resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`image` at size × size: by area when it shrinks, so that nothing is skipped, else linear."""
    if image.shape[:2] == (size, size):
        return image
    shrinks = image.shape[0] * image.shape[1] > size * size
    return np.asarray(
        cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), dtype=np.uint8
    )


def _rows(source: Source) -> int:
    return len(source.samples) + len(source.dropped)


def _faults(source: Source, scan: _Scan) -> list[tuple[str, str]]:
    read = [(sample.name, fault) for sample, fault in zip(source.samples, scan.fault, strict=True) if fault]
    return [*source.dropped, *read]


def _usable(scan: _Scan) -> NDArray[np.int64]:
    return np.flatnonzero([not fault for fault in scan.fault]).astype(np.int64)


def _judge(source: Source, scan: _Scan, progress: Progress | None, threads: int) -> Judgement:
    """Duplicates among the usable samples; positions count these alone."""
    usable = _usable(scan).tolist()
    classes = [{task: label for task, label in scan.labels[i].items() if isinstance(label, int)} for i in usable]
    split = np.array([source.samples[i].split for i in usable], np.int8)
    return judge([scan.pixels[i] for i in usable], scan.thumbs[usable], split, classes, threads, progress)


def _summarise(
    data: DataConfig, source: Source, path: Path | None, scan: _Scan, judgement: Judgement
) -> tuple[Manifest, NDArray[np.int64], dict[str, NDArray[Any]]]:
    """The manifest, the positions of the samples that stay, and the arrays of labels.npz."""
    usable = _usable(scan)
    rows = usable[judgement.keep]
    split = np.array([source.samples[i].split for i in rows], np.int8)
    labels = [scan.labels[i] for i in rows]
    tasks = {task: len(label) if isinstance(label, tuple) else 0 for found in labels for task, label in found.items()}
    arrays: dict[str, NDArray[Any]] = {"split": split, "group": judgement.group[judgement.keep]}
    subjects = [source.samples[i].subject for i in rows]
    if any(subjects):
        number = {name: place for place, name in enumerate(sorted(set(subjects) - {""}))}
        arrays["subject"] = np.array([number.get(name, -1) for name in subjects], np.int64)
    for task, width in sorted(tasks.items()):
        missing: Any = (np.nan,) * width if width else -1
        arrays[f"label.{task}"] = np.array(
            [found.get(task, missing) for found in labels], np.float32 if width else np.int64
        )
    names = [sample.name for sample in source.samples]
    official = bool((split != NO_SPLIT).any())
    places = {name: split == code for code, name in enumerate(SPLITS)} if official else {"all": split == NO_SPLIT}
    classes = {task: names for task, names in source.classes.items() if task in tasks}
    manifest = Manifest(
        format=PACK_FORMAT,
        name=data.name,
        source=str(path.absolute()) if path else "",
        stored=data.stored_size,
        channels=1 if len(rows) and scan.grey[rows].all() else 3,
        count=len(rows),
        splits={name: int(here.sum()) for name, here in places.items()},
        classes=classes,
        histogram={
            task: {name: _histogram(arrays[f"label.{task}"][here], classes[task]) for name, here in places.items()}
            for task in classes
        },
        rows=_rows(source),
        left_out=dict(source.left_out),
        dropped=tuple(Dropped(file=name, reason=reason) for name, reason in _faults(source, scan)),
        duplicates=tuple(
            DroppedDuplicate(
                file=names[usable[found.dropped]], of=names[usable[found.kept]], kind=found.kind, reason=found.reason
            )
            for found in judgement.duplicates
        ),
        fingerprint=_fingerprint([scan.stored[i] for i in rows], arrays, classes),
    )
    return manifest, rows, arrays


def _histogram(labels: NDArray[Any], names: tuple[str, ...]) -> dict[str, int]:
    counts = Counter(labels.tolist())
    return {name: counts.get(index, 0) for index, name in enumerate(names)}


def _fingerprint(
    images: Sequence[bytes], arrays: Mapping[str, NDArray[Any]], classes: Mapping[str, tuple[str, ...]]
) -> str:
    digest = hashlib.sha256(b"".join(images))
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    digest.update(json.dumps({task: list(names) for task, names in classes.items()}, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _compact(file: int, rows: NDArray[np.int64], size: int, channels: int) -> None:
    """Keep only `rows` of the [N, size, size, 3] pixels in `file`, in place, with `channels`; write the npy header."""
    source_row, row, at = size * size * 3, size * size * channels, HEADER
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK].tolist()
        block = np.empty((len(part), size, size, channels), np.uint8)
        for offset, position in enumerate(part):
            raw = os.pread(file, source_row, HEADER + position * source_row)
            block[offset] = np.frombuffer(raw, np.uint8).reshape(size, size, 3)[..., :channels]
        at += os.pwrite(file, block.data, at)  # never overtakes what is still to be read
    os.ftruncate(file, HEADER + len(rows) * row)
    shape = (len(rows), size, size, channels)
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(HEADER - 11).encode() + b"\n"
    os.pwrite(file, b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + head, 0)
