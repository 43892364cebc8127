"""The conductor of a run: from a study to finished trials, their MLflow runs and Optuna's record of them.

A trial's folder is the record of it. The driver starts what is missing, and writes Optuna and MLflow from the folders;
what it could not write before a crash, it writes in the next run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

from hmtl_ablate.config import TrialConfig, in_percent, parse_config, trial_id
from hmtl_ablate.errors import RunLost
from hmtl_ablate.planning.budget import Waiting, choose
from hmtl_ablate.planning.cost import Work, search_configs, work_of
from hmtl_ablate.reporting.results import of_other_batch_norm
from hmtl_ablate.reporting.statistics import paired_difference
from hmtl_ablate.running.continuing import Score, continuations
from hmtl_ablate.running.drivers import Drivers
from hmtl_ablate.running.failures import RETRIES, Ending, Failure, read_failure
from hmtl_ablate.running.job import Job
from hmtl_ablate.running.listener import ProgressListener
from hmtl_ablate.running.naming import tried_text
from hmtl_ablate.running.optuna_search import Draw
from hmtl_ablate.running.racing import Racer
from hmtl_ablate.running.resolver import Packs, Resolver
from hmtl_ablate.running.search_database import SearchDatabase
from hmtl_ablate.running.study_log import StudyLog
from hmtl_ablate.running.summary import Left, RunSummary
from hmtl_ablate.running.task import PRUNE, TrialTask
from hmtl_ablate.running.timekeeper import Timekeeper
from hmtl_ablate.storage import mirror_of
from hmtl_ablate.storage.mirror import OUTAGE, patiently
from hmtl_ablate.storage.objects import StoreAway
from hmtl_ablate.study import Study, Variant, planned
from hmtl_ablate.tracking import Tracking
from hmtl_ablate.tracking.records import SEARCH
from hmtl_ablate.training.folder import ASIDE, LAST, TrialFolder, TrialResult

POLL = 1.0
"""Seconds between two looks at what other drivers have in hand."""


class Conductor:
    """Hands out jobs, follows them, and writes down how they end. Knows Optuna and MLflow, but no Ray."""

    def __init__(
        self,
        study: Study,
        packs: Packs,
        store: Path,
        tracking: Tracking,
        searches: Sequence[Racer],
        progress: ProgressListener,
        pictures: bool,
        time: Timekeeper | None = None,
        drivers: Drivers | None = None,
    ) -> None:
        """drivers: those that share the study's trials."""
        self.study, self.packs, self.store = study, packs, store
        self.mirror = mirror_of(store)
        self.time = time or Timekeeper(store, study.resources, "local")
        self.drivers = drivers or Drivers()
        self.resolver = Resolver(study, packs)
        self.searches = {one.search.arm: one for one in searches}
        """Arm → its search; of a search without arms, under ""."""
        self.progress = progress
        self.summary = RunSummary()
        self.running: dict[str, Job] = {}
        self.variants = list(study.variants)
        self.asked: dict[str, list[int]] = {}
        """Variant → the seeds of it that were asked for."""
        self.continuations = continuations(study, tuple(searches))
        self.log = StudyLog(tracking, study, pictures=pictures, warn=progress.warn, store=store, drivers=self.drivers)
        arms = planned(study)
        self._ask(arms)
        seed = study.seeds[0]
        for search in study.searches:  # what the search's trials start from
            base = parse_config({**search.base, "seed": seed})
            arms += [(source, seed, source.config(seed)) for source in self.resolver.sources(base).values()]
        jobs = self._jobs(arms)
        missing = [job for job in jobs if not (job.folder.path / "result.json").exists()]
        self._held = False
        """Whether a trial of the search did not fit into the budget."""
        self._plan = self._planned(missing)
        self.log.open_study(self.variants, self.asked, len(jobs) - len(missing), self._plan)
        self.database = SearchDatabase(progress, lambda: [one.counted() for one in searches])
        self._expected = 0
        self._tried: set[str] = set()
        """Ids of the trials that the search's draws start from, as far as this run has queued them."""
        self.queue = self._missing(jobs)
        self._tried |= {job.trial_id for job in self.queue}
        if self.searches:
            self._deliver_search()
            self._expect()
        progress.forecast(self.time_left)

    def next(self) -> Job | None:
        """The next job to start, or None when there is none (for now, or for good), or none that fits into what is left
        of the budget. One that another driver trains comes last: its result is waited for."""
        job = self._next()
        return self._next(busy=True) if job is None and self.queue and self.drivers.met else job

    def _next(self, busy: bool = False) -> Job | None:
        while (found := self._startable(busy)) is not None:
            job, lost = found
            self.queue.remove(job)
            if lost:
                self._fail_for(job, lost)
            elif not self._settle_known(job):
                return self._start(job)
        stages = [job for job in (*self.queue, *self.running.values()) if any(arm.stage for arm in job.arms)]
        while self.searches and not stages:
            if self._spent():
                return None
            draw = self.database.ask(self._draw)
            self._note_news()
            self._expect()
            if draw is None:
                return None
            twin = self.running.get(draw.trial_id)
            if twin is not None:  # a running variant has the same config
                twin.draws.append(draw)
                self.log.open(twin)
                continue
            job = self._job(draw.config)
            job.draws.append(draw)
            job.tried = tried_text(self.searches[draw.arm].search, job.config)
            sources = [
                (one, draw.config.seed, one.config(draw.config.seed))
                for one in self.resolver.sources(draw.config).values()
            ]
            if missing := self._missing([one for one in self._jobs(sources) if one.trial_id not in self._tried]):
                self._tried |= {one.trial_id for one in missing}
                self.queue += [*missing, job]
                return self._next()
            if lost := self._lost(job):
                self._fail_for(job, lost)
            elif not self._settle_known(job):
                return self._start(job)
        return None

    def _startable(self, busy: bool) -> tuple[Job, str] | None:
        """The first job of the queue that can start, or that never can, with the reason; with a budget, the one that
        `planning.budget.choose` starts next."""
        left = self.time.left
        if left is None:
            for job in self.queue:
                if lost := self._lost(job):
                    return job, lost
                if not self._awaited(job) and (busy or not self.drivers.met or not job.folder.busy()):
                    return job, lost
            return None
        for job in self.queue:
            if job.needs and (lost := self._lost(job)):
                return job, lost
        places = {job.trial_id: place for place, job in enumerate(self.queue)}
        waiting = [
            Waiting(
                arms=tuple(arm.name for arm in job.arms),
                seed=job.config.seed,
                seconds=self.time.seconds(job),
                ready=not self._awaited(job),
                sources=tuple(places[need] for need in sorted(job.needs) if need in places),
            )
            for job in self.queue
        ]
        baseline = self.study.variants[0].name if self.study.variants else ""
        free = max(self.time.at_once - len(self.running), 1)
        enough = sum(one.seconds or 0.0 for one in waiting) <= left
        widths = {} if enough else self._widths(baseline)
        chosen = choose(waiting, left, baseline=baseline, free=free, widths=widths)
        return None if chosen is None else (self.queue[chosen], "")

    def _widths(self, baseline: str) -> dict[str, float]:
        """Variant → width of the 95 % interval of its difference from the baseline, relative to the smallest difference
        that matters; without those that have fewer than two pairs."""
        metric, score = self.study.metric, self.scores()
        scores: dict[str, dict[int, float]] = {}
        for variant in self.variants:
            found = {seed: score(variant, seed, metric) for seed in self.asked.get(variant.name, ())}
            scores[variant.name] = {seed: value for seed, value in found.items() if value is not None}
        unit, rule = 100.0 if in_percent(metric) else 1.0, self.study.decide or self.study.verdict
        widths = {}
        for name, values in scores.items():
            known = paired_difference(values, scores.get(baseline, {}))
            if name != baseline and known.low is not None and known.high is not None:
                widths[name] = unit * (known.high - known.low) / rule.smallest
        return widths

    def _spent(self) -> bool:
        """Whether no further trial of the search fits into the budget: the costliest is reckoned with."""
        left = self.time.left
        if left is None:
            return False
        seconds = self._search_cost[1]
        self._held = left <= 0 or (seconds is not None and seconds > left)
        return self._held

    @property
    def _searched(self) -> int:
        """Training runs that the search has yet to start, as far as is known."""
        return sum(max(one.expected() - one.effort[1], 0) for one in self.searches.values())

    @property
    def _search_cost(self) -> tuple[Work | None, float | None]:
        """Work and seconds of the costliest trial that the search can draw; None where they are not known."""
        works, times = [], []
        seed = self.study.seeds[0]
        for config in [one for search in self.study.searches for one in search_configs(search, seed)]:
            counts = self.time.counts(config, self.packs.of(config))
            if counts is not None:
                works.append(work_of(config, counts, False))
                found = self.time.expected(config, works[-1])
                times.append(None if found is None else found.seconds)
        known = [one for one in times if one is not None]
        most = max(works, key=lambda one: one.passes, default=None)
        return most, max(known) if known and len(known) == len(times) else None

    def _planned(self, missing: Sequence[Job]) -> dict[str, Any]:
        """What this run is going to train; {} when there is nothing."""
        searched = self._searched
        if not missing and not searched:
            return {}
        return self.time.plan(missing, searched, *self._search_cost) | {"at_least": bool(self.continuations)}

    def time_left(self, waiting: int) -> float | None:
        """Seconds that the run takes from now on, with so many trials that have not started; None before anything was
        measured. A trial of the search counts as the mean of the others."""
        queue = list(self.queue)
        return self.time.remaining(queue, max(waiting - len(queue), 0))

    def out_of_time(self) -> bool:
        """Whether something was not started because it does not fit into the budget; notes it in the summary. Call it
        when all jobs are over."""
        searched = self._searched if self._held else 0
        if self.time.left is None or not (self.queue or searched):
            return False
        seconds = self.time.remaining(self.queue, searched, self._search_cost[1])
        names = tuple(job.name for job in self.queue)
        self.summary.left = Left(names, searched, seconds, self.time.budget or 0.0)
        return True

    def _awaited(self, job: Job) -> bool:
        """Must a trial that this one starts from be trained first?"""
        under_way = {other.trial_id for other in self.queue} | self.running.keys()
        return bool(job.needs & under_way)

    def _lost(self, job: Job) -> str:
        """Why the job can't start, ever: a trial that it starts from is over, but not finished; "" when none is."""
        for need in sorted(job.needs):
            if need in self.running or any(other.trial_id == need for other in self.queue):
                continue
            result = TrialFolder(self.store / "trials" / need).sound_result(whole=True)
            if result is None or result.status != "finished":
                return f"the trial {need} whose weights it starts from is not finished"
        return ""

    def _fail_for(self, job: Job, reason: str) -> None:
        """Fail a job that could not start; the next run tries again."""
        self.log.open(job)
        self._fail(job, Failure(Ending.NOT_STARTED, reason))

    def epoch(self, job: Job, number: int) -> None:
        """An epoch of a running job is in its folder; a search's trial is asked to end when the pruner says so."""
        with suppress(StoreAway):  # the next epoch, or the end, brings it
            self._bring(job)
        self._say_damage(job)
        history = job.folder.history()
        metrics = next((row for row in history if row["epoch"] == number), None)
        if metrics is None:
            return
        self.progress.epoch(job.trial_id, metrics)
        self.log.epochs(job, history)
        self.time.epoch(job, history)
        for draw in job.draws:
            if self.database.ask(partial(self.searches[draw.arm].report, draw, number, metrics)) and not job.arms:
                self._ask_to_end(job)

    def end(self, job: Job, failure: Failure | None = None) -> None:
        """A job's function has returned, or its process has died. failure: why the trial has no result, where the
        engine knows; otherwise it is in the trial's folder.

        After a fault of the machine the job is queued again, first in line, and resumes from its last checkpoint.
        """
        self.running.pop(job.trial_id, None)
        self._wait_for_store(lambda: self._bring(job))
        self._say_damage(job)
        result = job.folder.sound_result()
        written = job.folder.failure()
        self.time.end(job, result if written is None and failure is None else None)
        if result is not None and written is None and job.complete(result):
            self._settle(job, result)
            return
        failure = read_failure(written) if written is not None else failure
        if failure is None:
            self.progress.end(job.trial_id, "interrupted", {}, 0.0)
        elif failure.retried and job.retries < RETRIES:
            self._retry(job, failure)
        else:
            self.log.epochs(job, job.folder.history())
            self._fail(job, failure)

    def _bring(self, job: Job) -> None:
        """Bring what a trial has written elsewhere. Raises StoreError."""
        if self.mirror is not None:
            self.mirror.bring(f"trials/{job.trial_id}")

    def _wait_for_store(self, do: Callable[[], None]) -> None:
        """Do something that a store which is away prevents, as soon as it is back. Raises RunLost in the end."""
        try:
            do()
        except StoreAway as error:
            self.progress.warn(f"{error}: the run waits for it, and the running trials train on")
            try:
                patiently(do, OUTAGE)
            except StoreAway:
                raise RunLost(f"{error}, for {OUTAGE / 60:.0f} minutes; the same command resumes") from error

    def _ask_to_end(self, job: Job) -> None:
        """Ask a trial to end after its current epoch."""
        if self.mirror is None:
            (job.folder.path / PRUNE).touch()
        else:
            with suppress(StoreAway):  # the next epoch asks again
                self.mirror.objects.write(f"trials/{job.trial_id}/{PRUNE}", b"")

    def leave_out(self, what: str) -> None:
        """Note a machine that gets no more trials of this run. what: a sentence that names it."""
        self.progress.warn(what)
        self.summary.left_out.append(what)

    def _retry(self, job: Job, failure: Failure) -> None:
        job.retries += 1
        with suppress(OSError):
            job.folder.path.mkdir(parents=True, exist_ok=True)  # it may have died before it wrote anything
            job.folder.log(str(failure))
        self.progress.end(job.trial_id, "interrupted", {}, 0.0)
        self.progress.warn(
            f"{job.name}: {failure.reason}; it resumes from its last checkpoint ({failure.ending}, retry {job.retries} "
            f"of {RETRIES}; see {job.folder.path / 'log.txt'})"
        )
        self.queue.insert(0, job)

    def await_others(self, stopped: Callable[[], bool]) -> bool:
        """Wait while other drivers train the search's last trials. True when there is something to train for this one,
        False when the search is over, or the run is to end. Call it when all jobs are over."""
        said = False
        while self.drivers.met and self.searches and not (self._held or self.queue or stopped()):  # out of time
            before = self.drivers.elsewhere()
            if any(self.database.ask(search.ready) for search in self.searches.values()):
                return True
            self._note_news()
            self._expect()
            others = sum(search.elsewhere for search in self.searches.values())
            if not others:
                break
            if not said:
                self.progress.say(
                    f"nothing left to draw: waiting for {others} trial{'s' * (others > 1)} of the search that other "
                    "drivers train; what comes next depends on their results"
                )
            said = True
            while self.drivers.elsewhere() == before and not stopped():
                sleep(POLL)
        return False

    def more(self) -> bool:
        """Queue what depends on the results so far: `continuing`. False when nothing does any more; call it when all
        jobs are over. Raises RunLost when the search's database can't be read."""
        for continuation in self.continuations:
            found = continuation.more(self.scores())
            if found is None:
                continue
            self._ask(found.trials)
            self.log.open_study(self.variants, self.asked)
            self.progress.say(found.why)
            self.queue = self._missing(self._jobs([(one, seed, one.config(seed)) for one, seed in found.trials]))
            return True
        return False

    def _ask(self, trials: Iterable[tuple[Variant, int, *tuple[object, ...]]]) -> None:
        """Note what is asked for; a variant that the study does not have becomes one of it."""
        for variant, seed, *_ in trials:
            if all(variant.name != known.name for known in self.variants):
                self.variants.append(variant)
            seeds = self.asked.setdefault(variant.name, [])
            if seed not in seeds:
                seeds.append(seed)

    def scores(self) -> Score:
        """The scores of the trials that are finished now and count in the report."""
        asked = [(one, seed) for one in self.variants for seed in self.asked.get(one.name, ())]
        found = {(one.name, seed): self._job(one.config(seed)).folder.sound_result() for one, seed in asked}
        results = {trial: result for trial, result in found.items() if result is not None}
        out = of_other_batch_norm({trial: result.tags.get("batch_norm", "") for trial, result in results.items()})

        def score(variant: Variant, seed: int, metric: str) -> float | None:
            trial = variant.name, seed
            result = None if trial in out else results.get(trial)
            value = result.metrics.get(metric) if result is not None and result.status == "finished" else None
            return value if value is not None and math.isfinite(value) else None

        return score

    def task(self, job: Job, stop: Path) -> TrialTask:
        """The job for a worker of this process; stop: the file that asks it to stop."""
        resources = self.study.resources
        return TrialTask(
            config=job.config.model_dump(mode="json", exclude_defaults=True) | {"seed": job.config.seed},
            pack=job.pack.folder.resolve(),
            folder=job.folder.path.resolve(),
            evaluate_test=job.evaluate_test,
            stop=stop,
            threads=max(1, int(resources.cpus)),
            workers=resources.workers,
            cpus=resources.cpus,
            gpus=resources.gpus,
            keep_last=resources.keep_last,
            remote="" if self.mirror is None else self.mirror.address,
        )

    # ----------------------------------------------------------------------------------------------------------

    def _draw(self) -> Draw | None:
        """The next training run of the search: of the arm that has spent the fewest image passes."""
        for search in sorted(self.searches.values(), key=lambda one: one.effort):
            if (draw := search.next()) is not None:
                return draw
        return None

    def _note_news(self) -> None:
        """Count the training runs that other drivers have ended."""
        for _ in range(sum(search.news() for search in self.searches.values())):
            self.progress.skip()
            self.summary.skipped += 1

    def _expect(self) -> None:
        """Tell the display how many training runs the search has, as far as is known."""
        expected = sum(one.expected() for one in self.searches.values())
        self.progress.expect(expected - self._expected)
        self._expected = expected

    def _jobs(self, arms: Sequence[tuple[Variant, int, TrialConfig]]) -> list[Job]:
        """One job for each distinct config, after those that it starts from."""
        jobs: dict[str, Job] = {}

        def add(variant: Variant, config: TrialConfig) -> None:
            for source in self.resolver.sources(config).values():
                add(source, source.config(config.seed))
            job = self._job(config)
            own = jobs.setdefault(job.trial_id, job)
            if variant not in own.arms:
                own.arms.append(variant)

        for variant, _, config in arms:
            add(variant, config)
        for need in {need for job in jobs.values() for need in job.needs} & jobs.keys():
            jobs[need].source = True
        return list(jobs.values())

    def _missing(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs that are left to do; finished trials are recorded in MLflow."""
        self.progress.expect(len(jobs))
        return [job for job in jobs if not self._settle_known(job)]

    def _deliver_search(self) -> None:
        """Log the search's ended trials that MLflow lacks: it was unreachable then, its database is a new one, or they
        were taken over from an older space."""
        ended = [run for search in self.searches.values() for run in search.ended()]
        logged = self.log.ended() if ended else set()
        for config, arm, kind in ended:
            job = self._job(config)
            job.searched[arm] = kind
            job.tried = tried_text(self.searches[arm].search, job.config)
            result = job.folder.sound_result()
            spaces = ("", self.searches[arm].search.space_hash)  # "": logged by an older version
            if result is not None and not logged.intersection((job.trial_id, SEARCH, space) for space in spaces):
                self.log.open(job)
                self.log.epochs(job, job.folder.history())
                self.log.finish(job, result)

    def _job(self, config: TrialConfig) -> Job:
        pack = self.packs.of(config)
        resolved = self.resolver.resolve(config)
        identity = trial_id(resolved, pack.identity(resolved.tasks))
        needs = frozenset(
            source.removeprefix("trial:") for source in resolved.weight_sources.values() if source.startswith("trial:")
        )
        return Job(identity, resolved, TrialFolder(self.store / "trials" / identity), pack, needs)

    def _start(self, job: Job) -> Job:
        self.log.open(job)
        for name in (PRUNE, "failure.txt"):
            (job.folder.path / name).unlink(missing_ok=True)
        if self.mirror is not None:
            keys = [f"trials/{job.trial_id}/{name}" for name in (PRUNE, "failure.txt")]
            self._wait_for_store(partial(self.mirror.objects.delete, keys))
        job.aside = job.folder.aside()
        self.running[job.trial_id] = job
        self.time.start(job)
        self.progress.start(job.trial_id, job.name, job.config)
        if job.folder.busy():
            self.progress.say(f"{job.name}: another run trains the same trial; its result is waited for")
        else:
            self._say_damage(job, job.folder.damage(whole=job.source))
        return job

    def _settle_known(self, job: Job) -> bool:
        """Write down a trial whose folder says that it is over; False when there is something left to train."""
        result = job.folder.sound_result(whole=job.source)
        if result is None or not job.complete(result):
            return False
        if job.folder.restore_config(job.config):
            self.progress.warn(f"{job.name}: config.json was damaged and is written again ({job.folder.path})")
        self.log.open(job)
        self._settle(job, result, known=True)
        return True

    def _settle(self, job: Job, result: TrialResult, known: bool = False) -> None:
        history = job.folder.history()
        if not self.study.resources.keep_last:
            self._drop_checkpoint(job, result)
        self.log.epochs(job, history)
        self.log.finish(job, result)
        for draw in job.draws:
            self.database.deliver(partial(self._tell, draw, result, history))
        if job.draws:
            self._expect()
        if result.status == "failed":
            self._say_failed(job, result.reason, "log.txt")
        elif known:
            self.progress.skip()
            self.summary.skipped += 1
        else:
            self.progress.end(job.trial_id, result.status, result.metrics, result.seconds)
            self.summary.done += result.status == "finished"
            self.summary.pruned += result.status == "pruned"

    def _drop_checkpoint(self, job: Job, result: TrialResult) -> None:
        """Remove the checkpoint that an older version, or a crash right after the end, has left."""
        if result.status == "pruned" or not (job.folder.path / LAST).exists():
            return
        with suppress(OSError):  # of a store that can't be written now, the next run removes it
            lock = job.folder.locked()
            if lock is not None:  # else another run measures the trial further, and removes it itself
                with lock:
                    job.folder.drop_checkpoint(result)

    def _tell(self, draw: Draw, result: TrialResult, history: Sequence[Mapping[str, float]]) -> None:
        if warning := self.searches[draw.arm].end(draw, result, history):
            self.progress.warn(warning)

    def _fail(self, job: Job, failure: Failure) -> None:
        """Write down a trial that has no result; its draws stay with Optuna as running, for the next run."""
        with suppress(OSError):  # the disk may be what failed
            job.folder.write_failure(str(failure))
        self.log.fail(job, failure)
        self._say_failed(job, failure.reason, "failure.txt")
        for draw in job.draws:
            self.searches[draw.arm].leave(draw)

    def _say_failed(self, job: Job, reason: str, log: str) -> None:
        self.progress.end(job.trial_id, "failed", {}, 0.0)
        self.progress.warn(f"{job.name}: failed: {reason} (see {job.folder.path / log})")
        self.summary.failed.append((job.name, reason, job.folder.path / log))

    def _say_damage(self, job: Job, found: Sequence[str] = ()) -> None:
        """One line about damaged files: those found, or those that the worker has set aside since the job started."""
        aside = job.folder.aside()
        new = [name.removesuffix(ASIDE) for name, changed in aside.items() if changed != job.aside.get(name)]
        said = {*job.said, "result.json"} if job.said else set()
        names = sorted({*found, *new} - said)
        job.aside, job.said = aside, (*job.said, *names)
        if names:
            self.progress.warn(
                f"{job.name}: {', '.join(names)} damaged: what there is of it is renamed to *{ASIDE}, and the trial is "
                f"trained again ({job.folder.path})"
            )

    def finish_study(self) -> None:
        """Write down that the study's run is over."""
        plan = self._plan | {"actual": self.time.actual(), "left_out": self.summary.left_out} if self._plan else {}
        interrupted = self.summary.interrupted or self.summary.left is not None
        self.log.finish_study(failed=bool(self.summary.failed), interrupted=interrupted, plan=plan)
        self.summary.outcome = self.log.outcome
