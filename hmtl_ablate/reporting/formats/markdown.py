"""Markdown: GitHub's tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from hmtl_ablate.reporting.document import Section, Table, one_line
from hmtl_ablate.reporting.formats import register_text


def write(sections: Sequence[Section], width: int) -> str:
    """Headings, tables, and notes as a list. Lines are as long as they need to be: `width` does not matter."""
    blocks = []
    for section in sections:
        blocks.append(f"## {_escape(section.heading)}")
        if section.text:
            blocks.append(_escape(section.text))
        for table in section.tables:
            if table.title:
                blocks.append(f"### {_escape(table.title)}")
            if table.lead:
                blocks.append(_escape(table.lead))
            if table.answers:
                blocks.append("\n".join(f"- {_escape(answer)}" for answer in table.answers))
            if table.rows:
                blocks.append(_grid(table))
            if table.notes:
                blocks.append("\n".join(f"- {_escape(note)}" for note in table.notes))
            if table.code:
                blocks.append(_fenced(table.code))
    return "\n\n".join(blocks) + "\n"


def _grid(table: Table[Any]) -> str:
    header = _line(_escape(column.title) for column in table.shown)
    ruler = _line("---:" if column.align == "right" else "---" for column in table.shown)
    return "\n".join([header, ruler, *(_line(map(_escape, cells)) for cells in table.cells())])


def _fenced(code: str) -> str:
    """A block of code, in a fence that is longer than any in it."""
    fence = "`" * max(3, 1 + max((len(found) for found in re.findall("`+", code)), default=0))
    return f"{fence}yaml\n{code.rstrip()}\n{fence}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", one_line(text)).strip()


register_text("markdown", write)
