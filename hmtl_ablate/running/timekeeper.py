"""What a run knows of time: what its trials are expected to take, what they took, what is left, and its budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import DataError
from hmtl_ablate.machine import this_machine
from hmtl_ablate.planning.calibration import Calibration, Key, Measurement, rates_of, read_calibration, record
from hmtl_ablate.planning.cost import Counts, Work, counts_in, work_of
from hmtl_ablate.planning.estimate import launch_name
from hmtl_ablate.planning.measuring import measurement_of
from hmtl_ablate.planning.pace import Expected, elapsed, expected, key_of, work_seconds
from hmtl_ablate.running.job import Job
from hmtl_ablate.study import Resources
from hmtl_ablate.training.folder import LAST, TrialResult

NO_WORK = Work(0, 0, 1, 0, 0, 0)


@dataclass
class Running:
    """A trial that runs."""

    job: Job
    started: float
    fresh: bool
    """Whether it began from nothing, in this run: only then its time is that of a whole trial."""
    first: bool
    """Whether no trial of this run had ended before: processes start and libraries load in it."""
    rows: list[tuple[float, float, float]] = field(default_factory=list)
    """Of each epoch seen: when, its number, and the trial's seconds of training by then."""


class Timekeeper:
    """Times the trials of one run. Everything is in seconds.

    What finished trials take is added to the store's calibration, and is what the run itself reckons with from then on.
    """

    def __init__(
        self,
        store: Path,
        resources: Resources,
        engine: str,
        *,
        at_once: int = 1,
        budget: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.resources, self.engine, self.at_once = store, resources, engine, at_once
        self.budget, self.clock = budget, clock
        self.began = clock()
        self.calibration = read_calibration(store)
        self.device = this_machine().device(resources.gpus)
        self.running: dict[str, Running] = {}
        self.ended = 0
        self.passes = 0
        """Image passes of the trials that this run has ended."""
        self._span: list[float] = []
        """When the first trial started, and when the last one ended."""
        self._first: list[float] = []
        """Seconds of the start of the run's first trials, until those of a later one are known."""
        self._early: dict[str, Measurement] = {}
        """Name of a key that is not known yet → its rates in a trial that runs."""
        self._counts: dict[tuple[Any, ...], Counts | None] = {}
        self._work: dict[tuple[str, bool], Work] = {}
        self._expected: dict[tuple[str, Work], Expected | None] = {}
        self._done: dict[str, float] = {}
        """trial_id → the part of it that was trained before it started."""

    @property
    def left(self) -> float | None:
        """Seconds of the budget that are left, below 0 when it is spent; None without a budget."""
        return None if self.budget is None else self.began + self.budget - self.clock()

    # What trials are expected to take -------------------------------------------------------------------------

    def work(self, job: Job) -> Work:
        """The work of a job; none where its splits can't be made, which the trial itself reports."""
        name = job.trial_id, job.evaluate_test
        if name not in self._work:
            counts = self.counts(job.config, job.pack)
            self._work[name] = NO_WORK if counts is None else work_of(job.config, counts, job.evaluate_test)
        return self._work[name]

    def counts(self, config: TrialConfig, pack: Pack) -> Counts | None:
        """Images in the splits of a config; None where they can't be made."""
        name = pack.fingerprint, config.data, config.tasks, config.training.supervised, config.probe.kind == "none"
        if name not in self._counts:
            self._counts[name] = None
            with suppress(DataError):
                self._counts[name] = counts_in(pack, config)
        return self._counts[name]

    def key(self, config: TrialConfig) -> Key:
        """The key of a config's rates in this run."""
        return key_of(config, self.resources, self.device, self.at_once)

    def expected(self, config: TrialConfig, work: Work) -> Expected | None:
        """What a trial takes; None before anything like it was measured."""
        key = self.key(config)
        name = key.name, work
        if name not in self._expected:
            known = Calibration({**self._early, **self.calibration.known}, self.calibration.launch)
            self._expected[name] = expected(known, key, work)
        return self._expected[name]

    def seconds(self, job: Job) -> float | None:
        """Seconds that a job takes; what an earlier run has trained of it is subtracted. None before it is known."""
        found = self.expected(job.config, self.work(job))
        if found is None:
            return None
        if job.trial_id not in self._done:
            history = job.folder.history()
            self._done[job.trial_id] = history[-1].get("epoch", 0.0) / job.config.training.epochs if history else 0.0
        return found.start + found.work * max(1 - self._done[job.trial_id], 0.0)

    # What they take ---------------------------------------------------------------------------------------------

    def start(self, job: Job) -> None:
        """A job starts."""
        fresh = not job.folder.history() and not (job.folder.path / LAST).exists()
        fresh = fresh and job.retries == 0 and not job.folder.busy()
        now = self.clock()
        self.running[job.trial_id] = Running(job, now, fresh, self.ended == 0)
        self._span = self._span or [now, now]

    def epoch(self, job: Job, history: Sequence[Mapping[str, float]]) -> None:
        """An epoch of a running job has ended."""
        one = self.running.get(job.trial_id)
        if one is None or not history:
            return
        one.rows.append((self.clock(), history[-1].get("epoch", 0.0), history[-1].get("seconds", 0.0)))
        key = self.key(job.config)
        if key.name not in self.calibration.known:
            train, evaluation = rates_of(history, self.work(job))
            if train is not None:
                self._early[key.name] = Measurement(key=key, train_rate=train, evaluation_rate=evaluation)
                self._expected.clear()

    def end(self, job: Job, result: TrialResult | None) -> None:
        """A job is over; result: that of a trial that finished or was pruned. A finished one is a measurement."""
        one = self.running.pop(job.trial_id, None)
        self._done.pop(job.trial_id, None)
        if one is None:
            return
        self._span[1] = self.clock()
        if result is None:
            return
        self.ended += 1
        self.passes += min(result.image_passes, self.work(job).passes)  # without those that it started from
        if one.fresh and result.status == "finished" and result.tags:
            self._learn(one, result)

    def _learn(self, one: Running, result: TrialResult) -> None:
        took, work = self._span[1] - one.started, self.work(one.job)
        found = measurement_of(one.job.config, result, one.job.folder, work, self.at_once)
        spent = work_seconds(found, work)
        start = None if spent is None else max(took - spent, 0.0)
        launch = {}
        if start is not None and one.first:
            self._first.append(start)
        elif start is not None:
            found = found.model_copy(update={"start": start})
            if self._first:
                extra = sum(self._first) / len(self._first) - start
                launch = {launch_name(self.engine, found.key.device): max(extra, 0.0)}
                self._first = []
        with suppress(OSError):  # a store that can't be written has said so elsewhere
            self.calibration = record(self.store, [found], launch)
        self.device = found.key.device  # of a cluster's node, which may be another machine
        self._early.pop(found.key.name, None)
        self._expected.clear()

    # What is left -----------------------------------------------------------------------------------------------

    def remaining(self, queue: Sequence[Job], searched: int = 0, search: float | None = None) -> float | None:
        """Seconds until the last trial ends; None before anything was measured.

        queue: the jobs that wait; searched: trials that a search has yet to draw; search: seconds of one of those. A
        trial of another kind than what was measured counts by its image passes.
        """
        running = list(self.running.values())
        known = [(self.seconds(job), self.work(job)) for job in queue]
        pairs = [(seconds, work.passes) for seconds, work in known if seconds is not None and work.passes]
        pairs += [(s, self.work(one.job).passes) for one in running if (s := self.seconds(one.job)) is not None]
        passes = sum(count for _, count in pairs)
        each = sum(seconds for seconds, _ in pairs) / passes if passes else None
        unknown = any(seconds is None for seconds, _ in known) or (searched and search is None)
        if each is None and (unknown or running):
            return None
        waiting = [seconds if seconds is not None else (each or 0.0) * work.passes for seconds, work in known]
        mean = sum(seconds for seconds, _ in pairs) / len(pairs) if pairs else 0.0
        waiting += [search if search is not None else mean] * searched
        now = [self._rest(one, each or 0.0) for one in running]
        return elapsed([*now, *waiting], self.at_once)

    def _rest(self, one: Running, each: float) -> float:
        """Seconds until a running trial ends: by the epochs that it has had in this run, else as expected."""
        epochs = one.job.config.training.epochs
        if len(one.rows) > 1:
            (_, first, before), (when, last, after) = one.rows[0], one.rows[-1]
            per_epoch = (after - before) / max(last - first, 1)
            return max((epochs - last) * per_epoch - (self.clock() - when), 0.0)
        whole = self.seconds(one.job)
        whole = each * self.work(one.job).passes if whole is None else whole
        return max(whole - (self.clock() - one.started), 0.0)

    # The plan and what became of it -------------------------------------------------------------------------------

    def plan(self, jobs: Sequence[Job], searched: int, search: Work | None, seconds: float | None) -> dict[str, Any]:
        """What this run is going to train, as the study's record has it.

        searched: trials that a search has yet to draw; search, seconds: work and seconds of one of them, at most.
        """
        times = [self.seconds(job) for job in jobs] + [seconds] * searched
        known = [one for one in times if one is not None]
        launch = self.calibration.launch.get(launch_name(self.engine, self.device), 0.0)
        passes = sum(self.work(job).passes for job in jobs) + (search.passes * searched if search else 0)
        return {
            "trials": len(jobs) + searched,
            "image_passes": passes,
            "seconds": round(launch + elapsed(known, self.at_once), 1) if known and len(known) == len(times) else None,
            "at_most": bool(searched),
        }

    def actual(self) -> dict[str, Any]:
        """What this run has trained, from the start of its first trial to the end of its last one."""
        took = self._span[1] - self._span[0] if self._span else 0.0
        return {"trials": self.ended, "image_passes": self.passes, "seconds": round(took, 1)}
