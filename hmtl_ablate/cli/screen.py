"""What a command shows while it works: its own screen, and a bar."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmtl_ablate.errors import HmtlError, StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from hmtl_ablate.reporting.document import Section

LOG_LIMIT = 2**20
"""Bytes of a run's log beyond which the next run starts a new one."""


def write_output(text: str, output: Path) -> None:
    """Write what a command would print to the file of its `--output`. Raises HmtlError when that can't be written."""
    try:
        output.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
    except OSError as error:
        raise HmtlError(f"--output {output}: can't be written: {error.strerror}") from error
    print(f"written to {output}")


def for_terminal(section: Section) -> str:
    """A section as text that fits the terminal."""
    from hmtl_ablate.reporting.formats.terminal import write

    return write([section], shutil.get_terminal_size((100, 24)).columns)


def program() -> str:
    """How to call this program: by its name where the shell finds it, else as it was called now."""
    if shutil.which("hmtl-ablate"):
        return "hmtl-ablate"
    return sys.argv[0] if sys.argv[0].endswith("hmtl-ablate") else f"{sys.executable} -m hmtl_ablate"


@contextmanager
def own_screen(log: Path) -> Iterator[Console]:
    """A console on stdout that nobody else can write to: what Ray, MLflow, their log handlers and libraries in C write
    to this process's stdout and stderr, and its children's, goes to `log`.

    The file descriptors are exchanged, not `sys.stdout`: a handler holds the stream that it was made with, and C
    writes to the descriptor.
    """
    from rich.console import Console

    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    fresh = not log.exists() or log.stat().st_size > LOG_LIMIT
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        try:
            file = log.open("wb" if fresh else "ab")
        except OSError as error:
            raise StoreError(f"{log}: the run's log can't be written: {error.strerror}; remove it") from error
        with file:
            for number in kept:
                os.dup2(file.fileno(), number)
        screen = os.fdopen(os.dup(kept[1]), "w", encoding="utf-8", errors="replace")
        with screen if _is_process_output(sys.stdout) else nullcontext(sys.stdout) as output:
            yield Console(file=output, highlight=False)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, original in kept.items():
            os.dup2(original, number)
            os.close(original)


def _is_process_output(stream: Any) -> bool:
    """Whether it writes to the descriptor of stdout; a test's or a notebook's does not."""
    try:
        return bool(stream.fileno() == 1)
    except (OSError, ValueError):
        return False


@contextmanager
def bar(console: Console, quiet: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """A progress callback (done, total, what) that draws a bar on a terminal."""
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as shown:
        row = shown.add_task("loading libraries", total=None)

        def show(done: int, total: int, what: str) -> None:
            shown.update(row, description=what, completed=done, total=total or None)

        yield show
