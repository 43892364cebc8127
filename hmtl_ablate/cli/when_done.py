"""`run --when-done CMD`: a command of the user's that gets the run's summary as JSON on its standard input."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from hmtl_ablate.errors import HmtlError, first_line
from hmtl_ablate.storage import address_of

if TYPE_CHECKING:
    from hmtl_ablate.running.outcome import Outcome
    from hmtl_ablate.running.summary import RunSummary
    from hmtl_ablate.study import Study

LIMIT = 60.0
"""Seconds that the command may take."""
INTERRUPTED = 130
"""Exit code of a run that was stopped, by a signal or by its budget."""


class Counted(Protocol):
    """What counts trials while they run: the live display."""

    done: int
    skipped: int
    pruned: int
    failed: int


@dataclass
class Ending:
    """What is known of a run when it ends, in whichever way; filled in while it runs."""

    study: Study
    store: Path
    addresses: tuple[str, ...] = ()
    """URLs whose passwords the summary must not show."""
    counted: Counted | None = None
    summary: RunSummary | None = None
    """None where the run ended before its trials were over."""
    page: Path | None = None
    started: float = field(default_factory=time.monotonic)

    def to_json(self, error: BaseException | None) -> dict[str, Any]:
        """The summary that docs/running.md describes. error: what ended the command; None where nothing did."""
        code, message = _code(error), _message(error)
        if self.summary is not None and self.summary.left is not None:
            message = self.summary.left.sentence
        outcome = None if self.summary is None else self.summary.outcome
        found = {
            "study": self.study.name,
            "profile": self.study.profile,
            "store": address_of(self.store.resolve()),
            "status": {0: "finished", INTERRUPTED: "interrupted"}.get(code, "failed"),
            "exit_code": code,
            "message": message,
            "trials": self._counts(),
            "failed": self._failed(),
            "seconds": round(time.monotonic() - self.started, 1),
            "answer": [] if outcome is None else list(outcome.sentences),
            "best": None if outcome is None else _best(self.study, outcome),
            "report": None if self.page is None else str(self.page.resolve()),
        }
        return {key: _without_passwords(value, self.addresses) for key, value in found.items()}

    def _counts(self) -> dict[str, int]:
        if self.summary is not None:
            one = self.summary
            return _counts(one.done, one.skipped, one.pruned, len(one.failed))
        if self.counted is not None:
            return _counts(self.counted.done, self.counted.skipped, self.counted.pruned, self.counted.failed)
        return _counts(0, 0, 0, 0)

    def _failed(self) -> list[dict[str, str]]:
        failed = [] if self.summary is None else self.summary.failed
        return [{"trial": name, "reason": reason, "log": str(log.resolve())} for name, reason, log in failed]


def command_words(text: str) -> tuple[str, ...]:
    """The program and arguments of `--when-done`, split as a shell splits words; no shell runs them.

    Raises HmtlError where there is no such program.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise HmtlError(f"--when-done {text}: {error}; close the quotes") from error
    if not words:
        raise HmtlError("--when-done: name a command, e.g. --when-done 'python notify.py'")
    if shutil.which(words[0]) is None:
        raise HmtlError(
            f"--when-done {text}: there is no program {words[0]!r}; name one on the PATH or the path of one that can "
            "be executed, and use sh -c '…' for pipes"
        )
    return words


@contextmanager
def announced(words: tuple[str, ...], ending: Ending) -> Iterator[None]:
    """Run the command after the block, however the block ends; what ended it is raised again afterwards."""
    try:
        yield
    except BaseException as error:
        _announce(words, ending, error)
        raise
    _announce(words, ending, None)


def _announce(words: tuple[str, ...], ending: Ending, error: BaseException | None) -> None:
    if not words:
        return
    fault = _call(words, json.dumps(ending.to_json(error), ensure_ascii=False) + "\n")
    if fault:
        print(f"warning: --when-done {shlex.join(words)}: {fault}", file=sys.stderr)


def _call(words: tuple[str, ...], text: str) -> str:
    """Run the command with this text on its standard input; what went wrong, "" if nothing did."""
    with suppress(BrokenPipeError):
        sys.stdout.flush()  # what the command prints follows it
    try:
        # A session of its own, so that what it started can be ended with it.
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, text=True, encoding="utf-8", errors="replace", start_new_session=True
        )
    except OSError as error:
        return f"can't be started: {error.strerror}"
    try:
        process.communicate(text, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        _end(process)
        return f"stopped after {LIMIT:g} s"
    except KeyboardInterrupt:
        _end(process)
        return "interrupted"
    return f"ended with exit code {process.returncode}" if process.returncode else ""


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _code(error: BaseException | None) -> int:
    """The exit code of a command that this ended."""
    match error:
        case None:
            return 0
        case typer.Exit() | HmtlError():
            return error.exit_code
        case KeyboardInterrupt():
            return INTERRUPTED
        case BrokenPipeError():
            return 141
        case _:
            return 70


def _message(error: BaseException | None) -> str | None:
    """What the command says when this ended it, in one string; None where there is nothing to say."""
    match error:
        case None | typer.Exit() | KeyboardInterrupt() | BrokenPipeError():
            return None
        case HmtlError():
            return str(error)
        case _:
            return f"{type(error).__name__}: {first_line(error)}"


def _counts(finished: int, already: int, pruned: int, failed: int) -> dict[str, int]:
    return {"finished": finished, "already_finished": already, "pruned": pruned, "failed": failed}


def _best(study: Study, outcome: Outcome) -> dict[str, Any] | None:
    """The trial that `best:STUDY` names, with its value on the split that selects; None without a finished trial."""
    from hmtl_ablate.reporting.naming import best_trial, trial_name
    from hmtl_ablate.study import selection_metric

    if outcome.results is None or outcome.results.empty:
        return None
    try:
        row = best_trial(study.name, outcome.results)
    except HmtlError:  # no trial of it is finished
        return None
    metric = selection_metric(study.metric)
    return {
        "trial": trial_name(row, {"study": study.name}),
        "trial_id": row["trial_id"],
        "metric": metric.removeprefix("best/"),
        "value": float(row[f"metrics.{metric}"]),
    }


def _without_passwords(value: Any, addresses: tuple[str, ...]) -> Any:
    from hmtl_ablate.tracking.address import hidden

    match value:
        case str():
            return hidden(value, *addresses)
        case list():
            return [_without_passwords(one, addresses) for one in value]
        case dict():
            return {key: _without_passwords(one, addresses) for key, one in value.items()}
        case _:
            return value
