"""The failure policy: how exceptions are classed, and how a class is written and read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hmtl_ablate.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Fault,
    OutOfMemory,
    StoreError,
    TrialDiverged,
)
from hmtl_ablate.running.failures import RETRIED, RETRIES, Ending, Failure, failure_of, read_failure


@pytest.mark.parametrize(
    ("error", "ending", "reason"),
    [
        (KeyError("x"), Ending.CODE, "KeyError: 'x'"),
        (ConfigError([Fault(("a",), "no"), Fault(("b",), "never")]), Ending.CODE, "a: no; b: never"),
        (DataError("the pack is gone"), Ending.DATA, "the pack is gone"),
        (StoreError("in use"), Ending.STORE, "in use"),
        (CheckpointError("does not fit"), Ending.STORE, "does not fit"),
        (OSError(28, "No space left on device"), Ending.STORE, "OSError: [Errno 28] No space left on device"),
        (OSError(2, "No such file"), Ending.CODE, "FileNotFoundError: [Errno 2] No such file"),
        (TrialDiverged("NaN"), Ending.DIVERGED, "NaN"),
        (MemoryError(), Ending.HOST_MEMORY, "MemoryError: "),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            Ending.HOST_MEMORY,
            "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes",
        ),
        (OutOfMemory("in 2 pieces"), Ending.GPU_MEMORY, "in 2 pieces"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            Ending.GPU_MEMORY,
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"),
            Ending.GPU_MEMORY,
            "OutOfMemoryError: CUDA out of memory.",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Ending) else "",
)
def test_class_and_reason_of_an_exception(error: Exception, ending: Ending, reason: str) -> None:
    failure = failure_of(error)
    assert (failure.ending, failure.reason) == (ending, reason)


def test_the_cause_counts_and_the_traceback_is_kept() -> None:
    outer = RuntimeError("a worker failed")
    outer.__cause__ = DataError("row 7 has no label")
    failure = failure_of(outer)
    assert (failure.ending, failure.reason) == (Ending.DATA, "row 7 has no label")
    with pytest.raises(ZeroDivisionError) as divided:
        _ = 1 / 0
    assert failure_of(divided.value).text.startswith("Traceback (most recent call last)")


def test_one_worker_s_own_failure_counts_more_than_the_network_errors_of_the_others() -> None:
    group = RuntimeError("Training failed due to worker errors")
    group.worker_failures = {0: RuntimeError("gloo: connection closed by peer"), 1: MemoryError()}  # type: ignore[attr-defined]
    assert failure_of(group).ending is Ending.HOST_MEMORY


def test_what_a_worker_of_ray_train_raised_is_found_in_its_wrapper() -> None:
    wrapped = RuntimeError("OutOfMemory: with a traceback")
    wrapped._base_exc = OutOfMemory("in 2 pieces")  # type: ignore[attr-defined]
    group = RuntimeError("Training failed due to worker errors")
    group.worker_failures = {0: RuntimeError("gloo: connection closed by peer"), 1: wrapped}  # type: ignore[attr-defined]
    assert failure_of(group).ending is Ending.GPU_MEMORY


def test_exceptions_that_cause_each_other_end() -> None:
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert failure_of(one).ending is Ending.CODE


@pytest.mark.parametrize("ending", list(Ending), ids=lambda ending: ending.name)
@pytest.mark.parametrize("text", ["", "Traceback …\nKeyError: 'x'"])
def test_a_failure_comes_back_from_its_file(ending: Ending, text: str) -> None:
    failure = Failure(ending, "why: because", text)
    assert read_failure(str(failure)) == failure


def test_a_file_of_an_older_version_is_of_class_code() -> None:
    text = "Traceback …\nRuntimeError: boom\n"
    assert read_failure(text) == Failure(Ending.CODE, "RuntimeError: boom", text)
    assert read_failure("").reason == "no reason was written"


@pytest.mark.slow
def test_exceptions_of_ray() -> None:
    """fault C1, C8: each of Ray's deaths has its own class. Importing Ray takes seconds."""
    from ray import exceptions

    from hmtl_ablate.running.ray_engine import ActorLost

    memory = exceptions.OutOfMemoryError("killed. Memory on the node was 22.50GB used / 23.54GB limit (0.95)\nmore")
    died = "The actor is dead because its worker process has died. Worker exits with an exit code 3."
    cases = {
        memory: (
            Ending.HOST_MEMORY,
            "its machine ran out of memory (22.50GB used / 23.54GB), and Ray ended its process",
        ),
        exceptions.RayActorError(error_msg=died): (
            Ending.CRASHED,
            "the process that trained it ended with exit code 3",
        ),
        exceptions.RayActorError(error_msg="connection error code 2. End of file."): (
            Ending.CRASHED,
            "the process that trained it was killed by a signal, or crashed",
        ),
        exceptions.RayActorError(error_msg="The actor died because its node has died. Node Id: 7"): (
            Ending.NODE_LOST,
            "the machine that trained it was lost",
        ),
        exceptions.RayActorError(preempted=True): (
            Ending.PREEMPTED,
            "the cluster took back the machine that trained it",
        ),
        exceptions.RayTaskError("train", "Traceback …", DataError("row 7")): (Ending.DATA, "row 7"),
        exceptions.RayTaskError("train", "Traceback …", KeyError("x")): (Ending.CODE, "KeyError: 'x'"),
    }
    for error, (ending, reason) in cases.items():
        failure = failure_of(error)
        assert (failure.ending, failure.reason) == (ending, reason)
    assert isinstance(ActorLost(memory), exceptions.RayActorError)


def test_the_page_for_users_has_the_whole_policy() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "failures.md").read_text().partition("\n## When")[0]
    rows = {line.split("|")[1].strip().strip("`"): line.split("|")[3] for line in page.splitlines() if "| `" in line}
    assert rows.keys() == {str(ending) for ending in Ending}
    assert {name for name, same_run in rows.items() if "twice" in same_run} == {str(ending) for ending in RETRIED}
    assert RETRIES == 2
