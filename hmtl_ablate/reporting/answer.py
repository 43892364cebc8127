"""The answer to a study's question, in one sentence per comparison."""

from __future__ import annotations

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.columns import difference_text
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import plural


def answers(table: StudyTable) -> tuple[str, ...]:
    """One sentence for each row that is compared with the baseline, in the table's order."""
    percent = in_percent(table.metric)
    return tuple(
        f"{row.variant} differs from {table.rows[0].variant} by {difference_text(row.difference, percent)}, "
        f"{plural(row.difference.n, 'seed')}"
        for row in table.rows
        if row.difference is not None and row.difference.n
    )
