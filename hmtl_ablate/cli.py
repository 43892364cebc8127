"""The commands; thin: parse, call, print. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hmtl_ablate import __version__
from hmtl_ablate.errors import HmtlError, StoreError
from hmtl_ablate.reporting.formats import format_names
from hmtl_ablate.running.options import Engine

if TYPE_CHECKING:
    from rich.console import Console

    from hmtl_ablate.config import DataConfig
    from hmtl_ablate.planning.estimate import PlannedTrial
    from hmtl_ablate.running.summary import RunSummary
    from hmtl_ablate.study import Search, Study


class _Commands(TyperGroup):
    """Ends a command on Ctrl-C, or when nobody reads its output any more, before typer does so without a word."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        with _ended():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        with _ended():
            return super().invoke(ctx)


@contextmanager
def _ended() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        raise typer.Exit(130) from None
    except BrokenPipeError:
        _drop_output()
        raise typer.Exit(141) from None


def _drop_output() -> None:
    """Send the rest of stdout nowhere: Python flushes it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Check or pack a dataset without running a study.", no_args_is_help=True)
app.add_typer(data_app, name="data")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A study file, e.g. search_spaces/puzzling.yaml.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The store: trials, packs and databases.")]
TrackingUri = Annotated[
    str | None, typer.Option("--tracking-uri", metavar="URI", help="MLflow tracking store. Default: SQLite in --runs.")
]
Profile = Annotated[str, typer.Option("--profile", metavar="NAME", help="Profile of the study: its scale.")]
Sets = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override an option everywhere in the study, e.g. training.epochs=5. Repeatable.",
    ),
]
Datasets = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="NAME=PATH",
        help="Path of a dataset. One the study does not name replaces the study's own. Repeatable.",
    ),
]
Trials = Annotated[int | None, typer.Option("--trials", metavar="N", help="Total number of search trials.")]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="0,1,2", help="Seeds of the variants.")]
Imports = Annotated[
    list[str],
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import a module that registers backbones, tasks or datasets. Repeatable.",
    ),
]
EngineName = Annotated[
    Engine, typer.Option("--engine", help="ray: in parallel, also on a cluster. local: one by one in this process.")
]
MaxConcurrent = Annotated[
    int | None,
    typer.Option("--max-concurrent", metavar="N", min=1, help="Trials to run at once. Default: as many as fit."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only failures and the summary.")]
NamedPath = Annotated[str, typer.Argument(metavar="NAME=PATH", help="e.g. ferplus=/data/FERPlus")]
Size = Annotated[int, typer.Option("--size", min=16, max=2048, help="Side of the stored images in pixels.")]
DataSets = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set an option that changes a pack's content, e.g. data.votes=plurality. Repeatable.",
    ),
]
DEFAULT_RUNS = Path("runs")
LOG_LIMIT = 2**20
"""Bytes of a run's log beyond which the next run starts a new one."""
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
) -> None:
    """Run a study, skipping finished trials. Run the same command again to resume."""
    from hmtl_ablate.checks import open_store, prepare, require_data
    from hmtl_ablate.planning.budget import parse_budget
    from hmtl_ablate.running.options import RunOptions

    limit = None if budget is None else parse_budget(budget)
    options = RunOptions(engine, address, max_concurrent, not no_pictures, storage, tuple(imports), limit)
    study = _study(file, profile, sets, datasets, trials, seeds, imports)
    require_data(study)
    with _own_screen(open_store(runs) / f"{study.name}@{study.profile}.log") as console:
        with _bar(console, quiet) as progress:
            prepared = prepare(study, runs, tracking_uri, progress)
        from hmtl_ablate.running.display import LiveDisplay
        from hmtl_ablate.running.placement import placement_in_words
        from hmtl_ablate.running.run import run_study

        if not quiet:
            console.print(_headline(study), markup=False, soft_wrap=True)
            console.print(placement_in_words(study.resources), markup=False, soft_wrap=True)
        with LiveDisplay(console, quiet, starting=STARTING[engine], ending=ENDING) as display:
            summary = run_study(
                study,
                packs=prepared.packs,
                store=prepared.store,
                tracking=prepared.tracking,
                progress=display,
                options=options,
            )
        page = None if quiet or summary.outcome is None else _page(study.name, runs, tracking_uri, not no_pictures)
        _conclude(summary, runs, console, quiet, page)


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
    """List the trials that a run would start or skip, and what they cost."""
    from hmtl_ablate.checks import estimate_study
    from hmtl_ablate.planning.show import estimate_text
    from hmtl_ablate.study import path_in_words

    study = _study(file, profile, sets, datasets, trials, seeds, imports)
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
    print(
        f"trials: {estimate.start} to start, {estimate.finished} already finished"
        + (f", and a search of {_total(study.search)}" if study.search else "")
        + (" for each arm" if len(study.searches) > 1 else "")
        + (f", and {len(paths)} path{'s' * (len(paths) > 1)}" if paths else "")
    )
    print()
    print(estimate_text(estimate, f"{_program()} plan {file}", shutil.get_terminal_size((100, 24)).columns), end="")


def _total(search: Search) -> str:
    """What a search may spend, in words."""
    trials = None if search.trials is None else f"{search.trials} {'configurations' if search.racing > 1 else 'trials'}"
    budget = None if search.budget is None else f"{search.budget:,.0f} image passes"
    return " or ".join(part for part in (trials, budget) if part)


@app.command()
def report(
    runs: Runs = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    study: Annotated[str | None, typer.Option("--study", metavar="NAME", help="Report one study only.")] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="|".join(format_names()), help="Output format.")
    ] = "terminal",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write to a file instead of the terminal.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns", metavar="KEYS", help="Columns of the studies' tables, e.g. variant,mean,difference,seconds."
        ),
    ] = None,
    metrics: Annotated[
        list[str],
        typer.Option("--metric", metavar="NAME", help="One more column, e.g. test/macro_f1. Repeatable."),
    ] = [],
    recall: Annotated[bool, typer.Option("--recall", help="Add a table of the recall of each class.")] = False,
    rename: Annotated[
        list[str],
        typer.Option("--rename", metavar="ARM=NAME", help="Name of an arm in the report. Repeatable."),
    ] = [],
    claims: Annotated[bool, typer.Option("--claims", help="Show the table of the paper's claims in any case.")] = False,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Also write each figure as PNG and SVG.")
    ] = None,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="html: leave puzzled and rebuilt faces out.")
    ] = False,
) -> None:
    """Print one table per study, and the paper's claims compared with what was measured."""
    from hmtl_ablate.api import studies

    text = studies.report(
        runs,
        form,
        study=study,
        tracking_uri=tracking_uri,
        columns=[] if columns is None else [key.strip() for key in columns.split(",")],
        metrics=metrics,
        rename=_names(rename),
        claims=claims,
        recall=recall,
        width=shutil.get_terminal_size((100, 24)).columns if output is None else 100,
        pictures=not no_pictures,
    )
    drawn = (
        []
        if figures is None
        else studies.figures(runs, figures, study=study, tracking_uri=tracking_uri, rename=_names(rename))
    )
    for path in drawn:
        print(f"figure: {path}", file=sys.stderr)
    if output is None:
        print(text)
        return
    try:
        output.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
    except OSError as error:
        raise HmtlError(f"--output {output}: can't be written: {error.strerror}") from error
    print(f"written to {output}")


@app.command()
def ui(
    runs: Runs = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Browse every run in MLflow, on this machine only. Starting takes 16 to 30 s; press Ctrl-C to stop."""
    from hmtl_ablate.tracking import serve_ui

    print("starting MLflow, which takes 16 to 30 s …", flush=True)
    serve_ui(tracking_uri, runs, port, lambda address: print(f"MLflow: {address}   (Ctrl-C to stop)", flush=True))


@app.command("import")
def import_(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of one trial, a folder of such folders, or a store.")
    ],
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Copy trials that were trained elsewhere into the store; the next run of their study counts them."""
    from hmtl_ablate.checks import open_store
    from hmtl_ablate.training.folder import import_trials

    done = import_trials(folder, open_store(runs) / "trials")
    for path, why in done.refused:
        print(f"not imported: {path}: {why}", file=sys.stderr)
    print(
        f"trials: {len(done.taken)} imported, {len(done.known)} already finished here, {len(done.refused)} refused"
        f" · store: {runs}"
    )
    if done.refused:
        raise typer.Exit(2)


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a reference for people to read instead.")] = False,
) -> None:
    """Print the JSON Schema of study files, for editors."""
    from hmtl_ablate.study import schema_text, study_reference

    sys.stdout.write(study_reference() if markdown else schema_text())


@data_app.command("pack")
def data_pack(
    dataset: NamedPath,
    size: Size = 48,
    sets: DataSets = [],
    runs: Runs = DEFAULT_RUNS,
    quiet: Quiet = False,
    imports: Imports = [],
) -> None:
    """Decode and resize a dataset into the store, once."""
    from rich.console import Console

    from hmtl_ablate.checks import import_modules, open_store
    from hmtl_ablate.data.build import open_pack
    from hmtl_ablate.data.describe import describe

    import_modules(imports)
    config, path = _dataset(dataset, size, sets)
    with _bar(Console(stderr=True), quiet) as progress:
        pack = open_pack(config, path, open_store(runs), progress)
    print(describe(pack.manifest))
    print(f"pack: {pack.folder}")


@data_app.command("check")
def data_check(
    dataset: NamedPath,
    size: Size = 48,
    sets: DataSets = [],
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="FILE", help="Draw a few faces of each class, as a picture.")
    ] = None,
    quiet: Quiet = False,
    imports: Imports = [],
) -> None:
    """Read every file of a dataset and print what is in it, what is broken, and what was not read."""
    from rich.console import Console

    from hmtl_ablate.checks import import_modules
    from hmtl_ablate.data.build import check_data, refuse_unusable
    from hmtl_ablate.data.describe import describe

    import_modules(imports)
    config, path = _dataset(dataset, size, sets)
    with _bar(Console(stderr=True), quiet) as progress:
        manifest = check_data(config, path, progress, sheet=sheet)
    print(describe(manifest))
    refuse_unusable(manifest)
    if sheet is not None:
        print(f"sheet: {sheet}")


def _version(asked: bool) -> None:
    if asked:
        print(f"hmtl-ablate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Does a self-supervised auxiliary task really help a face model, by how much, and at what cost?"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; argv: the words of the command line, those of the process when None.

    0: done; 1: a trial failed; 2: an error the user can act on, printed as one message; 70: a defect of this package;
    75: the cluster or a database was lost, and the same command resumes; 130: interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")  # ± and − in a terminal of another encoding
    try:
        app(args=argv, prog_name="hmtl-ablate")
    except SystemExit as end:  # typer always ends with one
        return end.code if isinstance(end.code, int) else 0
    except HmtlError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except Exception as error:  # a defect of ours: the user gets one line, and the traceback a file
        with tempfile.NamedTemporaryFile("w", prefix="hmtl-ablate-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
        print(
            f"hmtl-ablate has a defect: {type(error).__name__}: {error}. Please report it with {file.name}",
            file=sys.stderr,
        )
        return 70
    return 0


# ------------------------------------------------------------------------------------------------------------------


def _study(
    file: Path,
    profile: str,
    sets: list[str],
    datasets: list[str],
    trials: int | None,
    seeds: str | None,
    imports: list[str],
) -> Study:
    from hmtl_ablate.checks import import_modules
    from hmtl_ablate.study import load_study

    import_modules(imports)
    return load_study(
        file,
        profile=profile,
        sets=sets,
        datasets=datasets,
        trials=trials,
        seeds=None if seeds is None else _seeds(seeds),
    )


def _names(given: Sequence[str]) -> dict[str, str]:
    pairs = [text.rpartition("=") for text in given]  # an arm's name may have an = in it
    for text, (arm, _, name) in zip(given, pairs, strict=True):
        if not arm or not name.strip():
            raise HmtlError(f'--rename {text}: write ARM=NAME, e.g. --rename "SL + puzzling=HMTL (puzzling)"')
    return {arm: name for arm, _, name in pairs}


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise HmtlError(f"--seeds {text}: write whole numbers with commas, e.g. --seeds 0,1,2") from None


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
    from hmtl_ablate.training.folder import write_atomically

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
    console.print(", ".join(parts) + f" · store: {runs}", markup=False, soft_wrap=True)
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
    program, where = _program(), "" if runs == DEFAULT_RUNS else f" --runs {shlex.quote(str(runs))}"
    console.print(f"next: {program} report{where}, {program} ui{where}", markup=False, soft_wrap=True)


def _dataset(text: str, size: int, sets: Sequence[str]) -> tuple[DataConfig, Path | None]:
    from hmtl_ablate.config import PACK_OPTIONS, parse_config

    name, _, path = text.partition("=")
    if not name.strip() or "/" in name:
        raise HmtlError(f"{text}: write NAME=PATH, the name of a dataset first, e.g. ferplus={path or name}")
    data: dict[str, Any] = {"name": name, "size": size}
    for given in sets:
        key, equals, value = given.partition("=")
        option = key.strip().removeprefix("data.")
        if option not in PACK_OPTIONS or not equals:
            known = ", ".join(f"data.{option}" for option in PACK_OPTIONS)
            raise HmtlError(f"--set {given}: write KEY=VALUE with one of the keys {known}")
        data[option] = value.strip()
    return parse_config({"data": data}).data, Path(path) if path else None


def _program() -> str:
    """How to call this program: by its name where the shell finds it, else as it was called now."""
    if shutil.which("hmtl-ablate"):
        return "hmtl-ablate"
    return sys.argv[0] if sys.argv[0].endswith("hmtl-ablate") else f"{sys.executable} -m hmtl_ablate"


def _headline(study: Study) -> str:
    return f"{study.name} ({study.profile})" + (f": {study.question}" if study.question else "")


@contextmanager
def _own_screen(log: Path) -> Iterator[Console]:
    """A console on stdout that nobody else can write to: what Ray, MLflow, their log handlers and libraries in C write
    to this process's stdout and stderr, and its children's, goes to `log`.

    The file descriptors are exchanged, not `sys.stdout`: a handler holds the stream that it was made with, and C
    writes to the descriptor.
    """
    from rich.console import Console

    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    fresh = not log.exists() or log.stat().st_size > LOG_LIMIT
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        try:
            file = log.open("wb" if fresh else "ab")
        except OSError as error:
            raise StoreError(f"{log}: the run's log can't be written: {error.strerror}; remove it") from error
        with file:
            for number in kept:
                os.dup2(file.fileno(), number)
        screen = os.fdopen(os.dup(kept[1]), "w", encoding="utf-8", errors="replace")
        with screen if _is_process_output(sys.stdout) else nullcontext(sys.stdout) as output:
            yield Console(file=output, highlight=False)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, original in kept.items():
            os.dup2(original, number)
            os.close(original)


def _is_process_output(stream: Any) -> bool:
    """Whether it writes to the descriptor of stdout; a test's or a notebook's does not."""
    try:
        return bool(stream.fileno() == 1)
    except (OSError, ValueError):
        return False


@contextmanager
def _bar(console: Console, quiet: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """A progress callback (done, total, what) that draws a bar on a terminal."""
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        row = bar.add_task("loading libraries", total=None)

        def show(done: int, total: int, what: str) -> None:
            bar.update(row, description=what, completed=done, total=total or None)

        yield show
