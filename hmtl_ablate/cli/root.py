"""The program: its commands' groups, its exit codes, and how it ends."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hmtl_ablate import __version__
from hmtl_ablate.cli.completing import in_bash
from hmtl_ablate.errors import HmtlError

EXAMPLE = "Example: "
"""Begins the last paragraph of each command's help: a command line, which the tests run."""


class _Commands(TyperGroup):
    """Ends a command on Ctrl-C, or when nobody reads its output any more, before typer does so without a word. An
    example stays on one line of the help, however long, so that it can be copied."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _ended():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _ended():
            return super().invoke(ctx)

    def get_command(self, ctx: Any, name: str) -> Any:
        command = super().get_command(ctx, name)
        if command is not None and command.help:
            unwrapped = f"\n\n\b\n{EXAMPLE}"  # \b: typer does not wrap this paragraph
            command.help = command.help.replace(unwrapped, f"\n\n{EXAMPLE}").replace(f"\n\n{EXAMPLE}", unwrapped)
        return command


@contextmanager
def _ended() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        _drop_output()
        raise typer.Exit(141) from None


def _drop_output() -> None:
    """Send the rest of stdout nowhere: Python flushes it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(cls=_Commands, help="Check or pack a dataset without running a study.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def _version(asked: bool) -> None:
    if asked:
        print(f"hmtl-ablate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Does a self-supervised auxiliary task really help a face model, by how much, and at what cost?"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; argv: the words of the command line, those of the process when None.

    0: done; 1: a trial failed; 2: an error the user can act on, printed as one message; 70: a defect of this package;
    75: the cluster or a database was lost, and the same command resumes; 130: interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")  # ± and − in a terminal of another encoding
    try:
        with in_bash():
            app(args=argv, prog_name="hmtl-ablate")
    except SystemExit as end:  # typer always ends with one
        return end.code if isinstance(end.code, int) else 0
    except HmtlError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except Exception as error:  # a defect of ours: the user gets one line, and the traceback a file
        with tempfile.NamedTemporaryFile("w", prefix="hmtl-ablate-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
        print(
            f"hmtl-ablate has a defect: {type(error).__name__}: {error}. Please report it with {file.name}",
            file=sys.stderr,
        )
        return 70
    return 0
