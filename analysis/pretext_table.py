"""Argument 2: HMTL against SL, for each pretext task and pair: the error, and by how much it is lower.

python analysis/pretext_table.py --runs runs --format markdown
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common import run

from hmtl_ablate.report.paper_tables import error_table, tables_of


def main(arguments: Sequence[str] | None = None) -> int:
    return run(
        "HMTL against SL", lambda results: [error_table(table) for table in tables_of(results, "pretext")], arguments
    )


if __name__ == "__main__":
    sys.exit(main())
