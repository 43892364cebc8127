"""Test metric over the share of the training split, one line per method, from a store's `low_data` study.

python analysis/low_data_figure.py --runs runs --output low_data.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hmtl_ablate.errors import HmtlError
from hmtl_ablate.reporting.figures import low_data_figure
from hmtl_ablate.reporting.results import load_results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Test metric over the share of the training split.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the store (default: runs)")
    parser.add_argument("--tracking-uri", help="MLflow's address, when it is not the store's own file")
    parser.add_argument("--output", type=Path, default=Path("low_data.png"), help="the PNG (default: low_data.png)")
    options = parser.parse_args(arguments)
    try:
        low_data_figure(load_results(options.tracking_uri, options.runs)).savefig(options.output, format="png", dpi=150)
    except (HmtlError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
