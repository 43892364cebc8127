"""A trial of a store at an address, where it trains: its folder is brought, kept by a lease, and sent as it grows.

The trial trains in a temporary folder of its node, so a service that is away for a while stops nothing: what could not
be sent is sent later. At the end the trial waits for it.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hmtl_ablate.errors import StoreError, TrialInterrupted
from hmtl_ablate.running.scratch import drop, own_folder
from hmtl_ablate.running.task import PRUNE, Report, TrialTask
from hmtl_ablate.storage.files import replacing
from hmtl_ablate.storage.lease import Lease
from hmtl_ablate.storage.mirror import HEAVY, OUTAGE, is_sent, patiently
from hmtl_ablate.storage.objects import Objects, StoreAway
from hmtl_ablate.training.workers import Workers

LAST, BEST, RESULT = HEAVY[0], HEAVY[1], "result.json"
LOOK = 2.0
"""Seconds between two looks for a request to stop, and for what has to be sent."""


def train_away(task: TrialTask, report: Report, train: Callable[[TrialTask, Report], None], rank: int) -> None:
    """Train a task whose store is at an address. Raises what `train` does, StoreError, and TrialInterrupted.

    train: trains a task whose store is a folder; rank: number of this worker, from 0, which alone sends.
    """
    objects = Objects(task.remote)
    with _scratch() as root, ExitStack() as stack:
        lease = stack.enter_context(Lease(objects, f"trials/{task.folder.name}/.lease")) if rank == 0 else None
        place = _Place(objects, root, task, lease)
        # All workers see the folder as the one that holds the lease does, so they wait for it.
        if not Workers(rank, task.workers).share(lease is not None and _taken(lease, place)):
            raise TrialInterrupted("stopped before it started; run the same command again")
        patiently(place.bring, OUTAGE, place.stopped)
        here = replace(task, remote="", folder=place.folder, pack=place.pack(), stop=place.stop)

        def on_epoch(metrics: Mapping[str, float]) -> None:
            place.send_if_possible()
            report(metrics)
            place.look_for_prune()

        try:
            with place.followed():
                train(here, on_epoch)
        except TrialInterrupted:
            if not place.lost:
                raise
        if place.lost:
            raise StoreError(
                f"{task.remote}/{place.prefix}: another process has taken the trial over, since it saw no sign of life "
                "of this one; its result counts"
            )


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = own_folder()
    try:
        yield Path(folder)
    finally:
        drop(folder)


def _taken(lease: Lease, place: _Place) -> bool:
    """Wait for the trial: whoever trains it now, its result is ours, too. False at a request to stop."""
    deadline = time.monotonic() + OUTAGE
    while True:
        try:
            if lease.take():
                return True
        except StoreAway:
            if time.monotonic() > deadline:
                raise
        if place.stopped():
            return False
        time.sleep(LOOK / 2)


class _Place:
    """The folder of a trial on its node, and the objects of which it is a copy."""

    def __init__(self, objects: Objects, root: Path, task: TrialTask, lease: Lease | None) -> None:
        """lease: of the worker that sends; None for the others."""
        self.objects, self.root, self.task, self._lease = objects, root, task, lease
        self.prefix = f"trials/{task.folder.name}"
        self.folder, self.stop = root / self.prefix, root / task.stop.name
        self.folder.mkdir(parents=True)
        self._sent: dict[str, tuple[int, int]] = {}
        """Name of a file that the store has → its time of change and size here when it was brought or sent."""
        self._lock = threading.Lock()

    @property
    def lost(self) -> bool:
        """Whether another process has taken the trial over."""
        return self._lease is not None and self._lease.lost

    def bring(self) -> None:
        """Bring the trial's own folder, and those of the trials that it starts from."""
        for key in self.objects.entries(self.prefix):
            name = key.removeprefix(f"{self.prefix}/")
            if is_sent(name):
                self._download(key, self.folder / name)
                self._sent[name] = _sign(self.folder / name)
        for source in _sources(self.task.config):
            for key in self.objects.entries(f"trials/{source}"):
                if not key.endswith(f"/{LAST}") and is_sent(key):
                    self._download(key, self.root / key)

    def pack(self) -> Path:
        """The pack's folder: that of the command, if this node has it; else a copy, which this node's trials share."""
        if (self.task.pack / "manifest.json").exists():
            return self.task.pack
        base = Path(tempfile.gettempdir()) / f"hmtl-ablate-packs-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        if base.is_symlink() or base.stat().st_uid != os.getuid():
            raise StoreError(f"{base}: of another user; set TMPDIR to a folder of your own on this node")
        folder = base / self.task.pack.name
        with (base / f".{folder.name}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not (folder / "manifest.json").exists():
                folder.mkdir(exist_ok=True)
                patiently(lambda: self._bring_pack(folder), OUTAGE, self.stopped)
        return folder

    def _bring_pack(self, folder: Path) -> None:
        """manifest.json last: with it the pack is whole."""
        prefix = f"packs/{folder.name}"
        keys = [key for key in self.objects.entries(prefix) if not key.endswith("/manifest.json")]
        if not keys:
            raise StoreError(f"{self.task.remote}/{prefix}: the pack is not in the store; run the same command again")
        for key in (*keys, f"{prefix}/manifest.json"):
            self._download(key, folder / key.removeprefix(f"{prefix}/"))

    @contextmanager
    def followed(self) -> Iterator[None]:
        """A thread sends what changes, and looks for a request to stop; at the end all is sent."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(LOOK):
                if self.stopped() or self.lost:
                    self.stop.touch()
                self.send_if_possible()

        thread = threading.Thread(target=run, daemon=True, name="hmtl-ablate-away")
        thread.start()
        try:
            yield
        except BaseException:
            over.set()
            thread.join()
            with suppress(StoreError):  # what the trial died of is what counts
                patiently(self.send, LOOK * 5)
            raise
        over.set()
        thread.join()
        patiently(self.send, OUTAGE)

    def stopped(self) -> bool:
        """Whether the run was asked to stop; a service that is away says nothing."""
        with suppress(StoreError):
            return self.stop.exists() or self.objects.entry(self.task.stop.name) is not None
        return False

    def look_for_prune(self) -> None:
        """Pass on a request of the command to end after this epoch."""
        if self._lease is not None:
            with suppress(StoreError):
                if self.objects.entry(f"{self.prefix}/{PRUNE}") is not None:
                    (self.folder / PRUNE).touch()
                    self.objects.delete([f"{self.prefix}/{PRUNE}"])

    def send_if_possible(self) -> None:
        """Send what has changed; nothing while the service is away."""
        with suppress(StoreAway):
            self.send()

    def send(self) -> None:
        """Send what has changed since it was brought or sent, and remove what is gone. Raises StoreError.

        A checkpoint is never sent before the best weights that it counts on, and result.json comes last. The checkpoint
        is read first: best weights of a later epoch are written again, the same, by the trial that resumes from it.
        """
        if self._lease is None or self.lost:
            return
        with self._lock:
            found = {name: sign for name, sign in self._files() if sign != self._sent.get(name)}
            contents = {}
            for name in sorted(found, key=_order_of_reading):
                with suppress(FileNotFoundError):
                    contents[name] = (self.folder / name).read_bytes()
            for name in sorted(contents, key=_order_of_sending):
                self.objects.write(f"{self.prefix}/{name}", contents[name])
                self._sent[name] = found[name]
            present = {name for name, _ in self._files()}
            for name in self._sent.keys() - present:
                self.objects.delete([f"{self.prefix}/{name}"])
                del self._sent[name]

    def _files(self) -> Iterable[tuple[str, tuple[int, int]]]:
        """Name and sign of each file that is of the store."""
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            with suppress(FileNotFoundError):
                if path.is_file() and is_sent(name):
                    yield name, _sign(path)

    def _download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), replacing(path) as new:  # it may have been removed a moment ago
            self.objects.download(key, new)


def _sources(config: Mapping[str, Any]) -> list[str]:
    """Ids of the trials whose weights a config names."""
    found, rest = [], [config]
    while rest:
        for value in rest.pop().values():
            if isinstance(value, Mapping):
                rest.append(value)
            elif isinstance(value, str) and value.startswith("trial:"):
                found.append(value.removeprefix("trial:"))
    return sorted(set(found))


def _sign(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _order_of_reading(name: str) -> int:
    return {RESULT: 0, LAST: 1}.get(name, 2)


def _order_of_sending(name: str) -> int:
    return {BEST: 1, LAST: 2, RESULT: 3}.get(name, 0)
