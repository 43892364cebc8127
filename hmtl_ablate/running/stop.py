"""A clean stop: Ctrl-C or SIGTERM asks the running trials to write their checkpoints and end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Stop:
    """Whether the run was asked to stop. Trials, on whichever machine, look for `path` every step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requested = False

    def request(self) -> None:
        """Ask the run to stop; every trial writes its checkpoint and ends.

        Raises KeyboardInterrupt when the file can't be written: then there is no clean stop.
        """
        self.requested = True
        try:
            self.path.touch()
        except OSError:
            raise KeyboardInterrupt from None


@contextmanager
def stop_on_signal(path: Path) -> Iterator[Stop]:
    """A Stop that the first Ctrl-C or SIGTERM requests; the second raises KeyboardInterrupt.

    Python delivers signals to the main thread only: in another thread no handler is installed.

    path: the file that trials look for, in a folder that all of them can read; a killed run's is removed.
    """
    path.unlink(missing_ok=True)
    stop = Stop(path)

    def handle(number: int, frame: object) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.request()

    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        path.unlink(missing_ok=True)
