"""run_study: reach what a study declares."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hmtl_ablate.errors import StoreError
from hmtl_ablate.running import ray_engine
from hmtl_ablate.running.conductor import Conductor, Packs, Resolver, Summary, stop_file
from hmtl_ablate.running.optuna_search import OptunaSearch, connect
from hmtl_ablate.running.progress import Progress
from hmtl_ablate.study import Study
from hmtl_ablate.tracking import Tracking


def run_study(
    study: Study,
    *,
    packs: Packs,
    store: Path,
    tracking: Tracking,
    progress: Progress,
    address: str | None = None,
    max_concurrent: int | None = None,
    pictures: bool = True,
    storage: str | None = None,
    imports: tuple[str, ...] = (),
) -> Summary:
    """Train what the study declares and the store lacks; write Optuna and MLflow.

    Raises SearchError, ClusterError, TrackingError or StoreError before any trial starts when one of them can't be
    used. A failed trial raises nothing: it is in the summary, and the others go on.
    """
    with _alone(study, store):
        return _run(study, packs, store, tracking, progress, address, max_concurrent, pictures, storage, imports)


@contextmanager
def _alone(study: Study, store: Path) -> Iterator[None]:
    """One driver a study: a second one would take the first one's running trials for those of a dead driver."""
    with (store / f".{study.name}@{study.profile}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"another run of {study.name} ({study.profile}) is going on in {store}; wait for it, or "
                "use another --runs"
            ) from None
        yield


def _run(
    study: Study,
    packs: Packs,
    store: Path,
    tracking: Tracking,
    progress: Progress,
    address: str | None,
    max_concurrent: int | None,
    pictures: bool,
    storage: str | None,
    imports: tuple[str, ...],
) -> Summary:
    optuna_search = None
    if study.search is not None:
        content = "".join(sorted(packs.fingerprints()))
        prefix = f"{study.name}@{study.profile}#{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        optuna_search = OptunaSearch(
            study.search, prefix, study.seeds[0], connect(storage, store), Resolver(study, packs).identify
        )
        progress.total += max(0, study.search.trials - optuna_search.counted())
    conductor = Conductor(study, packs, store, tracking, optuna_search, progress, pictures)
    if conductor.queue or optuna_search is not None:
        # Ray sets a signal handler of its own when it starts, so ours come after it.
        with ray_engine.joined(address, study.resources), stop_file() as (stop, asked):
            room = ray_engine.capacity(study.resources)
            most = min(room, max_concurrent) if max_concurrent else room
            ray_engine.conduct(conductor, most, stop, asked, imports)
            if not asked:
                conductor.confirm()
                if conductor.queue:
                    ray_engine.conduct(conductor, most, stop, asked, imports)
            conductor.summary.interrupted = bool(asked)
    conductor.finish_study()
    return conductor.summary
