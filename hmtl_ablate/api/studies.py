"""Studies from Python: plan, run, read the results."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmtl_ablate.checks import estimate_study, planned_trials, prepare
from hmtl_ablate.errors import HmtlError
from hmtl_ablate.planning.budget import parse_budget
from hmtl_ablate.planning.estimate import Estimate, PlannedTrial
from hmtl_ablate.storage import opened, store_folder
from hmtl_ablate.study import Study, load_study

if TYPE_CHECKING:
    from hmtl_ablate.reporting.results import Results
    from hmtl_ablate.running.listener import ProgressListener
    from hmtl_ablate.running.options import Engine

StudyLike = Study | str | Path | Mapping[str, Any]
"""A study, the path of a study file, or the content of one as a mapping."""


@dataclass(frozen=True)
class StudyRun:
    """How a run of a study ended, in numbers of trials.

    >>> import hmtl_ablate as ha
    >>> base = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> ha.run({"name": "example", "base": base, "variants": {"SL": {}}, "seeds": [0]}, progress=False).failed
    ()
    """

    study: Study
    store: Path
    trained: int
    """Trained to their end by this run."""
    skipped: int
    """Finished before this run."""
    pruned: int
    """Stopped early by the search's pruner."""
    failed: tuple[tuple[str, str, Path], ...]
    """Name, reason and log file of each failed trial."""
    left: tuple[str, ...] = ()
    """Names of the trials that did not fit into the budget."""
    tracking_uri: str | None = field(default=None, repr=False)
    model: str = ""
    """Address of the registered model in MLflow, models:/NAME/VERSION; "" without `register`, or where trials failed or
    are left."""

    @property
    def results(self) -> Results:
        """Studies and trials of the store as frames, read anew."""
        return load_results(self.store, tracking_uri=self.tracking_uri)


def plan(study: StudyLike, *, store: str | Path = "runs") -> list[PlannedTrial]:
    """The trials of a study's variants and stages, in the order they would run, and whether a run would start them.

    >>> import hmtl_ablate as ha
    >>> [trial.variant for trial in ha.plan({"name": "example", "variants": {"SL": {}}, "seeds": [0, 1]})]
    ['SL', 'SL']

    A search's own trials are not listed: they are drawn while it runs. `pandas.DataFrame(plan(…))` is a frame.
    Raises StudyError for a malformed study, DataError and ConfigError for a dataset or network that does not exist.
    """
    return planned_trials(_study(study), store_folder(store))


def estimate(
    study: StudyLike, *, store: str | Path = "runs", engine: Engine = "local", max_concurrent: int | None = None
) -> Estimate:
    """What a run of a study would cost: trials, image passes, time, memory, disk; per arm and in all.

    >>> import hmtl_ablate as ha
    >>> study = {"name": "example", "base": {"data": {"images": 640}}, "variants": {"SL": {}}, "seeds": [0, 1]}
    >>> ha.estimate(study, store="an empty store").image_passes  # 4 batches of 128, 20 epochs, 2 seeds
    20480

    Time, memory and disk are known once the store has trials of the same kind, or after `hmtl-ablate plan --calibrate`.
    `.to_json()` is what `hmtl-ablate plan --json` prints (docs/running.md). engine, max_concurrent: as for `run`.
    Raises HmtlError for what a run would refuse, as far as it can be said within seconds.
    """
    return estimate_study(_study(study), store_folder(store), engine=engine, max_concurrent=max_concurrent)


def run(
    study: StudyLike,
    *,
    store: str | Path = "runs",
    engine: Engine = "local",
    max_concurrent: int | None = None,
    address: str | None = None,
    grow: bool = False,
    join: bool = False,
    tracking_uri: str | None = None,
    storage: str | None = None,
    pictures: bool = True,
    imports: Sequence[str] = (),
    budget: str | None = None,
    register: str | None = None,
    progress: bool | ProgressListener = True,
) -> StudyRun:
    """Run a study, skipping finished trials. The same call resumes an interrupted run.

    >>> import hmtl_ablate as ha
    >>> base = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> study = ha.load_study({"name": "example", "base": base, "variants": {"SL": {}}}, seeds=[0])
    >>> summary = ha.run(study, progress=False)

    Args:
        study: a Study, or the path or content of a study file, which is then loaded at its profile `quick`.
        store: the folder of trials, packs and databases, or its address, such as "s3://BUCKET/PREFIX".
        engine: "local" trains one trial after another in this process; "ray" trains in parallel, also on a cluster.
        max_concurrent: ray: trials to run at once; None for as many as fit.
        address: ray: HOST:PORT of a cluster; None starts Ray on this machine.
        grow: ray: ask an autoscaling cluster for `max_concurrent` trials at once, however few it holds now.
        join: share the study's trials with other drivers that run it in the same store (docs/clusters.md).
        tracking_uri: MLflow tracking store; None for SQLite in the store.
        storage: Optuna storage; None for SQLite in the store.
        pictures: log pictures of faces to MLflow.
        imports: ray: modules that register a lab's own backbones, tasks or datasets; worker processes import them.
        budget: a time such as "30m", "8h" or "2d": only trials that are expected to end within it are started, seed by
            seed; what is left is in the summary's `left`, and the same call with a new budget continues.
        register: name under which the study's best model is registered in MLflow at the end: of the variant with the
            best mean, the seed that is best on the split that selects.
        progress: True prints one line per trial; False is silent; or a ProgressListener.

    Raises:
        HmtlError: the study, its data, the store, MLflow, Optuna or Ray can't be used; no trial has started. A trial
            that fails raises nothing: it is in the summary.
        KeyboardInterrupt: Ctrl-C; running trials have saved their checkpoints.
    """
    from rich.console import Console

    from hmtl_ablate.running.display import LiveDisplay
    from hmtl_ablate.running.listener import SilentListener
    from hmtl_ablate.running.options import RunOptions
    from hmtl_ablate.running.run import run_study
    from hmtl_ablate.tracking.models import check_model_name

    if register is not None:
        check_model_name(register)
    limit = None if budget is None else parse_budget(budget)
    options = RunOptions(engine, address, max_concurrent, pictures, storage, tuple(imports), limit, grow, join)
    own, place = _study(study), store_folder(store)
    if progress is True:
        progress = LiveDisplay(Console(file=sys.stdout, highlight=False, force_jupyter=False), quiet=False)
    elif progress is False:
        progress = SilentListener()
    databases = tracking_uri is None or (storage is None and bool(own.searches))
    with opened(place, databases=databases, say=progress.say):
        prepared = prepare(own, place, tracking_uri)
        summary = run_study(
            own,
            packs=prepared.packs,
            store=place,
            tracking=prepared.tracking,
            progress=progress,
            options=options,
        )
        if summary.interrupted:
            raise KeyboardInterrupt("the run was stopped; the same call resumes")
        left = summary.left.trials if summary.left else ()
        counts = summary.done, summary.skipped, summary.pruned
        model = ""
        if register is not None and summary.complete:
            from hmtl_ablate.api.registering import register_best

            model = register_best(summary.outcome, prepared.tracking, place, register)
    return StudyRun(own, place, *counts, tuple(summary.failed), left, tracking_uri, model)


def load_results(store: str | Path = "runs", *, tracking_uri: str | None = None) -> Results:
    """All studies and trials of a store as tidy frames: `.studies`, `.trials`, `.controls()`, `.verdicts()`,
    `.decisions()`, `.effects()`.

    >>> import hmtl_ablate as ha
    >>> ha.load_results("an empty store").empty
    True

    tracking_uri: MLflow tracking store; None for SQLite in the store. Raises TrackingError when it can't be read.
    """
    from hmtl_ablate.reporting.results import load_results

    return load_results(tracking_uri, store_folder(store))


def stored(store: str | Path | Results, tracking_uri: str | None) -> Results:
    """What a store has: `load_results` that is an error where there is no store; what it read is passed on.

    Raises HmtlError where there is no store, or it can't be read.
    """
    from hmtl_ablate.reporting.results import Results, require_runs

    if isinstance(store, Results):
        return store
    place = store_folder(store)
    require_runs(tracking_uri, place)
    return load_results(place, tracking_uri=tracking_uri)


def report(
    store: str | Path | Results = "runs",
    format: str = "markdown",
    *,
    study: str | None = None,
    tracking_uri: str | None = None,
    columns: Sequence[str] = (),
    metrics: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    claims: bool = False,
    claims_file: str | Path | None = None,
    recall: bool = False,
    evidence: str | None = None,
    width: int = 100,
    pictures: bool = True,
) -> str:
    """One table per study, the verdicts on its arms with controls, the effects of its designs, and the paper's claims
    compared with what was measured, as text.

    >>> import hmtl_ablate as ha
    >>> base = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> done = ha.run({"name": "example", "base": base, "variants": {"SL": {}}, "seeds": [0]}, progress=False)
    >>> "| Variant | Seconds |" in ha.report(columns=["variant", "seconds"])
    True

    Args:
        store: the folder of trials and databases, or what `load_results` has read of it.
        format: markdown, terminal, latex, csv, json or html (one file with tables and figures).
        study: name of the one study to report; None for all.
        tracking_uri: MLflow tracking store; None for SQLite in the store.
        columns: keys of the columns of the studies' tables, in their order; () for the usual ones. csv and json have
            all columns.
        metrics: further metrics, e.g. test/macro_f1, each one more column.
        rename: variant → its name in the report.
        claims: show the table of the paper's claims also where no study is on their data.
        claims_file: YAML file of another paper's claims (docs/claims.md), whose table follows that of the nine.
        recall: add a table of the recall of each class.
        evidence: name of a pretext task: report its differences in all studies and their random-effects mean instead
            (docs/methods.md).
        width: columns of the terminal format.
        pictures: html: show puzzled and rebuilt faces, one trial per arm.

    Raises:
        HmtlError: there is no such store, format, study, column, metric or variant, the claims' file is faulty, or the
            tracking store can't be read.
    """
    from hmtl_ablate.reporting.choosing import ReportOptions
    from hmtl_ablate.reporting.claim_files import read_claims
    from hmtl_ablate.reporting.formats import check_format
    from hmtl_ablate.reporting.render import build_report, render

    if evidence is not None and (claims or claims_file or recall or metrics):
        raise HmtlError(
            "--evidence is a report of its own: leave out --claims, --claims-file, --metric and --recall, "
            "or ask for them in a second report"
        )
    check_format(format)
    results = stored(store, tracking_uri)
    papers = () if claims_file is None else (read_claims(Path(claims_file)),)
    options = ReportOptions(
        tuple(columns), tuple(metrics), dict(rename or {}), claims or bool(papers), recall, pictures, evidence or ""
    )
    return render(build_report(results, study, options=options, papers=papers), format, width)


def figures(
    store: str | Path | Results = "runs",
    folder: str | Path = "figures",
    *,
    study: str | None = None,
    tracking_uri: str | None = None,
    rename: Mapping[str, str] | None = None,
    evidence: str | None = None,
) -> list[Path]:
    """Write each figure of each study as PNG and SVG: `<study>-<profile>-<figure>.png`. A figure for which a study has
    no data is left out.

    >>> import hmtl_ablate as ha
    >>> base = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> done = ha.run({"name": "example", "base": base, "variants": {"SL": {}}, "seeds": [0]}, progress=False)
    >>> [path.name for path in ha.figures()]
    ['example-quick-confusion.png', 'example-quick-confusion.svg']

    Args:
        store: the folder of trials and databases, or what `load_results` has read of it.
        folder: where the files go; made where there is none.
        study: name of the one study; None for all.
        tracking_uri: MLflow tracking store; None for SQLite in the store.
        rename: variant → its name in the figures.
        evidence: name of a pretext task: write the forest plot of its differences in all studies instead,
            `evidence-<task>-<metric>.png`.

    Returns:
        The paths that were written.

    Raises:
        HmtlError: there is no such store, study, variant or pretext task, or a file can't be written.
    """
    from hmtl_ablate.reporting.evidence import evidence as evidence_on
    from hmtl_ablate.reporting.figures.files import write_evidence, write_figures
    from hmtl_ablate.reporting.renaming import renamed
    from hmtl_ablate.reporting.tables import study_tables

    results = renamed(stored(store, tracking_uri), dict(rename or {}))
    tables = study_tables(results, study)
    if evidence is not None:
        return write_evidence(evidence_on(results, tables, evidence), Path(folder))
    return write_figures(tables, results, Path(folder))


def _study(study: StudyLike) -> Study:
    return study if isinstance(study, Study) else load_study(study)
