"""`data pack` and `data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hmtl_ablate.cli.options import DEFAULT_RUNS, DataSets, Imports, NamedPath, Quiet, Runs, Size, dataset_of
from hmtl_ablate.cli.root import data_app
from hmtl_ablate.cli.screen import bar


@data_app.command("pack")
def data_pack(
    dataset: NamedPath,
    size: Size = 48,
    sets: DataSets = [],
    runs: Runs = DEFAULT_RUNS,
    quiet: Quiet = False,
    imports: Imports = [],
) -> None:
    """Decode and resize a dataset into the store, once.

    Example: hmtl-ablate data pack folder=faces/ --size 64
    """
    from rich.console import Console

    from hmtl_ablate.checks import import_modules, open_store
    from hmtl_ablate.data.build import open_pack
    from hmtl_ablate.data.describe import describe
    from hmtl_ablate.storage import publish

    import_modules(imports)
    config, path = dataset_of(dataset, size, sets)
    with bar(Console(stderr=True), quiet) as progress:
        pack = open_pack(config, path, open_store(runs), progress)
        publish(runs, "packs")
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
    """Read every file of a dataset and print what is in it, what is broken, and what was not read.

    Example: hmtl-ablate data check folder=faces/ --sheet faces.png
    """
    from rich.console import Console

    from hmtl_ablate.checks import import_modules
    from hmtl_ablate.data.build import check_data, refuse_unusable
    from hmtl_ablate.data.describe import describe

    import_modules(imports)
    config, path = dataset_of(dataset, size, sets)
    with bar(Console(stderr=True), quiet) as progress:
        manifest = check_data(config, path, progress, sheet=sheet)
    print(describe(manifest))
    refuse_unusable(manifest)
    if sheet is not None:
        print(f"sheet: {sheet}")
