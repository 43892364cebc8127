"""Several drivers of one study in one store: who is alive, and which training runs of the search each has in hand.

A driver has three files in the study's folder of drivers: ID.alive, locked while it lives; ID.json, what it has in
hand; and ID.stop, which asks its trials to stop. What a dead driver had in hand is free at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from hmtl_ablate.errors import StoreError
from hmtl_ablate.storage import address_of, mirror_of
from hmtl_ablate.storage.lease import has_flock
from hmtl_ablate.study import Study

ALIVE, HAND, NEW, STOP = ".alive", ".json", ".new", ".stop"
"""Endings of a driver's files."""


class Drivers:
    """The drivers of one study in one store, of which this process is one."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: that of all drivers; None for a driver that shares nothing with others."""
        self.id = secrets.token_hex(8)
        self.met = False
        """Whether there was another driver since this one began."""
        self.offset = 0
        """Added to the seed of a search's sampler: drivers that draw at the same time must not draw the same."""
        self._folder = folder
        self._runs: set[str] = set()
        self._leaving = False
        self._locks: dict[str, IO[str]] = {}
        self._writing = threading.Lock()

    @contextmanager
    def turn(self, what: str = "search") -> Iterator[None]:
        """A block for one driver at a time, e.g. to look what the others do and to decide by it."""
        if self._folder is None:
            yield
            return
        if what not in self._locks:
            self._locks[what] = (self._folder / f"{what}.lock").open("w")
        fcntl.flock(self._locks[what], fcntl.LOCK_EX)
        try:
            self.met = bool(self.others()) or self.met
            yield
        finally:  # closing it would not do: a process that was forked meanwhile has it open, too
            fcntl.flock(self._locks[what], fcntl.LOCK_UN)

    def others(self) -> list[str]:
        """Ids of the other drivers that are alive."""
        if self._folder is None:
            return []
        return [path.stem for path in self._folder.glob(f"*{ALIVE}") if path.stem != self.id and is_alive(path)]

    def hold(self, run: str) -> None:
        """Have a training run in hand, until `drop`. Within a turn."""
        self._runs.add(run)
        self._write()

    def drop(self, run: str) -> None:
        """A training run is over: its result is in Optuna and in MLflow, or another driver may try it."""
        if run in self._runs:
            self._runs.discard(run)
            self._write()

    def elsewhere(self) -> set[str]:
        """Training runs that other drivers have in hand."""
        return {run for other in self.others() for run in self._read(other).get("runs", ())}

    def leave(self) -> bool:
        """Say that this driver has nothing left to do; whether it is the last one. Within a turn."""
        self._leaving = True
        self._write()
        return all(self._read(other).get("leaving") for other in self.others())

    def machines(self) -> set[str]:
        """Names of the other machines that have a driver."""
        names = {self._read(other).get("machine", "") for other in self.others()}
        return names - {"", socket.gethostname()}

    def stop_file(self) -> Path:
        """The file that asks this driver's trials to stop."""
        assert self._folder is not None
        return self._folder / f"{self.id}{STOP}"

    def enter(self, stack: ExitStack) -> None:
        """Be alive until the stack ends. Within a turn."""
        assert self._folder is not None
        for path in self._folder.glob(f"*{ALIVE}"):
            if not is_alive(path):
                self._remove(path.stem)
        stack.enter_context(keep_alive(self._folder / f"{self.id}{ALIVE}"))
        stack.callback(self._remove, self.id)
        self._write()

    def _remove(self, one: str) -> None:
        assert self._folder is not None
        for ending in (ALIVE, HAND, NEW, STOP):
            (self._folder / f"{one}{ending}").unlink(missing_ok=True)

    def _read(self, one: str) -> dict[str, Any]:
        assert self._folder is not None
        try:
            return json.loads((self._folder / f"{one}{HAND}").read_bytes())  # type: ignore[no-any-return]
        except FileNotFoundError:  # it has ended by now
            return {}

    def _write(self) -> None:
        if self._folder is None:
            return
        # A full disk stops no run: the lock of a trial's folder keeps two drivers from training it twice.
        with self._writing, suppress(OSError):
            content: dict[str, Any] = {"machine": socket.gethostname(), "process": os.getpid()}
            content |= {"runs": sorted(self._runs), "leaving": self._leaving}
            new = self._folder / f"{self.id}{NEW}"
            new.write_text(json.dumps(content))
            new.replace(self._folder / f"{self.id}{HAND}")


@contextmanager
def taking_part(study: Study, store: Path, *, join: bool) -> Iterator[Drivers]:
    """This process as a driver of the study. Raises StoreError when there is another one, unless it joins."""
    folder = store / f".{study.name}@{study.profile}.drivers"
    shareable = has_flock(store)
    if join and (mirror_of(store) is not None or not shareable):
        raise StoreError(
            f"--join: {address_of(store)} has no file locks (flock), by which commands share a study; use a shared "
            "folder that has them"
        )
    if not shareable:
        yield Drivers()
        return
    folder.mkdir(exist_ok=True)
    drivers = Drivers(folder)
    with ExitStack() as stack:
        with drivers.turn():
            if drivers.met:
                if not join:
                    raise StoreError(already_running(study, store))
                drivers.offset = int(drivers.id, 16) % 2**31
            drivers.enter(stack)
        yield drivers


def already_running(study: Study, store: Path) -> str:
    """Why a second driver can't start, and what to do."""
    return (
        f"{study.name} ({study.profile}) is already running in {address_of(store)}; wait for it, share its trials with "
        "--join, or use another --runs"
    )


@contextmanager
def keep_alive(path: Path) -> Iterator[IO[str]]:
    """A file that says that this process lives, until the block or the process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def is_alive(path: Path) -> bool:
    """Whether the process of a `keep_alive` lives."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look at once don't see each other
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
