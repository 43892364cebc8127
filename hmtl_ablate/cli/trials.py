"""`show`, `best` and `compare`: single trials."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hmtl_ablate.cli import completing
from hmtl_ablate.cli.options import DEFAULT_RUNS, Imports, Runs, TrackingUri, TrialName
from hmtl_ablate.cli.root import app
from hmtl_ablate.cli.screen import for_terminal

if TYPE_CHECKING:
    from hmtl_ablate.api.comparing import PairedImages, TrialComparison
    from hmtl_ablate.api.trials import TrainedTrial
    from hmtl_ablate.reporting.document import Table

BARS = "▁▂▃▄▅▆▇█"
"""Of a curve: the lowest and the highest value of an epoch are the first and the last one."""
CURVE = 24
"""Most bars of a curve; of more epochs, evenly spaced ones are drawn."""
DISAGREE = 12
"""Numbers of images that are listed."""
Format = Annotated[Literal["terminal", "json"], typer.Option("--format", help="Output format.")]


@app.command()
def show(trial: TrialName, form: Format = "terminal", runs: Runs = DEFAULT_RUNS, imports: Imports = []) -> None:
    """Show a trial: its options, metrics, curves, and files.

    Example: hmtl-ablate show best:puzzling
    """
    from hmtl_ablate.api.comparing import load_trial
    from hmtl_ablate.checks import import_modules

    import_modules(imports)
    found = load_trial(trial, runs)
    sys.stdout.write(_trial_json(found) if form == "json" else _trial_text(found))


@app.command()
def best(
    study: Annotated[str, typer.Argument(metavar="STUDY", autocompletion=completing.studies)],
    form: Format = "terminal",
    runs: Runs = DEFAULT_RUNS,
    tracking_uri: TrackingUri = None,
    imports: Imports = [],
) -> None:
    """Show a study's best trial, and its configuration as YAML.

    Example: hmtl-ablate best puzzling
    """
    from dataclasses import asdict

    from hmtl_ablate.api.best import best as best_of
    from hmtl_ablate.checks import import_modules
    from hmtl_ablate.config import in_percent
    from hmtl_ablate.reporting.wording import label, number_text

    import_modules(imports)
    found = best_of(study, runs, tracking_uri=tracking_uri)
    if form == "json":
        print(json.dumps(asdict(found), indent=1, ensure_ascii=False))
        return
    print(f"{found.name} (trial {found.trial_id})")
    print(f"{label(found.metric)}: {number_text(found.score, in_percent(found.metric))}; {found.rule}")
    print("\nvariants:\n" + "".join(f"  {line}\n" for line in found.yaml.splitlines()), end="")


@app.command()
def compare(
    first: TrialName,
    second: TrialName,
    form: Format = "terminal",
    runs: Runs = DEFAULT_RUNS,
    imports: Imports = [],
) -> None:
    """Compare two trials: options, metrics, and test images.

    Example: hmtl-ablate compare puzzling/SL/0 "puzzling/SL + puzzling/0"
    """
    from hmtl_ablate.api.comparing import compare as compared
    from hmtl_ablate.checks import import_modules

    import_modules(imports)
    found = compared(first, second, runs)
    sys.stdout.write(_comparison_json(found) if form == "json" else _comparison_text(first, second, found))


# A trial ------------------------------------------------------------------------------------------------------------


def _trial_text(trial: TrainedTrial) -> str:
    from hmtl_ablate.reporting.document import Section, text_table
    from hmtl_ablate.reporting.wording import count_text
    from hmtl_ablate.tracking.records import flat

    result = trial.result
    options = [(key, _value(value)) for key, value in flat(trial.config.declared()).items()]
    facts = [
        ("status", f"{result.status}{f': {result.reason}' if result.reason else ''}"),
        ("epochs", f"{result.epochs} of {trial.config.training.epochs}, best {result.best_epoch}"),
        ("image passes", count_text(result.image_passes)),
        ("seconds", f"{result.seconds:,.1f}"),
        ("trained on", result.tags.get("device", "—")),
        ("commit", result.tags.get("git_commit", "") or "—"),
        ("folder", str(trial.folder)),
    ]
    metrics = [(name, _number(name, value)) for name, value in result.metrics.items() if "/recall/" not in name]
    tables: list[Table[Any]] = [
        text_table(("Trial", "Value"), facts, words=2),
        text_table(("Option that differs from its default", "Value"), options, words=2),
        text_table(("Metric", "Value"), metrics),
    ]
    recalls = [
        (name.split("/recall/")[1], _number(name, value))
        for name, value in result.metrics.items()
        if name.startswith("test/") and "/recall/" in name
    ]
    if recalls:
        tables.append(text_table(("Class", "Recall on test, %"), recalls))
    if trial.history:
        tables.append(text_table(("Curve", "Over the epochs", "First", "Last"), _curves(trial), words=2))
    return for_terminal(Section(f"trial {trial.trial_id}", "", tuple(tables)))


def _curves(trial: TrainedTrial) -> list[tuple[str, str, str, str]]:
    names = [
        name
        for name in trial.history[-1]
        if (name.startswith(("train/", "val/")) and "/recall/" not in name) or name == "lr"
    ]
    rows = []
    for name in names:
        values = [row[name] for row in trial.history if name in row]
        rows.append((name, curve(values), _number(name, values[0]), _number(name, values[-1])))
    return rows


def curve(values: Sequence[float]) -> str:
    """A bar for each value, from the lowest to the highest; at most CURVE of them, evenly spaced."""
    import math

    if len(values) > CURVE:
        values = [values[round(place * (len(values) - 1) / (CURVE - 1))] for place in range(CURVE)]
    known = [value for value in values if math.isfinite(value)]
    low, span = (min(known), max(known) - min(known)) if known else (0.0, 0.0)
    top = len(BARS) - 1
    return "".join(
        " " if not math.isfinite(value) else BARS[round(top * (value - low) / span) if span else 0] for value in values
    )


def _trial_json(trial: TrainedTrial) -> str:
    content = {
        "trial_id": trial.trial_id,
        "folder": str(trial.folder),
        "config": trial.config.model_dump(mode="json"),
        "result": trial.result.model_dump(mode="json"),
        "history": list(trial.history),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


# Two trials ---------------------------------------------------------------------------------------------------------


def _comparison_text(first: str, second: str, found: TrialComparison) -> str:
    from hmtl_ablate.config import in_percent
    from hmtl_ablate.reporting.document import Section, text_table
    from hmtl_ablate.reporting.wording import number_text

    options = [(key, _value(a), _value(b)) for key, (a, b) in found.options.items()]
    metrics = [
        (name, _number(name, a), _number(name, b), number_text(b - a, in_percent(name), sign=True))
        for name, (a, b) in found.metrics.items()
        if "/recall/" not in name
    ]
    tables: list[Table[Any]] = [
        text_table(("Option", "A", "B"), options, words=3, lead="" if options else "Their options are the same."),
        text_table(("Metric", "A", "B", "B − A"), metrics),
    ]
    for one in found.images:
        tables += _paired_tables(one)
    if found.unpaired:
        tables.append(text_table((), (), lead=f"Not compared image by image: {found.unpaired}."))
    names = [
        f"{letter}: {name} ({trial})"
        for letter, name, trial in (("A", first, found.first.trial_id), ("B", second, found.second.trial_id))
    ]
    who = [text_table((), (), lead=name) for name in names]
    return for_terminal(Section("Two trials", "", (*who, *tables)))


def _paired_tables(one: PairedImages) -> list[Table[Any]]:
    from hmtl_ablate.reporting.document import text_table
    from hmtl_ablate.reporting.wording import number_text

    lead = f"{one.task}: the same {one.images:,} test images"
    if one.error is not None:
        found = one.error
        text = f"A − B of the absolute error: {number_text(found.mean, percent=False, sign=True)}"
        if found.low is not None and found.high is not None:
            text += f" [{number_text(found.low, False, sign=True)}, {number_text(found.high, False, sign=True)}]"
        return [text_table((), (), lead=f"{lead}. {text}, 95 % interval over images.")]
    counts = tuple(f"{n:,}" for n in (one.both, one.only_first, one.only_second, one.neither))
    p = "p < 0.001" if (one.p or 0.0) < 0.001 else f"p = {one.p:.3f}"
    listed = ", ".join(map(str, one.disagree[:DISAGREE])) + ("…" if len(one.disagree) > DISAGREE else "")
    notes = [f"McNemar's exact test that both are right equally often: {p}."]
    if one.disagree:
        notes.append(f"One alone is right about {len(one.disagree):,} images of the pack: {listed}.")
    classes = [
        (name, f"{count:,}", number_text(a, percent=True), number_text(b, percent=True))
        for name, (count, a, b) in one.classes.items()
    ]
    return [
        text_table(("Both right", "A alone", "B alone", "Neither"), [counts], words=0, lead=lead, notes=notes),
        text_table(("Class", "Images", "Recall A, %", "Recall B, %"), classes),
    ]


def _comparison_json(found: TrialComparison) -> str:
    from dataclasses import asdict

    content = {
        "first": found.first.trial_id,
        "second": found.second.trial_id,
        "options": found.options,
        "metrics": found.metrics,
        "images": [asdict(one) for one in found.images],
        "unpaired": found.unpaired,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _value(value: Any) -> str:
    return "—" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(metric: str, value: float) -> str:
    """A metric's value with its unit."""
    from hmtl_ablate.config import metric_info
    from hmtl_ablate.reporting.wording import number_text

    unit = metric_info(metric).unit
    if unit:
        return f"{number_text(value, unit == '%')} {unit}"
    return number_text(value, percent=False) if abs(value) >= 0.001 or not value else f"{value:.2e}".replace("-", "−")
