"""`predict`."""

from __future__ import annotations

import csv
import glob
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hmtl_ablate.cli import completing
from hmtl_ablate.cli.options import DEFAULT_RUNS, Imports, Quiet, Runs
from hmtl_ablate.cli.root import app
from hmtl_ablate.cli.screen import bar, write_output
from hmtl_ablate.errors import HmtlError

if TYPE_CHECKING:
    from hmtl_ablate.api.predicting import Predicted

STDIN = "-"
"""The argument that reads paths from standard input, one per line."""


@app.command()
def predict(
    model: Annotated[
        str,
        typer.Argument(
            metavar="TRIAL|MODEL",
            help="A trial (its id, STUDY/VARIANT/SEED, best:STUDY), or what `export` wrote.",
            autocompletion=completing.trials,
        ),
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE…", help="Image files, folders, patterns such as 'a/*.png', or - for stdin."),
    ],
    form: Annotated[Literal["csv", "json"], typer.Option("--format", help="Output format.")] = "csv",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write to a file instead of the terminal.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images that the network sees at once.")] = 64,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where it runs.")] = "auto",
    runs: Runs = DEFAULT_RUNS,
    quiet: Quiet = False,
    imports: Imports = [],
) -> None:
    """Predict label, angles, or valence and arousal of faces. An image that can't be read is listed
    and left out.

    Example: hmtl-ablate predict best:puzzling faces/ --output predictions.csv
    """
    paths = image_paths(images)
    from rich.console import Console

    from hmtl_ablate.api import predicting
    from hmtl_ablate.checks import import_modules

    import_modules(imports)
    with bar(Console(stderr=True), quiet) as progress:
        found = predicting.predict(model, paths, store=runs, batch_size=batch_size, device=device, progress=progress)
    for one in found:
        if one.fault:
            print(f"not read: {one.fault}", file=sys.stderr)
    read = [one for one in found if not one.fault]
    if not read:
        raise HmtlError(f"none of the {len(found)} images can be read")
    text = _csv(read) if form == "csv" else _json(read)
    if output is None:
        sys.stdout.write(text)
    else:
        write_output(text, output)


def image_paths(given: Sequence[str]) -> list[str]:
    """The image files that arguments name, in their order. Raises HmtlError for one that names none."""
    from hmtl_ablate.data.reading import IMAGE_ENDINGS

    found: list[str] = []
    for text in given:
        if text == STDIN:
            own = [line.rstrip("\n") for line in sys.stdin if line.strip()]
        elif Path(text).is_dir():
            files = sorted(path for path in Path(text).rglob("*") if path.is_file())
            own = [str(path) for path in files if path.name.lower().endswith(IMAGE_ENDINGS)]
        elif Path(text).exists():
            own = [text]
        else:
            own = sorted(glob.glob(text, recursive=True))
        if not own:
            raise HmtlError(f"{text}: there is no image; name files, a folder of images, a pattern in quotes, or -")
        found += own
    return found


def _csv(found: Sequence[Predicted]) -> str:
    from hmtl_ablate.api.models import row_of

    rows = [{"image": one.image, **row_of(one.tasks)} for one in found]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def _json(found: Sequence[Predicted]) -> str:
    rows = [
        {
            "image": one.image,
            "tasks": {
                task: {"label": prediction.label, "values": dict(prediction.values)}
                for task, prediction in one.tasks.items()
            },
        }
        for one in found
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
