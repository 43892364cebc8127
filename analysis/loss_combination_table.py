"""Ways of combining the losses: the error, and by how much it is lower than that of SL with two views.

python analysis/loss_combination_table.py --runs runs --format markdown
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common import run

from hmtl_ablate.report.paper_tables import error_table, tables_of


def main(arguments: Sequence[str] | None = None) -> int:
    return run(
        "Loss combination",
        lambda results: [error_table(table) for table in tables_of(results, "loss_combination")],
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
