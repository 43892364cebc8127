"""`bundle` and `verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hmtl_ablate.cli import completing
from hmtl_ablate.cli.options import DEFAULT_RUNS, Datasets, Imports, Runs, TrackingUri
from hmtl_ablate.cli.root import app
from hmtl_ablate.errors import HmtlError

SHOWN = 50
"""Differences that are printed."""


@app.command()
def bundle(
    study: Annotated[
        str,
        typer.Argument(metavar="STUDY", help="Name of a study in the store.", autocompletion=completing.studies),
    ],
    runs: Runs = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="The file. Default: STUDY.hmtl.zip.")
    ] = None,
    imports: Imports = [],
) -> None:
    """Write a study as one file that others can verify. It has tables, curves, configs and
    predictions; no weights, no images.

    Example: hmtl-ablate bundle puzzling
    """
    from hmtl_ablate.api import bundles
    from hmtl_ablate.checks import import_modules

    import_modules(imports)
    path = bundles.bundle(study, output, store=runs, tracking_uri=tracking_uri)
    print(f"written to {path} ({path.stat().st_size / 2**20:.1f} MiB)\ncheck it: hmtl-ablate verify {path}")


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A file that `bundle` wrote.")],
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Also train one trial again, drawn at random, and compare it.")
    ] = False,
    data: Datasets = [],
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed of the draw of --retrain. Default: a random one.")
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option("--runs", metavar="DIR", help="Where --retrain packs and trains. Default: a temporary folder."),
    ] = None,
    imports: Imports = [],
) -> None:
    """Recompute every cell of a bundle's tables. It needs the predictions inside, no data and no GPU. Exit code
    1: something does not fit. Nothing in the bundle is run.

    Example: hmtl-ablate verify puzzling.hmtl.zip
    """
    from hmtl_ablate.api import bundles
    from hmtl_ablate.bundles.verifying import HONESTY

    found = bundles.verify(file, imports=imports)
    for note in found.notes:
        print(note)
    for one in found.differences[:SHOWN]:
        print(f"differs: {one}")
    if len(found.differences) > SHOWN:
        print(f"… and {len(found.differences) - SHOWN} more")
    print(found.summary)
    agrees = True
    if retrain:
        agrees = _retrain(file, data, seed, runs)
    else:
        print(HONESTY)
    if not (found.consistent and agrees):
        raise typer.Exit(1)


def _retrain(file: Path, data: list[str], seed: int | None, runs: Path | None) -> bool:
    """Train one trial again and print what came of it; whether it agrees."""
    from hmtl_ablate.api import bundles
    from hmtl_ablate.bundles.retraining import SHARE, TOLERANCE

    print("training one trial again …", file=sys.stderr, flush=True)
    done = bundles.retrain(file, data=dict(_named(text) for text in data), seed=seed, store=runs)
    how = (
        "bit for bit"
        if done.exact
        else f"within {100 * TOLERANCE:g} points, or {SHARE:.0%} of a metric that is no percentage: "
        f"this is another kind of machine ({'; '.join(done.other)})"
    )
    print(f"trained again: trial {done.trial_id} ({done.variant!r}), drawn with --seed {done.seed}; compared {how}")
    for one in done.differences:
        print(f"differs: {one}")
    print("it agrees" if done.agrees else "it does not agree")
    return done.agrees


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not name or not equals or not path:
        raise HmtlError(f"--data {text}: write NAME=PATH, e.g. --data ferplus=/data/FERPlus")
    return name, Path(path)
