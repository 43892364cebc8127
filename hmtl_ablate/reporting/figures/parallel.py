"""Parallel coordinates of the searched options: one axis per option, one line per configuration, coloured by score.

The axes lie below each other, so that they fit a phone and names of options can be read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.figures.style import Drawing, new_figure, wrapped
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import label, number_text, plural

DECADES = 20
"""A range of positive numbers whose ends differ by such a factor is drawn on a logarithmic axis."""
_PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
"""Behind words that lines may cross."""
ABSENT = -0.12
"""Where a configuration that has not the option crosses its axis."""


@dataclass(frozen=True)
class Scale:
    """Where an option's values are on its axis, from 0 to 1."""

    values: tuple[Any, ...]
    """The smallest and the largest number, or all the values in order."""
    numeric: bool
    logarithmic: bool = False

    def place(self, value: Any) -> float:
        if not self.numeric:
            return self.values.index(str(value)) / max(len(self.values) - 1, 1)
        low, high = self.values
        if low == high:
            return 0.5
        if self.logarithmic:
            return math.log(value / low) / math.log(high / low)
        return float((value - low) / (high - low))


def scale_of(values: Sequence[Any]) -> Scale:
    """The axis of an option's values: of numbers a range, of anything else its values side by side."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        low, high = min(values), max(values)
        return Scale((low, high), True, low > 0 and high / low >= DECADES)
    return Scale(tuple(sorted({str(value) for value in values})), False)


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """The configurations that have a rank, the best score on top."""
    search = table.search
    found = {(one.arm, one.number): one for one in search.found} if search else {}
    known = [one for one in search.tried if (one.arm, one.number) in found] if search else []
    keys = list(dict.fromkeys(key for one in known for key in one.changes))
    if search is None or len(known) < 2 or not keys:
        return None
    percent = in_percent(search.objective)
    factor, sign = 100 if percent else 1, 1 if search.direction == "max" else -1
    scales = {key: scale_of([one.changes[key] for one in known if key in one.changes]) for key in keys}
    scores = [factor * (one.score or 0.0) for one in known]
    norm, colours = Normalize(min(scores), max(scores)), mpl.colormaps["cividis"]
    figure, (axes,) = new_figure(1.6 + 0.85 * len(keys))
    for one in sorted(known, key=lambda one: sign * (one.score or 0.0)):
        places = [scales[key].place(one.changes[key]) if key in one.changes else ABSENT for key in keys]
        colour = colours(norm(factor * (one.score or 0.0)))
        axes.plot(places, range(len(keys)), color=colour, marker="o", markersize=4, linewidth=1.5, alpha=0.9)
    for row, key in enumerate(keys):
        _axis(axes, row, scales[key])
    absent = any(key not in one.changes for one in known for key in keys)
    if absent:
        axes.text(ABSENT, len(keys) - 0.55, "not set", ha="center", va="top", fontsize=8, color="0.2", bbox=_PAPER)
    axes.set_yticks(range(len(keys)), [wrapped(key.replace(".", ". "), 20).replace(". ", ".") for key in keys])
    axes.set_ylim(len(keys) - 0.4, -0.4)
    axes.set_xlim(ABSENT - 0.06 if absent else -0.03, 1.03)
    axes.tick_params(length=0)
    axes.set_xticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, orientation="horizontal", aspect=40, pad=0.02)
    bar.set_label(label(search.objective))
    first = [one for one in known if found[one.arm, one.number].rank == 1]
    best = max(first, key=lambda one: sign * (one.score or 0.0))
    options = ", ".join(f"{key} {_text(value)}" for key, value in best.changes.items())
    return Drawing(
        figure,
        f"Options of {plural(len(known), 'configuration')} of the search, coloured by {label(search.objective)}. "
        f"The best: {number_text(best.score, percent)} with {options}.",
    )


def _axis(axes: Any, row: int, scale: Scale) -> None:
    axes.plot([0, 1], [row, row], color="0.75", linewidth=1, zorder=0)
    ends = scale.values if not scale.numeric or scale.values[0] != scale.values[1] else scale.values[:1]
    for value in ends:
        place = scale.place(value)
        side = "left" if place == 0 else "right" if place == 1 else "center"
        axes.text(place, row + 0.12, wrapped(_text(value), 14), ha=side, va="top", fontsize=8, color="0.2", bbox=_PAPER)


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
