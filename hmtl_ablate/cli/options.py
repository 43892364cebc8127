"""Arguments and options that several commands take, and what their texts mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hmtl_ablate.cli import completing
from hmtl_ablate.errors import HmtlError
from hmtl_ablate.running.options import Engine

if TYPE_CHECKING:
    from hmtl_ablate.config import DataConfig
    from hmtl_ablate.study import Study

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A study file, e.g. search_spaces/puzzling.yaml.",
        autocompletion=completing.study_files,
    ),
]


def _store(text: str) -> Path:
    """The folder of `--runs`; of an address the local copy, which is brought up to date."""
    from hmtl_ablate.storage import store_folder

    completing = any(name.startswith("_") and name.endswith("_COMPLETE") for name in os.environ)
    return Path(text) if completing else store_folder(text)  # the shell waits for the end of a word


Runs = Annotated[
    Path,
    typer.Option(
        "--runs",
        metavar="DIR",
        parser=_store,
        help="The store: trials, packs and databases. A folder, or an address such as s3://BUCKET/PREFIX.",
    ),
]
TrackingUri = Annotated[
    str | None, typer.Option("--tracking-uri", metavar="URI", help="MLflow tracking store. Default: SQLite in --runs.")
]
Profile = Annotated[
    str,
    typer.Option(
        "--profile", metavar="NAME", help="Profile of the study: its scale.", autocompletion=completing.profiles
    ),
]
Sets = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override an option everywhere in the study, e.g. training.epochs=5. Repeatable.",
        autocompletion=completing.settings,
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
Trials = Annotated[
    int | None,
    typer.Option("--trials", metavar="N", help="Number of configurations that the search draws, for each arm."),
]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="0,1,2", help="Seeds of the variants.")]
Imports = Annotated[
    list[str],
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import a module that registers backbones, tasks, datasets or formats. Repeatable.",
        autocompletion=completing.modules,
    ),
]
EngineName = Annotated[
    Engine, typer.Option("--engine", help="ray: in parallel, also on a cluster. local: one by one in this process.")
]
MaxConcurrent = Annotated[
    int | None,
    typer.Option("--max-concurrent", metavar="N", min=1, help="Trials to run at once. Default: as many as fit."),
]
TrialName = Annotated[
    str,
    typer.Argument(
        metavar="TRIAL",
        help="A trial's id or its first digits, STUDY/VARIANT/SEED, best:STUDY, or a trial's folder.",
        autocompletion=completing.trials,
    ),
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


def study_of(
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


def arm_names(given: Sequence[str]) -> dict[str, str]:
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


def dataset_of(text: str, size: int, sets: Sequence[str]) -> tuple[DataConfig, Path | None]:
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
