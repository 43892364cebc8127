"""Tracking: reads and writes the runs of one MLflow store.

Uses `MlflowClient` only: the fluent API would pick up MLFLOW_RUN_ID.
"""

from __future__ import annotations

import filecmp
import gc
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from hmtl_ablate.errors import TrackingError
from hmtl_ablate.tracking.address import Address, note_environment, parse_address
from hmtl_ablate.tracking.opening import one_at_a_time
from hmtl_ablate.tracking.records import (
    EXPERIMENT,
    NOTE,
    PARENT,
    REGISTERED,
    STATUS,
    STUDY_FILTER,
    TAG_LENGTH,
    TRIAL_FILTER,
    VIEW,
    VIEW_TAG,
    Registration,
    StudyRecord,
    TrialRecord,
    TrialStatus,
    loggable,
    registration_of,
    view_state,
)

PROXY = "mlflow-artifacts:/"
APPENDED = frozenset({"log.txt", "metrics.jsonl"})
"""Files of a trial that grow in place. All others are only ever replaced, so that a hard link of one never changes."""
PARAMS_A_BATCH, TAGS_A_BATCH = 100, 100
"""MLflow's own limits."""
CONTEXT = "mlflow.data.context"
"""Tag of a dataset, which MLflow's pages show with its name."""
PAGE = 1000
"""Runs that one search returns."""
ENDS: dict[TrialStatus, str] = {"finished": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}
"""Status of a trial → MLflow's status of a run that has ended. A pruned trial is no failure, which MLflow's pages would
show; the tag `hmtl.status` says that it was pruned."""
OVER = frozenset({*ENDS.values(), "KILLED"})
"""MLflow's statuses of runs that have ended; pruned trials of earlier versions have KILLED."""

Record = TypeVar("Record")
StudyStatus = Literal["FINISHED", "KILLED", "FAILED"]


def open_tracking(uri: str | None, store: Path) -> Tracking:
    """Open MLflow at `uri`, by default the SQLite file <store>/mlflow.db; schema and experiment are made when missing.

    uri: sqlite:///FILE, postgresql://…, mysql+pymysql://…, or the http(s) address of an MLflow server.
    Raises TrackingError within 30 s when the address can't be used.
    """
    note_environment(uri)
    address = parse_address(uri, store)
    # MLflow reads these when it is imported or used; values that are already set are respected
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    address.probe()
    with _reported(f"MLflow at {address} can't be used", address), _quiet(), _impatient(), one_at_a_time(address.uri):
        from mlflow import MlflowClient

        if address.is_database:
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            # made here first because the client's own store would give MLflow's default experiment an absolute path
            SqlAlchemyStore(address.uri, PROXY)
        client = MlflowClient(address.uri, address.uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            place = PROXY + EXPERIMENT if address.is_database else None
            client.create_experiment(EXPERIMENT, artifact_location=place)
            experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"the experiment {EXPERIMENT!r} at {address} was deleted in MLflow\n"
            f"bring it back: mlflow experiments restore --experiment-id {experiment.experiment_id}, "
            "or use another --runs folder"
        )
    return Tracking(client, experiment.experiment_id, store, address)


class Tracking:
    """An open MLflow store; made by `open_tracking`. Every method raises TrackingError when MLflow refuses."""

    client: Any
    """The MlflowClient."""
    experiment_id: str
    """Of the experiment `hmtl-ablate`."""
    store: Path
    """The folder of trials and databases."""

    def __init__(self, client: Any, experiment_id: str, store: Path, address: Address) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.store = store
        self._address = address
        self._epochs: dict[str, int] = {}
        """run_id → the last epoch that MLflow has."""

    @property
    def sqlite(self) -> bool:
        """Whether MLflow's database is an SQLite file."""
        return self._address.sqlite_file is not None

    def studies(self) -> list[StudyRecord]:
        """Every study of the store, the newest first. A run that can't be read is left out, with one warning."""
        with self._reading():
            return readable(StudyRecord.from_run, self._search(STUDY_FILTER))

    def trials(self, parent: str | None = None) -> list[TrialRecord]:
        """Every trial of the store, or of the study with this run_id, the newest first. A run that can't be read is
        left out, with one warning."""
        own = "" if parent is None else f" AND tags.`{PARENT}` = '{parent}'"
        with self._reading():
            return readable(TrialRecord.from_run, self._search(TRIAL_FILTER + own))

    def ended_trials(self, parent: str) -> set[tuple[str, str, str]]:
        """(trial_id, variant, space) of a study's trials whose runs are over; parent: run_id of the study's run."""
        with self._reading():
            runs = self._search(f"{TRIAL_FILTER} AND tags.`{PARENT}` = '{parent}'")
            records = readable(TrialRecord.from_run, (run for run in runs if run.info.status in OVER))
        return {(record.trial_id, record.variant, record.space) for record in records}

    def study_run(self, record: StudyRecord, study_text: str) -> str:
        """The run of a study at its profile on its data, found again or created. Returns its run_id.

        Its tags and study file are brought up to date, and it counts as running. Its registration is written when the
        run is created, and never again: what is registered later is no registration.
        """
        with self.writing():
            tags = record.to_run().tags
            run = self._find(STUDY_FILTER, record.identity)
            if run is None:
                run = self._create_run(record.run_name, tags)
            else:
                if run.info.status != "RUNNING":
                    self.client.update_run(run.info.run_id, status="RUNNING")
                self._set_tags(run, {tag: text for tag, text in tags.items() if not tag.startswith(REGISTERED)})
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "study.yaml"
                file.write_text(study_text, encoding="utf-8")
                self._put(run, "study.yaml", file)
            self._show_columns(record.metric)
        return str(run.info.run_id)

    def describe_study(
        self, run_id: str, page: str, report: str, scores: Mapping[str, float], figures: Mapping[str, bytes] = {}
    ) -> None:
        """Write what a study has found: its description in MLflow's pages, its report, best scores and figures.

        page, report: Markdown; a page longer than a tag is cut at a line. scores: name → value. figures: path in the
        run → content.
        """
        with self.writing():
            run = self.client.get_run(run_id)
            kept = page if len(page) <= TAG_LENGTH else page[:TAG_LENGTH].rpartition("\n")[0]
            self._set_tags(run, {NOTE: kept})
            self._log_metrics(run_id, loggable(scores), 0)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "report.md"
                file.write_text(report, encoding="utf-8")
                self._put(run, "report.md", file)
                for path, content in figures.items():
                    file.write_bytes(content)
                    self._put(run, path, file)

    def study_text(self, run_id: str) -> str | None:
        """The study file of a study's last run; None where MLflow has none."""
        with self._reading():
            run = self.client.get_run(run_id)
            if self._is_local(run):
                inside = run.info.artifact_uri.removeprefix(PROXY).lstrip("/")
                file = artifacts_folder(self.store) / inside / "study.yaml"
                return file.read_text(encoding="utf-8") if file.is_file() else None
            if not any(found.path == "study.yaml" for found in self.client.list_artifacts(run_id)):
                return None
            with tempfile.TemporaryDirectory() as folder:
                return Path(self.client.download_artifacts(run_id, "study.yaml", folder)).read_text(encoding="utf-8")

    def registration(self, record: StudyRecord) -> Registration | None:
        """What a study was before its first trial; None when it has no run yet, or one that registered nothing."""
        with self._reading():
            run = self._find(STUDY_FILTER, record.identity)
        return None if run is None else registration_of(run)

    def trial_run(self, record: TrialRecord) -> str:
        """The run of a trial under its study and variant, found again or created. Returns its run_id.

        Tags are brought up to date, except that a run found again keeps its status until `finish_trial`; parameters
        are written once.
        """
        with self.writing():
            data = record.to_run()
            run = self._find(record.id_filter, record.identity)
            if run is None:
                run = self._create_run(record.run_name, data.tags)
            self._set_tags(run, {tag: text for tag, text in data.tags.items() if tag != STATUS})
            self._set_params(run, data.params)
            self._set_dataset(run, record)
        return str(run.info.run_id)

    def log_epochs(self, run_id: str, history: Sequence[Mapping[str, float]]) -> None:
        """Write the epochs that MLflow does not have yet, one batch per epoch, step = epoch.

        history: per epoch a dict of "epoch" (1, 2, …) and its metrics; NaN and infinite values are left out.
        """
        with self.writing():
            # popped: after a failed write it is unknown what MLflow has, so the next call reads it again
            last = self._epochs.pop(run_id, None)
            if last is None:
                last = _last_epoch(self.client.get_run(run_id))
            for row in sorted(history, key=lambda row: row["epoch"]):
                step = int(row["epoch"])
                if step > last:
                    self._log_metrics(run_id, loggable(row), step)
                    last = step
            self._epochs[run_id] = last

    def forget_epochs(self, run_id: str) -> None:
        """Have the next `log_epochs` ask MLflow which epochs it has: another driver may have written some."""
        self._epochs.pop(run_id, None)

    def finish_trial(self, run_id: str, record: TrialRecord, artifacts: Mapping[str, Path]) -> None:
        """End a trial's run with the record's status, metrics and tags.

        A second call with the same status and metrics writes no metric again.
        artifacts: path in the run → local file, which takes no further space in a store with a database where the file
        system has hard links.
        """
        data, end = record.to_run(), ENDS[record.status]
        with self.writing():
            run = self.client.get_run(run_id)
            fresh = {name: value for name, value in data.metrics.items() if run.data.metrics.get(name) != value}
            settled = run.info.status == end and not fresh
            if self._is_local(run) or not settled:
                for path, file in artifacts.items():
                    self._put(run, path, file, link=file.name not in APPENDED)
            if fresh:
                # MLflow draws a metric whose only step is 0 as a bar. "seconds" and "image_passes" are curves too: of
                # those the last step is what counts.
                known = {name: self._last_step(run_id, name) for name in fresh if name in run.data.metrics}
                for step in sorted({0, *known.values()}):
                    self._log_metrics(run_id, {n: v for n, v in fresh.items() if known.get(n, 0) == step}, step)
            self._set_tags(run, data.tags)
            if run.info.status != end:
                self.client.set_terminated(run_id, status=end)

    def finish_study(self, run_id: str, status: StudyStatus) -> None:
        """End a study's run."""
        with self.writing():
            if self.client.get_run(run_id).info.status != status:
                self.client.set_terminated(run_id, status=status)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Errors are reported, and Python's garbage collector is off."""
        with without_gc(), _reported(f"the runs can't be read from MLflow at {self._address}", self._address):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """MLflow's errors within become TrackingErrors, and a server that is down is reported soon."""
        with _reported(f"MLflow at {self._address} does not take the results", self._address), _impatient():
            yield

    def _show_columns(self, metric: str) -> None:
        """Have MLflow's table of runs show a study's metric, in addition to those of the store's other studies."""
        tag = f"{VIEW_TAG}{VIEW}"
        known = self.client.get_experiment(self.experiment_id).tags.get(tag, "")
        view = view_state(known, metric)
        if view != known:
            self.client.set_experiment_tag(self.experiment_id, tag, view)

    def _search(self, filter_string: str, order_by: Sequence[str] = ()) -> Iterator[Any]:
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id],
                filter_string=filter_string,
                max_results=PAGE,
                order_by=list(order_by),
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _find(self, filter_string: str, tags: Mapping[str, str]) -> Any | None:
        """The oldest run with these tags. Compared here, not in the filter, which can't quote every name."""
        found = self._search(filter_string, ["attributes.start_time ASC"])
        return next((run for run in found if tags.items() <= run.data.tags.items()), None)

    def _create_run(self, name: str, tags: Mapping[str, str]) -> Any:
        """A new run, created with all of its tags or not at all: a driver may be killed at any time."""
        return self.client.create_run(self.experiment_id, tags=dict(tags), run_name=name)

    def _log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(run_id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def _last_step(self, run_id: str, metric: str) -> int:
        return max(int(point.step) for point in self.client.get_metric_history(run_id, metric))

    def _set_dataset(self, run: Any, record: TrialRecord) -> None:
        """Say which data the trial reads, if the run does not say so yet."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        known = {one.dataset.digest for one in run.inputs.dataset_inputs} if run.inputs else set()
        if record.fingerprint and record.data and record.fingerprint not in known:
            source = json.dumps({"tags": {"mlflow.source.name": "hmtl-ablate"}})  # a pack that this package has made
            dataset = Dataset(record.data, record.fingerprint, "code", source)
            self.client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag(CONTEXT, "training")])])

    def _set_tags(self, run: Any, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        changed = [RunTag(tag, text) for tag, text in tags.items() if run.data.tags.get(tag) != text]
        for start in range(0, len(changed), TAGS_A_BATCH):
            self.client.log_batch(run.info.run_id, tags=changed[start : start + TAGS_A_BATCH])

    def _set_params(self, run: Any, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        missing = [Param(name, text) for name, text in params.items() if name not in run.data.params]
        for start in range(0, len(missing), PARAMS_A_BATCH):
            self.client.log_batch(run.info.run_id, params=missing[start : start + PARAMS_A_BATCH])

    def _is_local(self, run: Any) -> bool:
        """Whether the run's artifacts are in this store's folder."""
        return self.holds(run.info.artifact_uri)

    def holds(self, address: str) -> bool:
        """Whether what MLflow has at this address of an artifact is in this store's folder."""
        return self._address.is_database and address.startswith(PROXY)

    def _put(self, run: Any, path: str, file: Path, *, link: bool = False) -> None:
        """Save a file as an artifact. MLflow's client would need a running server for `mlflow-artifacts:` places, so
        with a database it is placed where `hmtl-ablate ui` serves it from: as a hard link if `link`, for a file that is
        never changed in place, else as a copy."""
        if not self._is_local(run):
            with tempfile.TemporaryDirectory() as folder:
                named = Path(folder) / PurePosixPath(path).name  # MLflow names an artifact after the local file
                shutil.copyfile(file, named)
                parent = str(PurePosixPath(path).parent)
                self.client.log_artifact(run.info.run_id, str(named), None if parent == "." else parent)
            return
        inside = run.info.artifact_uri.removeprefix(PROXY).lstrip("/")
        place_file(file, artifacts_folder(self.store) / inside / path, link=link)


def place_file(file: Path, target: Path, *, link: bool) -> None:
    """Make `target` have the content of `file`: a hard link if `link` and the file system can, else a copy. A copy that
    is as it should be becomes a link, too. Raises OSError."""
    known = target.is_file()
    if known and link and target.samefile(file):
        return
    unfinished = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished.unlink(missing_ok=True)
    if not (link and _linked(file, unfinished)):
        if known and not target.samefile(file) and filecmp.cmp(file, target, shallow=False):
            return
        shutil.copyfile(file, unfinished)
    unfinished.replace(target)


def _linked(file: Path, target: Path) -> bool:
    """Whether a hard link could be made; not on another device, nor on a file system without links."""
    try:
        os.link(file, target)
    except OSError:
        return False
    return True


def artifacts_folder(store: Path) -> Path:
    """Where a store with a database has its artifacts."""
    return store.resolve() / "artifacts"


@contextmanager
def without_gc() -> Iterator[None]:
    """Without Python's garbage collector, which would look through all that is read, seventy objects of MLflow per run,
    again and again while more of them are made: that took more than half of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def readable(read: Callable[[Any], Record], runs: Iterable[Any]) -> list[Record]:
    """The records of the runs, and one warning about those that are none: they must not hide all the others."""
    records, problems = [], []
    for run in runs:
        try:
            records.append(read(run))
        except TrackingError as error:
            problems.append(str(error))
    if problems:
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        logging.getLogger("hmtl_ablate").warning("left out: %s%s", problems[0].replace("\n", "; "), others)
    return records


def _last_epoch(run: Any) -> int:
    return int(run.data.metrics.get("epoch", 0))


@contextmanager
def _reported(what: str, address: Address) -> Iterator[None]:
    """MLflow's errors, and those of databases and files on the way to it, become TrackingErrors."""
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        cause = re.search(r"\(Caused by (.+)\)$", first)  # what urllib3 hides behind a long address
        raise TrackingError(
            f"{what}: {address.hidden(cause[1] if cause else first)[:1000]}\n"
            "check --tracking-uri and --runs, and that MLflow's server or database is up"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow and alembic log each step of a schema's creation, and alembic's own settings undo loggers' levels."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
        for name in ("alembic", "mlflow"):
            logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def _impatient() -> Iterator[None]:
    """A server that is down is reported soon: MLflow itself would try for minutes."""
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "9"}
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
