"""Tuning curves: the best score that so many random draws are expected to find."""

from __future__ import annotations

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.figures.style import COLOURS, Drawing, new_figure, wrapped
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import label, number_text, plural


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """One line per arm; a band where there are draws enough for one."""
    arms = [arm for arm in (table.search.arms if table.search else ()) if len(arm.curve) > 1]
    if table.search is None or not arms:
        return None
    percent = in_percent(table.search.objective)
    scale = 100 if percent else 1
    figure, (axes,) = new_figure(3.4 + 0.2 * len(arms))
    for place, arm in enumerate(arms):
        colour = COLOURS[place % len(COLOURS)]
        draws = [point.n for point in arm.curve]
        axes.plot(
            draws, [scale * point.expected for point in arm.curve], color=colour, label=wrapped(arm.arm or "search", 44)
        )
        known = [point for point in arm.curve if point.low is not None and point.high is not None]
        if known:
            ends = [[scale * (getattr(point, end) or 0.0) for point in known] for end in ("low", "high")]
            axes.fill_between([point.n for point in known], *ends, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("random draws")
    axes.set_ylabel(f"expected best {label(table.search.objective)}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    if len(arms) > 1:
        figure.legend(loc="outside lower left", frameon=False)
    words = "; ".join(
        f"{arm.arm or 'search'}: {number_text(arm.curve[0].expected, percent)} after 1 draw, "
        f"{number_text(arm.curve[-1].expected, percent)} after {plural(len(arm.curve), 'draw')}"
        for arm in arms
    )
    return Drawing(figure, f"Expected best {label(table.search.objective)} over the number of random draws. {words}.")
