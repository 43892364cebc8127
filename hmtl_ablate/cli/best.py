"""`best`."""

from __future__ import annotations

from typing import Annotated

import typer

from hmtl_ablate.cli.options import DEFAULT_RUNS, Imports, Runs, TrackingUri
from hmtl_ablate.cli.root import app


@app.command()
def best(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study, or NAME@PROFILE.")],
    runs: Runs = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    imports: Imports = [],
) -> None:
    """Show the best trial of a study, which best:STUDY names, and its configuration as YAML to paste into a study.

    Example: hmtl-ablate best puzzling
    """
    from hmtl_ablate.checks import import_modules
    from hmtl_ablate.reporting.naming import best_text
    from hmtl_ablate.reporting.results import load_results

    import_modules(imports)
    print(best_text(study, load_results(tracking_uri, runs)), end="")
