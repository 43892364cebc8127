"""The paper's claims, verified by a store's runs.

python analysis/claims_table.py --runs runs --format latex --output claims.tex
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from hmtl_ablate.errors import HmtlError
from hmtl_ablate.report import Format
from hmtl_ablate.report.claims import claims_table
from hmtl_ablate.report.render import Report, render
from hmtl_ablate.report.results import load_results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The paper's claims, verified by a store's runs.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the store (default: runs)")
    parser.add_argument("--tracking-uri", help="MLflow's address, when it is not the store's own file")
    parser.add_argument("--format", choices=get_args(Format), default="terminal")
    parser.add_argument("--output", type=Path, help="write here in place of the screen")
    options = parser.parse_args(arguments)
    try:
        results = load_results(options.tracking_uri, options.runs)
        text = render(Report(tuple(claims_table(results)), (), results.empty), options.format)
        if options.output is None:
            sys.stdout.write(text)
        else:
            options.output.write_text(text, encoding="utf-8")
    except (HmtlError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
