"""What the table scripts share: the command line, and where the text goes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hmtl_ablate.errors import HmtlError
from hmtl_ablate.report.render import READING, Section, Table, render_sections
from hmtl_ablate.report.results import Results, load_results


def run(heading: str, build: Callable[[Results], list[Table]], arguments: Sequence[str] | None = None) -> int:
    """Print the tables that `build` makes of a store's results; 2 when there is nothing to print them from."""
    parser = argparse.ArgumentParser(description=f"{heading}, from a store's runs.")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the store (default: runs)")
    parser.add_argument("--tracking-uri", help="MLflow's address, when it is not the store's own file")
    parser.add_argument("--format", choices=("terminal", "markdown", "latex"), default="terminal")
    parser.add_argument("--output", type=Path, help="write here in place of the screen")
    options = parser.parse_args(arguments)
    try:
        tables = build(load_results(options.tracking_uri, options.runs))
        text = render_sections([Section(heading, READING, tuple(tables))], options.format)
        if options.output is None:
            sys.stdout.write(text)
        else:
            options.output.write_text(text, encoding="utf-8")
    except (HmtlError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0
