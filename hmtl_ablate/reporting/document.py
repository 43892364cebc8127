"""What a format writes: sections of tables, each of columns × rows. Nothing here knows a format."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

DASH = "—"
"""The cell for people where there is nothing to say."""

TOGETHER = re.compile(
    r"\[[^\[\]]{1,40}\]|\(n = \d+\)|[+−]?[\d.,]+ (?:±|…|−) [\d.,]+|"
    r"(?:\b[^\W\d]\w{0,3} [=<>≤≥] )?[+−]?\d[\d.,]*(?: [%°]| (?:seeds?|pairs?|points?)\b)?"
)
"""What is one number to a reader and stays on one line: an interval, a count, a mean with its standard deviation, a
number with its unit or with its name in front, as in `p = 0.088`."""

Value = str | float | None | Mapping[str, float]
"""A cell for a program: None where the value is unknown; a mapping where there are several, for JSON only."""

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column in every format."""

    key: str
    """Its name in CSV and JSON."""
    value: Callable[[Row], Value]
    """A row's cell for a program, in the metric's own unit."""
    title: str = ""
    """Its title for people; without one, terminal, Markdown and LaTeX can't show the column."""
    text: Callable[[Row], str] | None = None
    """A row's cell for people; the value itself, with three decimals, when left out."""
    align: Literal["left", "right"] = "right"
    """Numbers go right, words left."""
    wrap: bool = False
    """Whether numbers may break over lines in a narrow terminal, as words always may."""
    hidden: bool = False
    """Whether people see it only where they choose it."""
    csv: str | None = None
    """Its name in CSV where that is not `key`; "" leaves it out of CSV."""
    json: str | None = None
    """Its name in JSON where that is not `key`; "" leaves it out of JSON."""
    best: Literal["", "max", "min"] = ""
    """Which of its values is the best, for formats that mark it; "": none is."""

    @property
    def csv_name(self) -> str:
        """Name in CSV, or "" where CSV leaves it out."""
        return self.key if self.csv is None else self.csv

    @property
    def json_name(self) -> str:
        """Name in JSON, or "" where JSON leaves it out."""
        return self.key if self.json is None else self.json

    def cell(self, row: Row) -> str:
        """The row's cell for people."""
        if self.text is not None:
            return self.text(row)
        value = self.value(row)
        if value is None:
            return DASH
        return f"{value:,.3f}".replace("-", "−") if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Table(Generic[Row]):
    """Columns × rows."""

    title: str
    lead: str
    """One sentence above the table, or ""."""
    columns: tuple[Column[Row], ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """Lines below the table."""
    csv: Mapping[str, Value] = field(default_factory=dict)
    """Cells that all rows share in CSV."""
    json: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the table's JSON object in addition to `rows`."""
    label: str = ""
    """Its name in the report, e.g. puzzling or puzzling-search, for references to it."""
    answers: tuple[str, ...] = ()
    """Sentences between `lead` and the table, each on a line of its own."""
    across: bool = False
    """Whether the best value is sought among the columns of a row, instead of among the rows of a column."""
    code: str = ""
    """Lines below the notes to copy as they are, e.g. YAML; "" without any."""

    @property
    def shown(self) -> tuple[Column[Row], ...]:
        """The columns for people."""
        return tuple(column for column in self.columns if column.title and not column.hidden)

    def cells(self) -> list[list[str]]:
        """The rows for people: one cell per shown column."""
        return [[column.cell(row) for column in self.shown] for row in self.rows]

    def best_rows(self, column: Column[Row]) -> frozenset[int]:
        """Numbers of the rows in which a shown column has the best value, as far as people can tell them apart; none
        where fewer than two values are compared."""
        if self.across:
            compared = [one for one in self.shown if one.best]
            return (
                frozenset(
                    number
                    for number, row in enumerate(self.rows)
                    if compared.index(column) in _best([one.value(row) for one in compared], column.best)
                )
                if column.best
                else frozenset()
            )
        return _best([column.value(row) for row in self.rows], column.best)


def _best(values: Sequence[Value], best: Literal["", "max", "min"]) -> frozenset[int]:
    """Places of the best value, in an order that `best` says; none where fewer than two are known."""
    known = {place: value for place, value in enumerate(values) if isinstance(value, int | float)}
    if not best or len(known) < 2:
        return frozenset()
    found = max(known.values()) if best == "max" else min(known.values())
    return frozenset(place for place, value in known.items() if value == found)


def text_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1, lead: str = "", notes: Sequence[str] = ()
) -> Table[Sequence[str]]:
    """A table of texts for people. words: its first columns are words and go left, the others are numbers."""
    columns = tuple(
        Column(
            key=title,
            value=lambda row, place=place: row[place],  # type: ignore[misc]
            title=title,
            align="left" if place < words else "right",
        )
        for place, title in enumerate(titles)
    )
    return Table("", lead, columns, tuple(rows), tuple(notes))


@dataclass(frozen=True)
class Section:
    """Tables under a heading."""

    heading: str
    text: str
    """Text between the heading and the first table, or ""."""
    tables: tuple[Table[Any], ...]


@dataclass(frozen=True)
class Document:
    """A whole report: the same tables once as people read them, and once as programs do."""

    sections: tuple[Section, ...]
    """For people: studies first, grouped by what their data can verify, then the claims."""
    claims: Table[Any]
    studies: tuple[Table[Any], ...]
    """In the order in which they were first run."""
    study_columns: Sequence[Column[Any]]
    """The columns of a study's table, known also where no study was run."""
    controls: tuple[Table[Any], ...]
    """Of each study with controls, one table of all its arms, for programs."""
    control_columns: Sequence[Column[Any]]
    """The columns of such a table, known also where no study has controls."""
    effects: tuple[Table[Any], ...] = ()
    """Of each study with designs, one table of all their effects, for programs."""
    effect_columns: Sequence[Column[Any]] = ()
    """The columns of such a table, known also where no study has designs."""
    decisions: tuple[Table[Any], ...] = ()
    """Of each study whose seeds were added until decided, the table of its comparisons."""
    decision_columns: Sequence[Column[Any]] = ()
    """The columns of such a table."""
    searches: tuple[Table[Any], ...] = ()
    """Of each study with a search, its best configurations, for programs; the columns are among those of a study's
    table."""
    shown: tuple[tuple[Table[Any], ...], ...] = ()
    """Of each study, the tables for people."""
    evidence: tuple[Table[Any], ...] | None = None
    """A table per metric, in a report of the evidence on a pretext task; None in others."""


def one_line(text: str) -> str:
    """One printable line: control characters, which could drive a terminal or break a table, become spaces."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)
