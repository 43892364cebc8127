"""run_study: train what a study declares and the store lacks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic
from typing import Any

from optuna.storages import BaseStorage

from hmtl_ablate import config
from hmtl_ablate.errors import RunLost, SearchError, StoreError
from hmtl_ablate.running import local_engine
from hmtl_ablate.running.conductor import Conductor
from hmtl_ablate.running.drivers import Drivers, already_running, taking_part
from hmtl_ablate.running.listener import ProgressListener, SilentListener
from hmtl_ablate.running.options import RunOptions
from hmtl_ablate.running.optuna_search import OptunaSearch, best_of, connect
from hmtl_ablate.running.racing import Racer
from hmtl_ablate.running.resolver import Packs, Resolver
from hmtl_ablate.running.search_database import database_errors
from hmtl_ablate.running.stop import Stop, stop_on_signal
from hmtl_ablate.running.summary import RunSummary
from hmtl_ablate.running.task import Trainer
from hmtl_ablate.running.timekeeper import Timekeeper
from hmtl_ablate.running.trainer import train_task
from hmtl_ablate.storage import mirror_of
from hmtl_ablate.storage.lease import locked
from hmtl_ablate.study import Search, Study
from hmtl_ablate.study.racing import search_seeds
from hmtl_ablate.tracking import Tracking

Conduct = Callable[[Conductor], None]
"""Runs all jobs of a conductor."""
TAKEN = 3
"""Configurations that a search takes from another study's."""
RECOVERIES = 3
"""How often the search resumes in the same run after its database was away until nothing else was left to train."""


def run_study(
    study: Study,
    *,
    packs: Packs,
    store: Path,
    tracking: Tracking,
    progress: ProgressListener | None = None,
    options: RunOptions = RunOptions(),
    trainer: Trainer = train_task,
    clock: Callable[[], float] = monotonic,
) -> RunSummary:
    """Train what the study declares and the store lacks; record it in Optuna and MLflow.

    progress: silent when left out. trainer, clock: replace the training itself and the time in seconds, for tests.
    Raises SearchError, ClusterError, TrackingError or StoreError before any trial starts when one of them can't be
    used, and RunLost when the cluster or the search's database is lost while trials run; the same call resumes.
    A failed trial raises nothing: it is in the summary, and the other trials run.
    """
    if options.engine == "local":
        local_engine.check_resources(study.resources)
    progress = progress or SilentListener()
    places = max(options.places(study.resources), 1)
    time = Timekeeper(store, study.resources, options.engine, at_once=places, budget=options.budget, clock=clock)
    alone = nullcontext() if options.join else _alone(study, store, progress)
    with alone, taking_part(study, store, join=options.join) as drivers:
        _check_databases(options, tracking, drivers)
        with drivers.turn():
            searches = _searches(study, packs, store, options.storage, drivers)
        earlier = sum(search.ended_before for search in searches)
        for _ in range(earlier):
            progress.skip()
        conductor = Conductor(study, packs, store, tracking, searches, progress, options.pictures, time, drivers)
        conductor.summary.skipped += earlier
        try:
            while not searches and not conductor.queue and conductor.more():
                pass  # an earlier run has trained these: without a trial to train no engine is started
            if conductor.queue or searches:
                with _engine(study, store, options, trainer, time, drivers) as (conduct, stop):
                    _conduct_all(conductor, conduct, stop)
                    conductor.summary.interrupted = stop.requested
        except RunLost:
            conductor.summary.interrupted = True
            conductor.finish_study()
            raise
        conductor.finish_study()
        return conductor.summary


def _conduct_all(conductor: Conductor, conduct: Conduct, stop: Stop) -> None:
    """The study's trials and the search's, then those that depend on their results. Raises RunLost."""
    conduct(conductor)
    for _ in range(RECOVERIES):
        if stop.requested or not conductor.database.recovered():
            break
        conduct(conductor)
    conductor.database.close()
    while conductor.await_others(lambda: stop.requested):
        conduct(conductor)
        conductor.database.close()
    while not (stop.requested or conductor.out_of_time()) and conductor.more():
        if conductor.queue:
            conduct(conductor)
            conductor.database.close()


@contextmanager
def _alone(study: Study, store: Path, progress: ProgressListener) -> Iterator[None]:
    """One driver of a study at a time, and those that join it."""
    name, mirror = f"{study.name}@{study.profile}", mirror_of(store)
    lock = locked(store / f".{name}.lock")
    if lock is None:
        raise StoreError(already_running(study, store))
    with lock, nullcontext() if mirror is None else mirror.lease(name, f"study {name}: wait for it", progress.say):
        if mirror is not None:  # what a killed run has left would stop this one's trials
            mirror.objects.delete([f".{name}.stop"])
        yield


def _check_databases(options: RunOptions, tracking: Tracking, drivers: Drivers) -> None:
    """Raise StoreError when drivers on several machines would share an SQLite file, whose locks hold on one alone."""
    if not (options.join and (machines := drivers.machines())):
        return
    lacking = [] if (options.storage or "").startswith("postgresql") else ["--storage"]
    lacking += ["--tracking-uri"] if tracking.sqlite else []
    if lacking:
        raise StoreError(
            f"--join: {', '.join(sorted(machines))} trains the same study, and SQLite can't be shared by machines; use "
            f"PostgreSQL for {' and '.join(lacking)} in all commands"
        )


@contextmanager
def _engine(
    study: Study, store: Path, options: RunOptions, trainer: Trainer, time: Timekeeper, drivers: Drivers
) -> Iterator[tuple[Conduct, Stop]]:
    """The engine, ready to run jobs, and its Stop."""
    resources = study.resources
    # Workers on other machines see no folder of this one but the store.
    file = store.resolve() / f".{study.name}@{study.profile}.stop"
    if options.join:
        file = drivers.stop_file().resolve()
    if options.engine == "local":
        with stop_on_signal(file) as stop:
            yield lambda conductor: local_engine.conduct(conductor, stop, trainer), stop
        return
    from hmtl_ablate.running import ray_engine, ray_nodes  # importing Ray takes seconds

    # Ray installs a signal handler of its own when it starts, so ours come after it.
    with ray_engine.joined(options.address, options.imports), stop_on_signal(file) as stop:
        time.at_once = ray_engine.capacity(resources, options.max_concurrent, grows=options.grow)
        arrivals = ray_nodes.check_nodes(store, resources, options.imports) if options.address else None
        yield lambda conductor: ray_engine.conduct(conductor, stop, trainer, options, arrivals), stop


def _searches(study: Study, packs: Packs, store: Path, storage: str | None, drivers: Drivers) -> list[Racer]:
    """The search of each arm."""
    if not study.searches:
        return []
    identify = Resolver(study, packs).identify
    found = []
    about = {"study": study.name, "profile": study.profile, "question": study.question}
    with database_errors():
        database = connect(storage, store, lambda: drivers.met)
        for search in study.searches:
            # Scores of other numerics or data say nothing about this search's: it begins anew.
            identity = [config.NUMERICS_VERSION, *packs.identities(config.parse_config(search.base).tasks)]
            prefix = f"{study.name}@{study.profile}#{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]}"
            seeds = search_seeds(study.seeds, search.racing)
            one = OptunaSearch(search, prefix, seeds, database, identify, about, drivers.id, drivers.offset)
            found.append(Racer(one, store, drivers))
            found[-1].give(_best_of(search, study.profile, database))
    return found


def _best_of(search: Search, profile: str, database: BaseStorage) -> list[dict[str, Any]]:
    """The best configurations of the study that the search takes its first ones from, those that fit its space.

    Raises SearchError when the store has no search of that study.
    """
    if not search.source:
        return []
    name, _, other = search.source.partition("@")
    configurations = best_of(database, f"{name}@{other or profile}#")
    if configurations is None:
        raise SearchError(
            f"search.from {search.source}: the store has no search of this study; run it first, or name another"
        )
    return [values for values in configurations if search.fits(values)][:TAKEN]
