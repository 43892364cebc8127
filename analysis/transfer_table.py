"""Argument 5: what a trained backbone tells of another dataset; variants against evaluations.

python analysis/transfer_table.py --runs runs --format markdown
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from common import run

from hmtl_ablate.report.paper_tables import tables_of, transfer_table


def main(arguments: Sequence[str] | None = None) -> int:
    return run("Transfer", lambda results: [transfer_table(tables_of(results, "transfer"))], arguments)


if __name__ == "__main__":
    sys.exit(main())
