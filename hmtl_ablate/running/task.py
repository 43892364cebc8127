"""What a worker needs to train one trial, and the training itself: the same for every engine."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmtl_ablate.config import parse_config
from hmtl_ablate.errors import StoreError, TrialInterrupted
from hmtl_ablate.running.failures import Failure, failure_of
from hmtl_ablate.storage.objects import Objects
from hmtl_ablate.training.folder import TrialFolder

PRUNE = "prune"
"""A file of this name in the trial's folder asks the trial to end after the current epoch. The driver creates it.
Tune's own way to stop a function kills its thread, and with Ray Train below it leaks the placement group."""


@dataclass(frozen=True)
class TrialTask:
    """One trial for a worker, as plain data that any process can unpickle."""

    config: Mapping[str, Any]
    """The resolved config as JSON data: `imports` must run before it can be parsed."""
    pack: Path
    """Folder of the pack."""
    folder: Path
    """The trial's folder."""
    evaluate_test: bool
    """Measure the test split, once, with the best weights."""
    stop: Path
    """When this file exists, the trial writes a checkpoint and ends."""
    threads: int = 1
    """CPU threads of each worker."""
    workers: int = 1
    """Processes that train the trial together."""
    cpus: float = 1
    """CPU cores of each worker."""
    gpus: float = 0
    """GPUs of each worker; 0: it trains on the CPU, whatever the machine has."""
    pieces: int = 1
    """Pieces that each worker's share of a batch is trained in; 2 after a GPU's memory ran out."""
    keep_last: bool = False
    """Keep the checkpoint of a finished trial."""
    imports: tuple[str, ...] = ()
    """Modules to import first."""
    sys_path: tuple[str, ...] = ()
    """Entries of the driver's sys.path, added where they are missing."""
    ray_results: str = ""
    """Folder for Ray Train's own files; unused outside Ray."""
    remote: str = ""
    """Address of the store; "" for a folder. Of one at an address, `folder`, `pack` and `stop` are paths in the local
    copy of the command that sent the task, and their names are those of the objects."""
    left_out: tuple[str, ...] = ()
    """Ids of the Ray nodes that it must not run on."""


Report = Callable[[Mapping[str, float]], None]
"""Called with an epoch's metrics once they are in the trial's folder."""
Trainer = Callable[[TrialTask, Report], None]
"""Trains a task and writes its folder. Raises TrialInterrupted at a stop; any other exception is a failed trial."""


def train_task(task: TrialTask, report: Report) -> None:
    """The trainer: `hmtl_ablate.training.loop.train`, in each of the task's workers."""
    for entry in task.sys_path:
        if entry not in sys.path:
            sys.path.append(entry)
    for module in task.imports:
        importlib.import_module(module)
    rank, world_size = _place(task)
    if task.remote:
        from hmtl_ablate.running.away import train_away

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
