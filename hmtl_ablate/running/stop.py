"""A clean stop: Ctrl-C or SIGTERM asks the running trials to write their checkpoints and end."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Stop:
    """Whether the run was asked to stop. Trials look for `path` every step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requested = False

    def request(self) -> None:
        """Ask the run to stop; every trial writes its checkpoint and ends."""
        self.requested = True
        self.path.touch()


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """A Stop that the first Ctrl-C or SIGTERM requests; the second raises KeyboardInterrupt.

    Python delivers signals to the main thread only: in another thread no handler is installed.
    """
    folder = Path(tempfile.mkdtemp(prefix="hmtl-ablate-"))
    stop = Stop(folder / "stop")

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
        stop.path.unlink(missing_ok=True)
        os.rmdir(folder)
