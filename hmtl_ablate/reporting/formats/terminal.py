"""Plain text for a terminal. Only words wrap, at spaces: a broken number misleads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hmtl_ablate.reporting.document import TOGETHER, Section, Table, one_line
from hmtl_ablate.reporting.formats import register_text

GAP = "  "
"""Between two columns."""
TEXT_WIDTH = 120
"""Most columns of a sentence: longer lines are hard to read."""
WORDS_WIDTH = 18
"""Fewest columns that a column of words is narrowed to, so that a name does not become a tower of words."""


def write(sections: Sequence[Section], width: int) -> str:
    """Underlined headings, and tables that fit in `width` columns; one with no room for its numbers is stacked, one
    block a row."""
    lines: list[str] = []
    for section in sections:
        lines += [section.heading, "=" * _cells(section.heading), *_wrap(section.text, min(width, TEXT_WIDTH))]
        for table in section.tables:
            lines.append("")
            for words in (table.title, table.lead):
                lines += _wrap(words, min(width, TEXT_WIDTH))
            for answer in table.answers:
                lines += _item(answer, min(width, TEXT_WIDTH))
            if table.rows:
                headed = table.title or table.lead or table.answers
                lines += ["", *table_lines(table, width)] if headed else table_lines(table, width)
            for note in table.notes:
                lines += _indented(note, min(width, TEXT_WIDTH))
            if table.code:
                lines += ["", *table.code.splitlines()]
        lines.append("")
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def table_lines(table: Table[Any], width: int) -> list[str]:
    """The table's lines: a grid where its numbers have room, else one block a row."""
    titles = [one_line(column.title) for column in table.shown]
    rows = [[one_line(cell) for cell in cells] for cells in table.cells()]
    widths = _widths(table, titles, rows, width - len(GAP) * (len(titles) - 1))
    if widths is None:
        return _stacked(titles, rows, width)
    right = [column.align == "right" for column in table.shown]
    lines = [*_grid_row(titles, widths, right, bottom=True), "─" * (sum(widths) + len(GAP) * (len(widths) - 1))]
    for cells in rows:
        lines += _grid_row(cells, widths, right)
    return lines


def _widths(table: Table[Any], titles: list[str], rows: list[list[str]], room: int) -> list[int] | None:
    """The columns' widths, in all at most `room`; None where the numbers have no room."""
    least, full, titled = [], [], []
    for number, column in enumerate(table.shown):
        cells = [row[number] for row in rows]
        longest = max((_cells(cell) for cell in cells), default=0)
        words = max((_cells(word) for cell in cells for word in _words(cell)), default=0)
        title = max(_cells(word) for word in _words(titles[number])) if titles[number] else 0
        named = max(words, min(longest, WORDS_WIDTH))
        fewest = named if column.align == "left" else words if column.wrap else longest
        least.append(max(fewest, title))
        full.append(max(longest, title))
        titled.append(max(longest, _cells(titles[number])))
    if sum(least) > room:
        return None
    for low, high in ((full, titled), (least, full)):
        if sum(low) <= room:
            return _levelled(low, high, room)
    return least


def _levelled(low: list[int], high: list[int], room: int) -> list[int]:
    """Widths between `low` and `high` whose sum is at most `room`; the narrowest columns grow first."""
    widths = list(low)
    left = room - sum(widths)
    while left > 0 and any(width < most for width, most in zip(widths, high, strict=True)):
        narrowest = min((n for n in range(len(widths)) if widths[n] < high[n]), key=lambda n: widths[n])
        widths[narrowest] += 1
        left -= 1
    return widths


def _grid_row(cells: list[str], widths: list[int], right: list[bool], *, bottom: bool = False) -> Iterator[str]:
    """The lines of one row; bottom: put short cells at its foot."""
    wrapped = [_wrap(cell, width) or [""] for cell, width in zip(cells, widths, strict=True)]
    height = max(map(len, wrapped))
    wrapped = [
        [""] * (height - len(lines)) + lines if bottom else lines + [""] * (height - len(lines)) for lines in wrapped
    ]
    for line in zip(*wrapped, strict=True):
        padded = [
            " " * (width - _cells(part)) + part if to_right else part + " " * (width - _cells(part))
            for part, width, to_right in zip(line, widths, right, strict=True)
        ]
        yield GAP.join(padded)


def _stacked(titles: list[str], rows: list[list[str]], width: int) -> list[str]:
    """One block a row: its first cell, then a line for each other one."""
    lines: list[str] = []
    for cells in rows:
        if lines:
            lines.append("")
        lines += _wrap(f"{titles[0]}: {cells[0]}", width)
        for title, cell in zip(titles[1:], cells[1:], strict=True):
            lines += _indented(f"{title}: {cell}", width)
    return [*lines, ""]


def _indented(text: str, width: int) -> list[str]:
    return [f"  {line}" for line in _wrap(text, width - 2)]


def _item(text: str, width: int) -> list[str]:
    """A list's item, its later lines below its first word."""
    first, *others = _indented(text, width)
    return [f"- {first[2:]}", *others]


def _wrap(text: str, width: int) -> list[str]:
    """The text's lines; only a word that is wider than a line is broken."""
    lines: list[str] = []
    for word in _words(text):
        if lines and _cells(lines[-1]) + 1 + _cells(word) <= width:
            lines[-1] += f" {word}"
            continue
        lines.append(word)
        while _cells(lines[-1]) > width:
            end = next(n for n in range(len(lines[-1]), 0, -1) if n == 1 or _cells(lines[-1][:n]) <= width)
            lines[-1:] = [lines[-1][:end], lines[-1][end:]]
    return lines


def _words(text: str) -> list[str]:
    """What may be in lines of its own."""
    kept = TOGETHER.sub(lambda found: found[0].replace(" ", "\x00"), one_line(text))
    return [word.replace("\x00", " ") for word in kept.split(" ") if word]


def _cells(text: str) -> int:
    """Columns that a terminal takes for it."""
    from rich.cells import cell_len

    return cell_len(text)


register_text("terminal", write)
