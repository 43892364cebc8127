"""Building packs: every file of a dataset is read once, in parallel; what can't be used is dropped and listed.

A pack is built in a temporary folder under a lock and renamed when complete, so a folder with a pack's name holds a
whole pack.

    pack = open_pack(DataConfig(name="ferplus"), Path("ferplus"), store=Path("runs"))
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.duplicates import THUMB, Judgement, judge
from hmtl_ablate.data.framing import cut, placed, resized
from hmtl_ablate.data.pack import (
    DIGESTS,
    FINGERPRINT_LABELS,
    HEADER,
    LABEL,
    PACK_FORMAT,
    DamagedPack,
    Dropped,
    DroppedDuplicate,
    Manifest,
    Pack,
    Progress,
    fingerprint_of,
    image_digest,
    is_pack,
    label_digest,
    labels_in,
    load_pack,
    open_built,
)
from hmtl_ablate.data.reading import NO_SPLIT, SPLITS, Labels, Sample, Source, printable, reason_of
from hmtl_ablate.data.registry import read_source
from hmtl_ablate.data.sheet import check_target, write_sheet
from hmtl_ablate.data.unread import Unread, unread
from hmtl_ablate.errors import DataError, StoreError
from hmtl_ablate.storage import bring
from hmtl_ablate.storage.lease import lock

MAX_FAULTS = 0.01
"""Largest share of faulty rows that a pack is built with."""
CHUNK = 64
"""Images per task of the thread pool."""


def open_pack(
    data: DataConfig,
    path: Path | None,
    store: Path,
    progress: Progress | None = None,
    *,
    max_faults: float = MAX_FAULTS,
    threads: int | None = None,
) -> Pack:
    """The pack of the dataset at `path`: mapped from `store`/packs, where it is built first if need be.

    A damaged pack in the store is set aside, as *.damaged, and built again. `path` may also be a pack's own folder.
    Raises `DataError` when the data is unusable or a share of more than `max_faults` of its rows is faulty, and
    `StoreError` when the store can't be written.
    """
    path = path.expanduser() if path else None
    if path is not None and is_pack(path):
        return open_built(data, path)
    source = read_source(data, path)
    folder = store / "packs" / f"{data.name}-{data.stored_size}px-{_key(data, source, path)}"
    if (built := _intact(bring(folder))) is not None:
        return built
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


def _intact(folder: Path) -> Pack | None:
    """The pack in `folder`; None when there is none, or a damaged one."""
    if not is_pack(folder):
        return None
    try:
        return load_pack(folder)
    except DamagedPack:
        return None


def check_data(
    data: DataConfig,
    path: Path | None,
    progress: Progress | None = None,
    *,
    threads: int | None = None,
    sheet: Path | None = None,
) -> Manifest:
    """The manifest that a pack of the dataset would have; reads every file as `open_pack` does, and stores nothing.

    sheet: where to draw a contact sheet of the faces. Faulty rows raise nothing here, however many; see
    `refuse_unusable`.
    """
    if sheet is not None:
        check_target(sheet)
    path = path.expanduser() if path else None
    if path is not None and is_pack(path):
        pack = open_built(data, path, whole=True, progress=progress)
        if sheet is not None:
            write_sheet(sheet, pack.manifest, pack.labels, lambda position: pack.images[position])
        return pack.manifest
    source = read_source(data, path)
    scan = _scan(source, data, None, progress, threads or _cpus())
    judgement = _judge(source, scan, progress, threads or _cpus())
    manifest, rows, arrays = _summarise(data, source, path, scan, judgement)
    if sheet is not None and manifest.count:
        write_sheet(sheet, manifest, labels_in(arrays), lambda at: _stored(source.samples[rows[at]], data)[0])
    return manifest


def refuse_unusable(manifest: Manifest, limit: float = MAX_FAULTS) -> None:
    """Raise `DataError` when more than a share `limit` of a dataset's rows is faulty, or no image is left."""
    faults = [(row.file, row.reason) for row in manifest.dropped]
    _refuse_faults(manifest.name, manifest.source, faults, manifest.rows, limit)
    _refuse_empty(manifest)


def _refuse_empty(manifest: Manifest) -> None:
    if manifest.count == 0:
        raise DataError(
            f"{manifest.source}: no usable image is left as dataset {manifest.name!r}; {len(manifest.dropped)} faulty, "
            f"{len(manifest.duplicates)} duplicates"
        )


def _refuse_faults(name: str, source: str, faults: Sequence[tuple[str, str]], rows: int, limit: float) -> None:
    if len(faults) > limit * rows:
        first = "".join(f"\n  {file}: {reason}" for file, reason in faults[:5])
        more = f"\n  and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise DataError(
            f"dataset {name!r} at {source}: {len(faults)} of {rows} rows are faulty, more than "
            f"{100 * limit:g} %:{first}{more}\nfix or remove them; "
            f"`hmtl-ablate data check {name}={source}` lists all"
        )


def _key(data: DataConfig, source: Source, path: Path | None) -> str:
    """Hash of the pack's inputs: the format, the dataset, the size, and each file's name, size and time."""
    digest = hashlib.sha256(
        json.dumps([PACK_FORMAT, data.name, data.stored_size, data.pack_options, *source.identity]).encode()
    )
    root = path if path and path.is_dir() else path.parent if path else Path()
    for file in (*source.files, *(file for sample in source.samples for file in sample.files)):
        name = os.path.relpath(file, root)
        try:
            stat = os.stat(file)
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
        except (OSError, ValueError):  # ValueError: a NUL in the path
            digest.update(f"{name}\0missing\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:12]


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Scan:
    """What reading N samples has found."""

    fault: list[str]
    """Why a sample can't be used; "" for a usable one."""
    labels: list[Labels]
    pixels: list[bytes]
    """Hash of the decoded pixels that are seen, before resizing."""
    stored: list[bytes]
    """Hash of the pixels that the pack stores."""
    grey: NDArray[np.bool_]
    """[N]"""
    thumbs: NDArray[np.uint8]
    """Grey thumbnails, [N, 32, 32]."""


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

    def waiting() -> None:
        if progress:
            progress(0, 0, "waiting for another process that is building this pack")

    with lock(folder.parent / f".{folder.name}.lock", waiting):
        if _intact(folder):  # another process built it while this one waited
            return
        work = folder.with_name(f".{folder.name}.building")
        if is_pack(folder):
            aside = folder.with_name(f"{folder.name}.damaged")
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(folder, aside)  # a trial that has it mapped keeps it
            if progress:
                progress(0, 0, f"building a damaged pack again; the old one is {aside.name}")
        for leftover in (work, folder):
            if leftover.exists():
                shutil.rmtree(leftover)
        work.mkdir()
        try:
            with open(work / "images.npy", "w+b") as file:
                scan = _scan(source, data, file.fileno(), progress, threads)
                faults = _faults(source, scan)
                _refuse_faults(data.name, str(path or ""), faults, _rows(source), max_faults)
                judgement = _judge(source, scan, progress, threads)
                manifest, rows, arrays = _summarise(data, source, path, scan, judgement)
                _refuse_empty(manifest)
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


def _scan(source: Source, data: DataConfig, file: int | None, progress: Progress | None, threads: int) -> _Scan:
    """Read all samples in parallel; with `file`, write their pixels there, [N, size, size, 3] after the header."""
    count, size = len(source.samples), data.stored_size
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
            _read_one(scan, start + offset, sample, data, block[offset])
        if file is not None:
            os.pwrite(file, block.data, HEADER + start * row)
        return len(part)

    # A window of pending tasks bounds memory and keeps Ctrl-C quick, whatever the number of images.
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


def _read_one(scan: _Scan, position: int, sample: Sample, data: DataConfig, out: NDArray[np.uint8]) -> None:
    try:
        out[:], part, scan.labels[position] = _stored(sample, data)
    except Exception as error:  # one row never ends the reading of a dataset
        scan.fault[position] = reason_of(error) or "can't be read"
        scan.labels[position] = {}
        return
    scan.pixels[position] = hashlib.sha256(repr(part.shape).encode() + part.tobytes()).digest()
    scan.stored[position] = image_digest(out)
    scan.grey[position] = bool((out[..., 0] == out[..., 1]).all() and (out[..., 1] == out[..., 2]).all())
    scan.thumbs[position] = resized(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), THUMB, THUMB)


def _stored(sample: Sample, data: DataConfig) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Labels]:
    """A sample as a pack stores it, uint8 [S, S, 3]; the part of its image that is seen, [h, w, 3]; its labels."""
    image, labels = sample.read(data.stored_size)
    rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    found = cut(rgb, sample.frame, data)
    return placed(found, data.stored_size), found.part, labels


def _rows(source: Source) -> int:
    return len(source.samples) + len(source.dropped)


def _faults(source: Source, scan: _Scan) -> list[tuple[str, str]]:
    read = [(sample.name, fault) for sample, fault in zip(source.samples, scan.fault, strict=True) if fault]
    return [(printable(name), reason) for name, reason in (*source.dropped, *read)]


def _unread(source: Source, path: Path | None) -> Unread:
    if path is None:
        return Unread({}, ())
    files = (*source.files, *(file for sample in source.samples for file in sample.files))
    return unread(path if path.is_dir() else path.parent, files)


def _usable(scan: _Scan) -> NDArray[np.int64]:
    return np.flatnonzero([not fault for fault in scan.fault]).astype(np.int64)


def _judge(source: Source, scan: _Scan, progress: Progress | None, threads: int) -> Judgement:
    """Duplicates among the usable samples; positions refer to the usable samples only."""
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
    found = [scan.labels[i] for i in rows]
    arrays = _arrays([source.samples[i] for i in rows], found, [scan.stored[i] for i in rows], judgement)
    split, labels = arrays["split"], labels_in(arrays)
    official = bool((split != NO_SPLIT).any())
    places = {name: split == code for code, name in enumerate(SPLITS)} if official else {"all": split == NO_SPLIT}
    classes = {task: tuple(map(printable, names)) for task, names in source.classes.items() if task in labels}
    names = [printable(sample.name) for sample in source.samples]
    others = _unread(source, path)
    manifest = Manifest(
        format=PACK_FORMAT,
        name=data.name,
        source=printable(str(path.absolute())) if path else "",
        stored=data.stored_size,
        channels=1 if len(rows) and scan.grey[rows].all() else 3,
        count=len(rows),
        splits={name: int(here.sum()) for name, here in places.items()},
        classes=classes,
        histogram={
            task: {name: _histogram(labels[task][here], classes[task]) for name, here in places.items()}
            for task in classes
        },
        labelled={
            task: {name: sum(task in row for row in compress(found, here)) for name, here in places.items()}
            for task in labels
        },
        layout=source.layout,
        notes=(*source.notes, *others.notes),
        unread=others.endings,
        ranges={task: _ranges(values) for task, values in labels.items() if values.ndim == 2},
        rows=_rows(source),
        left_out=dict(source.left_out),
        dropped=tuple(Dropped(file=name, reason=printable(reason)) for name, reason in _faults(source, scan)),
        duplicates=tuple(
            DroppedDuplicate(
                file=names[usable[copy.dropped]], of=names[usable[copy.kept]], kind=copy.kind, reason=copy.reason
            )
            for copy in judgement.duplicates
        ),
        fingerprint=fingerprint_of([scan.stored[i] for i in rows], arrays, classes),
        label_digests={
            task: label_digest(values, classes.get(task, ()))
            for task, values in labels.items()
            if task not in FINGERPRINT_LABELS
        },
    )
    return manifest, rows, arrays


def _arrays(
    samples: Sequence[Sample], labels: Sequence[Labels], stored: Sequence[bytes], judgement: Judgement
) -> dict[str, NDArray[Any]]:
    """The arrays of labels.npz for the samples that stay; subjects only where the data names some."""
    arrays: dict[str, NDArray[Any]] = {
        "split": np.array([sample.split for sample in samples], np.int8),
        "group": judgement.group[judgement.keep],
        DIGESTS: np.frombuffer(b"".join(stored), np.uint8).reshape(-1, 32),
    }
    subjects = [sample.subject for sample in samples]
    if any(subjects):
        number = {name: place for place, name in enumerate(sorted(set(subjects) - {""}))}
        arrays["subject"] = np.array([number.get(name, -1) for name in subjects], np.int64)
    widths = {task: len(label) if isinstance(label, tuple) else 0 for found in labels for task, label in found.items()}
    for task, width in sorted(widths.items()):
        missing: Any = (np.nan,) * width if width else -1
        arrays[f"{LABEL}{task}"] = np.array(
            [found.get(task, missing) for found in labels], np.float32 if width else np.int64
        )
    return arrays


def _ranges(values: NDArray[np.float32]) -> tuple[tuple[float, float, float], ...]:
    """Smallest, mean and largest of each column of [N, d] without the missing ones; () when all are missing."""
    there = values[~np.isnan(values).any(axis=1)]
    if not len(there):
        return ()
    columns = zip(there.min(axis=0), there.mean(axis=0), there.max(axis=0), strict=True)
    return tuple((float(low), float(mean), float(high)) for low, mean, high in columns)


def _histogram(labels: NDArray[Any], names: tuple[str, ...]) -> dict[str, int]:
    counts = Counter(labels.tolist())
    return {name: counts.get(index, 0) for index, name in enumerate(names)}


def _compact(file: int, rows: NDArray[np.int64], size: int, channels: int) -> None:
    """Reduce the [N, size, size, 3] pixels in `file` to `rows` and `channels`, in place, and write the npy header."""
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
