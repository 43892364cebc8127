"""Plain text for a terminal, laid out by rich, without colours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hmtl_ablate.reporting.document import Section, Table, one_line
from hmtl_ablate.reporting.formats import register_text

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def write(sections: Sequence[Section], width: int) -> str:
    """Underlined headings and tables that fit in `width` columns."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    for section in sections:
        console.print(Text(section.heading), Text("=" * len(section.heading)), sep="\n")
        if section.text:
            console.print(Text(section.text))
        for table in section.tables:
            console.print()
            words = [one_line(line) for line in (table.title, table.lead) if line]
            if words:
                console.print(*map(Text, words), "", sep="\n")
            if table.rows:
                console.print(_grid(table))
            for note in table.notes:
                console.print(Padding(Text(one_line(note)), (0, 0, 0, 2)))
        console.print()
    lines = out.getvalue().replace("\u00a0", " ").splitlines()
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def _grid(table: Table[Any]) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.shown:
        # Only words may wrap: a broken number misleads.
        no_wrap = column.align == "right" and not column.wrap
        grid.add_column(Text(column.title), justify=column.align, no_wrap=no_wrap, overflow="fold")
    for cells in table.cells():
        grid.add_row(*(Text(one_line(cell).replace(" ± ", "\u00a0±\u00a0")) for cell in cells))
    return grid


register_text("terminal", write)
