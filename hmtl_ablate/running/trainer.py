"""The training of one task, in its worker: the same for every engine."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from contextlib import suppress

from hmtl_ablate.config import parse_config
from hmtl_ablate.errors import StoreError, TrialInterrupted
from hmtl_ablate.running.away import train_away
from hmtl_ablate.running.failures import Failure, failure_of
from hmtl_ablate.running.task import PRUNE, Report, TrialTask
from hmtl_ablate.storage.objects import Objects
from hmtl_ablate.training.folder import TrialFolder


def train_task(task: TrialTask, report: Report) -> None:
    """The trainer: `hmtl_ablate.training.loop.train`, in each of the task's workers."""
    for entry in task.sys_path:
        if entry not in sys.path:
            sys.path.append(entry)
    for module in task.imports:
        importlib.import_module(module)
    rank, world_size = _place(task)
    if task.remote:
        return train_away(task, report, train_task, rank)
    from hmtl_ablate.data.pack import load_pack
    from hmtl_ablate.training.loop import train

    def on_epoch(metrics: dict[str, float]) -> bool:
        report(metrics)
        asked = (task.folder / PRUNE).exists()
        if asked:  # not for another study's run, which may need the trial whole and take the folder next
            (task.folder / PRUNE).unlink(missing_ok=True)
        return asked

    train(
        parse_config(task.config),
        load_pack(task.pack),
        task.folder,
        evaluate_test=task.evaluate_test,
        on_epoch=on_epoch,
        stop=task.stop.exists,
        threads=task.threads,
        rank=rank,
        world_size=world_size,
        device="cuda" if task.gpus else "cpu",
        share=min(task.gpus, 1.0) or 1.0,
        pieces=task.pieces,
        keep_last=task.keep_last,
    )


def _place(task: TrialTask) -> tuple[int, int]:
    """Rank and world size of this process."""
    if task.workers == 1:
        return 0, 1
    import torch.distributed

    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def attempt(task: TrialTask, train: Callable[[], object]) -> Failure | None:
    """Call `train`; an exception becomes the trial's failure.txt, and is returned. A trial that was asked to stop is no
    failure.

    Never raises an Exception: it would cost a Ray actor its life, and the next trial the seconds of a new one.
    """
    try:
        train()
    except TrialInterrupted:
        return None
    except Exception as error:
        failure = failure_of(error)
        with suppress(OSError, StoreError):  # the disk, or the service, may be what failed
            if task.remote:
                Objects(task.remote).write(f"trials/{task.folder.name}/failure.txt", str(failure).encode())
            else:
                TrialFolder(task.folder).write_failure(str(failure))
        return failure
    return None
