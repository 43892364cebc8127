"""The paper's arguments as tables, each from one study: what `analysis/table.py` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hmtl_ablate.config import in_percent
from hmtl_ablate.errors import StudyError
from hmtl_ablate.reporting.columns import difference_text, score_text, study_columns
from hmtl_ablate.reporting.document import DASH, Column, Section, Table
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.statistics import Estimate, estimate, without_interval
from hmtl_ablate.reporting.tables import StudyRow, StudyTable, study_tables
from hmtl_ablate.reporting.wording import READING, label, lower_is_better

GridRow = tuple[str, Mapping[str, str]]
"""A row's name and its cells by column; one that is missing prints as a dash."""


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper."""

    heading: str
    summary: str
    """What it shows, in one line."""
    build: Callable[[Sequence[StudyTable]], list[Table[StudyRow]] | list[Table[GridRow]]]
    """From the tables of the study of the same name: one for each profile, dataset and evaluation."""


def paper_section(name: str, results: Results) -> Section:
    """The table `name` of `PAPER_TABLES`, under its heading. Raises StudyError when its study has no finished trial."""
    table = PAPER_TABLES[name]
    return Section(table.heading, READING, tuple(table.build(tables_of(results, name))))


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


def error_table(table: StudyTable) -> Table[StudyRow]:
    """Each variant's error, and its reduction relative to the first row's error, in percent.

    Error: 1 − accuracy and the like, or the metric itself where lower is better. The reduction is paired by seed, which
    is how we read the paper's "up to 11 %"; its interval is Student's.
    """
    percent, itself = in_percent(table.metric), lower_is_better(table.metric)
    baseline = table.rows[0]
    shared = {column.key: column for column in study_columns(table.metric)}

    def reduction(row: StudyRow) -> Estimate:
        return error_reduction(row, baseline, itself)

    columns = (
        shared["variant"],
        shared["n_seeds"],
        Column[StudyRow](
            "error",
            lambda row: _error(row, itself).mean,
            label(table.metric) if itself else f"1 − {label(table.metric)}",
            lambda row: score_text(_error(row, itself), percent),
        ),
        Column[StudyRow](
            "reduction",
            lambda row: reduction(row).mean,
            "Error reduction [95 %], %",
            lambda row: DASH if row is baseline else difference_text(reduction(row), True),
            wrap=True,
        ),
        shared["image_passes"],
    )
    return Table(_title(table), table.question, columns, table.rows, table.notes)


def error_reduction(row: StudyRow, baseline: StudyRow, itself: bool) -> Estimate:
    """1 − error / baseline's error, from 1 (no error left) through 0 (the same) down, over the seeds both have; a point
    where seeds were added until decided. itself: whether the metric is an error, and not 1 − error."""
    errors, others = _errors(row, itself), _errors(baseline, itself)
    found = estimate([1 - errors[seed] / others[seed] for seed in sorted(errors) if others.get(seed)])
    return without_interval(found) if row.sequential else found


def grid_table(table: StudyTable, separator: str = ", ") -> Table[GridRow]:
    """Variants named "column, row" as a grid: "scratch, weak" is the cell of column `scratch` and row `weak`."""
    cells: dict[str, dict[str, str]] = {}
    for row in table.rows:
        column, _, name = row.variant.partition(separator)
        cells.setdefault(name, {})[column] = score_text(row.score, in_percent(table.metric))
    return _grid(table, label(table.metric), cells)


def transfer_table(tables: Sequence[StudyTable]) -> Table[GridRow]:
    """A study's variants against its evaluations, on the datasets they were evaluated on."""
    cells: dict[str, dict[str, str]] = {}
    for table in tables:
        column = f"{table.evaluation or 'trained on'} ({table.data})"
        for row in table.rows:
            name = row.variant.partition(" → ")[0]
            cells.setdefault(name, {})[column] = score_text(row.score, in_percent(table.metric))
    return _grid(tables[0], "Variant", cells)


def _by_run(tables: Sequence[StudyTable]) -> list[list[StudyTable]]:
    """The tables of each profile and dataset that the study was run with: its own, and those of its evaluations."""
    runs = dict.fromkeys((table.profile, table.run_id) for table in tables)
    return [[table for table in tables if (table.profile, table.run_id) == run] for run in runs]


def _error_tables(tables: Sequence[StudyTable]) -> list[Table[StudyRow]]:
    return [error_table(table) for table in tables]


def _grid(table: StudyTable, corner: str, cells: Mapping[str, Mapping[str, str]]) -> Table[GridRow]:
    names = dict.fromkeys(name for line in cells.values() for name in line)
    columns = (Column[GridRow]("row", lambda row: row[0], corner, align="left"), *map(_grid_column, names))
    return Table(_title(table), table.question, columns, tuple(cells.items()), table.notes)


def _grid_column(name: str) -> Column[GridRow]:
    return Column(name, lambda row: row[1].get(name), name, wrap=True)


def _error(row: StudyRow, itself: bool) -> Estimate:
    return estimate(list(_errors(row, itself).values()))


def _errors(row: StudyRow, itself: bool) -> dict[int, float]:
    return {seed: value if itself else 1 - value for seed, value in row.values.items()}


def _title(table: StudyTable) -> str:
    kind = f", {table.evaluation}" if table.evaluation else ""
    return f"{table.name} ({table.profile}{kind}), data: {table.data}"


PAPER_TABLES = {
    "augmentation": PaperTable(
        "Augmentation and initial weights",
        "argument 1: augmentation × initial weights, as a grid",
        lambda tables: [grid_table(table) for table in tables],
    ),
    "pretext": PaperTable(
        "HMTL against SL", "argument 2: HMTL against SL, for each pretext task and pair of them", _error_tables
    ),
    "pretraining": PaperTable(
        "HMTL against pre-training",
        "argument 4: HMTL against self-supervised pre-training with the same pretext task",
        _error_tables,
    ),
    "transfer": PaperTable(
        "Transfer",
        "argument 5: how well a trained backbone serves another dataset",
        lambda tables: [transfer_table(own) for own in _by_run(tables)],
    ),
    "head_pose": PaperTable("Head pose", "argument 6: mean absolute error of head pose, against SL", _error_tables),
    "gender": PaperTable("Gender recognition", "argument 6: error of gender recognition, against SL", _error_tables),
    "loss_combination": PaperTable(
        "Loss combination", "ways of combining the losses, against SL with two views", _error_tables
    ),
}
"""Study → its table, in the paper's order."""
