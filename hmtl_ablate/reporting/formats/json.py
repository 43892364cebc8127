"""JSON: `claims` in percent as published, `studies` in the metric's own unit (accuracy from 0 to 1).

What is unknown is null, never NaN. `ci95_*` is the interval of `difference`; `values` maps a seed to its score.
"""

from __future__ import annotations

import json
from typing import Any

from hmtl_ablate.reporting.document import Document, Table, Value
from hmtl_ablate.reporting.formats import register_data


def write(document: Document) -> str:
    """One object: `claims` and `studies`; a report of evidence has `evidence`, one object per metric."""
    data: dict[str, Any] = {
        "claims": _records(document.claims),
        "studies": [{**table.json, "rows": _records(table)} for table in document.studies],
    }
    if document.evidence is not None:
        data["evidence"] = [{**table.json, "rows": _records(table)} for table in document.evidence]
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _records(table: Table[Any]) -> list[dict[str, Value]]:
    columns = [column for column in table.columns if column.json_name]
    return [{column.json_name: column.value(row) for column in columns} for row in table.rows]


register_data("json", write)
