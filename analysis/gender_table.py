"""Argument 6, gender: the error, and by how much it is lower than that of SL.

python analysis/gender_table.py --runs runs --format markdown
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common import run

from hmtl_ablate.report.paper_tables import error_table, tables_of


def main(arguments: Sequence[str] | None = None) -> int:
    return run(
        "Gender recognition", lambda results: [error_table(table) for table in tables_of(results, "gender")], arguments
    )


if __name__ == "__main__":
    sys.exit(main())
