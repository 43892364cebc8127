"""Forest plot of the effects of ablation designs, a panel per design."""

from __future__ import annotations

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.columns import difference_text
from hmtl_ablate.reporting.figures.style import Drawing, forest, forest_height, new_figure, wrapped
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import label, lower_is_better


def draw(table: StudyTable, results: Results) -> Drawing | None:
    """The effects that have a mean, with the table's 95 % intervals."""
    panels = [
        (one, [(effect.name, effect.estimate) for effect in one.effects if effect.estimate.mean is not None])
        for one in table.designs
    ]
    panels = [(one, items) for one, items in panels if items]
    if not panels:
        return None
    percent = in_percent(table.metric)
    figure, axes = new_figure(sum(forest_height(len(items)) for _, items in panels), len(panels))
    axes[0].get_gridspec().set_height_ratios([1 + len(items) for _, items in panels])
    for place, (one, items) in zip(axes, panels, strict=True):
        forest(place, items, percent)
        place.set_title(wrapped(f"{one.design} ({one.kind.replace('_', ' ')}), 95 % intervals", 50), loc="left")
    unit = ", points" if percent else ""
    lower = "; lower is better" if lower_is_better(table.metric) else ""
    axes[-1].set_xlabel(wrapped(f"Effect on {label(table.metric).removesuffix(', %')}{unit}{lower}", 58))
    words = " ".join(
        f"{one.design}: " + "; ".join(f"{name} {difference_text(found, percent)}" for name, found in items) + "."
        for one, items in panels
    )
    return Drawing(figure, f"Effects on {label(table.metric)} with 95 % intervals{lower}. {words}")
