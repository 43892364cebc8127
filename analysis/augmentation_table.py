"""Argument 1: augmentation × initial weights, as a grid.

python analysis/augmentation_table.py --runs runs --format markdown
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common import run

from hmtl_ablate.report.paper_tables import grid_table, tables_of


def main(arguments: Sequence[str] | None = None) -> int:
    return run(
        "Augmentation and initial weights",
        lambda results: [grid_table(table) for table in tables_of(results, "augmentation")],
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
