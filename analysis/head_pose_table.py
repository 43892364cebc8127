"""Argument 6, head pose: the mean absolute error, and by how much it is lower than that of SL.

python analysis/head_pose_table.py --runs runs --format markdown
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common import run

from hmtl_ablate.report.paper_tables import error_table, tables_of


def main(arguments: Sequence[str] | None = None) -> int:
    return run(
        "Head pose", lambda results: [error_table(table) for table in tables_of(results, "head_pose")], arguments
    )


if __name__ == "__main__":
    sys.exit(main())
