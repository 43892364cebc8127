"""The terminal format at any width: no line is too long, and no number is broken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmtl_ablate.reporting.document import Column, Section, Table
from hmtl_ablate.reporting.formats.terminal import write

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: f"{value:+.2f}".replace("-", "−"))
INTERVALS = st.tuples(NUMBERS, NUMBERS, NUMBERS).map(lambda three: f"{three[0]} [{three[1]}, {three[2]}]")
NAMES = st.lists(st.text("abc", min_size=1, max_size=12), min_size=1, max_size=12).map(" ".join)


def table(rows: list[tuple[str, ...]], titles: list[str]) -> Table[tuple[str, ...]]:
    def column(place: int, title: str) -> Column[tuple[str, ...]]:
        return Column(title, lambda row: row[place], title, align="left" if place == 0 else "right", wrap=place == 2)

    return Table("A title", "A lead.", tuple(column(*pair) for pair in enumerate(titles)), tuple(rows))


@pytest.mark.parametrize("width", [60, 80, 100, 120])
@given(st.lists(st.tuples(NAMES, NUMBERS, INTERVALS, NUMBERS, NUMBERS), min_size=1, max_size=4), NAMES)
def test_no_line_is_too_long_and_no_number_broken(width: int, rows: list[tuple[str, ...]], title: str) -> None:
    text = write([Section("Heading", "", (table(rows, ["Name", title, "Difference [95 %]", "A", "B"]),))], width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    for row in rows:
        start, _, interval = row[2].partition(" ")
        for number in (row[1], start, interval, row[3], row[4]):
            assert any(number in line for line in lines)


def test_a_table_without_room_is_stacked() -> None:
    own = table([("SL", "1.00", "+0.10 [+0.05, +0.15]", "2.00", "3.00")], ["Name", "Mean", "Gain", "A", "B"])
    assert write([Section("H", "", (replace(own, title="", lead=""),))], 24) == (
        "H\n=\n\nName: SL\n  Mean: 1.00\n  Gain: +0.10\n  [+0.05, +0.15]\n  A: 2.00\n  B: 3.00\n"
    )


def test_names_wrap_at_spaces_and_numbers_stay_in_their_line() -> None:
    own = table([("an arm with a long name of its own", "1.00", "x", "y", "z")], ["Name", "Mean", "C", "D", "E"])
    assert write([Section("H", "", (replace(own, title="", lead=""),))], 40).splitlines()[3:] == [
        "Name                       Mean  C  D  E",
        "────────────────────────────────────────",
        "an arm with a long name    1.00  x  y  z",
        "of its own",
    ]


def test_each_answer_begins_a_line_and_keeps_its_numbers_whole() -> None:
    one = replace(
        table([], []),
        answers=("A is not shown to differ from SL: +0.73 points [−0.21, +1.67], 3 seeds, p = 0.236 after Holm.", "B."),
    )
    assert write([Section("Heading", "", (one,))], 38).splitlines()[3:] == [
        "A title",
        "A lead.",
        "- A is not shown to differ from SL:",
        "  +0.73 points [−0.21, +1.67],",
        "  3 seeds, p = 0.236 after Holm.",
        "- B.",
    ]
