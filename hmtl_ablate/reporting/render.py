"""Results → report → text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hmtl_ablate.config import in_percent
from hmtl_ablate.errors import HmtlError, nearest
from hmtl_ablate.reporting.answer import answers
from hmtl_ablate.reporting.claims import CLAIMS, RULE, TOLERANCE, ClaimRow, claims_table
from hmtl_ablate.reporting.columns import (
    claim_columns,
    control_columns,
    decision_columns,
    effect_columns,
    of_level,
    study_columns,
)
from hmtl_ablate.reporting.comparison_records import comparison_records
from hmtl_ablate.reporting.controls import control_data, control_json, control_tables
from hmtl_ablate.reporting.decision_tables import decision_json, decision_table
from hmtl_ablate.reporting.document import Column, Document, Section, Table
from hmtl_ablate.reporting.effect_tables import effect_data, effect_json, effect_tables
from hmtl_ablate.reporting.formats import DATA_FORMATS, TEXT_FORMATS, check_format
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.search import search_data, search_json, search_tables
from hmtl_ablate.reporting.tables import StudyRow, StudyTable, study_tables
from hmtl_ablate.reporting.wording import NO_RUNS, PROTOCOLS, READING, lower_is_better

StudyColumns = Callable[[str], Sequence[Column[StudyRow]]]
"""A study's metric → the columns of its table, as `columns.study_columns`."""


@dataclass(frozen=True)
class Report:
    """What `render` writes."""

    claims: tuple[ClaimRow, ...]
    tables: tuple[StudyTable, ...]
    empty: bool
    """True when no study was ever run."""
    tolerance: float = TOLERANCE
    """Of the claims, in points."""


def build_report(results: Results, study: str | None = None, tolerance: float = TOLERANCE) -> Report:
    """The claims and the studies' tables (of one study when named). Raises StudyError for an unknown study."""
    claims, tables = claims_table(results, tolerance), study_tables(results, study)
    return Report(tuple(claims), tuple(tables), results.empty, tolerance)


def render(report: Report, format: str, width: int = 100, columns: StudyColumns = study_columns) -> str:
    """The report as one text that ends with a newline.

    format: one of `formats.format_names()`. width: columns of the terminal format. columns: of the studies' tables;
    to add one of your own, `lambda metric: (*study_columns(metric), Column(…))`.

    Raises HmtlError for an unknown format.
    """
    check_format(format)
    document = build_document(report, columns)
    if format in DATA_FORMATS:
        return DATA_FORMATS[format](document)
    return render_sections(document.sections, format, width)


def render_sections(sections: Sequence[Section], format: str, width: int = 100) -> str:
    """Sections of tables as text; width: columns of the terminal format. Raises HmtlError for a format that is none
    or that only writes whole reports."""
    if format not in TEXT_FORMATS:
        raise HmtlError(f"these tables can't be written as {format!r}; {nearest(format, TEXT_FORMATS)}")
    return TEXT_FORMATS[format](sections, width)


def build_document(report: Report, columns: StudyColumns = study_columns) -> Document:
    """The tables of a report, as every format takes them."""
    claims = _claims(report.claims, report.tolerance)
    studies = tuple(_study(table, columns) for table in report.tables)
    controls = [control_data(table, study.csv) for table, study in zip(report.tables, studies, strict=True)]
    effects = [effect_data(table, study.csv) for table, study in zip(report.tables, studies, strict=True)]
    searches = [search_data(table, study.csv) for table, study in zip(report.tables, studies, strict=True)]
    sections = [Section("Claims of the paper", NO_RUNS if report.empty else "", (claims,))]
    claimed = {claim.data for claim in CLAIMS}
    pairs: list[tuple[StudyTable, Table[Any]]] = []
    for table, study in zip(report.tables, studies, strict=True):
        pairs.append((table, study))
        pairs.extend((table, one) for one in decision_table(table, study.csv))
        pairs.extend((table, one) for one in control_tables(table))
        pairs.extend((table, one) for one in effect_tables(table))
        pairs.extend((table, one) for one in search_tables(table))
    own = tuple(shown for table, shown in pairs if table.data in claimed)
    other = tuple(shown for table, shown in pairs if table.data not in claimed)
    if own:
        sections.append(Section("Studies on the claims' data", READING, own))
    if other:
        sections.append(Section("Studies on other data", f"These numbers verify no claim. {READING}", other))
    return Document(
        tuple(sections),
        claims,
        studies,
        columns(""),
        tuple(table for table in controls if table is not None),
        control_columns(""),
        tuple(table for table in effects if table is not None),
        effect_columns(""),
        tuple(
            one for table, study in zip(report.tables, studies, strict=True) for one in decision_table(table, study.csv)
        ),
        decision_columns(""),
        tuple(one for one in searches if one is not None),
    )


def _claims(claims: tuple[ClaimRow, ...], tolerance: float) -> Table[ClaimRow]:
    protocols = tuple(dict.fromkeys(row.protocol for row in claims if row.protocol))
    return Table(
        title="",
        lead="",
        columns=claim_columns(protocol=bool(protocols)),  # a column of dashes says nothing
        rows=claims,
        notes=(
            RULE.format(tolerance=tolerance),
            *(f"Protocol {name}: {PROTOCOLS[name]}." for name in protocols if name in PROTOCOLS),
        ),
        csv={"table": "claims", "unit": "percent"},
    )


def _study(table: StudyTable, columns: StudyColumns) -> Table[StudyRow]:
    kind = f", evaluation: {table.evaluation}" if table.evaluation else ""
    facts = {
        "name": table.name,
        "profile": table.profile,
        "evaluation": table.evaluation,
        "data": table.data,
        "metric": table.metric,
        "protocol": table.protocol,
    }
    cells = {"table": "study", "study": table.name, "unit": "fraction" if in_percent(table.metric) else ""}
    return Table(
        title=f"{table.name} ({table.profile}){kind}, data: {table.data or 'none yet'}",
        lead=" ".join(words for words in (table.question, *answers(table)) if words),
        columns=_without_tests(
            of_level(columns(table.metric), table.decisions.level if table.decisions else None), table
        ),
        rows=table.rows,
        notes=_notes(table),
        csv=cells | {name: fact for name, fact in facts.items() if name != "name"},
        json=facts
        | {
            "question": table.question,
            "answers": list(answers(table)),
            "notes": list(table.notes),
            "made": dict(table.made),
        }
        | {"plan": dict(table.plan) or None, "controls": control_json(table.controls)}
        | {"comparisons": comparison_records(table)}
        | {"decisions": decision_json(table), "designs": effect_json(table)}
        | search_json(table.search),
    )


def _without_tests(columns: Sequence[Column[StudyRow]], table: StudyTable) -> tuple[Column[StudyRow], ...]:
    """People see no column of p values in a table without any."""
    tested = any(row.comparison is not None and row.comparison.p is not None for row in table.rows)
    return tuple(columns) if tested else tuple(replace(one, hidden=True) if one.key == "p" else one for one in columns)


def _notes(table: StudyTable) -> tuple[str, ...]:
    meaning = PROTOCOLS.get(table.protocol)
    lines = (
        "Lower is better." if table.rows and lower_is_better(table.metric) else "",
        f"Protocol {table.protocol}: {meaning}."
        if meaning
        else f"Protocol: {table.protocol}."
        if table.protocol
        else "",
        "" if table.rows else "The study declares no variants.",
        *table.notes,
    )
    return tuple(line for line in lines if line)
