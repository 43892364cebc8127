"""Confusion matrices on the test split of the baseline and of the best other arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.reporting.figures.arms import baseline_and_best, folders, result_of
from hmtl_ablate.reporting.figures.style import Drawing, new_figure, wrapped
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import plural
from hmtl_ablate.training.folder import TrialResult


def mean_confusion(counts: Sequence[Sequence[Sequence[int]]]) -> NDArray[np.float64]:
    """Mean over the seeds of the row-normalised counts: share of the images of each class (row) that were taken for
    each class (column), [K][K], from 0 to 1; a row without images is NaN."""
    matrices = []
    for one in counts:
        matrix = np.asarray(one, float)
        totals = matrix.sum(1, keepdims=True)
        matrices.append(np.divide(matrix, totals, out=np.full_like(matrix, np.nan), where=totals > 0))
    mean: NDArray[np.float64] = np.mean(matrices, axis=0)
    return mean


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """One panel per arm, of the first supervised task; rows are true classes."""
    own, panels = folders(table, results), []
    for name in baseline_and_best(table, 2):
        known = [result for folder in own[name].values() if (result := result_of(folder)) is not None]
        tables = [counts for result in known if (counts := _test(result))]
        if tables and all(len(matrix) == len(tables[0]) for matrix in tables):
            panels.append((name, known[0].classes, mean_confusion(tables), len(tables)))
    if not panels:
        return None
    side = max(3.4, 0.5 + 0.42 * max(len(matrix) for _, _, matrix, _ in panels))
    figure, axes = new_figure((side + 0.7) * len(panels), len(panels))
    for place, (name, classes, matrix, seeds) in zip(axes, panels, strict=True):
        _panel(place, classes, matrix)
        place.set_title(f"{wrapped(name, 44)}\n{plural(seeds, 'seed')}, % of each true class")
    words = " ".join(
        f"{name}: recall "
        + ", ".join(
            f"{cls} {100 * matrix[i, i]:.0f} %" for i, cls in enumerate(classes) if matrix[i, i] == matrix[i, i]
        )
        + "."
        for name, classes, matrix, _ in panels
    )
    return Drawing(
        figure, f"Confusion matrices on the test split, mean over the seeds, in % of each true class. {words}"
    )


def _test(result: TrialResult) -> list[list[int]] | None:
    tests = [key for key in result.confusion if key.split("/")[0] == "test"]
    return result.confusion[tests[0]] if tests and result.classes else None


def _panel(axes: Any, classes: Sequence[str], matrix: NDArray[np.float64]) -> None:
    axes.imshow(100 * matrix, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(matrix.shape):
        share = matrix[row, column]
        if share == share and len(classes) <= 12:
            colour = "white" if share > 0.55 else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)
    names = [wrapped(name, 14) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for side in axes.spines.values():
        side.set_visible(False)
