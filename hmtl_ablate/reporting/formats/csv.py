"""CSV: claims, studies, controls, effects and decisions in one table, so that any program can read it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from hmtl_ablate.reporting.document import Document, Value
from hmtl_ablate.reporting.formats import register_data

FIRST = (
    *("table", "study", "profile", "evaluation", "data", "variant", "part", "minuend", "subtrahend"),
    *("metric", "unit", "claimed"),
)
LAST = ("status", "protocol")
"""What a row is comes first, how far to trust it last; the statistics are in between, in the order of their columns."""


def write(document: Document) -> str:
    """One row per claim, then one row per variant, then for each arm with controls its verdict and its differences,
    then one row per effect of a design, per comparison that seeds were added for, and per configuration that a search
    promised or confirmed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _header(document), restval="", lineterminator="\n")
    writer.writeheader()
    tables = (*document.studies, *document.controls, *document.effects, *document.decisions, *document.searches)
    tables += document.evidence or ()
    for table in (document.claims, *tables):
        columns = [column for column in table.columns if column.csv_name]
        for row in table.rows:
            cells = {column.csv_name: column.value(row) for column in columns}
            writer.writerow(_without_formulas({**table.csv, **cells}))
    return text.getvalue()


def _header(document: Document) -> list[str]:
    known = (
        *(document.study_columns, document.control_columns, document.effect_columns, document.decision_columns),
        *(table.columns for table in document.evidence or ()),
        document.claims.columns,
    )
    columns = [column for own in known for column in own]
    names = dict.fromkeys(column.csv_name for column in columns if column.csv_name)
    return [*FIRST, *(name for name in names if name not in FIRST + LAST), *LAST]


def _without_formulas(record: Mapping[str, Value]) -> dict[str, Value]:
    """Text that a spreadsheet would run as a formula gets a leading apostrophe; numbers stay numbers."""
    return {
        key: f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
        for key, value in record.items()
    }


register_data("csv", write)
