"""What runs in a Tune actor: one trial, alone or spread over Ray Train's workers."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hmtl_ablate.config import parse_config
from hmtl_ablate.errors import HmtlError, TrialInterrupted
from hmtl_ablate.training.folder import TrialFolder

Task = dict[str, Any]
"""A job as plain data: config, pack, folder, evaluate_test, threads, workers, gpus, stop, imports, sys_path."""

PRUNE = "prune"
"""A file of this name in the trial's folder asks it to end after this epoch. The driver makes it; Tune's own way of
stopping a function kills its thread, and with Ray Train below it leaks the placement group."""


def run_task(task: Task) -> dict[str, Any]:
    """Train, or write down why not. Never raises: an exception would cost the actor its life, and the next trial the
    seconds of a new one."""
    import ray.tune

    folder = TrialFolder(Path(task["folder"]))
    try:
        if task["workers"] == 1:
            _train(task, lambda metrics: ray.tune.report({"epoch": metrics["epoch"]}))
        else:
            _train_over_workers(task)
    except TrialInterrupted:
        return {"ended": True}
    except HmtlError as error:
        folder.write_failure(f"{error}\n")
    except Exception:
        folder.write_failure(traceback.format_exc())
    return {"ended": True}


def _train(task: Task, report: Callable[[dict[str, float]], None], rank: int = 0, world_size: int = 1) -> None:
    for entry in task["sys_path"]:
        if entry not in sys.path:
            sys.path.append(entry)
    for module in task["imports"]:
        importlib.import_module(module)
    from hmtl_ablate.data.pack import load_pack
    from hmtl_ablate.training.loop import train

    folder, stop = Path(task["folder"]), Path(task["stop"])

    def on_epoch(metrics: dict[str, float]) -> bool:
        report(metrics)
        return (folder / PRUNE).exists()

    train(
        parse_config(task["config"]),
        load_pack(Path(task["pack"])),
        folder,
        evaluate_test=task["evaluate_test"],
        on_epoch=on_epoch,
        stop=stop.exists,
        threads=task["threads"],
        rank=rank,
        world_size=world_size,
    )


def _train_over_workers(task: Task) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    trainer = TorchTrainer(
        _train_worker,
        train_loop_config=task,
        torch_config=TorchConfig(backend="nccl" if task["gpus"] else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=task["workers"],
            use_gpu=task["gpus"] > 0,
            resources_per_worker={"CPU": task["cpus"], "GPU": task["gpus"]},
        ),
        run_config=RunConfig(
            name=Path(task["folder"]).name, storage_path=task["ray_results"], callbacks=[TuneReportCallback()]
        ),
    )
    trainer.fit()


def _train_worker(task: Task) -> None:
    import ray.train

    context = ray.train.get_context()
    try:
        _train(
            task,
            lambda metrics: ray.train.report({"epoch": metrics["epoch"]}),
            context.get_world_rank(),
            context.get_world_size(),
        )
    except TrialInterrupted:
        return  # all workers agreed on it
