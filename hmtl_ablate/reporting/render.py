"""Results → report → text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from hmtl_ablate.config import in_percent
from hmtl_ablate.errors import HmtlError, nearest
from hmtl_ablate.reporting.answer import answers
from hmtl_ablate.reporting.choosing import (
    ReportOptions,
    check_metrics,
    choose,
    metric_columns,
    recall_metrics,
    recall_tables,
)
from hmtl_ablate.reporting.claim_files import Paper, own_paper
from hmtl_ablate.reporting.claims import RULE, RULE_OF_ERRORS, TOLERANCE, ClaimRow, claims_table
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
from hmtl_ablate.reporting.evidence import Evidence, evidence
from hmtl_ablate.reporting.evidence_tables import evidence_columns, evidence_section
from hmtl_ablate.reporting.formats import DATA_FORMATS, PAGE_FORMATS, TEXT_FORMATS, check_format
from hmtl_ablate.reporting.renaming import renamed
from hmtl_ablate.reporting.results import Results, without_params
from hmtl_ablate.reporting.search_tables import search_data, search_json, search_tables
from hmtl_ablate.reporting.tables import StudyRow, StudyTable, study_tables
from hmtl_ablate.reporting.wording import NO_RUNS, PROTOCOLS, READING, lower_is_better

CLAIMS_HEADING = "Claims of the paper"
NOT_VERIFIED = "none verified on this data. Their table: hmtl-ablate report --claims"
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
    options: ReportOptions = field(default_factory=ReportOptions)
    results: Results | None = None
    """What the figures are drawn from, with the arms' names as in the tables; None: no figures."""
    papers: tuple[Paper, ...] = field(default_factory=lambda: (own_paper(),))
    """Whose claims are compared."""
    evidence: tuple[Evidence, ...] = ()
    """On the pretext task `options.evidence`."""


def build_report(
    results: Results,
    study: str | None = None,
    tolerance: float = TOLERANCE,
    options: ReportOptions | None = None,
    papers: Sequence[Paper] = (),
) -> Report:
    """The claims and the studies' tables (of one study when named, before arms are renamed). papers: whose claims
    follow those of `own_paper`.

    Raises StudyError for an unknown study, HmtlError for a metric that no trial has, an arm that no study has, or an
    unknown pretext task.
    """
    options, results = options or ReportOptions(), without_params(results)
    if options.evidence:
        named = renamed(results, options.rename)
        found = evidence(named, study_tables(named, study), options.evidence)
        return Report((), (), results.empty, tolerance, options, named, evidence=found)
    stored = [name.removeprefix("metrics.") for name in results.trials.columns if name.startswith("metrics.")]
    if not results.empty:
        check_metrics(options.metrics, stored)
    own = set(results.studies["metric"]) if options.recall else set()
    recalls = [name for metric in sorted(own) for name in recall_metrics(metric, stored)]
    compared = (own_paper(), *papers)
    claims = claims_table(results, tolerance, compared)
    named = renamed(results, options.rename)
    tables = study_tables(named, study, list(dict.fromkeys((*options.metrics, *recalls))))
    return Report(tuple(claims), tuple(tables), results.empty, tolerance, options, named, compared)


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
    if format in PAGE_FORMATS:
        return PAGE_FORMATS[format](report, document)
    return render_sections(document.sections, format, width)


def render_sections(sections: Sequence[Section], format: str, width: int = 100) -> str:
    """Sections of tables as text; width: columns of the terminal format. Raises HmtlError for a format that is none
    or that only writes whole reports."""
    if format not in TEXT_FORMATS:
        raise HmtlError(f"these tables can't be written as {format!r}; {nearest(format, TEXT_FORMATS)}")
    return TEXT_FORMATS[format](sections, width)


def build_document(report: Report, columns: StudyColumns = study_columns) -> Document:
    """The tables of a report, as every format takes them. Raises HmtlError for a chosen column that there is not."""
    options = report.options
    if options.evidence:
        return _evidence(report)
    further = metric_columns(options.metrics)

    def all_columns(metric: str) -> Sequence[Column[StudyRow]]:
        return (*columns(metric), *further)

    claims = _claims(report)
    studies = tuple(_study(table, all_columns) for table in report.tables)
    controls = [control_data(table, study.csv) for table, study in zip(report.tables, studies, strict=True)]
    effects = [effect_data(table, study.csv) for table, study in zip(report.tables, studies, strict=True)]
    searches = [search_data(table, study.csv) for table, study in zip(report.tables, studies, strict=True)]
    choose(all_columns("test/accuracy"), options.columns)  # refused also where no study was run
    shown = [
        (table, one)
        for table, study in zip(report.tables, studies, strict=True)
        for one in _shown(table, study, options)
    ]
    return Document(
        _sections(report, _distinct(shown), claims),
        Table("", "", claim_columns(protocol=True), report.claims, csv={"table": "claims"}),
        studies,
        all_columns(""),
        tuple(table for table in controls if table is not None),
        control_columns(""),
        tuple(table for table in effects if table is not None),
        effect_columns(""),
        tuple(
            one for table, study in zip(report.tables, studies, strict=True) for one in decision_table(table, study.csv)
        ),
        decision_columns(""),
        tuple(one for one in searches if one is not None),
        tuple(tuple(one for of, one in shown if of is table) for table in report.tables),
    )


def _evidence(report: Report) -> Document:
    """A document of the evidence on a pretext task alone."""
    options = report.options
    section = evidence_section(options.evidence, report.evidence)
    choose(evidence_columns("test/accuracy"), options.columns)  # refused also where nothing was found
    shown = tuple(replace(table, columns=choose(table.columns, options.columns)) for table in section.tables)
    none: Table[Any] = Table("", "", claim_columns(protocol=True), ())
    return Document((replace(section, tables=shown),), none, (), (), (), (), evidence=section.tables)


def _shown(table: StudyTable, study: Table[StudyRow], options: ReportOptions) -> tuple[Table[Any], ...]:
    """What people see of a study."""
    kinds: dict[str, Sequence[Table[Any]]] = {
        "": (replace(study, columns=choose(study.columns, options.columns)),),
        "recall": recall_tables(table) if options.recall else (),
        "decisions": decision_table(table, study.csv),
        "controls": control_tables(table),
        "effects": effect_tables(table),
        "search": search_tables(table),
    }
    name = ("hmtl", table.name, table.profile, table.evaluation)
    return tuple(
        replace(one, label=_slug(*name, kind, "" if number == 1 else str(number)))
        for kind, tables in kinds.items()
        for number, one in enumerate(tables, 1)
    )


def _slug(*words: str) -> str:
    """A label of [a-z0-9-]."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(word for word in words if word).lower()).strip("-")


def _distinct(shown: Sequence[tuple[StudyTable, Table[Any]]]) -> list[tuple[StudyTable, Table[Any]]]:
    """With a number after a label that an earlier table has, such as that of the same study on other data."""
    taken: set[str] = set()
    out = []
    for table, one in shown:
        labels = (one.label if n == 1 else f"{one.label}-{n}" for n in count(1))
        label = next(name for name in labels if name not in taken)
        taken.add(label)
        out.append((table, replace(one, label=label)))
    return out


def _sections(
    report: Report, shown: Sequence[tuple[StudyTable, Table[Any]]], claims: Sequence[Table[ClaimRow]]
) -> tuple[Section, ...]:
    """The studies first, those on the claims' data apart from others; then the claims, one line of them where no study
    is on their data and nobody asked for them."""
    claimed = {claim.data for paper in report.papers for claim in paper.claims}
    own = tuple(one for table, one in shown if table.data in claimed)
    other = tuple(one for table, one in shown if table.data not in claimed)
    sections = [Section("Studies", NO_RUNS, ())] if report.empty else []
    if own:
        sections.append(Section("Studies on the claims' data", READING, own))
        if other:
            sections.append(Section("Studies on other data", f"These numbers verify no claim. {READING}", other))
    elif other:
        sections.append(Section("Studies", READING, other))
    if own or report.options.claims or not (other or report.empty):
        return (*sections, Section(_heading(report), "", tuple(claims)))
    return (*sections, Section(_heading(report), f"{len(report.claims)} claims, {NOT_VERIFIED}", ()))


def _heading(report: Report) -> str:
    return CLAIMS_HEADING if len(report.papers) == 1 else CLAIMS_HEADING.replace("paper", "papers")


def _claims(report: Report) -> tuple[Table[ClaimRow], ...]:
    """A table per paper; its title where there are several."""
    tables: list[Table[ClaimRow]] = []
    for paper in report.papers:
        rows = tuple(row for row in report.claims if row.paper == paper.paper)
        protocols = tuple(dict.fromkeys(row.protocol for row in rows if row.protocol))
        tables.append(
            Table(
                title=paper.paper if len(report.papers) > 1 else "",
                lead="",
                columns=claim_columns(protocol=bool(protocols)),  # a column of dashes says nothing
                rows=rows,
                notes=(
                    *(
                        rule.format(schedule=paper.schedule, tolerance=report.tolerance)
                        for rule in dict.fromkeys(RULE_OF_ERRORS if row.lower else RULE for row in rows)
                    ),
                    *(f"Protocol {name}: {PROTOCOLS[name]}." for name in protocols if name in PROTOCOLS),
                ),
                csv={"table": "claims"},
                label=_slug("hmtl-claims", paper.paper if tables else ""),
            )
        )
    return tuple(tables)


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
        lead=table.question,
        answers=answers(table),
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
