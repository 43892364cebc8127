"""`report` and `ui`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from hmtl_ablate.cli import completing
from hmtl_ablate.cli.options import DEFAULT_RUNS, Imports, Runs, TrackingUri, arm_names
from hmtl_ablate.cli.root import app
from hmtl_ablate.cli.screen import write_output
from hmtl_ablate.reporting.formats import format_names


@app.command()
def report(
    runs: Runs = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    study: Annotated[
        str | None,
        typer.Option("--study", metavar="NAME", help="Report one study only.", autocompletion=completing.studies),
    ] = None,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="|".join(format_names()),
            help="Output format.",
            autocompletion=completing.report_formats,
        ),
    ] = "terminal",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write to a file instead of the terminal.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="KEYS", help="Columns of the studies' tables, e.g. variant,mean,seconds."),
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
    claims_file: Annotated[
        Path | None,
        typer.Option("--claims-file", metavar="FILE", help="Another paper's claims, as YAML (docs/claims.md)."),
    ] = None,
    evidence: Annotated[
        str | None,
        typer.Option(
            "--evidence",
            metavar="TASK",
            help="Report a pretext task's gains in all studies, and their mean, instead.",
            autocompletion=completing.pretext_tasks,
        ),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Also write each figure as PNG and SVG.")
    ] = None,
    no_pictures: Annotated[
        bool, typer.Option("--no-pictures", help="html: leave puzzled and rebuilt faces out.")
    ] = False,
    imports: Imports = [],
) -> None:
    """Print a table per study, and the paper's claims.

    Example: hmtl-ablate report --format html --output report.html
    """
    from hmtl_ablate.api import studies
    from hmtl_ablate.checks import import_modules

    import_modules(imports)
    # the store is read once for both
    source = runs if figures is None else studies.stored(runs, tracking_uri)
    text = studies.report(
        source,
        form,
        study=study,
        tracking_uri=tracking_uri,
        columns=[] if columns is None else [key.strip() for key in columns.split(",")],
        metrics=metrics,
        rename=arm_names(rename),
        claims=claims,
        claims_file=claims_file,
        recall=recall,
        evidence=evidence,
        width=shutil.get_terminal_size((100, 24)).columns if output is None else 100,
        pictures=not no_pictures,
    )
    drawn = (
        []
        if figures is None
        else studies.figures(
            source, figures, study=study, tracking_uri=tracking_uri, rename=arm_names(rename), evidence=evidence
        )
    )
    for path in drawn:
        print(f"figure: {path}", file=sys.stderr)
    if output is None:
        print(text)
    else:
        write_output(text, output)


@app.command()
def ui(
    runs: Runs = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Browse every run in MLflow, on this machine only. Starting takes 16 to 30 s; press Ctrl-C to stop.

    Example: hmtl-ablate ui --port 5050
    """
    from hmtl_ablate.tracking import serve_ui

    print("starting MLflow, which takes 16 to 30 s …", flush=True)
    serve_ui(tracking_uri, runs, port, lambda address: print(f"MLflow: {address}   (Ctrl-C to stop)", flush=True))
