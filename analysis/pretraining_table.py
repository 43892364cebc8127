"""Argument 4: HMTL against self-supervised pre-training with the same pretext task.

python analysis/pretraining_table.py --runs runs --format markdown
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common import run

from hmtl_ablate.report.paper_tables import error_table, tables_of


def main(arguments: Sequence[str] | None = None) -> int:
    return run(
        "HMTL against pre-training",
        lambda results: [error_table(table) for table in tables_of(results, "pretraining")],
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
