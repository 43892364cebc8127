"""Other ways to drive the same trainings: python -m benchmarks.drivers NAME CONFIG PACK STORE SEED…

Each trains the config with every seed, one after another, as its library's own examples do it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "1", "RAY_AIR_NEW_OUTPUT": "0"}


def train_one(task: dict[str, Any]) -> None:
    """One training, in this process."""
    from hmtl_ablate.config import parse_config, trial_id
    from hmtl_ablate.data.pack import load_pack
    from hmtl_ablate.training.loop import train

    settings = parse_config({**task["config"], "seed": task["seed"]})
    pack = load_pack(Path(task["pack"]))
    folder = Path(task["store"]) / "trials" / trial_id(settings, pack.identity(settings.tasks))
    train(settings, pack, folder, evaluate_test=True, threads=1)


def bare(tasks: list[dict[str, Any]]) -> None:
    for task in tasks:
        train_one(task)


def optuna(tasks: list[dict[str, Any]]) -> None:
    """Optuna with a fresh process a trial, so that no trial can spoil the next one."""
    import optuna as library

    library.logging.set_verbosity(library.logging.ERROR)
    study = library.create_study(storage=f"sqlite:///{tasks[0]['store']}/optuna.db")
    context = multiprocessing.get_context("spawn")
    for task in tasks:
        trial = study.ask()
        trial.suggest_float("weight", 0.1, 10, log=True)
        process = context.Process(target=train_one, args=(task,))
        process.start()
        process.join()
        study.tell(trial, 0.0)


def tune(tasks: list[dict[str, Any]], reuse: bool = False) -> None:
    """Ray Tune over the tasks, one at a time."""
    import ray
    from ray.tune import RunConfig, TuneConfig, Tuner, grid_search, report, with_resources

    def trainable(point: dict[str, Any]) -> None:
        train_one(point["task"])
        report({"done": 1})

    _init()
    Tuner(
        with_resources(trainable, {"CPU": 1}),
        param_space={"task": grid_search(tasks)},
        tune_config=TuneConfig(max_concurrent_trials=1, reuse_actors=reuse),
        run_config=RunConfig(storage_path=tasks[0]["store"], verbose=0),
    ).fit()
    ray.shutdown()


def tune_reuse(tasks: list[dict[str, Any]]) -> None:
    tune(tasks, reuse=True)


def tune_train(tasks: list[dict[str, Any]]) -> None:
    """Ray Tune whose trials are Ray Train runs of one worker."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune import RunConfig as TuneRunConfig
    from ray.tune import TuneConfig, Tuner, grid_search, with_resources

    def driver(point: dict[str, Any]) -> None:
        task = point["task"]
        TorchTrainer(
            train_one,
            train_loop_config=task,
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(name=f"seed-{task['seed']}", storage_path=tasks[0]["store"]),
        ).fit()

    _init()
    Tuner(
        with_resources(driver, {"CPU": 0.01}),
        param_space={"task": grid_search(tasks)},
        tune_config=TuneConfig(max_concurrent_trials=1),
        run_config=TuneRunConfig(storage_path=tasks[0]["store"], verbose=0),
    ).fit()
    ray.shutdown()


def _init() -> None:
    import ray

    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": os.getcwd()}},
    )


def main(name: str, config: str, pack: str, store: str, *seeds: str) -> None:
    tasks = [
        {
            "config": json.loads(config),
            "pack": str(Path(pack).resolve()),
            "store": str(Path(store).resolve()),
            "seed": int(seed),
        }
        for seed in seeds
    ]
    {"bare": bare, "optuna": optuna, "tune": tune, "tune_reuse": tune_reuse, "tune_train": tune_train}[name](tasks)


if __name__ == "__main__":
    main(*sys.argv[1:])
