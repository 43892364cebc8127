"""The failure policy, all of it: how a trial can end, how an exception is classed, and what is tried again.

docs/failures.md explains the same to users. A failed trial's failure.txt begins with a line `CLASS: reason`; what
follows is the whole text, e.g. a traceback.
"""

from __future__ import annotations

import errno
import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from hmtl_ablate.errors import DataError, HmtlError, OutOfMemory, StoreError, TrialDiverged


class Ending(StrEnum):
    """How a trial ended: the tag `hmtl.ending` in MLflow."""

    FINISHED = "finished"
    STOPPED_EARLY = "stopped early"
    """By the search's pruner."""
    DIVERGED = "diverged"
    """The loss became NaN or infinite."""
    DATA = "data"
    """The data can't be used."""
    CODE = "code"
    """An exception of the program, or an option that only training could refuse."""
    STORE = "store"
    """The trial's folder can't be read or written, e.g. because the disk is full."""
    HOST_MEMORY = "out of memory (host)"
    GPU_MEMORY = "out of memory (GPU)"
    CRASHED = "crashed"
    """The process was killed, or ended without a word."""
    NODE_LOST = "node lost"
    PREEMPTED = "preempted"
    """The cluster took its node away, and said so."""
    NOT_STARTED = "not started"
    """A trial that it starts from has failed."""


RETRIES = 2
"""How often a trial is started again in the same run, each time from its last checkpoint."""
RETRIED = frozenset({Ending.HOST_MEMORY, Ending.CRASHED, Ending.NODE_LOST, Ending.PREEMPTED})
"""Faults of the machine. The others would happen again in the same way: only the next run tries them again, and
a trial that diverged is never tried again."""
OF_A_MACHINE = frozenset({Ending.HOST_MEMORY, Ending.CRASHED})
"""Faults that say something about the machine, as long as it is there: one that has three of them is left out."""
FEWER_AT_ONCE = frozenset({Ending.HOST_MEMORY})
"""After these the run holds one trial fewer at a time, down to one."""

OF_STATUS = {"finished": Ending.FINISHED, "pruned": Ending.STOPPED_EARLY, "failed": Ending.DIVERGED}
"""`TrialResult.status` → how the trial ended."""

STARTUP = frozenset({"WorkerGroupStartupTimeoutError", "WorkerGroupStartupFailedError"})
"""Ray Train could not place a trial's workers, which it could when the run started: a node went away."""
INNER = ("controller_failure", "health_check_failure", "cause", "_base_exc")
"""Attributes with which Ray's exceptions carry another."""
FULL_OR_GONE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE})
"""Errors of a file system that are no defect of the program."""


@dataclass(frozen=True)
class Failure:
    """Why a trial has no result."""

    ending: Ending
    reason: str
    """One line."""
    text: str = ""
    """All that is known, e.g. a traceback."""
    machine: str = ""
    """IP address of the node whose process has died; "" where Ray does not say so, or none has."""

    def __str__(self) -> str:
        """The content of failure.txt."""
        return f"{self.ending}: {self.reason}\n" + (f"\n{self.text.rstrip()}\n" if self.text else "")

    @property
    def retried(self) -> bool:
        return self.ending in RETRIED


def read_failure(text: str) -> Failure:
    """The failure of a failure.txt. A text without a class, of an older version, is of class code."""
    first, _, rest = text.strip().partition("\n")
    name, separator, reason = first.partition(": ")
    if separator and name in set(Ending):
        return Failure(Ending(name), reason, rest.strip())
    lines = text.strip().splitlines() or ["no reason was written"]
    return Failure(Ending.CODE, lines[-1], text)


def failure_of(error: BaseException) -> Failure:
    """The failure that an exception means.

    The exceptions behind it are searched, too: those of Ray Train's workers, and the causes. One worker's death makes
    the others fail with network errors, so the first exception with a class of its own counts.
    """
    text = "".join(traceback.format_exception(error))
    for one in behind(error):
        ending = _ending(one)
        if ending is not None:
            return Failure(ending, _reason(ending, one), "" if _own(one) else text, _machine(one))
    root = next((one for one in reversed(list(behind(error))) if not _of_ray(one)), error)
    return Failure(Ending.CODE, f"{type(root).__name__}: {_line(root)}", text)


def behind(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that led to it, outermost first, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        workers = getattr(one, "worker_failures", None)  # Ray Train: rank → exception
        inner = [*workers.values()] if isinstance(workers, dict) else []
        inner += [getattr(one, name, None) for name in INNER]
        waiting += [each for each in (*inner, one.__cause__) if isinstance(each, BaseException)]


def _ending(error: BaseException) -> Ending | None:
    """The class of one exception; None for any other exception of a program."""
    if _of_ray(error):
        return _ending_of_ray(error)
    if isinstance(error, HmtlError):
        return _ending_of_ours(error)
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error):
        return Ending.HOST_MEMORY
    if isinstance(error, OSError) and error.errno in FULL_OR_GONE:
        return Ending.STORE
    if "torch" not in sys.modules:  # which this process may do without: then no GPU's memory ran out
        return None
    from hmtl_ablate.training.device import is_out_of_memory

    return Ending.GPU_MEMORY if is_out_of_memory(error) else None


def _ending_of_ours(error: HmtlError) -> Ending:
    classes = {
        TrialDiverged: Ending.DIVERGED,
        DataError: Ending.DATA,
        StoreError: Ending.STORE,
        OutOfMemory: Ending.GPU_MEMORY,
    }
    return next((ending for kind, ending in classes.items() if isinstance(error, kind)), Ending.CODE)


def _ending_of_ray(error: BaseException) -> Ending | None:
    """The class of an exception of Ray's own; None for one that only carries another."""
    from ray import exceptions  # loaded wherever one of its exceptions occurs

    text, kind = str(error), type(error).__name__
    if isinstance(error, exceptions.RayTaskError):
        return None
    if isinstance(error, exceptions.OutOfMemoryError):
        return Ending.HOST_MEMORY
    if isinstance(error, exceptions.NodeDiedError | exceptions.LocalRayletDiedError) or kind in STARTUP:
        return Ending.NODE_LOST
    if isinstance(error, exceptions.RayActorError):
        if error.preempted:
            return Ending.PREEMPTED
        if "node running low on memory" in text:
            return Ending.HOST_MEMORY
        lost = re.search(r"node (has died|has crashed|was terminated)", text)
        return Ending.NODE_LOST if lost else Ending.CRASHED
    if isinstance(error, exceptions.RayError) or kind == "WorkerHealthCheckTimeoutError":
        return Ending.CRASHED
    return None


def _reason(ending: Ending, error: BaseException) -> str:
    """One line for people."""
    text = str(error)
    if not _of_ray(error):
        return "; ".join(text.splitlines()) if _own(error) else f"{type(error).__name__}: {_line(error)}"
    if ending is Ending.HOST_MEMORY:
        used = re.search(r"[\d.]+GB used / [\d.]+GB", text)
        return f"its machine ran out of memory{f' ({used[0]})' if used else ''}, and Ray ended its process"
    if ending is Ending.CRASHED:
        code = re.search(r"exit code (\d+)", text)
        received = " after SIGTERM" if "receives a SIGTERM" in text else ""
        how = f"ended with exit code {code[1]}{received}" if code else "was killed by a signal, or crashed"
        return f"the process that trained it {how}"
    return {
        Ending.NODE_LOST: "the machine that trained it was lost",
        Ending.PREEMPTED: "the cluster took back the machine that trained it",
    }[ending]


def _machine(error: BaseException) -> str:
    """The address in what Ray says of an actor that has died: `ip: …`, or `IP: …` where memory ran out."""
    found = re.search(r"\b(?:ip|IP): ([0-9a-fA-F.:]+)", str(error)) if _of_ray(error) else None
    return found[1] if found else ""


def _own(error: BaseException) -> bool:
    """Is its message meant for users?"""
    return isinstance(error, HmtlError)


def _of_ray(error: BaseException) -> bool:
    return any(kind.__module__.partition(".")[0] == "ray" for kind in type(error).__mro__)


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")
