"""The selection metric over the epochs, per arm."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.figures.arms import baseline_and_best, folders, selection_metric
from hmtl_ablate.reporting.figures.style import COLOURS, MARKERS, MOST_ARMS, Drawing, new_figure, wrapped
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.statistics import Estimate, estimate
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import label, number_text
from hmtl_ablate.training.folder import TrialFolder

Curve = Mapping[int, Estimate]
"""Epoch → mean over the seeds that have it."""


def curve(seeds: Mapping[int, TrialFolder], metric: str) -> Curve:
    """The mean of a metric over the seeds at each epoch, from the trials' histories; epochs count from 1."""
    values: dict[int, list[float]] = {}
    for folder in seeds.values():
        for place, row in enumerate(folder.history(), 1):
            value = row.get(metric)
            if isinstance(value, int | float) and math.isfinite(value):
                values.setdefault(place, []).append(float(value))
    return {epoch: estimate(found) for epoch, found in sorted(values.items())}


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """Mean over the seeds with the 95 % interval as a band; without a band where seeds were added until decided."""
    own = folders(table, results)
    metric = selection_metric(own)
    names = baseline_and_best(table, MOST_ARMS)
    curves = {name: found for name in names if (found := curve(own[name], metric))}
    if not curves or max(len(found) for found in curves.values()) < 2:
        return None
    percent = in_percent(metric)
    scale, bands = 100 if percent else 1, table.decisions is None
    figure, (axes,) = new_figure(3.4 + 0.2 * len(curves))
    for place, (name, found) in enumerate(curves.items()):
        colour, epochs = COLOURS[place], list(found)
        means = [scale * (one.mean or 0.0) for one in found.values()]
        marker = MARKERS[place] if len(epochs) <= 20 else None
        axes.plot(epochs, means, color=colour, marker=marker, markersize=4, label=wrapped(name, 44))
        known = [(epoch, one.low, one.high) for epoch, one in found.items() if None not in (one.low, one.high)]
        if bands and known:
            ends = [[scale * (one[end] or 0.0) for one in known] for end in (1, 2)]
            axes.fill_between([one[0] for one in known], *ends, color=colour, alpha=0.15, linewidth=0)
    if percent:  # a t interval of few seeds may leave the possible values, and would flatten the curves
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -2), min(high, 102))
    axes.set_xlabel("epoch")
    axes.set_ylabel(label(metric))
    axes.xaxis.get_major_locator().set_params(integer=True)
    left_out = len(table.rows) - len(curves)
    which = f"; the baseline and the best, {left_out} arms left out" if len(table.rows) > MOST_ARMS else ""
    kind = "95 % intervals" if bands else "no intervals: seeds were added until decided"
    axes.set_title(wrapped(f"Mean over the seeds, {kind}{which}", 60))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower left", frameon=False)
    ends_text = "; ".join(
        f"{name}: {number_text(list(found.values())[-1].mean, percent)} after epoch {list(found)[-1]}"
        for name, found in curves.items()
    )
    return Drawing(figure, f"{label(metric)} over the epochs, mean over the seeds, {kind}{which}. {ends_text}.")
