"""Forest plot of the evidence on a pretext task: each effect, their mean, and the prediction interval."""

from __future__ import annotations

from matplotlib.figure import Figure

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.columns import difference_text
from hmtl_ablate.reporting.evidence import Evidence, EvidenceRow
from hmtl_ablate.reporting.evidence_tables import pooled_text
from hmtl_ablate.reporting.figures.style import (
    COLOURS,
    GREY,
    Drawing,
    forest,
    forest_height,
    new_figure,
    style,
    wrapped,
)
from hmtl_ablate.reporting.statistics import Estimate
from hmtl_ablate.reporting.wording import label, plural

MOST = 30
"""Differences in one figure, those of the mean first; the table has them all."""


def draw(one: Evidence) -> Drawing | None:
    """The effects of the mean in blue, those left out in grey, the mean as a diamond, the prediction dotted."""
    rows = [row for row in one.rows if row.gain.mean is not None]
    if not rows:
        return None
    percent = in_percent(one.metric)
    rows, more = rows[:MOST], len(rows[MOST:])
    items = [(_name(row), row.gain) for row in rows]
    colours = [GREY if row.left_out else COLOURS[0] for row in rows]
    if one.pooled is not None:
        items.append(("Random-effects mean", Estimate(one.pooled.k, one.pooled.mean)))
        colours.append(COLOURS[1])
    with style():
        figure = _figure(one, items, colours, more)
    words = "; ".join(
        f"{row.study}, {row.data}, {row.backbone}: {difference_text(row.gain, percent)}, "
        + plural(row.gain.n, "pair")
        + (", not in the mean" if row.left_out else "")
        for row in rows
    )
    rest = f"; {more} more in the table" if more else ""
    return Drawing(figure, f"Gains of {one.task} in {label(one.metric)}. {words}{rest}. {pooled_text(one)}")


def _figure(one: Evidence, items: list[tuple[str, Estimate]], colours: list[str], more: int) -> Figure:
    percent = in_percent(one.metric)
    figure, (axes,) = new_figure(forest_height(len(items)) + 0.25 * len(items) + 0.3)
    forest(axes, items, percent, colours)
    axes.set_yticks(range(len(items)), [wrapped(name, 38) for name, _ in items], fontsize=8)
    scale = 100 if percent else 1
    if one.pooled is not None:
        place, mean = len(items) - 1, one.pooled
        if mean.predicted is not None:
            ends = [scale * end for end in mean.predicted]
            axes.plot(ends, [place, place], color=COLOURS[1], linestyle=":", linewidth=2, marker="|", markersize=9)
        corners = [mean.low, mean.mean, mean.high, mean.mean]
        axes.fill([scale * x for x in corners], [place, place - 0.22, place, place + 0.22], color=COLOURS[1], zorder=3)
        axes.axhline(place - 0.5, color="0.8", linewidth=1)
    unit = ", points" if percent else ""
    axes.set_xlabel(wrapped(f"Gain in {label(one.metric).removesuffix(', %')}{unit}; above 0 {one.task} is better", 40))
    kinds = ["95 % intervals"]
    if any(row.sequential and row.gain.low is not None for row in one.rows):
        kinds.append("sequential ones where seeds were added")
    if any(row.left_out for row in one.rows):
        kinds.append("grey: not in the mean")
    if one.pooled is not None:
        kinds.append("diamond: interval of the mean")
    if one.pooled is not None and one.pooled.predicted is not None:
        kinds.append("dotted: prediction")
    if more:
        kinds.append(f"{more} more in the table")
    figure.suptitle(wrapped("; ".join(kinds), 62), fontsize=9)
    return figure


def _name(row: EvidenceRow) -> str:
    """Numbers keep their units on one line: the spaces inside them do not break."""
    share, pairs = (text.replace(" ", "\u00a0") for text in (f"{100 * row.fraction:g} %", f"n = {row.gain.n}"))
    return f"{row.study}: {row.variant}, {pairs}, {row.data}, {row.backbone}, {share}, {row.feed}"
