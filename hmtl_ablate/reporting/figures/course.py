"""How the sequential interval of each comparison went, seed by seed."""

from __future__ import annotations

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.columns import difference_text
from hmtl_ablate.reporting.decisions import Decision
from hmtl_ablate.reporting.figures.style import COLOURS, Drawing, new_figure, wrapped
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.sequential import Bound
from hmtl_ablate.reporting.statistics import Estimate
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import label, plural


def looks(one: Decision, bound: Bound) -> list[Estimate]:
    """The estimate after each pair up to the look that decided; with an interval from the first look on."""
    values = list(one.course.values.values())
    return [bound.interval(values[:count]) for count in range(1, len(values) + 1)]


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """One panel per comparison: mean difference and sequential interval after each pair, and ±smallest in grey."""
    if table.decisions is None:
        return None
    decisions = table.decisions
    courses = [(one, found) for one in decisions.comparisons if (found := looks(one, decisions.bound))]
    if not courses:
        return None
    percent = in_percent(table.metric)
    scale = 100 if percent else 1
    figure, panels = new_figure(0.4 + 2.3 * len(courses), len(courses))
    for axes, (one, found) in zip(panels, courses, strict=True):
        if decisions.bound.margin is not None:
            axes.axhspan(-scale * decisions.bound.margin, scale * decisions.bound.margin, color="0.85", zorder=0)
        axes.axhline(0, color="0.4", linestyle="--", linewidth=1)
        axes.plot([look.n for look in found], [scale * (look.mean or 0.0) for look in found], "o-", color=COLOURS[0])
        for look in found:
            if look.low is not None and look.high is not None:
                axes.plot([look.n] * 2, [scale * look.low, scale * look.high], color=COLOURS[0], linewidth=2)
        axes.set_xlim(0.5, decisions.bound.seeds + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(wrapped(f"{one.variant} − {one.minus}: {one.course.state}", 56), loc="left")
        axes.set_ylabel("points" if percent else "difference")
    panels[-1].set_xlabel("pairs of seeds")
    words = " ".join(
        f"{one.variant} − {one.minus}: {difference_text(one.course.estimate, percent)} after "
        f"{plural(one.course.estimate.n, 'pair')}, {one.course.state}."
        for one, _ in courses
    )
    level = f"{decisions.level:.4g} %"
    return Drawing(
        figure, f"Differences in {label(table.metric)} with sequential {level} intervals, pair by pair. {words}"
    )
