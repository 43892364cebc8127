"""`import`: what changes a store without training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hmtl_ablate.cli.options import DEFAULT_RUNS, Imports, Runs
from hmtl_ablate.cli.root import app


@app.command("import")
def import_(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The folder of one trial, a folder of such folders, a store, or a bundle's file."
        ),
    ],
    runs: Runs = DEFAULT_RUNS,
    imports: Imports = [],
) -> None:
    """Copy trials that were trained elsewhere into the store. The next run of their study counts them.

    Example: hmtl-ablate import gpu-machine/runs
    """
    from hmtl_ablate.checks import import_modules, open_store
    from hmtl_ablate.storage import address_of, publish
    from hmtl_ablate.training.folder import import_trials

    import_modules(imports)
    if folder.is_file():
        from hmtl_ablate.api.bundles import import_bundle

        done = import_bundle(folder, runs)
    else:
        done = import_trials(folder, open_store(runs) / "trials")
    publish(runs, *(f"trials/{name}" for name in done.taken))
    for path, why in done.refused:
        print(f"not imported: {path}: {'; '.join(why.splitlines())}", file=sys.stderr)
    print(
        f"trials: {len(done.taken)} imported, {len(done.known)} already finished here, {len(done.refused)} refused"
        f" · store: {address_of(runs)}"
    )
    if done.refused:
        raise typer.Exit(2)
