"""What runs in a Tune actor: one trial, alone or spread over Ray Train's workers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from hmtl_ablate.errors import OutOfMemory, TrialInterrupted
from hmtl_ablate.running.failures import behind
from hmtl_ablate.running.task import Trainer, TrialTask
from hmtl_ablate.running.trainer import attempt


def run_task(config: dict[str, Any]) -> dict[str, Any]:
    """Train config["task"] with config["trainer"]. Never raises: `failure` is the content of the trial's failure.txt,
    "" without one, and `machine` the address of the node that is to blame, "" where that is not known."""
    import ray.tune

    task: TrialTask = config["task"]
    trainer: Trainer = config["trainer"]
    if task.workers == 1:
        train = partial(trainer, task, lambda metrics: ray.tune.report({"epoch": metrics["epoch"]}))
    else:
        train = partial(_train_over_workers, task, trainer)
    failure = attempt(task, train)
    return {"failure": str(failure or ""), "machine": failure.machine if failure else ""}


def _train_over_workers(task: TrialTask, trainer: Trainer) -> None:
    """Train over Ray Train's workers. When a GPU's memory runs out, start them once more, from the last checkpoint and
    with each batch in two pieces: one worker can't do so by itself, because the others wait for it."""
    from ray.train import TrainingFailedError

    try:
        _fit(task, trainer)
    except TrainingFailedError as error:
        if task.pieces > 1 or not any(isinstance(one, OutOfMemory) for one in behind(error)):
            raise
    else:
        return
    _fit(replace(task, pieces=2 * task.pieces), trainer)


def _fit(task: TrialTask, trainer: Trainer) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from hmtl_ablate.running.ray_nodes import elsewhere

    TorchTrainer(
        _train_worker,
        train_loop_config={"task": task, "trainer": trainer},
        torch_config=TorchConfig(backend="nccl" if task.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=task.workers,
            use_gpu=task.gpus > 0,
            resources_per_worker={"CPU": task.cpus, "GPU": task.gpus},
            label_selector=elsewhere(task.left_out) or None,
        ),
        run_config=RunConfig(
            name=f"{task.folder.name}-{task.pieces}", storage_path=task.ray_results, callbacks=[TuneReportCallback()]
        ),
    ).fit()


def _train_worker(config: dict[str, Any]) -> None:
    import ray.train

    try:
        config["trainer"](config["task"], lambda metrics: ray.train.report({"epoch": metrics["epoch"]}))
    except TrialInterrupted:
        return  # all workers agreed on it
