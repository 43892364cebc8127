"""The trial's folder, `<store>/trials/<trial_id>/`: the authoritative record of a trial.

config.json        the resolved config, written first
metrics.jsonl      one line per epoch
last.safetensors   checkpoint: everything needed to resume; removed once the trial has finished or failed
best.safetensors   the model's weights at the best epoch on the selection split
predictions.npz    per-image labels and probabilities (or angles) of val and test
pictures/          inputs of the pretext tasks and the model's reconstructions; confusion matrices
log.txt            log in words
uncommitted.diff   how the code that trained it differed from its commit; only when it did
failure.txt        the traceback of an unexpected end
result.json        written last, with the sizes and checksums of the others: once it exists the trial is complete
*.damaged          a file that could not be used: set aside, and written again by training
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from hmtl_ablate.config import Frozen, TrialConfig, parse_config
from hmtl_ablate.errors import CheckpointError, ConfigError, StoreError
from hmtl_ablate.storage.files import write_atomically
from hmtl_ablate.storage.lease import Lease, locked
from hmtl_ablate.storage.mirror import size_elsewhere

LAST = "last.safetensors"
"""File of the checkpoint: weights, state of the optimiser and the history so far."""
RECORDED = ("metrics.jsonl", "best.safetensors", "predictions.npz")
"""Files whose sizes and checksums result.json holds."""
SMALL = 2**20
"""Bytes. A file up to this size is compared by its checksum wherever its trial is used, a larger one by its size alone
until another trial starts from it: `run` visits every trial of a study."""
ASIDE = ".damaged"
"""Ending of a file that could not be used."""


class Written(Frozen):
    """A file as it was when result.json was written."""

    bytes: int
    crc32: int


class TrialResult(Frozen):
    """The result of a trial, as result.json holds it."""

    trial_id: str
    status: Literal["finished", "pruned", "failed"]
    """finished; pruned: stopped early by a search; failed: the loss diverged; the trial is not tried again."""
    reason: str = ""
    epochs: int
    """Epochs trained."""
    best_epoch: int
    """Epoch, from 1, of the best value of the selection metric (`TrialConfig.selects_by`), the earliest of equal ones;
    the last epoch without such a metric; 0 when no epoch was finished."""
    metrics: dict[str, float] = {}
    """`best/val/…` of the best epoch; `test/…` with its weights, when test was evaluated."""
    image_passes: int
    """Images the backbone was trained on, each view counted; including those of the trial it started from."""
    seconds: float
    """Time spent in training and validation, over all sessions."""
    tags: dict[str, str] = {}
    """Environment of the run: device, precision, threads, versions."""
    classes: list[str] = []
    """Class names of the first supervised task; empty for a regression."""
    task_classes: dict[str, list[str]] = {}
    """Supervised task → its class names, in the order of the model's outputs; {} in results of older versions."""
    confusion: dict[str, list[list[int]]] = {}
    """Split (with several tasks: split/task) → counts [K][K], rows true and columns predicted."""
    files: dict[str, Written] = {}
    """Those of RECORDED that the trial has; {} in results of older versions."""


class TrialFolder:
    """Reads and writes one trial's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def config(self) -> TrialConfig:
        return parse_config(self._read("config.json"))

    def history(self) -> list[dict[str, float]]:
        """One dict per epoch, in order; a line that a crash cut short is left out."""
        try:
            lines = (self.path / "metrics.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        rows = []
        for line in lines:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def result(self) -> TrialResult | None:
        """The content of result.json, or None while the trial is not complete. Raises StoreError when it is damaged."""
        if not (self.path / "result.json").exists():
            return None
        try:
            content = self._read("result.json")
            checksum = content.pop("crc32", None)
            if checksum is not None and checksum != zlib.crc32(_json(content)):
                raise StoreError(f"{self.path / 'result.json'} is damaged: its study's next run trains the trial again")
            return TrialResult.model_validate(content)
        except ValidationError as error:
            raise StoreError(
                f"{self.path / 'result.json'} is damaged: its study's next run trains the trial again"
            ) from error

    def damage(self, *, whole: bool = False) -> tuple[str, ...]:
        """Names of the files of a complete trial that can't be used; () for a sound or an incomplete one.

        whole: compare large files by their checksums, too, not by their sizes alone.
        """
        try:
            result = self.result()
        except StoreError:
            return ("result.json",)
        files = {} if result is None else result.files
        return tuple(name for name, written in files.items() if not _unchanged(self.path / name, written, whole))

    def sound_result(self, *, whole: bool = False) -> TrialResult | None:
        """The result, or None while the trial is not complete, or when one of its files is damaged. Changes nothing."""
        return None if self.damage(whole=whole) else self.result()

    def set_damage_aside(self) -> None:
        """Rename the damaged files of a complete trial, and its result.json with them, so that it is trained again.

        For whoever holds the lock.
        """
        if damaged := self.damage(whole=True):
            self.set_aside(*damaged, "result.json")

    def set_aside(self, *names: str) -> None:
        """Rename files that can't be used to `*.damaged`, and say so in log.txt."""
        for name in dict.fromkeys(names):
            path = self.path / name
            if path.exists():
                os.replace(path, path.with_name(name + ASIDE))
        self.log(f"damaged: {names[0]}; what can't be used was set aside as *{ASIDE}, and is trained again")

    def sweep(self) -> None:
        """Remove what writers that were killed have left. For whoever holds the lock."""
        for path in self.path.glob(".*.????????"):
            path.unlink(missing_ok=True)

    def aside(self) -> dict[str, int]:
        """Name of each file that was set aside → its time of change in nanoseconds."""
        return {path.name: path.lstat().st_mtime_ns for path in self.path.glob(f"*{ASIDE}")}

    def restore_config(self, config: TrialConfig) -> bool:
        """Write config.json again when it is not that of `config`, the damaged one aside; True when that was needed."""
        try:
            if self.config() == config:
                return False
        except (StoreError, ConfigError):
            pass
        self.set_aside("config.json")
        self.write_config(config)
        return True

    def failure(self) -> str | None:
        """Traceback of the last unexpected end, or None."""
        path = self.path / "failure.txt"
        return path.read_text(errors="replace") if path.exists() else None

    def write_failure(self, text: str) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "failure.txt", text.encode())

    def write_config(self, config: TrialConfig) -> None:
        """Make the folder and write config.json. Raises StoreError when the store can't be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / "config.json", _json(config.model_dump(mode="json")))
        except OSError as error:
            raise StoreError(f"can't write {self.path}: {error.strerror}; choose another store with --runs") from error

    def write_diff(self, diff: str) -> None:
        """Write uncommitted.diff; no file for no difference."""
        path = self.path / "uncommitted.diff"
        if diff:
            write_atomically(path, diff.encode())
        else:
            path.unlink(missing_ok=True)

    def write_history(self, rows: list[dict[str, float]]) -> None:
        write_atomically(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())

    def append_history(self, row: dict[str, float]) -> None:
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def write_result(self, result: TrialResult) -> TrialResult:
        """Write result.json, which completes the trial; returns the result with its `files`."""
        files = {name: _written(self.path / name) for name in RECORDED if (self.path / name).is_file()}
        result = result.model_copy(update={"files": files})
        self._replace_result(result)
        (self.path / "failure.txt").unlink(missing_ok=True)
        return result

    def forget_file(self, result: TrialResult, name: str) -> None:
        """Write result.json without a recorded file, which can then be removed; a file it names may not be missing."""
        files = {key: written for key, written in result.files.items() if key != name}
        self._replace_result(result.model_copy(update={"files": files}))

    def _replace_result(self, result: TrialResult) -> None:
        content = result.model_dump(mode="json")
        write_atomically(self.path / "result.json", _json(content | {"crc32": zlib.crc32(_json(content))}))

    def drop_checkpoint(self, result: TrialResult) -> None:
        """Remove the checkpoint of a trial that `result` says is over. For whoever holds the lock.

        A pruned trial keeps it: a variant, or a promotion, may train it to its end. A finished one that is measured
        again later needs the best weights alone.
        """
        if result.status != "pruned":
            (self.path / LAST).unlink(missing_ok=True)

    def predictions(self, split: str = "") -> dict[str, NDArray[Any]]:
        """The arrays of predictions.npz (`measure.saved_arrays`); {} where there is no such file, or a damaged one.

        split: read those of this split alone, val or test.
        """
        try:
            with np.load(self.path / "predictions.npz", allow_pickle=False) as saved:
                return {name: saved[name] for name in saved.files if not split or name.startswith(f"{split}_")}
        except (OSError, ValueError, zlib.error, zipfile.BadZipFile):
            return {}

    def write_predictions(self, arrays: dict[str, NDArray[Any]]) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(self.path / "predictions.npz", buffer.getvalue())

    def log(self, text: str) -> None:
        """Add a line to log.txt."""
        with (self.path / "log.txt").open("a") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def locked(self) -> IO[str] | Lease | None:
        """Lock the folder against other processes, such as another study's run that trains the same trial.

        The lock ends when what is returned is closed, or with this process. None when another has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        return locked(self.path / "lock")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The lock, for a block. Raises StoreError at once when another process has it."""
        file = self.locked()
        if file is None:
            raise StoreError(f"{self.path} is in use by another process; try again when that run has ended")
        with file:
            yield

    def busy(self) -> bool:
        """Whether another process has the lock."""
        if not (self.path / "lock").exists():
            return False
        file = self.locked()
        if file is not None:
            file.close()
        return file is None

    def _read(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"can't read {self.path / name}: {error}; its study's next run writes it again") from error
        if not isinstance(content, dict):
            raise StoreError(f"{self.path / name} is damaged; its study's next run writes it again")
        return content


@dataclass(frozen=True)
class Imported:
    """The outcome of `import_trials`."""

    taken: tuple[str, ...]
    """Ids of the imported trials."""
    known: tuple[str, ...]
    """Ids that were already finished in the store."""
    refused: tuple[tuple[Path, str], ...]
    """The other folders, each with the reason."""


IMPORTED_FILES = (
    "config.json",
    "metrics.jsonl",
    "log.txt",
    "uncommitted.diff",
    LAST,
    "best.safetensors",
    "predictions.npz",
    "pictures/*.png",
    "result.json",
)


def import_trials(source: Path, trials: Path) -> Imported:
    """Copy trial folders that were trained elsewhere into `trials`; source: one, a folder of them, or a store.

    An unfinished trial is imported too, and resumes at the next run; one that is finished here is never replaced.
    Raises StoreError when `source` has no trial folder, or `trials` can't be written.
    """
    places = (source, source / "trials")
    folders = (
        [source]
        if (source / "config.json").is_file()
        else sorted(file.parent for place in places if place.is_dir() for file in place.glob("*/config.json"))
    )
    if not folders:
        raise StoreError(
            f"{source}: no trial folder here (config.json, result.json, …); name one, a folder of them, or a store"
        )
    taken, known, refused = [], [], []
    for folder in folders:
        try:
            taken.append(folder.name) if _take_in(folder, trials / folder.name) else known.append(folder.name)
        except (StoreError, ConfigError) as error:
            refused.append((folder, str(error)))
        except OSError as error:
            raise StoreError(f"{error.filename or folder}: {error.strerror}; {folder.name} was not imported") from error
    return Imported(tuple(taken), tuple(known), tuple(refused))


def _take_in(folder: Path, target: Path) -> bool:
    """Copy one trial's folder; False when the trial is finished here already."""
    if not re.fullmatch(r"[0-9a-f]{16}", folder.name):
        raise StoreError("its name is not a trial_id")
    incoming = TrialFolder(folder)
    incoming.config()
    result = incoming.result()
    if result is not None and result.trial_id != folder.name:
        raise StoreError(f"its result.json is of trial {result.trial_id}")
    if damaged := incoming.damage(whole=True):
        raise StoreError(f"damaged: {', '.join(damaged)}")
    own = TrialFolder(target).sound_result(whole=True)
    if own is not None and own.status == "finished":
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".import-") as name:
        for pattern in IMPORTED_FILES:
            for file in folder.glob(pattern):
                if file.is_file() and not file.is_symlink():
                    copy = Path(name) / file.relative_to(folder)
                    copy.parent.mkdir(exist_ok=True)
                    shutil.copyfile(file, copy)
        with TrialFolder(target).lock():
            for file in (path for path in Path(name).rglob("*") if path.is_file()):
                place = target / file.relative_to(name)
                if file.name != "result.json":
                    place.parent.mkdir(exist_ok=True)
                    os.replace(file, place)
            if (Path(name) / "result.json").exists():  # last: once it exists the trial is complete
                os.replace(Path(name) / "result.json", target / "result.json")
    return True


def is_complete(config: TrialConfig, result: TrialResult, evaluate_test: bool) -> bool:
    """Whether the trial failed, or finished with test measured if requested. A pruned trial is not complete."""
    measured = not evaluate_test or not config.metrics or any(name.startswith("test/") for name in result.metrics)
    return result.status == "failed" or (result.status == "finished" and measured)


def passes_before(config: TrialConfig, trials: Path) -> int:
    """Image passes behind the initial weights: those of the trial that the config starts from, else 0.

    Raises CheckpointError when that trial is not finished.
    """
    source = config.model.weights or ""
    if not source.startswith("trial:"):
        return 0
    result = TrialFolder(trials / source.removeprefix("trial:")).sound_result()
    if result is None or result.status != "finished":
        raise CheckpointError(
            f"model.weights {source}: there is no finished trial of this id in {trials}; name a "
            "stage or variant of the study, or a trial of this store"
        )
    return result.image_passes


def _written(path: Path) -> Written:
    """Size and checksum of a file. Raises OSError."""
    size, checksum = 0, 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return Written(bytes=size, crc32=checksum)


def _unchanged(path: Path, written: Written, whole: bool) -> bool:
    try:
        if path.stat().st_size != written.bytes or not path.is_file():
            return False
        return _written(path) == written if whole or written.bytes <= SMALL else True
    except FileNotFoundError:
        return size_elsewhere(path) == written.bytes
    except OSError:
        return False


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=2) + "\n").encode()
