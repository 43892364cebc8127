"""The objective of each configuration of a search over its cost, and the Pareto front."""

from __future__ import annotations

from typing import Any

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.figures.style import COLOURS, MARKERS, Drawing, new_figure, wrapped
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.search import Found, StudySearch
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import count_text, label, number_text, plural
from hmtl_ablate.study.declaration import COSTS


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """One plot per further objective: grey points are dominated; a line per arm joins the front's, which are filled."""
    search = table.search
    if search is None or not any(one.on_front for one in search.found):
        return None
    arms = list(dict.fromkeys(one.arm for one in search.found))
    figure, plots = new_figure(0.6 + 2.9 * len(search.others) + 0.2 * len(arms), rows=len(search.others))
    for axes, name in zip(plots, search.others, strict=True):
        for place, arm in enumerate(arms):
            own = [one for one in search.found if one.arm == arm and one.promised.mean is not None and one.others]
            _draw_arm(axes, search, name, own, place)
        axes.set_xlabel(label(name))
        axes.set_ylabel(label(search.objective))
        axes.grid(alpha=0.3)
        if name in COSTS:
            axes.xaxis.set_major_formatter(lambda value, _: count_text(value))
            axes.xaxis.get_major_locator().set_params(nbins=5)
    figure.legend(*plots[0].get_legend_handles_labels(), loc="outside lower left", frameon=False)
    return Drawing(figure, _alt(search))


def _draw_arm(axes: Any, search: StudySearch, name: str, own: list[Found], place: int) -> None:
    scale = 100 if in_percent(search.objective) else 1
    across = 100 if name not in COSTS and in_percent(name) else 1
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    points = {
        kind: sorted(
            (across * one.others[name], scale * (one.promised.mean or 0.0)) for one in own if one.on_front is kind
        )
        for kind in (True, False)
    }
    axes.plot(
        *_split(points[False]), linestyle="", marker=marker, markersize=5, color=colour, alpha=0.3, fillstyle="none"
    )
    title = own[0].arm if own and own[0].arm else "Pareto front"
    axes.plot(*_split(points[True]), marker=marker, markersize=6, color=colour, linewidth=1.2, label=wrapped(title, 44))


def _split(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _alt(search: StudySearch) -> str:
    front = [one for one in search.found if one.on_front]
    objective = label(search.objective)
    values = "; ".join(
        f"{f'{one.arm}: ' if one.arm else ''}{number_text(one.promised.mean, in_percent(search.objective))} at "
        + ", ".join(f"{label(name)} {_value(name, one.others[name])}" for name in search.others if name in one.others)
        for one in front
    )
    others = " and ".join(label(name) for name in search.others)
    return (
        f"{objective} over {others} of {plural(len(search.found), 'configuration')}; {len(front)} on the Pareto front: "
        f"{values}."
    )


def _value(name: str, value: float) -> str:
    return count_text(value) if name in COSTS else number_text(value, in_percent(name))
