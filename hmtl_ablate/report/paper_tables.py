"""The paper's arguments as tables: what analysis/ prints, from one study each."""

from __future__ import annotations

from collections.abc import Mapping

from hmtl_ablate.config import in_percent
from hmtl_ablate.errors import StudyError
from hmtl_ablate.report.render import DASH, Table, difference_text, label, score_text
from hmtl_ablate.report.results import Results
from hmtl_ablate.report.statistics import summarise
from hmtl_ablate.report.tables import StudyRow, StudyTable, study_tables


def tables_of(results: Results, study: str) -> list[StudyTable]:
    """The tables of `study` with at least one score, at every profile. Raises StudyError when there is none."""
    known = not results.empty and study in set(results.studies["study"])
    found = [table for table in study_tables(results, study) if any(row.score.n for row in table.rows)] if known else []
    if not found:
        raise StudyError(
            f"no finished trial of the study {study!r} in this store; run it first: "
            f"hmtl-ablate run search_spaces/{study}.yaml"
        )
    return found


def error_table(table: StudyTable) -> Table:
    """Each variant's error, and by how many percent of itself it is lower than the first row's.

    Error: 1 − accuracy and the like, or the error itself in degrees. The reduction is paired by seed, as the paper's
    "error down by up to 11 %" is meant; its interval is Student's.
    """
    percent = in_percent(table.metric)
    baseline = _errors(table.rows[0], percent)
    rows = []
    for row in table.rows:
        errors = _errors(row, percent)
        lower = summarise([1 - errors[seed] / baseline[seed] for seed in sorted(errors) if baseline.get(seed)])
        rows.append(
            (
                row.variant,
                str(row.score.n),
                score_text(summarise(list(errors.values())), percent),
                DASH if row is table.rows[0] else difference_text(lower, True),
                DASH if row.image_passes is None else f"{row.image_passes:,.0f}",
            )
        )
    what = f"1 − {label(table.metric)}" if percent else label(table.metric)
    return Table(
        _title(table),
        table.question,
        ("Variant", "Seeds", what, "Error down by [95 %], %", "Image passes"),
        tuple(rows),
        frozenset({1, 2, 3, 4}),
        table.notes,
    )


def grid_table(table: StudyTable, separator: str = ", ") -> Table:
    """Variants named "row, column" as a grid, e.g. "scratch, weak": columns are what stands before the separator."""
    cells: dict[str, dict[str, str]] = {}
    for row in table.rows:
        column, _, name = row.variant.partition(separator)
        cells.setdefault(name, {})[column] = score_text(row.score, in_percent(table.metric))
    columns = list(dict.fromkeys(column for line in cells.values() for column in line))
    return _grid(table, label(table.metric), columns, cells)


def transfer_table(tables: list[StudyTable]) -> Table:
    """A study's variants against its evaluations, on the datasets they were evaluated on."""
    cells: dict[str, dict[str, str]] = {}
    for table in tables:
        column = f"{table.evaluation or 'trained on'} ({table.data})"
        for row in table.rows:
            name = row.variant.partition(" → ")[0]
            cells.setdefault(name, {})[column] = score_text(row.score, in_percent(table.metric))
    columns = list(dict.fromkeys(column for line in cells.values() for column in line))
    return _grid(tables[0], "Variant", columns, cells)


def _grid(table: StudyTable, corner: str, columns: list[str], cells: Mapping[str, Mapping[str, str]]) -> Table:
    rows = tuple((name, *(line.get(column, DASH) for column in columns)) for name, line in cells.items())
    return Table(
        _title(table), table.question, (corner, *columns), rows, frozenset(range(1, len(columns) + 1)), table.notes
    )


def _errors(row: StudyRow, percent: bool) -> dict[int, float]:
    return {seed: 1 - value if percent else value for seed, value in row.values.items()}


def _title(table: StudyTable) -> str:
    kind = f", {table.evaluation}" if table.evaluation else ""
    return f"{table.name} ({table.profile}{kind}), data: {table.data}"
