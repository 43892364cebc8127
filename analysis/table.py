"""One of the paper's tables from a store's runs: the claims, or the table of one argument.

    python analysis/table.py claims --format latex --output claims.tex
    python analysis/table.py pretext --runs runs --format markdown

`python analysis/table.py --help` lists the tables. All but the claims are those of the study of the same name in
search_spaces/, which has to be run first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hmtl_ablate.errors import HmtlError
from hmtl_ablate.reporting.claims import claims_table
from hmtl_ablate.reporting.formats import format_names
from hmtl_ablate.reporting.paper_tables import PAPER_TABLES, paper_section
from hmtl_ablate.reporting.render import Report, render, render_sections
from hmtl_ablate.reporting.results import Results, load_results

CLAIMS = "claims"
SUMMARIES = {CLAIMS: "the nine published numbers, verified by the runs"} | {
    name: table.summary for name, table in PAPER_TABLES.items()
}


def text_of(name: str, results: Results, format: str) -> str:
    """The table as text. Raises StudyError when its study has no finished trial, and HmtlError for a format that does
    not suit: csv and json are for the claims only."""
    if name == CLAIMS:
        return render(Report(tuple(claims_table(results)), (), results.empty), format)
    return render_sections([paper_section(name, results)], format)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="One of the paper's tables, from a store's runs.",
        epilog="tables:\n" + "\n".join(f"  {name:<18}{summary}" for name, summary in SUMMARIES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=tuple(SUMMARIES), metavar="NAME", help="which table; see below")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the store (default: runs)")
    parser.add_argument("--tracking-uri", help="MLflow's address, when it is not the store's own file")
    parser.add_argument("--format", choices=format_names(), default="terminal", help="csv and json: claims only")
    parser.add_argument("--output", type=Path, help="write to this file instead of the screen")
    options = parser.parse_args(arguments)
    try:
        text = text_of(options.name, load_results(options.tracking_uri, options.runs), options.format)
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
