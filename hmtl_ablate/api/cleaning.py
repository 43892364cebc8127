"""What a store can do without: what `clean` would free, and the removal.

Left alone are all trials that a study of the store declares in its last run, their packs, those that another trial or a
study file starts from (`model.weights: trial:ID`), and those that a process trains at the moment.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hmtl_ablate.errors import StoreError
from hmtl_ablate.running.drivers import Drivers
from hmtl_ablate.storage import address_of, mirror_of, store_folder
from hmtl_ablate.storage.lease import locked
from hmtl_ablate.training.folder import ASIDE, LAST, TrialFolder, TrialResult

Kind = Literal["pruned", "superseded", "checkpoint", "pack", "damaged"]
KINDS: dict[Kind, str] = {
    "pruned": "weights of trials that a search stopped early",
    "superseded": "trials that their study no longer declares",
    "checkpoint": "checkpoints of finished trials",
    "pack": "packs of older data",
    "damaged": "damaged files that were set aside",
}
"""Kind → what it is, in words."""
BEST = "best.safetensors"
TRIAL_ID, RUN_ID = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{32}")
SOURCE = re.compile(r"trial:([0-9a-f]{16})")
OUTDATED = {"superseded", "older data"}
"""Standings of trials whose pack is not needed any more."""


@dataclass(frozen=True)
class Removal:
    """One thing that `clean` would remove."""

    kind: Kind
    folder: Path
    """The trial's folder, or the pack's."""
    files: tuple[Path, ...]
    """What is removed, MLflow's artifacts of it included."""
    bytes: int
    """What is freed: a file with a hard link elsewhere frees nothing."""


@dataclass(frozen=True)
class CleanPlan:
    """What `clean` would remove from a store; nothing is removed before `apply`.

    >>> import hmtl_ablate as ha
    >>> base = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> done = ha.run({"name": "example", "base": base, "variants": {"SL": {}}, "seeds": [0]}, progress=False)
    >>> ha.clean().removals
    ()
    """

    store: Path
    removals: tuple[Removal, ...]
    tracking_uri: str | None = None

    @property
    def bytes(self) -> int:
        """Bytes that are freed."""
        return sum(one.bytes for one in self.removals)

    def lines(self) -> list[str]:
        """One line per kind with its size, then the total."""
        found = []
        for kind, words in KINDS.items():
            own = [one for one in self.removals if one.kind == kind]
            if own:
                found.append(f"{_size(sum(one.bytes for one in own)):>10}  {words} ({len(own)})")
        return [*found, f"{_size(self.bytes):>10}  in all"]

    def apply(self) -> tuple[Path, ...]:
        """Remove it. Returns the folders that were left alone: in use now, or needed by a study again.

        An interrupted removal is completed by the next one. Raises StoreError when a study is running in the store, or
        a file can't be removed.
        """
        left = []
        with _no_study_runs(self.store):
            now = {(one.kind, one.folder): one for one in _removals(self.store, self.tracking_uri)}
            for one in self.removals:
                try:
                    found = now.get((one.kind, one.folder))
                    if one.folder.exists() and (found is None or not _remove(found)):
                        left.append(one.folder)
                except OSError as error:
                    raise StoreError(f"{error.filename or one.folder}: can't be removed: {error.strerror}") from error
        return tuple(left)


def clean(store: str | Path = "runs", *, tracking_uri: str | None = None) -> CleanPlan:
    """What a store can do without; `.apply()` removes it.

    >>> import hmtl_ablate as ha
    >>> base = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> done = ha.run({"name": "example", "base": base, "variants": {"SL": {}}, "seeds": [0]}, progress=False)
    >>> ha.clean().apply()  # nothing to remove, nothing left alone
    ()

    tracking_uri: MLflow tracking store; None for SQLite in the store. Raises StoreError when there is no store, or a
    study is running in it; TrackingError when MLflow can't be read.
    """
    from hmtl_ablate.reporting.results import require_runs

    place = store_folder(store)
    if mirror_of(place) is not None:
        raise StoreError(
            f"{address_of(place)}: clean removes files of a folder, not objects; use your service's own commands, e.g. "
            "`aws s3 rm --recursive` on trials/ID"
        )
    require_runs(tracking_uri, place)
    with _no_study_runs(place):
        return CleanPlan(place, tuple(_removals(place, tracking_uri)), tracking_uri)


def _removals(store: Path, tracking_uri: str | None) -> list[Removal]:
    """What can be removed now. For whoever holds the studies' locks."""
    from hmtl_ablate.reporting.results import load_results

    results = load_results(tracking_uri, store)
    known = set(results.studies["run_id"])
    rows = [_Row.of(row, known) for row in results.trials.to_dict("records")]
    superseded = _superseded(store, rows)
    found = [_whole(store, name, rows) for name in sorted(superseded)]
    needed = _needed(store, superseded)
    for folder in _trial_folders(store):
        if folder.name not in superseded:
            found += _parts(store, folder, rows, folder.name in needed)
    found += _packs(store, rows)
    return [one for one in found if one.files]


@dataclass(frozen=True)
class _Row:
    """A trial's run in MLflow, as far as it matters here."""

    trial_id: str
    run_id: str
    standing: str
    fingerprint: str

    @classmethod
    def of(cls, row: dict[object, object], studies: set[str]) -> _Row:
        # The trials of a study whose own run can't be read are not known to be superseded.
        standing = str(row["standing"]) if row["parent"] in studies else "unknown"
        return cls(str(row["trial_id"]), str(row["run_id"]), standing, str(row["fingerprint"]))


def _superseded(store: Path, rows: Sequence[_Row]) -> set[str]:
    """Ids of the trials that no study declares any more, and that no trial which stays starts from."""
    standings: dict[str, set[str]] = {}
    for row in rows:
        standings.setdefault(row.trial_id, set()).add(row.standing)
    found = {folder.name for folder in _trial_folders(store) if standings.get(folder.name) == {"superseded"}}
    while True:
        needed = _needed(store, found)
        if not found & needed:
            return found
        found -= needed


def _needed(store: Path, leaving: set[str]) -> set[str]:
    """Ids of the trials that a study file, or a trial which is not `leaving`, starts from."""
    configs = [folder / "config.json" for folder in _trial_folders(store) if folder.name not in leaving]
    return _named(store.glob("artifacts/*/*/artifacts/study.yaml")) | _named(configs)


def _named(files: Iterable[Path]) -> set[str]:
    """Ids of the trials that these files say to start from."""
    return {
        name for file in files if file.is_file() for name in SOURCE.findall(file.read_text("utf-8", errors="replace"))
    }


def _trial_folders(store: Path) -> list[Path]:
    return [path for path in sorted((store / "trials").glob("*")) if TRIAL_ID.fullmatch(path.name) and path.is_dir()]


def _artifacts(store: Path, trial_id: str, rows: Sequence[_Row], pattern: str) -> list[Path]:
    """Files of a trial's runs in the store's folder of MLflow's artifacts."""
    names = [row.run_id for row in rows if row.trial_id == trial_id and RUN_ID.fullmatch(row.run_id)]
    return [file for name in names for file in store.glob(f"artifacts/*/{name}/artifacts/{pattern}") if file.is_file()]


def _whole(store: Path, name: str, rows: Sequence[_Row]) -> Removal:
    folder = store / "trials" / name
    return _removal("superseded", folder, [*_files(folder), *_artifacts(store, name, rows, "**/*")])


def _parts(store: Path, folder: Path, rows: Sequence[_Row], needed: bool) -> list[Removal]:
    """What a trial that stays can do without. needed: another one starts from its weights."""
    found = [_removal("damaged", folder, sorted(folder.glob(f"*{ASIDE}")))]
    place = TrialFolder(folder)
    try:
        result = place.result()
    except StoreError:
        return found  # the next run trains it again
    standings = {row.standing for row in rows if row.trial_id == folder.name}
    if result is None:
        return found
    last = [path for path in (folder / LAST,) if path.is_file()]
    if result.status == "pruned" and standings == {"search"} and not needed:
        best = [path for path in (folder / BEST,) if path.is_file()]
        found.append(_removal("pruned", folder, [*best, *last, *_artifacts(store, folder.name, rows, BEST)]))
    elif result.status != "pruned" and not result.tags.get("keep_last"):
        found.append(_removal("checkpoint", folder, last))
    return found


def _packs(store: Path, rows: Sequence[_Row]) -> list[Removal]:
    """Packs whose trials are all outdated, and damaged ones. One that no recorded trial has read may be meant for a run
    to come."""
    standings: dict[str, set[str]] = {}
    for row in rows:
        standings.setdefault(row.fingerprint, set()).add(row.standing)
    found = []
    for folder in sorted((store / "packs").glob("*")):
        if folder.name.startswith(".") or not folder.is_dir() or folder.is_symlink():
            continue
        if folder.name.endswith(ASIDE):
            found.append(_removal("damaged", folder, _files(folder)))
            continue
        try:
            fingerprint = json.loads((folder / "manifest.json").read_bytes())["fingerprint"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        own = standings.get(fingerprint)
        if own and own <= OUTDATED:
            found.append(_removal("pack", folder, _files(folder)))
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def _removal(kind: Kind, folder: Path, files: Sequence[Path]) -> Removal:
    links: dict[tuple[int, int], list[int]] = {}
    for file in files:
        stat = file.lstat()
        links.setdefault((stat.st_dev, stat.st_ino), []).append(stat.st_size if stat.st_nlink else 0)
    counts = {(stat.st_dev, stat.st_ino): stat.st_nlink for stat in (file.lstat() for file in files)}
    freed = sum(sizes[0] for inode, sizes in links.items() if len(sizes) >= counts[inode])
    return Removal(kind, folder, tuple(files), freed)


def _remove(one: Removal) -> bool:
    """Remove it; False when a process uses the folder now."""
    with ExitStack() as stack:
        if one.folder.parent.name == "trials":
            lock = TrialFolder(one.folder).locked()
            if lock is None:
                return False
            stack.enter_context(lock)
            return _remove_of_trial(one)
        if not _locked(stack, one.folder.with_name(f".{one.folder.name}.lock")):
            return False
        (one.folder / "manifest.json").unlink(missing_ok=True)  # first: without it the rest is no pack
        shutil.rmtree(one.folder)
        return True


def _remove_of_trial(one: Removal) -> bool:
    place = TrialFolder(one.folder)
    if one.kind == "superseded":
        (one.folder / "result.json").unlink(missing_ok=True)  # first: without it the trial is not complete
    else:
        try:
            result = place.result()
        except StoreError:
            result = None
        if not _still(one.kind, result):
            return False
        if one.kind == "pruned" and result is not None:
            place.forget_file(result, BEST)
    for file in one.files:
        file.unlink(missing_ok=True)
    if one.kind == "superseded":
        shutil.rmtree(one.folder)
    return True


def _still(kind: Kind, result: TrialResult | None) -> bool:
    """Whether the trial is as it was when the removal was planned."""
    if kind == "damaged":
        return True
    return result is not None and (result.status == "pruned") == (kind == "pruned")


@contextmanager
def _no_study_runs(store: Path) -> Iterator[None]:
    """The locks of the store's studies. Raises StoreError when one of them is running."""
    with ExitStack() as stack:
        for path in sorted(store.glob(".*@*.lock")):
            if not _locked(stack, path):
                name = path.name.removeprefix(".").removesuffix(".lock")
                raise StoreError(f"{name} is running in {store}; wait until it has ended, then clean")
        for folder in sorted(store.glob(".*@*.drivers")):
            drivers = Drivers(folder)
            stack.enter_context(drivers.turn())
            if drivers.met:
                name = folder.name.removeprefix(".").removesuffix(".drivers")
                raise StoreError(f"{name} is running in {store}; wait until it has ended, then clean")
        yield


def _locked(stack: ExitStack, path: Path) -> bool:
    """Whether nobody else has this lock; it is held until the stack is closed."""
    held = locked(path)
    if held is not None:
        stack.enter_context(held)
    return held is not None


def _size(count: int) -> str:
    from hmtl_ablate.planning.show import size

    return size(count / 2**20)
