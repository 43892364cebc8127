"""The objective of each configuration of a search in the order of their starts, and the best so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.figures.style import COLOURS, MARKERS, Drawing, new_figure, wrapped
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.search import Configuration
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import label, number_text, plural


def best_so_far(configurations: Sequence[Configuration], ranks: Mapping[int, int]) -> list[tuple[int, float]]:
    """(number, score of the best-ranked configuration up to it) of each that has a rank.

    ranks: number → rank. In a race the best-ranked one has not always the best mean: that of few seeds is luckier.
    """
    found: list[tuple[int, float]] = []
    best: Configuration | None = None
    for one in configurations:
        if one.number in ranks and one.score is not None:
            best = one if best is None or ranks[one.number] < ranks[best.number] else best
            assert best.score is not None
            found.append((one.number, best.score))
    return found


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """Points: configurations that have a rank; a line per arm: the best-ranked one so far; crosses at the edge: those
    that were stopped early or failed."""
    search = table.search
    if search is None or not any(one.scores for one in search.tried):
        return None
    percent = in_percent(search.objective)
    scale, words = 100 if percent else 1, []
    arms = list(dict.fromkeys(one.arm for one in search.tried))
    figure, (axes,) = new_figure(3.4 + 0.2 * len(arms))
    for place, arm in enumerate(arms):
        own = [one for one in search.tried if one.arm == arm]
        colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
        ranks = {one.number: one.rank for one in search.found if one.arm == arm}
        known = [(one.number, scale * one.score) for one in own if one.number in ranks and one.score is not None]
        line = best_so_far(own, ranks)
        if not line:
            continue
        axes.plot(*zip(*known, strict=True), linestyle="", marker=marker, color=colour, alpha=0.6, markersize=5)
        axes.step(
            [n for n, _ in line],
            [scale * best for _, best in line],
            where="post",
            color=colour,
            label=wrapped(arm or "best so far", 44),
        )
        out = [one.number for one in own if one.number not in ranks]
        axes.plot(out, [0.02] * len(out), "x", color=colour, transform=axes.get_xaxis_transform(), markersize=5)
        stopped = f", {len(out)} stopped early or failed" if out else ""
        first = min(ranks, key=lambda number: ranks[number])
        words.append(
            f"{arm or 'search'}: {plural(len(own), 'configuration')}{stopped}; "
            f"the best is number {first} with {number_text(line[-1][1], percent)}"
        )
    axes.set_xlabel("configuration (crosses: stopped early or failed)")
    axes.set_ylabel(label(search.objective))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower left", frameon=False)
    return Drawing(
        figure, f"{label(search.objective)} of the configurations of the search in order. {'. '.join(words)}."
    )
