"""Where the gain of a controlled arm comes from, as a waterfall."""

from __future__ import annotations

from typing import Any

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.columns import difference_text
from hmtl_ablate.reporting.decomposition import PARTS, TOTAL, Decomposition, Part
from hmtl_ablate.reporting.figures.style import COLOURS, Drawing, new_figure, wrapped
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import label, lower_is_better


def steps(arm: Decomposition) -> list[tuple[Part, float]]:
    """The parts of the sum in their order, each with where its bar starts (0 for the whole), in the metric's own unit;
    empty where there are no numbers."""
    names = [step.name for step in PARTS]
    found, start = [], 0.0
    for part in arm.parts:
        if part.name in names and part.estimate.mean is not None:
            found.append((part, start))
            start += part.estimate.mean
    total = [(part, 0.0) for part in arm.parts if part.name == TOTAL.name and part.estimate.mean is not None]
    return [*found, *total]


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """One panel per arm: bars from where the last one ended, and the whole gain; lines are 95 % intervals of each
    part, absent where it has none."""
    arms = [(arm, found) for arm in (table.controls.arms if table.controls else ()) if (found := steps(arm))]
    if not arms:
        return None
    percent, better = in_percent(table.metric), -1 if lower_is_better(table.metric) else 1
    figure, panels = new_figure(0.5 + 2.7 * len(arms), len(arms))
    for axes, (arm, found) in zip(panels, arms, strict=True):
        _panel(axes, found, percent, better)
        axes.set_title(wrapped(arm.arm, 50), loc="left")
    unit = ", points" if percent else ""
    lower = "; lower is better" if better < 0 else ""
    panels[-1].set_xlabel(
        wrapped(f"Difference in {label(table.metric).removesuffix(', %')}{unit}{lower}; lines: intervals", 58)
    )
    words = " ".join(
        f"{arm.arm}: " + ", ".join(f"{part.name} {difference_text(part.estimate, percent)}" for part, _ in found) + "."
        for arm, found in arms
    )
    what = f"Difference of each arm with controls from SL in {label(table.metric)}{lower}, as the sum of its parts"
    return Drawing(figure, f"{what}. {words}")


def _panel(axes: Any, found: list[tuple[Part, float]], percent: bool, better: int) -> None:
    """better: 1 where higher is better, else -1; it decides the colour."""
    scale = 100 if percent else 1
    for place, (part, start) in enumerate(found):
        one = part.estimate
        mean = one.mean or 0.0
        colour = COLOURS[6] if part.name == TOTAL.name else COLOURS[0] if better * mean >= 0 else COLOURS[1]
        axes.barh(place, scale * mean, left=scale * start, height=0.6, color=colour, alpha=0.75)
        if one.low is not None and one.high is not None:
            axes.plot(
                [scale * (start + one.low), scale * (start + one.high)], [place, place], color="0.25", linewidth=1.5
            )
    axes.axvline(0, color="0.4", linestyle="--", linewidth=1, zorder=0)
    axes.set_yticks(range(len(found)), [wrapped(part.name, 18) for part, _ in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
