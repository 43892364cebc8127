"""The commands; thin: parse, call, print. Heavy imports wait until a command needs them."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmtl_ablate import __version__
from hmtl_ablate.errors import DataError, HmtlError
from hmtl_ablate.report.formats import check_format, format_names

if TYPE_CHECKING:
    from rich.console import Console

    from hmtl_ablate.config import DataConfig, TrialConfig
    from hmtl_ablate.data.pack import Manifest
    from hmtl_ablate.running.conductor import Packs, Summary
    from hmtl_ablate.study import Study

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
data_app = typer.Typer(help="Look at datasets and pack them, apart from a run.", no_args_is_help=True)
app.add_typer(data_app, name="data")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A study file, e.g. search_spaces/puzzling.yaml.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="The store: trials, packs, databases.")]
TrackingUri = Annotated[
    str | None, typer.Option("--tracking-uri", metavar="URI", help="MLflow store; SQLite in the store when left out.")
]
Profile = Annotated[str, typer.Option("--profile", metavar="NAME", help="Scale of the study.")]
Sets = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change an option, e.g. training.epochs=5; repeatable, the last word."
    ),
]
Datasets = Annotated[
    list[str],
    typer.Option(
        "--data", metavar="NAME=PATH", help="Where a dataset lies; another one than the study's takes its place."
    ),
]
Trials = Annotated[int | None, typer.Option("--trials", metavar="N", help="Total of a search's trials.")]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="0,1,2", help="Seeds of the variants.")]
Imports = Annotated[
    list[str],
    typer.Option(
        "--import", metavar="MODULE", help="Import a module that registers a backbone, pretext task or dataset."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print failures and the summary only.")]
DEFAULT_RUNS = Path("runs")
_NETWORKS = ("model.backbone", "pretext.inpainting.perceptual")
"""Options that a search may draw and that name a network."""


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
    max_concurrent: Annotated[
        int | None,
        typer.Option("--max-concurrent", metavar="N", min=1, help="Trials at once; as many as fit when left out."),
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", metavar="HOST:PORT", help="A Ray cluster; this machine when left out.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", metavar="URL", help="Optuna's database (sqlite:/// or postgresql://).")
    ] = None,
    quiet: Quiet = False,
    imports: Imports = [],
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="No face leaves the trial's folder for MLflow.")
    ] = False,
) -> None:
    """Train what a study declares and the store lacks. The same command again goes on after any interruption."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False)  # the real stream: Ray's own prints are muted
    study = _study(file, profile, sets, datasets, trials, seeds, imports, needs_data=True)
    store = _store(runs)
    _check_networks(study)
    with console.status("starting") if console.is_terminal else _nothing():
        from hmtl_ablate.tracking import open_tracking

        tracking = open_tracking(tracking_uri, store)
    packs = _packs(study, store, console, quiet)
    _check_labels(study, packs)
    from hmtl_ablate.running.progress import Progress
    from hmtl_ablate.running.run import run_study

    if not quiet:
        console.print(f"{study.name} ({study.profile}): {study.question}", markup=False, soft_wrap=True)
        console.print(_device_line(), markup=False)
    with Progress(console, 0, quiet) as progress:
        summary = run_study(
            study,
            packs=packs,
            store=store,
            tracking=tracking,
            progress=progress,
            address=address,
            max_concurrent=max_concurrent,
            pictures=not no_pictures,
            storage=storage,
            imports=tuple(imports),
        )
    _conclude(summary, runs, console)


@app.command()
def plan(
    file: File,
    runs: Runs = DEFAULT_RUNS,
    profile: Profile = "quick",
    sets: Sets = [],
    datasets: Datasets = [],
    trials: Trials = None,
    seeds: Seeds = None,
    imports: Imports = [],
) -> None:
    """List the trials that a run would start, and those it would skip."""
    study = _study(file, profile, sets, datasets, trials, seeds, imports, needs_data=False)
    from hmtl_ablate.study import missing_data, needed

    finished = _finished(runs)
    counts = {"start": 0, "skip": 0}
    print(f"{study.name} ({study.profile}): {study.question}")
    for variant, seed, config in needed(study):
        word = "skip" if _known(study, config, finished) else "start"
        counts[word] += 1
        passes = f"{config.passes_per_image} pass{'es' if config.passes_per_image > 1 else ''} an image"
        probed = config.probe.kind != "none"
        what = f"{config.probe.kind} probe" if probed else f"{config.training.epochs} epochs, {passes}"
        print(f"  {word:5}  {'stage ' if variant.stage else ''}{variant.name} · seed {seed}: {what}")
    if study.search is not None:
        names = ", ".join(parameter.key for parameter in study.search.parameters)
        print(f"  search {study.search.trials} trials in all by {study.search.sampler} over {names}")
    print(
        f"trials: {counts['start']} to start, {counts['skip']} finished already"
        + (f", and a search of {study.search.trials}" if study.search else "")
    )
    for line in missing_data(study):
        print(line)


@app.command()
def report(
    runs: Runs = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    study: Annotated[str | None, typer.Option("--study", metavar="NAME", help="One study only.")] = None,
    form: Annotated[
        str, typer.Option("--format", metavar="|".join(format_names()), help="How to print it.")
    ] = "terminal",
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write it there.")] = None,
) -> None:
    """The paper's claims beside what was measured, and one table a study."""
    from hmtl_ablate.report.render import build_report, render
    from hmtl_ablate.report.results import load_results

    check_format(form)
    text = render(build_report(load_results(tracking_uri, runs), study), form)
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
    """Browse every run in MLflow, on this machine only. Starting takes 16 to 30 s; Ctrl-C ends it."""
    from hmtl_ablate.tracking import serve_ui

    print("starting MLflow, which takes 16 to 30 s …", flush=True)
    serve_ui(tracking_uri, runs, port, lambda address: print(f"MLflow: {address}   (Ctrl-C ends it)", flush=True))


@app.command("import")
def import_(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A trial's folder, a folder of them, or another store.")
    ],
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Take in trials that were trained elsewhere; the next run of their study counts them."""
    from hmtl_ablate.training.folder import import_trials

    done = import_trials(folder, _store(runs) / "trials")
    for path, why in done.refused:
        print(f"left out {path}: {why}", file=sys.stderr)
    print(
        f"trials: {len(done.taken)} taken in, {len(done.known)} finished here before, {len(done.refused)} left out"
        f" · store: {runs}"
    )
    if done.refused:
        raise typer.Exit(2)


@app.command()
def schema() -> None:
    """Print the JSON Schema of study files, for editors."""
    from hmtl_ablate.study import schema_text

    sys.stdout.write(schema_text())


@data_app.command("pack")
def data_pack(
    dataset: Annotated[str, typer.Argument(metavar="NAME=PATH", help="e.g. ferplus=/data/FERPlus")],
    size: Annotated[int, typer.Option("--size", min=16, max=2048, help="Side in pixels.")] = 48,
    runs: Runs = DEFAULT_RUNS,
    quiet: Quiet = False,
    imports: Imports = [],
) -> None:
    """Decode and resize a dataset once, into the store."""
    from rich.console import Console

    _import(imports)
    from hmtl_ablate.data.pack import open_pack

    config, path = _dataset(dataset, size)
    with _bar(Console(stderr=True), quiet) as progress:
        pack = open_pack(config, path, _store(runs), progress)
    _describe(pack.manifest)
    print(f"pack: {pack.folder}")


@data_app.command("check")
def data_check(
    dataset: Annotated[str, typer.Argument(metavar="NAME=PATH", help="e.g. ferplus=/data/FERPlus")],
    size: Annotated[int, typer.Option("--size", min=16, max=2048, help="Side in pixels.")] = 48,
    quiet: Quiet = False,
    imports: Imports = [],
) -> None:
    """Read every file of a dataset and say what is in it; writes nothing."""
    from rich.console import Console

    _import(imports)
    from hmtl_ablate.data.pack import check_data, refuse_faults

    config, path = _dataset(dataset, size)
    with _bar(Console(stderr=True), quiet) as progress:
        manifest = check_data(config, path, progress)
    _describe(manifest)
    refuse_faults(manifest)


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


def main() -> None:
    """Entry point: an error a user can act on is one message and exit code 2; a failed trial is exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")  # ± and − in a terminal of another encoding
    try:
        app()
    except HmtlError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:  # a defect of ours: the user gets one line, and the traceback a file
        with tempfile.NamedTemporaryFile("w", prefix="hmtl-ablate-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
        print(
            f"hmtl-ablate has a defect: {type(error).__name__}: {error}. Please report it with {file.name}",
            file=sys.stderr,
        )
        sys.exit(70)


# ------------------------------------------------------------------------------------------------------------------


def _import(modules: list[str]) -> None:
    sys.path.insert(0, os.getcwd())
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise HmtlError(f"--import {name}: {error}; name a module that Python finds from here") from error


def _study(
    file: Path,
    profile: str,
    sets: list[str],
    datasets: list[str],
    trials: int | None,
    seeds: str | None,
    imports: list[str],
    needs_data: bool,
) -> Study:
    _import(imports)
    from hmtl_ablate.study import load_study, missing_data

    numbers = None
    if seeds is not None:
        try:
            numbers = [int(part) for part in seeds.split(",")]
        except ValueError:
            raise HmtlError(f"--seeds {seeds}: write whole numbers with commas, e.g. --seeds 0,1,2") from None
    study = load_study(file, profile=profile, sets=sets, datasets=datasets, trials=trials, seeds=numbers)
    missing = missing_data(study) if needs_data else []
    if missing:
        raise DataError("\n".join(missing))
    return study


def _store(runs: Path) -> Path:
    """The store, made and shown to be writable."""
    from hmtl_ablate.errors import StoreError

    try:
        runs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runs):
            pass
    except OSError as error:
        raise StoreError(f"--runs {runs}: can't be written: {error.strerror}; choose a folder that can") from error
    return runs


def _check_networks(study: Study) -> None:
    from hmtl_ablate.config import parse_config, trial_id
    from hmtl_ablate.errors import ConfigError
    from hmtl_ablate.study import combinations, resolved
    from hmtl_ablate.weights import check_network, check_source

    configs = [variant.config(0) for variant in (*study.stages, *study.variants)]
    if study.search is not None:
        named = tuple(parameter for parameter in study.search.parameters if parameter.key in _NETWORKS)
        for values in combinations(named):
            with suppress(ConfigError):  # possible beside other drawn values only
                configs.append(parse_config(resolved(study.search.base, values)))
    sources = set()
    for config in configs:
        check_network(config.model.backbone, ("model", "backbone"))
        for name, options in config.pretext.items():
            if getattr(options, "perceptual", None) is not None:
                check_network(getattr(options, "perceptual", ""), ("pretext", name, "perceptual"))
        trial_id(config, "")  # reads the files of weights, and says so when one is not there
        for path, source in config.weight_sources.items():
            own = path[0] == "model"
            sources.add((config.model.backbone if own else getattr(config.pretext[path[1]], "perceptual", ""), source))
    for network, source in sorted(sources):
        check_source(network, source)


def _packs(study: Study, store: Path, console: Console, quiet: bool) -> Packs:
    """The pack of every config that the study may train."""
    from hmtl_ablate.data.pack import open_pack
    from hmtl_ablate.running.conductor import Packs
    from hmtl_ablate.study import data_configs

    opened = {}
    for data in data_configs(study):
        if Packs.key(data) not in opened:
            with _bar(console, quiet) as progress:
                opened[Packs.key(data)] = open_pack(data, study.datasets.get(data.name), store, progress)
    return Packs(opened)


def _check_labels(study: Study, packs: Packs) -> None:
    """Every dataset has the labels, classes and subjects that the trials on it ask for, or DataError."""
    from hmtl_ablate.data.splits import folds, labels_of, present, split

    for variant in (*study.stages, *study.variants):
        config = variant.config(study.seeds[0])
        pack = packs.of(config)
        if config.probe.folds:
            rows = present(labels_of(pack, config.data, config.tasks[0])[0]).nonzero()[0]
            folds(pack, rows, config.probe.folds, config.data.seed)
        else:
            split(pack, config.data, config.tasks, unlabelled=not config.training.supervised)


def _finished(runs: Path) -> list[tuple[str, TrialConfig]]:
    """Ids and configs of the store's finished trials that today's code would not train otherwise."""
    from hmtl_ablate.config import NUMERICS_VERSION
    from hmtl_ablate.training.folder import TrialFolder

    found = []
    for path in sorted((runs / "trials").glob("*/result.json")):
        folder = TrialFolder(path.parent)
        result = folder.result()
        if result is not None and result.status == "finished" and result.tags.get("numerics") == str(NUMERICS_VERSION):
            found.append((path.parent.name, folder.config()))
    return found


def _known(study: Study, config: TrialConfig, finished: list[tuple[str, TrialConfig]]) -> str:
    """The id of a finished trial of this config, "" without one; the data's content is not looked at."""
    sources = {
        path: study.source(name.removeprefix("trial:"))
        for path, name in config.weight_sources.items()
        if name.startswith("trial:")
    }
    wanted = config.replaced(
        {
            path: f"trial:{_known(study, source.config(config.seed), finished) or 'none'}"
            for path, source in sources.items()
            if source is not None
        }
    )
    return next((trial for trial, other in finished if other == wanted), "")


def _device_line() -> str:
    from hmtl_ablate.training.device import select_device

    return f"this machine: {select_device('auto').reason}"


def _conclude(summary: Summary, runs: Path, console: Console) -> None:
    parts = [f"trials: {summary.done} trained", f"{summary.skipped} finished before"]
    if summary.pruned:
        parts.append(f"{summary.pruned} stopped early")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed")
    console.print(", ".join(parts) + f" · store: {runs}", markup=False, soft_wrap=True)
    if summary.interrupted:
        console.print("stopped; the same command goes on from here", markup=False)
        raise typer.Exit(130)
    if summary.failed:
        raise typer.Exit(1)
    if runs == DEFAULT_RUNS:
        console.print("next: hmtl-ablate report, hmtl-ablate ui", markup=False)


def _dataset(text: str, size: int) -> tuple[DataConfig, Path | None]:
    from hmtl_ablate.config import DataConfig

    name, _, path = text.partition("=")
    return DataConfig(name=name, size=size), Path(path) if path else None


def _describe(manifest: Manifest) -> None:
    print(
        f"{manifest.name}: {manifest.count} images, {manifest.stored} px, "
        f"{'grey' if manifest.channels == 1 else 'colour'}, fingerprint {manifest.fingerprint}"
    )
    from hmtl_ablate.data.formats import FORMATS

    form = FORMATS[manifest.name]
    if form.page:
        print(f"  {form.page} ({form.licence})")
    for task, splits in manifest.histogram.items():
        for split, counts in splits.items():
            print(f"  {task}, {split}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    for reason, count in manifest.left_out.items():
        print(f"  left out, {reason}: {count}")
    print(f"  unusable files: {len(manifest.dropped)}; dropped duplicates: {len(manifest.duplicates)}")
    for dropped in manifest.dropped[:20]:
        print(f"    {dropped.file}: {dropped.reason}")
    for duplicate in manifest.duplicates[:5]:
        print(f"    {duplicate.file} = {duplicate.of}: {duplicate.reason}")
    if len(manifest.duplicates) > 5:
        print("    … all of them are in the pack's manifest.json")


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _bar(console: Console, quiet: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """A progress callback (done, total, what) that draws a bar on a terminal."""
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks = {}

        def show(done: int, total: int, what: str) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total or None)
            bar.update(tasks[what], completed=done, total=total or None)

        yield show
