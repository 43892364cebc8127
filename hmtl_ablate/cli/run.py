"""`run` and `plan`."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmtl_ablate.cli.options import (
    DEFAULT_RUNS,
    Datasets,
    EngineName,
    File,
    Imports,
    MaxConcurrent,
    Profile,
    Quiet,
    Runs,
    Seeds,
    Sets,
    TrackingUri,
    Trials,
    study_of,
)
from hmtl_ablate.cli.root import app
from hmtl_ablate.cli.screen import bar, own_screen, program
from hmtl_ablate.cli.when_done import Ending, announced, command_words
from hmtl_ablate.running.options import Engine

if TYPE_CHECKING:
    from rich.console import Console

    from hmtl_ablate.planning.estimate import PlannedTrial
    from hmtl_ablate.running.summary import RunSummary
    from hmtl_ablate.study import Search, Study

STARTING: dict[Engine, str] = {
    "ray": "starting Ray; each of its processes loads PyTorch first: up to a minute",
    "local": "loading libraries",
}
"""What a run does before its first trial trains."""
ENDING = "all trials are over: stopping the engine, writing the results to MLflow"
"""What a run does after its last trial."""


@app.command()
def run(
    file: File,
    runs: Runs = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    profile: Profile = "quick",
    sets: Sets = [],
    datasets: Datasets = [],
    trials: Trials = None,
    seeds: Seeds = None,
    engine: EngineName = "ray",
    max_concurrent: MaxConcurrent = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="HOST:PORT", help="Ray cluster to use. Default: start Ray on this machine."),
    ] = None,
    grow: Annotated[
        bool,
        typer.Option("--grow", help="Ask a cluster that grows for --max-concurrent trials, however few it holds now."),
    ] = False,
    join: Annotated[
        bool,
        typer.Option("--join", help="Share the study's trials with other commands that run it in the same --runs."),
    ] = False,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage", metavar="URL", help="Optuna storage, sqlite:/// or postgresql://. Default: SQLite in --runs."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="Start only trials that are expected to end within this time, e.g. 30m, 8h or 2d.",
        ),
    ] = None,
    quiet: Quiet = False,
    imports: Imports = [],
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="Log no pictures of faces to MLflow.")] = False,
    register: Annotated[
        str | None,
        typer.Option("--register", metavar="NAME", help="At the end, register the best model under NAME in MLflow."),
    ] = None,
    when_done: Annotated[
        str | None,
        typer.Option(
            "--when-done", metavar="CMD", help="At the end, run a command that gets a summary as JSON on its stdin."
        ),
    ] = None,
) -> None:
    """Run a study, skipping finished trials. Run the same command again to resume.

    Example: hmtl-ablate run search_spaces/puzzling.yaml --budget 8h
    """
    from hmtl_ablate.checks import open_store, prepare, require_data
    from hmtl_ablate.planning.budget import parse_budget
    from hmtl_ablate.running.options import RunOptions
    from hmtl_ablate.storage import opened

    if register is not None:
        from hmtl_ablate.tracking.models import check_model_name

        check_model_name(register)
    hook = () if when_done is None else command_words(when_done)
    limit = None if budget is None else parse_budget(budget)
    options = RunOptions(engine, address, max_concurrent, not no_pictures, storage, tuple(imports), limit, grow, join)
    study = study_of(file, profile, sets, datasets, trials, seeds, imports)
    require_data(study)
    databases = tracking_uri is None or (storage is None and bool(study.searches))
    ending = Ending(study, runs, tuple(uri for uri in (tracking_uri, storage) if uri))
    log = open_store(runs) / f"{study.name}@{study.profile}.log"
    with announced(hook, ending), own_screen(log) as console, opened(runs, databases=databases, say=console.print):
        with bar(console, quiet) as progress:
            prepared = prepare(study, runs, tracking_uri, progress)
        from hmtl_ablate.running.display import LiveDisplay
        from hmtl_ablate.running.placement import placement_in_words
        from hmtl_ablate.running.run import run_study

        if not quiet:
            console.print(_headline(study), markup=False, soft_wrap=True)
            console.print(placement_in_words(study.resources), markup=False, soft_wrap=True)
        with LiveDisplay(console, quiet, starting=STARTING[engine], ending=ENDING) as display:
            ending.counted = display
            ending.summary = summary = run_study(
                study,
                packs=prepared.packs,
                store=prepared.store,
                tracking=prepared.tracking,
                progress=display,
                options=options,
            )
        page = None if quiet or summary.outcome is None else _page(study.name, runs, tracking_uri, not no_pictures)
        ending.page = page
        _conclude(summary, runs, console, quiet, page)
        if register is not None:
            from hmtl_ablate.api.registering import register_best

            model = register_best(summary.outcome, prepared.tracking, prepared.store, register)
            console.print(f"registered: {model}", markup=False, soft_wrap=True)


@app.command()
def plan(
    file: File,
    runs: Runs = DEFAULT_RUNS,
    profile: Profile = "quick",
    sets: Sets = [],
    datasets: Datasets = [],
    trials: Trials = None,
    seeds: Seeds = None,
    engine: EngineName = "ray",
    max_concurrent: MaxConcurrent = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="First train each kind of trial for some seconds, and store how fast this machine is."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")] = False,
    imports: Imports = [],
) -> None:
    """List the trials of a run, and what they cost. Nothing is trained.

    Example: hmtl-ablate plan search_spaces/puzzling.yaml --seeds 0,1,2
    """
    from hmtl_ablate.checks import estimate_study
    from hmtl_ablate.planning.show import estimate_text
    from hmtl_ablate.study import path_in_words

    study = study_of(file, profile, sets, datasets, trials, seeds, imports)
    estimate = estimate_study(study, runs, engine=engine, max_concurrent=max_concurrent)
    if calibrate:
        from hmtl_ablate.checks import calibrate_study

        calibrate_study(study, runs, engine, max_concurrent, imports, lambda line: print(line, file=sys.stderr))
        estimate = estimate_study(study, runs, engine=engine, max_concurrent=max_concurrent)
    if as_json:
        print(json.dumps(estimate.to_json(), indent=2, ensure_ascii=False))
        return
    print(_headline(study))
    for trial in estimate.trials:
        print(f"  {_planned_line(trial)}")
    for search in study.searches:
        names = ", ".join(parameter.key for parameter in search.parameters)
        arm = f" of {search.arm}:" if search.arm else ""
        print(f"  search{arm} {_total(search)} in total by {search.sampler} over {names}")
    paths = {name: design for name, design in study.designs.items() if design.kind == "path"}
    for name, design in paths.items():
        print(f"  design {name}: {path_in_words(design, study.seeds, study.metric)}")
    _print_reach(study, runs)
    least = "" if study.decide is None else "at least "
    print(
        f"trials: {least}{estimate.start} to start, {estimate.finished} already finished"
        + (f", and a search of {_total(study.search)}" if study.search else "")
        + (" for each arm" if len(study.searches) > 1 else "")
        + (f", and {len(paths)} path{'s' * (len(paths) > 1)}" if paths else "")
    )
    print()
    print(estimate_text(estimate, f"{program()} plan {file}", shutil.get_terminal_size((100, 24)).columns), end="")


def _total(search: Search) -> str:
    """What a search may spend, in words."""
    trials = None if search.trials is None else f"{search.trials} {'configurations' if search.racing > 1 else 'trials'}"
    budget = None if search.budget is None else f"{search.budget:,.0f} image passes"
    return " or ".join(part for part in (trials, budget) if part)


def _planned_line(trial: PlannedTrial) -> str:
    config = trial.config
    passes = f"{config.passes_per_image} pass{'es' if config.passes_per_image > 1 else ''} per image"
    probed = config.probe.kind != "none"
    epochs = f"{config.training.epochs} epoch{'s' if config.training.epochs > 1 else ''}"
    what = f"{config.probe.kind} probe" if probed else f"{epochs}, {passes}"
    return f"{trial.status:5}  {'stage ' if trial.stage else ''}{trial.variant} · seed {trial.seed}: {what}"


def _print_reach(study: Study, runs: Path) -> None:
    """What seeds until decided can decide."""
    if study.decide is not None:
        from hmtl_ablate.api.reach import reach_lines

        for line in reach_lines(study, runs):
            print(f"  {line}")


def _page(study: str, runs: Path, tracking_uri: str | None, pictures: bool) -> Path:
    """Writes the study's report as a page into the store."""
    from hmtl_ablate.api import studies
    from hmtl_ablate.storage.files import write_atomically

    page = runs / f"{study}.html"
    text = studies.report(runs, "html", study=study, tracking_uri=tracking_uri, pictures=pictures)
    write_atomically(page, text.encode())
    return page


def _conclude(summary: RunSummary, runs: Path, console: Console, quiet: bool, page: Path | None) -> None:
    stopped = summary.interrupted or summary.left is not None
    if summary.outcome is not None and not stopped and not quiet:
        console.print()
        for sentence in summary.outcome.sentences:
            console.print(sentence, markup=False)
        console.print()
        console.print(summary.outcome.table_text(console.width), markup=False, soft_wrap=True)
    parts = [f"trials: {summary.done} trained", f"{summary.skipped} finished before"]
    if summary.pruned:
        parts.append(f"{summary.pruned} stopped early")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed")
    from hmtl_ablate.storage import address_of

    console.print(", ".join(parts) + f" · store: {address_of(runs)}", markup=False, soft_wrap=True)
    if page is not None:
        console.print(f"report: {page}", markup=False, soft_wrap=True)
    if summary.left:
        console.print(summary.left.sentence, markup=False, soft_wrap=True)
        raise typer.Exit(130)
    if summary.interrupted:
        console.print("stopped; run the same command again to resume", markup=False)
        raise typer.Exit(130)
    if summary.failed:
        raise typer.Exit(1)
    command, where = program(), "" if runs == DEFAULT_RUNS else f" --runs {shlex.quote(address_of(runs))}"
    console.print(f"next: {command} report{where}, {command} ui{where}", markup=False, soft_wrap=True)


def _headline(study: Study) -> str:
    return f"{study.name} ({study.profile})" + (f": {study.question}" if study.question else "")
