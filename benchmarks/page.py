"""docs/performance.md from the records of benchmarks: python -m benchmarks.page DIR PAGE.md"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import Row, table
from hmtl_ablate.reporting.pages import write_page

HEAD = """# Performance

Made by `make bench` (`python -m benchmarks NAME` for one) and rendered by `python -m benchmarks.page docs/performance
docs/performance.md`. The sides of each comparison are measured in turns within one run. A figure is the median over the
repeats of the ratio (×) or the difference, with its minimum and maximum. NO marks a missed goal; the notes give the
reason.
"""


def page(folder: Path) -> str:
    """The page from every record in `folder`; NAME.md next to NAME.json holds notes written by hand."""
    sections = [HEAD]
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        sections.append(_section(record))
        if (figure := file.with_suffix(".svg")).exists():
            sections.append(f"![{record['question']}]({folder.name}/{figure.name})\n")
        own = file.with_suffix(".md")
        if own.exists():
            sections.append(own.read_text(encoding="utf-8"))
    return "\n".join(sections)


def _section(record: Mapping[str, Any]) -> str:
    fields = ("what", "against", "measured", "figure", "low", "high", "unit", "goal")
    rows = [Row(**{field: row[field] for field in fields}) for row in record["rows"]]
    head, *cells = table(rows)
    used = [n for n in range(len(head)) if any(row[n] for row in cells)]
    lines = [
        f"## {record['benchmark']}",
        "",
        record["question"],
        "",
        "| " + " | ".join(head[n] for n in used) + " |",
        "| --- " * len(used) + "|",
    ]
    lines += ["| " + " | ".join(row[n] for n in used) + " |" for row in cells]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items() if number)
    lines += [
        "",
        *record["notes"],
        "",
        f"`{record.get('command') or _command(record)}`: commit {record['commit']}, "
        f"{record['hardware']}, {versions}; {record['seconds'] / 60:.0f} min.",
        "",
    ]
    return "\n".join(lines)


def _command(record: Mapping[str, Any]) -> str:
    return f"python -m benchmarks {record['benchmark']} --repeats {record['repeats']}"


def main(arguments: Sequence[str]) -> int:
    return write_page(arguments, "python -m benchmarks.page", "python -m benchmarks NAME --output FOLDER", page)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
