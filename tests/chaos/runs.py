"""The arena: stores, the command that fills them, and the blows that it takes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.chaos.audit import Faults, Snapshot, compare, finished, kept, take
from tests.chaos.blows import STOPPED, Blow
from tests.chaos.processes import Family, send, title
from tests.chaos.studies import STUDIES
from tests.conftest import PROGRAM  # type: ignore[import-not-found]

LIMIT = 900.0
"""Seconds after which a command counts as hung whatever it does."""
MISSES = 5
"""Runs in a row that end before their blow falls, or never start its target."""
PATIENCE = 12
"""Blows for one store; then it is completed undisturbed, so that one broken store does not use up all blows."""
CLEAR = (0, 1, 2, 75, 130)
"""Exit codes of which docs/running.md says what they mean."""


@dataclass
class Store:
    """One store and the study that fills it."""

    study: str
    path: Path
    blows: int = 0


@dataclass
class Ended:
    """How a command ended."""

    code: int
    last: str
    """Its last line of output."""
    seconds: float
    struck: str = ""
    """Process that the blow hit; "" when the command ended before."""
    faults: Faults = field(default_factory=Faults)


class Place(Protocol):
    """Where commands run."""

    def start(self, words: Iterable[object], folder: Path, output: Path) -> Family: ...

    def end(self) -> None: ...


class ThisMachine:
    """Each command starts a Ray of its own."""

    def __init__(self, temporary: Path) -> None:
        self._temporary = temporary

    def start(self, words: Iterable[object], folder: Path, output: Path) -> Family:
        """The command, in `folder`."""
        return Family(words, folder, output, {"TMPDIR": str(self._temporary)})

    def end(self) -> None:
        """Nothing: every command has ended its Ray."""


class Arena:
    """One store of each study at a time, and the counts of all that went wrong."""

    def __init__(self, folder: Path, temporary: Path, place: Place | None = None) -> None:
        self.folder, self.temporary = folder, temporary
        self._place = place or ThisMachine(temporary)
        self.faults = Faults()
        self.blows = self.completed = 0
        self._expected: dict[str, Snapshot] = {}
        self._open: dict[str, Store] = {}
        self._started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in STUDIES.items():
            (folder / f"{name}.yaml").write_text(text)

    def strike(self, blow: Blow) -> str:
        """Run the blow's study into the blow; one line says what happened. A run that is complete before its blow
        makes way for a fresh store."""
        started = time.monotonic()
        for _ in range(MISSES):
            store = self._store(blow.study)
            ended = self._run(store, blow)
            self.faults.add(ended.faults)
            done = len(finished(store.path))
            if ended.code == 0:
                self._close(store)
            if ended.struck:
                break
        else:
            self.faults.wrong.append(f"blow {blow.number} never fell: {blow}")
        self.blows += 1
        store.blows += 1
        if store.blows >= PATIENCE and self._open.get(store.study) is store:
            self._complete(store)
        total = len(self.expected(blow.study).folders)
        line = (
            f"{blow.number:4} {blow} ({ended.struck or 'missed'}): exit {ended.code}, {done} of {total} trials, "
            f"{time.monotonic() - started:.0f} s: {ended.last}"
        )
        return "\n".join([line, *(f"     FAULT {text}" for text in ended.faults.lines())])

    def complete_all(self) -> None:
        """Finish every store that is not complete, undisturbed."""
        for store in list(self._open.values()):
            self._complete(store)

    def summary(self) -> list[str]:
        counts = self.faults.counts()
        return [
            *(f"FAULT {text}" for text in self.faults.lines()),
            f"{self.blows} blows, {self.completed} stores completed, {time.monotonic() - self._started:.0f} s",
            ", ".join(f"{name}: {number}" for name, number in counts.items()),
        ]

    def expected(self, study: str) -> Snapshot:
        """What the undisturbed run of a study leaves; run when its store is missing."""
        if study not in self._expected:
            store = Store(study, self.folder / f"reference-{study}")
            for _ in range(MISSES):  # on a busy machine Ray runs out of the 30 s that it gives its own start
                if (ended := self._run(store)).code == 0:
                    break
            else:
                why = "\n".join(ended.faults.lines())
                raise RuntimeError(f"the undisturbed run of {study}: {why}\n{self._output().read_text()}")
            self._expected[study] = take(store.path)
        return self._expected[study]

    # Stores -----------------------------------------------------------------------------------------------------------

    def _store(self, study: str) -> Store:
        self.expected(study)
        if study not in self._open:
            taken = [int(path.name.rpartition("-")[2]) for path in self.folder.glob(f"{study}-*")]
            self._open[study] = Store(study, self.folder / f"{study}-{max(taken, default=0) + 1:03}")
        return self._open[study]

    def _complete(self, store: Store) -> None:
        """A run may say that the same command is to be issued again, but not for ever."""
        for _ in range(3):
            ended = self._run(store)
            self.faults.add(ended.faults)
            if ended.code == 0:
                break
        self._close(store)

    def _close(self, store: Store) -> None:
        """Compare a store that should be complete with the undisturbed one."""
        found = compare(self.expected(store.study), take(store.path))
        for text in found.lines():
            print(f"     FAULT {store.path.name}: {text}", flush=True)
        self.faults.add(found)
        self.completed += 1
        del self._open[store.study]

    # One command ------------------------------------------------------------------------------------------------------

    def _output(self) -> Path:
        return self.temporary / "output.txt"

    def _run(self, store: Store, blow: Blow | None = None) -> Ended:
        """The command, until its end and that of all of its processes."""
        before, started = finished(store.path), time.monotonic()
        words = (PROGRAM, "run", f"{store.study}.yaml", "--runs", store.path)
        family = self._place.start(words, self.folder, self._output())
        try:
            struck = _strike(family, blow, store.path) if blow else ""
            hung = not _wait(family, store.path)
            if hung:
                family.end()
            orphans = family.orphans()
        finally:
            family.end()
        text = self._output().read_text()
        lines = [line for line in text.splitlines() if line.strip()] or [""]
        ended = Ended(family.driver.returncode, lines[-1][:150], time.monotonic() - started, struck)
        ended.faults = kept(before, finished(store.path))
        where = f"blow {blow.number}" if blow else "no blow"
        if hung:
            ended.faults.hung.append(f"{where}: {blow}")
        if orphans:
            ended.faults.orphans += [f"{where}: {name}" for name in orphans]
        if fault := unclear(family.driver.returncode, text, hung, blow if struck else None):
            ended.faults.unclear.append(f"{where}: {fault}")
        return ended


def _strike(family: Family, blow: Blow, store: Path) -> str:
    """Wait for the moment, and strike; the struck process, or "" when the command ended before, or hangs."""
    watch = _Watch(family, store)
    while not family.find(blow.event):
        if not watch.alive():
            return ""
    moment = time.monotonic() + blow.delay
    while time.monotonic() < moment:
        if not watch.alive():
            return ""
    while not (found := family.find(blow.target)):
        if not watch.alive():
            return ""
    single = blow.target not in ("group", "all", "head")
    targets = [found[int(blow.pick * len(found))]] if single else found
    name = title(targets[0]) if single else f"{len(targets)} processes"
    send(targets, blow.signal)
    if blow.signal == signal.SIGSTOP:
        time.sleep(STOPPED)
        send(targets, signal.SIGCONT)
    return _short(name) + family.recover(blow.target)


def _wait(family: Family, store: Path) -> bool:
    """Until the command ends; False when it makes no progress any more."""
    watch = _Watch(family, store)
    while watch.alive():
        pass
    return family.driver.poll() is not None


class _Watch:
    """Looks at a command five times a second."""

    def __init__(self, family: Family, store: Path) -> None:
        self._family, self._store = family, store
        self._progress: tuple[object, ...] = ()
        self._since = self._started = time.monotonic()

    def alive(self) -> bool:
        """After a short wait: does it run, and did it progress lately?"""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._family.driver.wait(timeout=0.2)
            return False
        now = (self._family.output.stat().st_size, _newest(self._store), self._family.members())
        if now != self._progress:
            self._progress, self._since = now, time.monotonic()
        return time.monotonic() - self._since < self._family.patience and time.monotonic() - self._started < LIMIT


def _newest(store: Path) -> int:
    """Time of the latest change in a trial's folder, in ns; 0 without one."""
    times = [0]
    for file in store.glob("trials/*/*"):
        with contextlib.suppress(FileNotFoundError):
            times.append(file.stat().st_mtime_ns)
    return max(times)


def unclear(code: int, text: str, hung: bool, blow: Blow | None) -> str:
    """Why the end of a command is not clear to its user; "" when it is. A killed driver says nothing."""
    end = " ".join(text.split())[-300:]
    if "Traceback" in text or "has a defect" in text:
        return f"exit {code} with a defect or a traceback: {end}"
    if code == 1 and "failed" not in text:  # 1 means that a trial failed, and names it
        return f"exit 1, but no trial is named that failed: {end}"
    killed = blow is not None and blow.signal == signal.SIGKILL and blow.target in ("driver", "group", "all")
    return "" if hung or killed or code in CLEAR else f"exit {code}: {end}"


def _short(name: str) -> str:
    """A process's title without folders and options."""
    first, _, rest = name.partition(" ")
    return Path(first).name if first.startswith("/") else f"{first} {rest}"[:40].strip()
