"""The report's figures: one file for each, a function from a study's table and the results to a picture or None.

To add a figure, add a file with a function `draw` and one entry of `FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hmtl_ablate.reporting.figures import (
    confusion,
    course,
    curves,
    decomposition,
    differences,
    effects,
    history,
    importance,
    low_data,
    parallel,
    pareto,
    tuning,
)
from hmtl_ablate.reporting.figures.low_data import low_data_figure, low_data_lines
from hmtl_ablate.reporting.figures.style import Drawing, style
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable

__all__ = ["FIGURES", "Drawing", "FigureKind", "drawings", "low_data_figure", "low_data_lines"]


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure."""

    key: str
    """Part of its file's name."""
    title: str
    draw: Callable[[StudyTable, Results], Drawing | None]
    """None where the study has nothing to draw."""


FIGURES: tuple[FigureKind, ...] = (
    FigureKind("differences", "Differences from the baseline", differences.draw),
    FigureKind("course", "How the intervals went, seed by seed", course.draw),
    FigureKind("curves", "Training curves", curves.draw),
    FigureKind("decomposition", "Where the gain comes from", decomposition.draw),
    FigureKind("effects", "Effects of the designs", effects.draw),
    FigureKind("low-data", "Score over the share of the training split", low_data.draw),
    FigureKind("search-history", "Search history", history.draw),
    FigureKind("parallel", "Searched options and scores", parallel.draw),
    FigureKind("importance", "Importance of the searched options", importance.draw),
    FigureKind("pareto", "Objectives and the Pareto front", pareto.draw),
    FigureKind("tuning", "Tuning curves", tuning.draw),
    FigureKind("confusion", "Confusion matrices", confusion.draw),
)
"""In the order in which a report shows them."""


def drawings(table: StudyTable, results: Results) -> Iterator[tuple[FigureKind, Drawing]]:
    """The figures of one study, one after another: each is in memory only while it is used."""
    for kind in FIGURES:
        with style():
            drawing = kind.draw(table, results)
        if drawing is not None:
            yield kind, drawing
