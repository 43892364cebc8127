"""The program `hmtl-ablate`, also as `python -m hmtl_ablate`: where it begins and how Ctrl-C ends it."""

from __future__ import annotations

import os
import signal
import sys
from threading import Timer
from types import FrameType

IMPORTING = "<frozen importlib._bootstrap>"
"""The file of the frames that Python has on its stack while it imports a module."""


def main() -> int:
    """Run the command of this process and return its exit code, those of `hmtl_ablate.cli.main`."""
    signal.signal(signal.SIGINT, interrupt)
    try:
        from hmtl_ablate.cli import main as command

        return command()
    except KeyboardInterrupt:  # before the command began
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # the exit code is known; a second Ctrl-C would only be a traceback


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but while a module is imported wait until it is: libraries that are cut there swallow
    the exception, recurse in what they half are, or abort."""
    while frame is not None:
        if frame.f_code.co_filename == IMPORTING:
            Timer(0.05, os.kill, (os.getpid(), number)).start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the working folder, where any file may have the name of a library
    sys.exit(main())
