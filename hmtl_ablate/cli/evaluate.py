"""`evaluate`."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hmtl_ablate.cli.options import DEFAULT_RUNS, Imports, Runs
from hmtl_ablate.cli.root import app
from hmtl_ablate.cli.screen import for_terminal, write_output
from hmtl_ablate.errors import HmtlError

if TYPE_CHECKING:
    from hmtl_ablate.api.evaluating import Evaluation


@app.command()
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="TRIAL|MODEL", help="A trial (its id, STUDY/VARIANT/SEED, best:STUDY), or what `export` wrote."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="NAME=PATH", help="A dataset. Default: the one that the trial was trained on."),
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option("--split", help="Split of the dataset.")] = "test",
    form: Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="Output format.")] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write to a file instead of the terminal.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where it runs.")] = "auto",
    runs: Runs = DEFAULT_RUNS,
    imports: Imports = [],
) -> None:
    """Measure a model on a split of its own or other data. Other data needs the same labels and classes.

    Example: hmtl-ablate evaluate best:puzzling --split val --format json
    """
    named = None if data is None else _named(data)
    from hmtl_ablate.api import evaluating
    from hmtl_ablate.checks import import_modules

    import_modules(imports)
    found = evaluating.evaluate(model, named, split=split, store=runs, device=device)
    text = {"table": _table, "json": _json, "csv": _csv}[form](found)
    if output is None:
        sys.stdout.write(text)
    else:
        write_output(text, output)


def _named(text: str) -> dict[str, Path | None]:
    """{name: path} of NAME=PATH, or of a NAME alone (rendered)."""
    name, _, path = text.partition("=")
    if not name.strip() or "/" in name:
        raise HmtlError(f"--data {text}: write NAME=PATH, the name of a dataset first, e.g. ferplus={path or name}")
    return {name.strip(): Path(path) if path else None}


def _table(found: Evaluation) -> str:
    from hmtl_ablate.config import in_percent
    from hmtl_ablate.reporting.document import Section, text_table
    from hmtl_ablate.reporting.wording import label, number_text

    tables = []
    for task, scores in found.tasks.items():
        values = {name: value for name, value in scores.metrics.items() if not name.startswith("recall/")}
        rows = [(label(name), number_text(value, in_percent(name))) for name, value in values.items()]
        tables.append(text_table(("Metric", "Value"), rows, lead=f"{task}: {scores.n:,} labelled images"))
        if scores.images:
            recalls = [
                (name, f"{count:,}", number_text(scores.recall.get(name) if count else None, percent=True))
                for name, count in scores.images.items()
            ]
            tables.append(text_table(("Class", "Images", "Recall, %"), recalls))
    missing = f"No image of this split has a label for {', '.join(found.missing)}." if found.missing else ""
    return for_terminal(
        Section(f"{found.model} on {found.data}, {found.split}: {found.n:,} images", missing, tuple(tables))
    )


def _json(found: Evaluation) -> str:
    content = {
        "model": found.model,
        "data": found.data,
        "split": found.split,
        "n": found.n,
        "tasks": {
            task: {
                "n": scores.n,
                "metrics": dict(scores.metrics),
                "classes": {
                    name: {"n": count, "recall": scores.recall.get(name)} for name, count in scores.images.items()
                },
            }
            for task, scores in found.tasks.items()
        },
        "missing": list(found.missing),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _csv(found: Evaluation) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("task", "metric", "value", "n"))
    for task, scores in found.tasks.items():
        for name, value in scores.metrics.items():
            own = scores.images.get(name.removeprefix("recall/"), scores.n) if "/" in name else scores.n
            writer.writerow((task, name, repr(value), own))
    return text.getvalue()
