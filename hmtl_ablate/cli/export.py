"""`export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hmtl_ablate.cli import completing
from hmtl_ablate.cli.options import DEFAULT_RUNS, Imports, Runs, TrialName
from hmtl_ablate.cli.root import app


@app.command("export")
def export(
    trial: TrialName,
    to: Annotated[
        Path,
        typer.Option(
            "--to", metavar="PATH", help="model.onnx, model.pt2, or a folder: timm's weights and a model card."
        ),
    ],
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="fp32|fp16|int8",
            help="Of an ONNX file's weights.",
            autocompletion=completing.precisions,
        ),
    ] = "fp32",
    runs: Runs = DEFAULT_RUNS,
    imports: Imports = [],
) -> None:
    """Write a trial's network for other programs. What it answers is compared with PyTorch.

    Example: hmtl-ablate export best:puzzling --to model.onnx
    """
    from hmtl_ablate.api.exporting import FACES
    from hmtl_ablate.api.exporting import export as written
    from hmtl_ablate.checks import import_modules

    import_modules(imports)
    done = written(trial, to, precision=precision, store=runs)
    print(f"{to}: {_bytes(done.size)}, {precision}")
    found = ", ".join(f"{task} {value:.2g}" for task, value in done.differences.items())
    print(f"largest difference from PyTorch on {FACES} drawn faces: {found} (tolerance {done.tolerance:g})")
    if not done.faithful:
        print(f"warning: {precision} changes what this network answers; measure it before use", file=sys.stderr)


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"
