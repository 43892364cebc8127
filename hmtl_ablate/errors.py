"""Errors that a user can act on: each says what is wrong, where, and what to do.

The command line prints the message of any `HmtlError` and exits with its code, never with a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar


class HmtlError(Exception):
    """Root of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 2
    """Of the command line."""


class DataError(HmtlError):
    """A dataset that is missing, in another layout than expected, or too broken to use."""


class StoreError(HmtlError):
    """The store (`--runs`) can't be read or written, or a trial's folder is damaged or in use."""


class CheckpointError(StoreError):
    """A checkpoint or weights file can't be loaded."""


class TrackingError(HmtlError):
    """The MLflow store can't be reached or used."""


class ClusterError(HmtlError):
    """The Ray cluster can't be reached, or can't hold what the study asks for."""


class SearchError(HmtlError):
    """The search can't be run as declared: the sampler does not suit the space, the storage can't be reached."""


class OutOfMemory(HmtlError):
    """A GPU's memory did not suffice for a step, not even for one that was trained in two halves."""


class RunLost(HmtlError):
    """The cluster or a database was lost while trials ran; the same call resumes from their last checkpoints."""

    exit_code: ClassVar[int] = 75  # EX_TEMPFAIL of sysexits.h: a scheduler may start the same command again


class TrialDiverged(HmtlError):
    """The training loss became NaN or infinite; the trial ends with this reason and is not tried again."""


@dataclass(frozen=True)
class Fault:
    """One fault in a configuration.

    path: the keys that lead to it, e.g. ("pretext", "puzzling", "grid"); what: one sentence; value: the offending
    value; hint: the nearest valid name or the valid range, or "".
    """

    path: tuple[str | int, ...]
    what: str
    value: Any = None
    hint: str = ""

    def __str__(self) -> str:
        where = ".".join(str(key) for key in self.path)
        hint = f"; {self.hint}" if self.hint else ""
        return f"{where}: {self.what}{hint}" if where else f"{self.what}{hint}"


class ConfigError(HmtlError):
    """A configuration that is refused; `faults` holds all that is wrong with it."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class StudyError(HmtlError):
    """A study file that is refused; the message has one line a fault, each `file:line:column: …`."""


def nearest(word: object, valid: Iterable[str]) -> str:
    """A hint that names the nearest valid word, or all of them when none is near."""
    names = sorted(str(name) for name in valid)
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "valid: " + ", ".join(names) if names else ""


def nearest_registered(word: object, valid: Iterable[str]) -> str:
    """A hint as `nearest` gives it, for names that a user's module can add to."""
    return f"{nearest(word, valid)} (--import MODULE adds your own)"


class TrialInterrupted(HmtlError):
    """A trial was asked to stop and has written its checkpoint; the same call continues it."""


def first_line(error: BaseException) -> str:
    """What an exception says, in one line: its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
