"""Forest plot: each variant's difference from the baseline."""

from __future__ import annotations

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.columns import difference_text
from hmtl_ablate.reporting.figures.style import Drawing, forest, forest_height, new_figure, wrapped
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import label, lower_is_better, plural


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """The intervals are those of the table: sequential ones where seeds were added until decided, and none where a
    difference was no declared comparison."""
    items = [
        (row.variant, row.difference)
        for row in table.rows
        if row.difference is not None and row.difference.mean is not None
    ]
    if not items:
        return None
    percent, baseline = in_percent(table.metric), table.rows[0].variant
    figure, (axes,) = new_figure(forest_height(len(items)))
    forest(axes, items, percent)
    unit = ", points" if percent else ""
    axes.set_xlabel(wrapped(f"{label(table.metric).removesuffix(', %')}: difference from {baseline}{unit}", 58))
    kind = "95 % intervals" if table.decisions is None else f"sequential {table.decisions.level:.4g} % intervals"
    worse = "; lower is better" if lower_is_better(table.metric) else ""
    axes.set_title(f"Paired by seed, {kind}{worse}")
    words = "; ".join(f"{name}: {difference_text(found, percent)}, {plural(found.n, 'seed')}" for name, found in items)
    return Drawing(figure, f"Differences from {baseline} in {label(table.metric)}, {kind}{worse}. {words}.")
