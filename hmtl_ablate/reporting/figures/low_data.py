"""The score over the share of the training split, one line per method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hmtl_ablate.config import in_percent
from hmtl_ablate.errors import StudyError
from hmtl_ablate.reporting.effects import path_only
from hmtl_ablate.reporting.figures.style import COLOURS, MARKERS, Drawing, new_figure, style, wrapped
from hmtl_ablate.reporting.results import Results, arm_of_trial, by_arm, pretext_tasks
from hmtl_ablate.reporting.statistics import Estimate, estimate, without_interval
from hmtl_ablate.reporting.tables import StudyTable, finished
from hmtl_ablate.reporting.wording import label, number_text

NAMES = {"inpainting": "in-painting"}


@dataclass(frozen=True)
class Line:
    """One method: its score at each fraction of the training split, in the metric's own unit, fractions ascending."""

    method: str
    points: tuple[tuple[float, Estimate], ...]


def low_data_lines(results: Results, run_id: str, metric: str) -> list[Line]:
    """One line per configuration over all its fractions, in the order of the study's variants."""
    study = next(row for row in results.studies.to_dict("records") if row["run_id"] == run_id)
    variants, adaptive = study["variants"], bool(study["decide"])
    groups: dict[tuple[Any, ...], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    methods: dict[tuple[Any, ...], tuple[str, str]] = {}
    hidden = path_only(study)
    arms = arm_of_trial(results)
    trials = [trial for trial in finished(results.declared(run_id), metric) if trial["variant"] not in hidden]
    for trial in sorted(trials, key=lambda trial: list(variants).index(trial["variant"])):
        options = by_arm(trial["options"], arms)
        config = tuple(
            sorted((key, str(value)) for key, value in options.items() if key not in ("data.fraction", "seed"))
        )
        groups[config][options.get("data.fraction", 1.0)].append(float(trial[f"metrics.{metric}"]))
        methods.setdefault(config, (_method(options), trial["variant"]))
    names = [method for method, _ in methods.values()]
    return [
        Line(
            method if names.count(method) == 1 else variant,
            tuple((fraction, _known(values, adaptive)) for fraction, values in sorted(groups[config].items())),
        )
        for config, (method, variant) in methods.items()
    ]


def low_data_figure(results: Results, study: str = "low_data") -> Figure:
    """Test metric over the fraction of the training split, with 95 % intervals of the mean.

    One panel per profile and dataset, one line per method. Raises StudyError when the store has no finished trial of
    the study.
    """
    panels = []
    for row in results.studies[results.studies["study"] == study].to_dict("records"):
        lines = low_data_lines(results, row["run_id"], row["metric"])
        if lines:
            panels.append((row, lines))
    if not panels:
        raise StudyError(
            f"no finished trial of the study {study!r} in this store; "
            f"run it first: hmtl-ablate run search_spaces/{study}.yaml"
        )
    with style():
        figure = Figure(figsize=(6.4 * len(panels), 4.8), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, (row, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _panel(axes, row, lines)
            axes.set_title(f"{row['study']} ({row['profile']}), {row['data']}\n{_seeds(lines, row)}", fontsize=10)
            axes.legend(frameon=False)
    return figure


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """The same for one study of any name whose arms differ in their share of the training split."""
    if table.evaluation or not table.run_id:
        return None
    row = next(row for row in results.studies.to_dict("records") if row["run_id"] == table.run_id)
    lines = low_data_lines(results, table.run_id, table.metric)
    if len({fraction for line in lines for fraction, _ in line.points}) < 2:
        return None
    figure, (axes,) = new_figure(3.6 + 0.2 * len(lines))
    _panel(axes, row, lines)
    axes.set_title(wrapped(_seeds(lines, row).capitalize(), 60))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", frameon=False)
    percent = in_percent(table.metric)
    words = "; ".join(
        f"{line.method}: "
        + ", ".join(f"{number_text(score.mean, percent)} at {100 * share:g} %" for share, score in line.points)
        for line in lines
    )
    return Drawing(figure, f"{label(table.metric)} over the share of the training split. {words}.")


def _method(options: Mapping[str, Any]) -> str:
    views = options.get("data.views", 1)
    name = " + ".join(["SL", *(NAMES.get(task, task) for task in sorted(pretext_tasks(options)))])
    return name if views == 1 else f"{name}, {views} views"


def _known(values: list[float], adaptive: bool) -> Estimate:
    """The mean, with its t interval where the study's seeds are fixed."""
    return without_interval(estimate(values)) if adaptive else estimate(values)


def _panel(axes: Any, row: Mapping[Hashable, Any], lines: list[Line]) -> None:
    scale = 100 if in_percent(str(row["metric"])) else 1
    for index, line in enumerate(lines):
        shift = 1 + 0.03 * (index - (len(lines) - 1) / 2)  # intervals side by side, not on top of one another
        means = [scale * (score.mean or 0.0) for _, score in line.points]
        halves = [
            0.0 if score.low is None or score.high is None else scale * (score.high - score.low) / 2
            for _, score in line.points
        ]
        axes.errorbar(
            [fraction * shift for fraction, _ in line.points],
            means,
            yerr=halves,
            label=wrapped(line.method, 44),
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            capsize=3,
            linewidth=1.5,
        )
    fractions = sorted({fraction for line in lines for fraction, _ in line.points})
    axes.set_xscale("log")
    axes.set_xticks(fractions, [f"{100 * fraction:g} %" for fraction in fractions])
    axes.minorticks_off()
    axes.set_xlabel("share of the training split")
    axes.set_ylabel(label(str(row["metric"])))
    axes.grid(alpha=0.3)


def _seeds(lines: list[Line], row: Mapping[Hashable, Any]) -> str:
    seeds = {score.n for line in lines for _, score in line.points}
    count = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    intervals = "no intervals: seeds were added until decided" if row["decide"] else "95 % intervals"
    return f"mean of {count} seeds, {intervals}"
