"""The processes of one command, and what can be done to them. No other process of the machine is ever touched."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

from tests.conftest import environment  # type: ignore[import-not-found]

GRACE = 90.0
"""Seconds after its end within which all processes of a command must be gone. Ray's own take 4 s on idle cores, but
its agents look for a killed head node for 60 s, to report to it that their raylet has died, before they end."""

Matches = Callable[[psutil.Process, "Family"], bool]


class Family:
    """A command in a session of its own, and all that descends from it, whoever the parents are by now.

    Ray gives its workers process groups of their own, but no session; a process that leaves the session is known by
    having been seen as a descendant before.
    """

    patience = 120.0
    """Seconds without progress after which the command counts as hung: no new output, no new process, and nothing new
    in a trial's folder."""

    def __init__(self, words: Iterable[object], folder: Path, output: Path, variables: dict[str, str]) -> None:
        with output.open("w") as file:
            self.driver = subprocess.Popen(
                [str(word) for word in words],
                cwd=folder,
                env=environment() | variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.output, self.started = output, time.monotonic()
        self._seen: set[psutil.Process] = set()

    def members(self) -> list[psutil.Process]:
        """Those that live, the driver included."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._seen.update(psutil.Process(self.driver.pid).children(recursive=True))
        self._seen.update(process for process in psutil.process_iter() if self._in_session(process.pid))
        self._seen = {process for process in self._seen if process.is_running() and _state(process) != "zombie"}
        return sorted(self._seen, key=lambda process: process.pid)

    def _in_session(self, pid: int) -> bool:
        try:
            return os.getsid(pid) == self.driver.pid
        except ProcessLookupError:
            return False

    def find(self, target: str) -> list[psutil.Process]:
        """The processes of this kind, see TARGETS."""
        return [process for process in self.members() if TARGETS[target](process, self)]

    def recover(self, target: str) -> str:
        """Replace what was struck, where it does not come back by itself, while the command runs; what was done."""
        return ""

    def end(self) -> None:
        """Kill what is left, and wait for it."""
        left = self.members()
        send(left, signal.SIGKILL)
        self.driver.wait()
        psutil.wait_procs(left, timeout=GRACE)

    def orphans(self, grace: float = GRACE) -> list[str]:
        """What lives `grace` seconds after the driver's end, as text; it is killed then."""
        end = time.monotonic() + grace
        while (left := self.members()) and time.monotonic() < end:
            time.sleep(0.2)
        names = [f"{process.pid} {title(process)[:60]}" for process in left]
        self.end()
        return names


def _is(name: str) -> Matches:
    return lambda process, family: name in title(process)


def _runs(program: str) -> Matches:
    return lambda process, family: Path(title(process).partition(" ")[0]).name == program


def _in_group(process: psutil.Process, family: Family) -> bool:
    try:
        return os.getpgid(process.pid) == family.driver.pid
    except ProcessLookupError:
        return False


TARGETS: dict[str, Matches] = {
    "driver": lambda process, family: process.pid == family.driver.pid,
    "group": _in_group,
    "all": lambda process, family: True,
    "actor": _is("ray::ImplicitFunc"),
    "worker": _is("RayTrainWorker"),
    "raylet": _runs("raylet"),
    "gcs": _runs("gcs_server"),
}
"""Kind of target → is it this process? group: the driver's process group, without Ray's workers; all: as a power cut
does it; actor: trains a trial, or watches over its workers; worker: a Ray Train worker of a trial."""


def send(processes: Sequence[psutil.Process], number: int) -> None:
    """Send a signal to each; those that have just ended are left out. psutil checks that a pid was not reused."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def title(process: psutil.Process) -> str:
    """Its command line, which Ray sets to what a worker does; "" when it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _state(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return "zombie"
