"""A study's way into MLflow: what of a study and its jobs is logged, and what happens while MLflow is down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hmtl_ablate.config
from hmtl_ablate.errors import TrackingError
from hmtl_ablate.running.failures import OF_STATUS, Failure
from hmtl_ablate.study import Study, Variant
from hmtl_ablate.tracking import StudyRecord, Tracking, TrialRecord
from hmtl_ablate.tracking.records import SEARCH
from hmtl_ablate.training.folder import TrialFolder, TrialResult, commit

if TYPE_CHECKING:
    from hmtl_ablate.running.conductor import Job

EVALUATIONS = {"none": "", "linear": "linear probe", "nonlinear": "nonlinear probe", "knn": "k-NN", "direct": "direct"}
"""Kind of probe → `TrialRecord.evaluation`; the report's claims know these words."""


class StudyLog:
    """Logs one study to MLflow.

    A store that goes down while trials run stops no training: there is one warning, and the next run of the study
    delivers what is missing from the trials' folders.
    """

    def __init__(self, tracking: Tracking, study: Study, *, pictures: bool, warn: Callable[[str], None]) -> None:
        self.tracking = tracking
        self._study, self._pictures, self._warn = study, pictures, warn
        self._commit = commit()
        self.parent = ""
        """run_id of the study's run; "" before `open_study`."""
        self._records: dict[str, list[TrialRecord]] = {}
        """trial_id → its records that are open in MLflow, one for each variant that it serves."""
        self._down = False

    def open_study(self, variants: Sequence[Variant]) -> None:
        """Create the study's run, or bring it up to date: its variants as they are now. Raises TrackingError."""
        study = self._study
        record = StudyRecord(
            name=study.name,
            profile=study.profile,
            metric=study.metric,
            data=", ".join(sorted(study.datasets)),
            question=study.question,
            variants={variant.name: variant.key for variant in variants},
            evaluations={variant.name: variant.evaluation for variant in variants if variant.evaluation},
            seeds=study.seeds,
            commit=self._commit,
        )
        self.parent = self.tracking.study_run(record, study.text)

    def open(self, job: Job) -> None:
        """Create the job's runs, or find them again: one for each arm, and one for its search. A job that has gained
        an arm or a draw may be opened again."""
        records = self._records_of(job)
        if len(records) == len(self._records.get(job.trial_id, ())):
            return
        with self._tolerant():
            self._records[job.trial_id] = [replace(one, run_id=self.tracking.trial_run(one)) for one in records]

    def epochs(self, job: Job, history: Sequence[Mapping[str, float]]) -> None:
        """Log those epochs of an open job that MLflow lacks."""
        with self._tolerant():
            for record in self._records.get(job.trial_id, ()):
                self.tracking.log_epochs(record.run_id, history)

    def finish(self, job: Job, result: TrialResult) -> None:
        """End an open job's runs with its result and the files of its folder."""
        environment = dict(result.tags)
        trained_by = environment.pop("git_commit", self._commit)
        numerics = int(environment.pop("numerics", hmtl_ablate.config.NUMERICS_VERSION))
        ended = [
            replace(
                record,
                status=result.status,
                reason=result.reason,
                ending=OF_STATUS[result.status],
                metrics=result.metrics,
                commit=trained_by,
                numerics=numerics,
                environment=environment,
            )
            for record in self._records.pop(job.trial_id, ())
        ]
        self._finish(ended, self._artifacts(job.folder, result))

    def fail(self, job: Job, failure: Failure) -> None:
        """End an open job's runs as failed; there is no result."""
        failed = [
            replace(record, status="failed", reason=failure.reason, ending=failure.ending)
            for record in self._records.pop(job.trial_id, ())
        ]
        self._finish(failed, {})

    def finish_study(self, *, failed: bool, interrupted: bool) -> None:
        """End the study's run."""
        with self._tolerant():
            self.tracking.finish_study(self.parent, "KILLED" if interrupted else "FAILED" if failed else "FINISHED")

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
        return [*arms, record] if job.draws else arms

    def _finish(self, records: Sequence[TrialRecord], artifacts: Mapping[str, Path]) -> None:
        with self._tolerant():
            for record in records:
                self.tracking.finish_trial(record.run_id, record, artifacts)

    def _artifacts(self, folder: TrialFolder, result: TrialResult) -> dict[str, Path]:
        names = ["config.json", "result.json", "log.txt"] + (["best.safetensors"] if result.best_epoch else [])
        files = {name: folder.path / name for name in names}
        for picture in sorted((folder.path / "pictures").glob("*.png")):
            if self._pictures or picture.name.startswith("confusion"):  # a confusion matrix shows no face
                files[f"pictures/{picture.name}"] = picture
        return {name: path for name, path in files.items() if path.exists()}

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except TrackingError as error:
            if not self._down:
                self._warn(
                    f"MLflow can't be written at the moment: {error}. Training continues; run the same command "
                    "again to deliver what is missing."
                )
            self._down = True
