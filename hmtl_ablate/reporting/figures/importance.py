"""How much each searched option matters for a good score."""

from __future__ import annotations

from hmtl_ablate.reporting.figures.style import COLOURS, Drawing, forest_height, new_figure, wrapped
from hmtl_ablate.reporting.importance import FEWEST
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import label, plural


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """Bars of PED-ANOVA's shares, over the configurations of all arms that have a score."""
    if table.search is None:
        return None
    search, shares = table.search, table.search.importances
    if not shares:
        return None
    count = sum(one.promised.mean is not None for one in search.found)
    figure, (axes,) = new_figure(forest_height(len(shares)))
    axes.barh(range(len(shares)), [100 * share for share in shares.values()], color=COLOURS[0], height=0.6)
    axes.set_yticks(range(len(shares)), [wrapped(key.replace(".", ". "), 20).replace(". ", ".") for key in shares])
    axes.set_ylim(len(shares) - 0.5, -0.5)
    axes.set_xlabel(f"importance, % (PED-ANOVA, {plural(count, 'configuration')})")
    axes.grid(axis="x", alpha=0.3)
    words = ", ".join(f"{key} {100 * share:.0f} %" for key, share in shares.items())
    few = f" Fewer than {FEWEST} configurations say little." if count < FEWEST else ""
    return Drawing(figure, f"Importance of the searched options for {label(search.objective)}: {words}.{few}")
