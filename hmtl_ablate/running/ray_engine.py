"""Ray: joining or starting a cluster, and one Tune run over a conductor's jobs."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from io import StringIO
from typing import Any

# What a user has set for Ray programs of their own is no option of ours. Some of it ends every run: Tune refuses
# TUNE_RESULT_DIR and RAY_AIR_LOCAL_CACHE_DIR.
os.environ.pop("TUNE_RESULT_DIR", None)
os.environ.pop("TUNE_RESULT_BUFFER_LENGTH", None)
os.environ.pop("RAY_AIR_LOCAL_CACHE_DIR", None)
os.environ.pop("RAY_CLIENT_MODE", None)
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
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # Tune would restart the trial itself, without end
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a call after a lost cluster would start or join another one
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` Ray would upload the working folder, and install it anew
}

import ray
import ray.cloudpickle
import ray.tune
import ray.tune.execution.tune_controller
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.error import TuneError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from hmtl_ablate.errors import ClusterError, RunLost, first_line
from hmtl_ablate.running.actor import run_task
from hmtl_ablate.running.conductor import Conductor
from hmtl_ablate.running.failures import FEWER_AT_ONCE, OF_A_MACHINE, Failure, failure_of, read_failure
from hmtl_ablate.running.job import Job
from hmtl_ablate.running.options import RunOptions
from hmtl_ablate.running.ray_address import check_address
from hmtl_ablate.running.ray_nodes import Arrivals, Unfit, elsewhere, needs_of, room
from hmtl_ablate.running.ray_shipping import shipped
from hmtl_ablate.running.ray_sockets import place_sockets
from hmtl_ablate.running.ray_watch import GROWTH, ROOMLESS, Watch, answered, resources_of
from hmtl_ablate.running.scratch import drop, own_folder
from hmtl_ablate.running.stop import Stop
from hmtl_ablate.running.task import Trainer
from hmtl_ablate.study import Resources

WATCHER = {"memory": 1.0}
"""What the function that watches over Ray Train's workers reserves: a byte, since Tune needs something to reserve. A
share of a core would keep a worker off a node that has just as many cores as the worker needs."""
STARTS = 3
"""Attempts to start Ray on this machine."""
LOOK = 0.2
"""Seconds between two looks at the cluster's liveness."""
SLOW = 30.0
"""Seconds that a question to the cluster may take."""
LEAVE = 10.0
"""Seconds that Ray's own shutdown may take."""


@contextmanager
def joined(address: str | None, imports: Sequence[str] = ()) -> Iterator[None]:
    """Ray on this machine, or the cluster at `address`; a Ray that this process has started already is used as it is,
    and left running.

    imports: modules that the cluster's nodes get, together with this package.
    Raises ClusterError when it can't be reached.
    """
    if address is None and ray.is_initialized():
        yield
        return
    if address:
        check_address(address)
        with shipped(imports) as modules:
            _start(address, modules)
    else:
        place_sockets()
        _start(None, {})
    # Ray and Tune log a page for every trial that fails: the user gets a line, and the page is in the trial's log. Tune
    # also copies its snapshot of the run while it writes the next one, and logs a traceback when a file vanishes under
    # it. Nobody reads that snapshot: what a resumed run needs is in the trials' folders and Optuna's storage.
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        with _muted():
            _leave()


def _start(address: str | None, modules: Mapping[str, Any]) -> None:
    """Join the cluster at `address`, whose nodes get `modules`, or start one here. Raises ClusterError.

    Neither RAY_ADDRESS nor a cluster that runs on this machine is looked at. A busy machine may take more than the 30 s
    that Ray gives itself to start: then it is tried again.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    here = {"include_dashboard": False, "object_store_memory": 256 * 2**20}
    for left in reversed(range(1 if address else STARTS)):
        try:
            # Ray puts the working folder of the moment first on its workers' sys.path, and any file there may have the
            # name of a library. What `--import` needs of it is in the tasks' own sys_path.
            with _muted(), chdir("/"):
                if address:
                    ray.init(address=address, runtime_env=dict(modules), **quiet)
                else:
                    ray.init(address="local", **here, **quiet)
            return
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, TimeoutError, Exception and its own
            with _muted(), suppress(Exception):
                ray.shutdown()
            text = first_line(error)
            if address and (differing := versions_in(str(error))):
                raise ClusterError(f"the Ray cluster at {address} can't be used: {differing}") from error
            if address:
                token = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
                check = "that the token here is the cluster's" if token else "--address"
                raise ClusterError(
                    f"the Ray cluster at {address} can't be used: {text}; check {check}, or leave --address out to use "
                    "this machine"
                ) from error
            if not left:
                raise ClusterError(
                    f"Ray can't be started on this machine: {text} Run again when the machine is less busy, or with "
                    "--engine local"
                ) from error


def _leave() -> None:
    """End Ray. With a dead node it can take for ever: then the processes that this one has started are killed."""
    node = ray._private.worker._global_node
    try:
        answered(ray.shutdown, LEAVE)
    except ClusterError:
        if node is not None and node.head:
            node.kill_all_processes(check_alive=False, allow_graceful=False)


def versions_in(text: str) -> str:
    """What Ray says about versions that differ, in one line; "" when it says something else."""
    found = re.findall(r"(Ray|Python): (\S+)", text)
    if not text.startswith("Version mismatch") or len(found) != 4:
        return ""
    theirs, own = [" and ".join(f"{name} {number}" for name, number in pair) for pair in (found[:2], found[2:])]
    return f"it has {theirs}, and this command {own}; install the same versions on all nodes and here"


def capacity(resources: Resources, asked: int | None = None, *, grows: bool = False) -> int:
    """Trials that the cluster holds at once, at most those asked for; of one that grows, as many as are asked for.

    Raises ClusterError when it holds none, or does not answer.
    """
    nodes = answered(ray.nodes, SLOW)
    found = room(nodes, resources)
    if grows and asked:
        return asked
    if found < 1:
        held, workers = resources_of(nodes), resources.workers
        raise ClusterError(
            "a trial needs "
            + (f"{workers} times " if workers > 1 else "")
            + " and ".join(f"{need:g} {name}" for name, need in needs_of(resources).items())
            + " but the cluster has "
            + " and ".join(f"{held.get(n, 0):g} {n}" for n in ("CPU", "GPU"))
            + "; change the study's resources (--set resources.cpus=…), or use a larger cluster"
        )
    return min(found, asked or found)


def conduct(
    conductor: Conductor, stop: Stop, trainer: Trainer, options: RunOptions, arrivals: Arrivals | None = None
) -> None:
    """Run all of the conductor's jobs in one Tune run; returns when none is left, or at a stop.

    arrivals: examines the nodes that join; None where none does. Tune runs in a thread, because nothing can interrupt
    it when it waits for a cluster that is gone. Raises RunLost when that happens, or when Ray ends the run.
    """
    resources = conductor.study.resources
    unfit = Unfit(resources, arrivals)
    results = own_folder()
    feeder = _Feeder(conductor, stop, trainer, _Places(resources, options), unfit, options.imports, results)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(run_task, _placement(resources)),
        tune_config=ray.tune.TuneConfig(
            search_alg=feeder, scheduler=_Watcher(feeder), num_samples=-1, reuse_actors=True
        ),
        run_config=ray.tune.RunConfig(
            name="study", storage_path=results, verbose=0, failure_config=ray.tune.FailureConfig(max_failures=0)
        ),
    )
    try:
        patience = GROWTH if options.grow else ROOMLESS
        with _muted(), Watch(unfit.room, patience, lambda: unfit.examining) as watch:
            feeder.places.watch = watch
            _supervise(tuner, watch)
    except BaseException:  # a second Ctrl-C, too
        feeder.abandon()
        raise
    finally:
        if arrivals:
            arrivals.close()
        drop(results)
    if feeder.broken is not None:
        raise feeder.broken


def _placement(resources: Resources) -> Callable[[Any], ray.tune.PlacementGroupFactory]:
    """What Tune reserves for a trial, on a node that is not left out; of several workers, for the function that watches
    over them."""
    bundle = needs_of(resources) if resources.workers == 1 else WATCHER

    def place(config: Any) -> ray.tune.PlacementGroupFactory:
        # All that this needs is in the trial's config: Tune calls a copy of this function, which it has pickled.
        where = elsewhere(config["task"].left_out)
        return ray.tune.PlacementGroupFactory([bundle], **({"bundle_label_selector": [where]} if where else {}))

    return place


class _Places:
    """How many trials may run at once: nodes come and go."""

    def __init__(self, resources: Resources, options: RunOptions) -> None:
        self._options = options
        self._first = capacity(resources, options.max_concurrent, grows=options.grow)
        self._fewer = 0
        self.watch: Watch | None = None

    @property
    def count(self) -> int:
        now = self.watch.room if self.watch and not self._options.grow else None
        most = min(now, self._options.max_concurrent or now) if now else self._first
        return max(most - self._fewer, 1)

    @property
    def none_left(self) -> bool:
        """Whether no node has room for a trial. One that is started now would run on the next node that joins, before
        it is examined; on a cluster that grows on demand that can't be helped."""
        return self.watch is not None and self.watch.room == 0 and not self._options.grow

    def take_one(self) -> bool:
        """Hold one trial fewer from now on; False when there is only one."""
        if self.count == 1:
            return False
        self._fewer += 1
        return True


def _supervise(tuner: ray.tune.Tuner, watch: Watch) -> None:
    """Wait for Tune as long as the cluster is there."""
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            tuner.fit()
        except BaseException as error:  # for the thread that waits
            failed.append(error)

    thread = threading.Thread(target=fit, daemon=True, name="hmtl-ablate-tune")
    thread.start()
    while thread.is_alive():
        thread.join(LOOK)
        if thread.is_alive() and (why := watch.lost()):
            raise RunLost(f"{why}; the trials are at their last checkpoints: the same command resumes")
    if failed and isinstance(failed[0], RayError | TuneError | RuntimeError | OSError):
        failure = failure_of(failed[0])
        raise RunLost(f"Ray ended the run ({failure.reason}); the same command resumes") from failed[0]
    if failed:
        raise failed[0]


class _Feeder(Searcher):
    """A Tune searcher whose suggestions are the conductor's jobs."""

    def __init__(
        self,
        conductor: Conductor,
        stop: Stop,
        trainer: Trainer,
        places: _Places,
        unfit: Unfit,
        imports: tuple[str, ...],
        results: str,
    ) -> None:
        super().__init__()
        self.conductor, self.stop, self.trainer, self.places = conductor, stop, trainer, places
        self.unfit, self.imports, self.results = unfit, imports, results
        self.jobs: dict[str, Job] = {}
        self.broken: BaseException | None = None
        """An error of the conductor: Tune would log it and wait forever, so it is stored, and raised at the end."""
        self.deaths: dict[str, Failure] = {}
        """Tune's id of a trial whose process has died → why."""
        self.abandoned = False

    def abandon(self) -> None:
        """The run ends without Tune, whose thread may still call: nothing that it says counts any more."""
        self.abandoned = True
        for job in list(self.jobs.values()):
            self.conductor.progress.end(job.trial_id, "interrupted", {}, 0.0)

    def suggest(self, trial_id: str) -> Any:
        self._hear_of_arrivals()
        if len(self.jobs) >= self.places.count:
            return None
        try:
            over = self.stop.requested or self.broken or self.abandoned
            if not over and self.conductor.queue and self.places.none_left:
                return None  # until a node has been examined, or the watch ends the run
            job = None if over else self.conductor.next()
        except Exception as error:
            self._break(error)
            job = None
        if job is None:
            return None if self.jobs else Searcher.FINISHED
        self.jobs[trial_id] = job
        task = replace(
            self.conductor.task(job, self.stop.path),
            imports=self.imports,
            sys_path=tuple(entry or os.getcwd() for entry in sys.path),  # "" is the working folder
            ray_results=self.results,
            left_out=tuple(self._left_out()),
        )
        return {"task": task, "trainer": self.trainer}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        job = self.jobs.pop(trial_id, None)
        if job is None or self.abandoned:
            return
        self._hear_of_arrivals()
        failure = self.deaths.pop(trial_id, None)
        if failure is None and result is not None and result.get("failure"):
            failure = replace(read_failure(result["failure"]), machine=result.get("machine", ""))
        if failure is not None:
            self._blame(failure)
        try:
            self.conductor.end(job, failure)
        except Exception as problem:
            self._break(problem)

    def _blame(self, failure: Failure) -> None:
        """Draw conclusions about the cluster from a trial's failure."""
        if failure.ending in FEWER_AT_ONCE and self.places.take_one():
            self.conductor.progress.say(f"trials at once from now on: {self.places.count}")
        if failure.ending in OF_A_MACHINE and failure.machine:
            with suppress(ClusterError):  # which the watch will say
                if said := self.unfit.count(failure.machine, answered(ray.nodes, SLOW)):
                    self.conductor.leave_out(said)

    def _left_out(self) -> list[str]:
        """Ids of the nodes that a trial must not run on, with those that have joined a moment ago."""
        if self.unfit.arrivals:
            with suppress(ClusterError):  # which the watch will say
                self.unfit.arrivals.hear(answered(ray.nodes, SLOW))
        return self.unfit.ids

    def _hear_of_arrivals(self) -> None:
        for said in self.unfit.arrivals.news() if self.unfit.arrivals else ():
            self.conductor.leave_out(said)

    def epoch(self, trial_id: str, result: Mapping[str, Any]) -> None:
        job = self.jobs.get(trial_id)
        if job is not None and "epoch" in result and not self.abandoned:
            try:
                self.conductor.epoch(job, int(result["epoch"]))
            except Exception as problem:
                self._break(problem)

    def _break(self, error: BaseException) -> None:
        self.broken = self.broken or error
        with suppress(OSError):
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

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Tune gives the searcher no reason, so it is read here, just before."""
        with open(trial.pickled_error_file, "rb") as file:
            error = ray.cloudpickle.load(file)
        self.feeder.deaths[trial.trial_id] = failure_of(error.cause if isinstance(error, ActorLost) else error)


class ActorLost(RayActorError):
    """Another exception of Ray's, e.g. OutOfMemoryError, that ended an actor: Tune knows RayActorError alone."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(error_msg=str(cause))
        self.cause = cause

    def __reduce__(self) -> Any:
        return ActorLost, (self.cause,)


class _ActorManager(RayActorManager):
    """Tune's manager of actors, with two corrections: no exception of one actor ends the run, and an actor that Ray
    can't reach at the moment does not train on, unseen, while its trial is started again."""

    def _actor_start_failed(self, tracked_actor: TrackedActor, exception: Exception) -> None:
        super()._actor_start_failed(tracked_actor, _of_an_actor(exception))

    def _actor_task_failed(self, tracked_actor_task: TrackedActorTask, exception: Exception) -> None:
        exception = _of_an_actor(exception)
        held = self._live_actors_to_ray_actors_resources.get(tracked_actor_task._tracked_actor)
        if isinstance(exception, RayActorError) and held is not None:
            with suppress(Exception):  # it is dead already, as a rule
                ray.kill(held[0])
        super()._actor_task_failed(tracked_actor_task, exception)


def _of_an_actor(error: Exception) -> Exception:
    """The error as one that Tune takes for the end of one actor, and stores for `on_trial_error`."""
    known = isinstance(error, RayActorError | RayTaskError) or not isinstance(error, RayError)
    return error if known else ActorLost(error)


ray.tune.execution.tune_controller.RayActorManager = _ActorManager  # type: ignore[misc]


@contextmanager
def _muted() -> Iterator[None]:
    """Ray prints boxes and advice even at verbose=0; what it says goes unseen, but not our own console, which holds the
    real streams."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield
