"""What a reader chooses of a report: columns, further metrics, recall per class, names of arms, claims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hmtl_ablate.config import in_percent, metric_info
from hmtl_ablate.errors import HmtlError, nearest
from hmtl_ablate.reporting.columns import score_text
from hmtl_ablate.reporting.document import Column, Row, Table
from hmtl_ablate.reporting.statistics import Estimate
from hmtl_ablate.reporting.tables import StudyRow, StudyTable
from hmtl_ablate.reporting.wording import label


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows apart from the usual."""

    columns: tuple[str, ...] = ()
    """Keys of the columns of the studies' tables for people, in their order; (): the usual ones."""
    metrics: tuple[str, ...] = ()
    """Further metrics, e.g. test/macro_f1: each adds a column to the studies' tables."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """Variant → its name in the report, in every format."""
    claims: bool = False
    """Show people the table of the paper's claims also where no study's data is theirs."""
    recall: bool = False
    """Add a table of the recall of each class."""
    pictures: bool = True
    """Show pictures of faces, in formats that have pictures."""
    evidence: str = ""
    """Pretext task whose evidence over studies is reported, instead of the studies and claims."""


def choose(columns: Sequence[Column[Row]], keys: Sequence[str]) -> tuple[Column[Row], ...]:
    """The columns of these keys, in their order; (): all as they are.

    Raises HmtlError for a key that no column for people has, with the nearest one.
    """
    if not keys:
        return tuple(columns)
    known = {column.key: column for column in columns if column.title}
    for key in keys:
        if key not in known:
            raise HmtlError(f"--columns: there is no column {key!r}; {nearest(key, known)}")
    return tuple(replace(known[key], hidden=False) for key in dict.fromkeys(keys))


def metric_columns(metrics: Sequence[str]) -> tuple[Column[StudyRow], ...]:
    """The columns of further metrics: the mean, with its standard deviation for people, and for programs by itself."""
    return tuple(column for metric in metrics for column in _metric_columns(metric, label(metric)))


def check_metrics(metrics: Sequence[str], stored: Iterable[str]) -> None:
    """Raises HmtlError for a metric that no trial has, with the nearest of those that are stored."""
    known = list(stored)
    for metric in metrics:
        if metric not in known:
            raise HmtlError(f"--metric: no trial in this store has {metric!r}; {nearest(metric, known)}")


def recall_metrics(metric: str, stored: Iterable[str]) -> tuple[str, ...]:
    """The recalls of each class that were measured with a study's metric, in the order of the classes' names."""
    start = f"{metric.rpartition('/')[0]}/recall/"
    return tuple(sorted((name for name in stored if name.startswith(start)), key=_natural))


def recall_tables(table: StudyTable) -> tuple[Table[Any], ...]:
    """For people: the recall of each class; () where the rows have none. Of classes and variants the longer list goes
    down the page."""
    rows = tuple(row for row in table.rows if row.score.n)
    metrics = recall_metrics(table.metric, dict.fromkeys(name for row in rows for name in row.more))
    measured = [name for name in metrics if any(row.more[name].n for row in rows)]
    if not measured:
        return ()
    title = f"Recall of each class: {table.name} ({table.profile}), data: {table.data or 'none yet'}"
    lead = f"Share of a class's {metrics[0].partition('/')[0]} images that are predicted as it, in percent."
    if len(measured) > len(rows):
        return (Table(title, lead, _variant_columns(rows), tuple(measured), across=True),)
    columns = [Column[StudyRow]("variant", lambda row: row.variant, "Variant", align="left")]
    for metric in measured:
        columns += _metric_columns(metric, metric.rpartition("/")[2])
    return (Table(title, lead, tuple(columns), rows),)


def _variant_columns(rows: Sequence[StudyRow]) -> tuple[Column[str], ...]:
    """Of a table whose rows are metrics: one column per variant."""

    def column(row: StudyRow) -> Column[str]:
        def found(metric: str) -> Estimate:
            return row.more.get(metric, Estimate(0))

        return Column(
            row.variant,
            lambda metric: found(metric).mean,
            row.variant,
            lambda metric: score_text(found(metric), in_percent(metric)),
            best="max",
        )

    return (Column[str]("class", lambda metric: metric.rpartition("/")[2], "Class", align="left"), *map(column, rows))


def _metric_columns(metric: str, title: str) -> list[Column[StudyRow]]:
    percent, best = in_percent(metric), metric_info(metric).direction

    def found(row: StudyRow) -> Estimate:
        return row.more.get(metric, Estimate(0))

    return [
        Column(metric, lambda row: found(row).mean, title, lambda row: score_text(found(row), percent), best=best),
        Column(f"{metric} sd", lambda row: found(row).sd),
    ]


def _natural(name: str) -> tuple[Any, ...]:
    last = name.rpartition("/")[2]
    return (not last.isdecimal(), int(last) if last.isdecimal() else 0, last)
