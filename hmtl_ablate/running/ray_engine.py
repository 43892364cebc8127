"""Ray: joining or starting a cluster, and one Tune run over a conductor's jobs."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from typing import Any

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000000",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
}

import ray
import ray.tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from hmtl_ablate.errors import ClusterError
from hmtl_ablate.running.actor import run_task
from hmtl_ablate.running.conductor import Conductor, Job
from hmtl_ablate.running.scratch import drop, own_folder
from hmtl_ablate.running.stop import Stop
from hmtl_ablate.running.task import Trainer
from hmtl_ablate.study import Resources

SLOT = "trial_slot"
"""A resource of the clusters we start: the function that watches over Ray Train's workers takes a slot and no CPU."""


@contextmanager
def joined(address: str | None, resources: Resources) -> Iterator[None]:
    """Ray on this machine, or the cluster at `address`; a Ray that this process has started already is used as it is,
    and left running. Raises ClusterError when it can't be reached."""
    if address is None and ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address:
        _reach(address)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            if address:
                ray.init(address=address, **quiet)
            else:
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=256 * 2**20,
                    resources={SLOT: 4096},
                    **quiet,
                )
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, TimeoutError and its own
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ClusterError(
            f"{where} can't be used: {text}; check --address, or leave it out to use this machine"
        ) from error
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Tune copies its snapshot of the run while it writes the next one, and logs a traceback when a file vanishes under
    # it. Nobody reads that snapshot: what a resumed run needs is in the trials' folders and Optuna's storage.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            ray.shutdown()


def capacity(resources: Resources) -> int:
    """Trials that the cluster holds at once. Raises ClusterError when it holds none."""
    held = ray.cluster_resources()
    needs = {"CPU": resources.cpus * resources.workers, "GPU": resources.gpus * resources.workers}
    room = min(int(held.get(name, 0.0) / need + 1e-9) for name, need in needs.items() if need > 0)
    if room < 1:
        raise ClusterError(
            "a trial needs "
            + " and ".join(f"{need:g} {name}" for name, need in needs.items() if need)
            + " but the cluster has "
            + " and ".join(f"{held.get(n, 0):g} {n}" for n in needs)
            + "; change the study's resources (--set resources.cpus=…), or use a larger cluster"
        )
    return room


def conduct(
    conductor: Conductor, stop: Stop, trainer: Trainer, *, max_concurrent: int, imports: tuple[str, ...]
) -> None:
    """Run all of the conductor's jobs in one Tune run; returns when none is left, or at a stop."""
    resources = conductor.study.resources
    if resources.workers == 1:
        needed: dict[str, float] = {"CPU": resources.cpus, "GPU": resources.gpus}
    else:
        needed = {SLOT: 1} if SLOT in ray.cluster_resources() else {"CPU": 0.01}
    results = own_folder()
    feeder = _Feeder(conductor, stop, trainer, max_concurrent, imports, results)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(run_task, {name: value for name, value in needed.items() if value}),
        tune_config=ray.tune.TuneConfig(
            search_alg=feeder, scheduler=_Watcher(feeder), num_samples=-1, reuse_actors=True
        ),
        run_config=ray.tune.RunConfig(
            name="study", storage_path=results, verbose=0, failure_config=ray.tune.FailureConfig(max_failures=0)
        ),
    )
    try:
        with _muted():
            tuner.fit()
    finally:
        drop(results)
    if feeder.broken is not None:
        raise feeder.broken


class _Feeder(Searcher):
    """A Tune searcher whose suggestions are the conductor's jobs."""

    def __init__(
        self,
        conductor: Conductor,
        stop: Stop,
        trainer: Trainer,
        max_concurrent: int,
        imports: tuple[str, ...],
        results: str,
    ) -> None:
        super().__init__()
        self.conductor, self.stop, self.trainer, self.max_concurrent = conductor, stop, trainer, max_concurrent
        self.imports, self.results = imports, results
        self.jobs: dict[str, Job] = {}
        self.broken: BaseException | None = None
        """An error of the conductor: Tune would log it and wait forever, so it is stored, and raised at the end."""

    def suggest(self, trial_id: str) -> Any:
        if len(self.jobs) >= self.max_concurrent:
            return None
        try:
            job = None if self.stop.requested or self.broken else self.conductor.next()
        except Exception as error:
            self._break(error)
            job = None
        if job is None:
            return None if self.jobs else Searcher.FINISHED
        self.jobs[trial_id] = job
        task = replace(
            self.conductor.task(job, self.stop.path),
            imports=self.imports,
            sys_path=(os.getcwd(), *sys.path),
            ray_results=self.results,
        )
        return {"task": task, "trainer": self.trainer}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        job = self.jobs.pop(trial_id, None)
        if job is not None:
            try:
                self.conductor.end(job, "its memory ran out, or its node was lost" if error else "")
            except Exception as problem:
                self._break(problem)

    def epoch(self, trial_id: str, result: Mapping[str, Any]) -> None:
        job = self.jobs.get(trial_id)
        if job is not None and "epoch" in result:
            try:
                self.conductor.epoch(job, int(result["epoch"]))
            except Exception as problem:
                self._break(problem)

    def _break(self, error: BaseException) -> None:
        self.broken = self.broken or error
        self.stop.path.touch()

    def __reduce__(self) -> Any:
        return Searcher, ()  # Tune pickles its settings for a restore that we never ask for

    def __deepcopy__(self, memo: dict[int, Any]) -> _Feeder:
        return self

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the state is in Optuna's storage and the trials' folders."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


class _Watcher(FIFOScheduler):
    """Passes each epoch to the conductor, which asks a trial to end through its folder; Tune itself stops none."""

    def __init__(self, feeder: _Feeder) -> None:
        super().__init__()
        self.feeder = feeder

    def __reduce__(self) -> Any:
        return FIFOScheduler, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Watcher:
        return self

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self.feeder.epoch(trial.trial_id, result)
        return FIFOScheduler.CONTINUE


@contextmanager
def _muted() -> Iterator[None]:
    """Ray prints boxes and advice even at verbose=0; what it says goes unseen, but not our own console, which holds the
    real streams."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


def _reach(address: str) -> None:
    if address == "auto" or address == "local":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(f"--address {address}: write HOST:PORT, ray://HOST:PORT, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ClusterError(
            f"--address {address}: nothing answers there ({error.strerror or error}); start the cluster "
            "(ray start --head), or leave --address out to use this machine"
        ) from error
