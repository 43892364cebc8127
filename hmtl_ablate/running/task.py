"""What a worker needs to train one trial, as data: the same for every engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
