"""A study's way into MLflow: what of a study and its jobs is logged, and what happens while MLflow is down."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import hmtl_ablate.config
from hmtl_ablate.errors import StudyError, TrackingError
from hmtl_ablate.running.drivers import Drivers
from hmtl_ablate.running.failures import OF_STATUS, Failure
from hmtl_ablate.running.job import Job
from hmtl_ablate.running.outcome import Outcome, outcome_of
from hmtl_ablate.running.side import Side
from hmtl_ablate.study import WINNER, Search, Study, Variant
from hmtl_ablate.study.racing import SCORE, run_score
from hmtl_ablate.tracking import Registration, StudyRecord, Tracking, TrialRecord
from hmtl_ablate.tracking.records import SEARCH, flat, rule_hash, text_hash
from hmtl_ablate.tracking.store import StudyStatus
from hmtl_ablate.training.folder import TrialFolder, TrialResult
from hmtl_ablate.training.revision import revision

EVALUATIONS = {"none": "", "linear": "linear probe", "nonlinear": "nonlinear probe", "knn": "k-NN", "direct": "direct"}
"""Kind of probe → `TrialRecord.evaluation`; the report's claims know these words."""


LIMIT = 10.0
"""Seconds that a run waits for MLflow at most."""
LAST_LIMIT = 60.0
"""Seconds that the end of a run waits for one trial's delivery to an MLflow that answers."""
PROBE_EVERY = 60.0
"""Seconds between two looks at an MLflow that is down."""

Ended = TrialResult | Failure | None
"""How a trial ended: its result, why it failed, or None while it runs."""


def registration(study: Study, trained: int) -> Registration:
    """What a study is now; trained: how many of its trials are complete already."""
    return Registration(
        study=text_hash(study.text),
        verdict=rule_hash(study.verdict.model_dump()),
        metric=study.metric,
        seeds=study.seeds,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        trained=trained,
        decide=deciding(study),
    )


def deciding(study: Study) -> dict[str, Any]:
    """How a study adds seeds, as plain data; {} for one whose seeds are fixed."""
    if study.decide is None:
        return {}
    return {**study.decide.model_dump(), "comparisons": [list(pair) for pair in study.comparisons]}


def check_decide(study: Study, registered: Registration | None) -> None:
    """Raise StudyError when a study that has begun adds seeds by another rule than the one it was registered with.

    The bound holds for the number of seeds, the levels and the smallest difference that were stated before the first
    look; with others, chosen after it, it bounds nothing.
    """
    if registered is None or not registered.decide:
        return
    rule = {} if study.decide is None else study.decide.model_dump()
    then = {key: value for key, value in registered.decide.items() if key != "comparisons"}
    if rule == then:
        return
    was, now = (", ".join(f"{key}: {value:g}" for key, value in one.items()) or "none" for one in (then, rule))
    raise StudyError(
        f"study {study.name}: decide can't change once the study has begun: registered {{{was}}} on "
        f"{registered.time[:10]}, now {{{now}}}\nput decide back, or begin again with other seeds and another name"
    )


def _declared(search: Search) -> dict[str, Any]:
    """What the report has to know of a search."""
    return {
        "objective": search.metric,
        "direction": search.direction,
        "others": dict(search.others),
        "racing": search.racing,
        "keys": list(search.keys),
        "confirm": search.confirm,
        "space": {
            one.key: {
                "kind": one.kind,
                "choices": list(one.choices),
                "low": one.low,
                "high": one.high,
                "step": one.step,
            }
            for one in search.parameters
        },
        "base": sorted(flat(search.base)),
        "hash": search.space_hash,
    }


class StudyLog:
    """Logs one study to MLflow.

    A store that goes down while trials run stops no training: there is one warning, and what is missing is delivered
    from the trials' folders when the store is back, or by the next run of the study.
    """

    def __init__(
        self,
        tracking: Tracking,
        study: Study,
        *,
        pictures: bool,
        warn: Callable[[str], None],
        store: Path | None = None,
        drivers: Drivers | None = None,
    ) -> None:
        """store: the folder of the trials, from which the study's figures are drawn. drivers: those that log the same
        study; they write in turns, so that each run is made once, and has each epoch once."""
        self.tracking = tracking
        self._drivers = drivers or Drivers()
        self._store = store
        self._study, self._pictures, self._warn = study, pictures, warn
        self._commit = revision().commit
        self.parent = ""
        """run_id of the study's run; "" before `open_study`."""
        self.outcome: Outcome | None = None
        """What the study has found, once it is over; None while MLflow is down."""
        self._record: StudyRecord | None = None
        self._records: dict[str, list[TrialRecord]] = {}
        """trial_id → its records that are open in MLflow, one for each variant that it serves."""
        self._call = Side("MLflow", LIMIT)
        self._missing: dict[str, tuple[Job, Ended]] = {}
        """trial_id → a trial of which MLflow lacks something."""
        self._down = False
        self._probed = -math.inf
        """When MLflow was looked at last while it was down."""

    def open_study(
        self,
        variants: Sequence[Variant],
        asked: Mapping[str, Sequence[int]],
        trained: int = 0,
        plan: Mapping[str, Any] = {},
    ) -> None:
        """Create the study's run, or bring it up to date: its variants as they are now, and the seeds asked of each.

        A new run registers the study as it is; trained: how many of its trials are complete already. plan: what this
        run is going to train; {} leaves that of the last run that trained anything. Raises StudyError for a study whose
        `decide` has changed since, and TrackingError when MLflow fails at the start of a run; later a failure is one of
        those that stop nothing.
        """
        study = self._study
        self._record = StudyRecord(
            name=study.name,
            profile=study.profile,
            metric=study.metric,
            data=", ".join(sorted(study.datasets)),
            question=study.question,
            variants={variant.name: variant.key for variant in variants},
            evaluations={variant.name: variant.evaluation for variant in variants if variant.evaluation},
            search={search.arm: _declared(search) for search in study.searches},
            controls={arm: asdict(controls) for arm, controls in study.controls.items()},
            designs={name: asdict(design) for name, design in study.designs.items()},
            seeds=study.seeds,
            asked={name: list(seeds) for name, seeds in asked.items()},
            commit=self._commit,
            file=text_hash(study.text),
            verdict=study.verdict.model_dump(),
            decide=deciding(study),
            registered=registration(study, trained),
            plan=plan,
        )
        if not self.parent:
            check_decide(study, self.tracking.registration(self._record))
            with self._drivers.turn("mlflow"):
                self._open_study()
        elif not self._down or self._recover():
            self._tolerant(self._open_study)

    def open(self, job: Job) -> None:
        """Create the job's runs, or find them again: one for each arm, and one for its search. A job that has gained
        an arm or a draw may be opened again."""
        if len(self._records_of(job)) != len(self._records.get(job.trial_id, ())):
            self._log(job, None, lambda: self._open(job))

    def epochs(self, job: Job, history: Sequence[Mapping[str, float]]) -> None:
        """Log those epochs of an open job that MLflow lacks."""
        if job.trial_id in self._records or job.trial_id in self._missing:
            self._log(job, None, lambda: self._epochs(job, history))

    def finish(self, job: Job, result: TrialResult) -> None:
        """End an open job's runs with its result and the files of its folder."""
        self._log(job, result, lambda: self._end(job, result))

    def fail(self, job: Job, failure: Failure) -> None:
        """End an open job's runs as failed; there is no result."""
        self._log(job, failure, lambda: self._end(job, failure))

    def ended(self) -> set[tuple[str, str, str]]:
        """(trial_id, variant, space) of the study's trials that are over in MLflow; empty while it is down."""
        found: set[tuple[str, str, str]] = set()
        self._tolerant(lambda: found.update(self.tracking.ended_trials(self.parent)))
        return found

    def finish_study(self, *, failed: bool, interrupted: bool, plan: Mapping[str, Any] = {}) -> None:
        """Deliver what is missing, and end the study's run. plan: as in `open_study`, with what became of it."""
        status: StudyStatus = "KILLED" if interrupted else "FAILED" if failed else "FINISHED"
        self._probed = -math.inf
        if not self._down or self._recover(math.inf, LAST_LIMIT):
            if plan and self._record is not None:
                self._record = replace(self._record, plan=plan)
                self._tolerant(self._open_study)
            self._tolerant(lambda: self._close_study(status))
            # last, so that the run is closed whatever becomes of its page; in no turn: it takes seconds
            self._tolerant(self._describe, LAST_LIMIT, in_turn=False)
        if self._down:
            self._warn(
                f"MLflow lacks {len(self._missing)} trials of this run; run the same command again to deliver them"
            )
        self._call.close()

    # Down and up --------------------------------------------------------------------------------------------------

    def _log(self, job: Job, outcome: Ended, write: Callable[[], None]) -> None:
        """Write something of a job, or remember that MLflow lacks it."""
        if self._down:
            self._recover()
        lacking = job.trial_id in self._missing or self._down
        if lacking or not self._tolerant(write):
            self._missing[job.trial_id] = job, outcome

    def _tolerant(self, write: Callable[[], None], limit: float | None = None, *, in_turn: bool = True) -> bool:
        """Whether MLflow took it. After the first failure it counts as down, with one warning."""
        try:
            self._call(partial(self._take_turn, write) if in_turn else write, limit)
        except TrackingError as error:
            if not self._down:
                self._warn(
                    f"MLflow can't be written at the moment: {error}. Training continues; what is missing is delivered "
                    "when MLflow is back, or when you run the same command again."
                )
            self._down, self._probed = True, time.monotonic()
            return False
        return True

    def _take_turn(self, write: Callable[[], None]) -> None:
        with self._drivers.turn("mlflow"):
            write()

    def _recover(self, patience: float = LIMIT, limit: float | None = None) -> bool:
        """Once a minute, look whether MLflow is back, and deliver from the trials' folders what it lacks.

        patience: seconds after which the rest is left for the next call; limit: seconds for each trial. True when
        nothing is missing any more.
        """
        started = time.monotonic()
        if started - self._probed < PROBE_EVERY or not self._tolerant(self._open_study):
            return False
        for identity, (job, outcome) in list(self._missing.items()):
            if time.monotonic() - started > patience:
                self._probed = -math.inf
                return False
            if not self._tolerant(partial(self._deliver, job, outcome), limit):
                return False
            del self._missing[identity]
        self._down = False
        return True

    def _deliver(self, job: Job, outcome: Ended) -> None:
        self._records.pop(job.trial_id, None)  # MLflow's database may be another by now
        self._open(job)
        self._epochs(job, job.folder.history())
        if outcome is not None:
            self._end(job, outcome)

    # What is written ----------------------------------------------------------------------------------------------

    def _open_study(self) -> None:
        assert self._record is not None
        self.parent = self.tracking.study_run(self._record, self._study.text)

    def _close_study(self, status: StudyStatus) -> None:
        """The last driver ends the study's run; until then it is running."""
        if self._drivers.leave():
            self.tracking.finish_study(self.parent, status)

    def _describe(self) -> None:
        """What the study has found, on its page."""
        assert self._record is not None
        record = replace(self._record, run_id=self.parent)
        found = outcome_of(record, self.tracking.trials(self.parent), self._store)
        self.outcome = found
        self.tracking.describe_study(self.parent, found.page, found.report, found.scores, found.figures())

    def _open(self, job: Job) -> None:
        self._records[job.trial_id] = [
            replace(one, run_id=self.tracking.trial_run(one)) for one in self._records_of(job)
        ]

    def _epochs(self, job: Job, history: Sequence[Mapping[str, float]]) -> None:
        for record in self._records.get(job.trial_id, ()):
            if self._drivers.met:
                self.tracking.forget_epochs(record.run_id)
            self.tracking.log_epochs(record.run_id, history)

    def _end(self, job: Job, outcome: TrialResult | Failure) -> None:
        artifacts: dict[str, Path] = {}
        if isinstance(outcome, Failure):
            changes: dict[str, Any] = {"status": "failed", "reason": outcome.reason, "ending": outcome.ending}
        else:
            environment = dict(outcome.tags)
            changes = {
                "status": outcome.status,
                "reason": outcome.reason,
                "ending": OF_STATUS[outcome.status],
                "metrics": outcome.metrics,
                "commit": environment.pop("git_commit", self._commit),
                "numerics": int(environment.pop("numerics", hmtl_ablate.config.NUMERICS_VERSION)),
                "environment": environment,
            }
            artifacts = self._artifacts(job.folder, outcome)
        for record in self._records.get(job.trial_id, ()):
            ended = replace(record, **changes)
            if outcome_score := self._score(ended, job):
                ended = replace(ended, metrics={**ended.metrics, **outcome_score})
            self.tracking.finish_trial(record.run_id, ended, artifacts)
        self._records.pop(job.trial_id, None)

    def _score(self, record: TrialRecord, job: Job) -> dict[str, float]:
        """By what the search would select a finished trial of its own, or of a configuration that it confirms."""
        search = self._study.search
        if search is None or record.status != "finished" or record.variant.partition(",")[0] not in (SEARCH, WINNER):
            return {}
        score = run_score(record.metrics, job.folder.history(), search.metric, racing=search.racing > 1)
        return {} if score is None else {SCORE: score}

    def _records_of(self, job: Job) -> list[TrialRecord]:
        """What is logged when the job starts, one record for each run."""
        config = job.config
        record = TrialRecord(
            parent=self.parent,
            study=self._study.name,
            profile=self._study.profile,
            commit=self._commit,
            trial_id=job.trial_id,
            variant=SEARCH,
            seed=config.seed,
            data=config.data.name,
            fingerprint=job.pack.fingerprint,
            protocol=config.data.protocol,
            task="+".join(config.tasks),
            evaluation=EVALUATIONS[config.probe.kind],
            numerics=hmtl_ablate.config.NUMERICS_VERSION,
            config=config.model_dump(mode="json"),
        )
        arms = [replace(record, variant=arm.name, variant_key=arm.key, stage=arm.stage) for arm in job.arms]
        spaces = {search.arm: search.space_hash for search in self._study.searches}
        drawn = [replace(record, arm=arm, draw=kind, space=spaces.get(arm, "")) for arm, kind in job.searches.items()]
        return [*arms, *drawn]

    def _artifacts(self, folder: TrialFolder, result: TrialResult) -> dict[str, Path]:
        names = ["config.json", "result.json", "log.txt", "uncommitted.diff"] + (
            ["best.safetensors"] if result.best_epoch else []
        )
        files = {name: folder.path / name for name in names}
        for picture in sorted((folder.path / "pictures").glob("*.png")):
            if self._pictures or picture.name.startswith("confusion"):  # a confusion matrix shows no face
                files[f"pictures/{picture.name}"] = picture
        return {name: path for name, path in files.items() if path.exists()}
