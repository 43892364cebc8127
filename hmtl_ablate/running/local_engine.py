"""The engine without Ray: a conductor's jobs in this process, one trial after another."""

from __future__ import annotations

from collections.abc import Mapping

from hmtl_ablate.errors import ClusterError
from hmtl_ablate.running.conductor import Conductor
from hmtl_ablate.running.job import Job
from hmtl_ablate.running.options import refuse_workers
from hmtl_ablate.running.stop import Stop
from hmtl_ablate.running.task import Trainer
from hmtl_ablate.running.trainer import attempt
from hmtl_ablate.study import Resources


def check_resources(resources: Resources) -> None:
    """Raises ClusterError when a trial asks for what this process can't give."""
    refuse_workers(resources)
    if resources.gpus:
        import torch

        if not torch.cuda.is_available():
            raise ClusterError(
                f"a trial needs {resources.gpus:g} GPU but this machine has none that PyTorch can use; "
                "set resources.gpus=0 to train on the CPU"
            )


def conduct(conductor: Conductor, stop: Stop, trainer: Trainer) -> None:
    """Run all of the conductor's jobs; returns when none is left, or at a stop."""
    while not stop.requested:
        job = conductor.next()
        if job is None:
            return
        _run(conductor, job, stop, trainer)


def _run(conductor: Conductor, job: Job, stop: Stop, trainer: Trainer) -> None:
    broken: list[Exception] = []

    def report(metrics: Mapping[str, float]) -> None:
        # The conductor's own errors (Optuna's database is gone) are not the trial's: it stops with a checkpoint.
        try:
            conductor.epoch(job, int(metrics["epoch"]))
        except Exception as error:
            broken.append(error)
            stop.path.touch()

    task = conductor.task(job, stop.path)
    conductor.end(job, attempt(task, lambda: trainer(task, report)))
    if broken:
        raise broken[0]
