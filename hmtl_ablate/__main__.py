"""The program `hmtl-ablate`, also as `python -m hmtl_ablate`: where it begins, and how Ctrl-C reaches it."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

IMPORTING = "<frozen importlib._bootstrap>"
"""The file of the frames that Python has on its stack while it imports a module."""
AGAIN = 0.05
"""Seconds until a Ctrl-C that could not be delivered is delivered again."""


def main() -> int:
    """Run the command of this process and return its exit code: that of `hmtl_ablate.cli.main`."""
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    sys.unraisablehook = lost
    try:
        from hmtl_ablate.cli import main as command

        return command()
    except KeyboardInterrupt:  # before the command began
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the exit code is known; another Ctrl-C would be a traceback
        # Python keeps for its end whether Ctrl-C left the last text that it ran as code (by `exec` or `eval`, as
        # dataclasses and typer do), though it was caught since; with -m it would then die of SIGINT in place of 130.
        exec("")


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but while a module is imported wait until it is: libraries that are cut there swallow
    the exception, recurse in what they half are, or abort. (A timer's signal, since a thread could not be started
    here: the code that the signal cut may hold the locks of `threading`.)"""
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            signal.setitimer(signal.ITIMER_REAL, AGAIN)
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def lost(ignored: Any) -> None:
    """A KeyboardInterrupt where Python can only ignore exceptions, e.g. in a finaliser, is raised again later."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    else:
        sys.__unraisablehook__(ignored)


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working folder, where any file may have the name of a library
    sys.exit(main())
