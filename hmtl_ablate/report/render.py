"""The report as text: terminal, Markdown, LaTeX, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hmtl_ablate.config import in_percent
from hmtl_ablate.report import Format
from hmtl_ablate.report.claims import CLAIMS, RULE, TOLERANCE, ClaimRow, claims_table
from hmtl_ablate.report.results import Results
from hmtl_ablate.report.statistics import Summary
from hmtl_ablate.report.tables import StudyRow, StudyTable, study_tables

NO_RUNS = "No runs yet. The first one: hmtl-ablate run search_spaces/puzzling.yaml"
PROTOCOLS = {
    "selection": "weights selected on a split apart from test",
    "paper": "weights selected on the official validation set, which is also the test split, as published work does",
}
READING = (
    "Mean ± standard deviation over the seeds; differences to a table's first row are paired by seed; image "
    "passes and seconds are means a trial."
)
DASH = "—"


@dataclass(frozen=True)
class Report:
    """What `render` writes. empty: no study was ever run. tolerance: of the claims, in points."""

    claims: tuple[ClaimRow, ...]
    tables: tuple[StudyTable, ...]
    empty: bool
    tolerance: float = TOLERANCE


def build_report(results: Results, study: str | None = None, tolerance: float = TOLERANCE) -> Report:
    """The claims and the studies' tables (of one study when named). Raises StudyError for an unknown study."""
    claims, tables = claims_table(results, tolerance), study_tables(results, study)
    return Report(tuple(claims), tuple(tables), results.empty, tolerance)


def render(report: Report, format: Format, width: int = 100) -> str:
    """The report as one text that ends with a newline. width: columns of the terminal format."""
    if format == "json":
        return json.dumps(report_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if format == "csv":
        return _csv(report)
    return render_sections(_sections(report), format, width)


def write_page(arguments: Sequence[str], command: str, maker: str, page: Callable[[Path], str]) -> int:
    """What a script does that renders a folder of JSON files into one page: `command` FOLDER PAGE.md.

    maker: what makes such a file. Gives the exit code: 0, or 2 with a message.
    """
    if len(arguments) != 2:
        print(f"usage: {command} FOLDER PAGE.md", file=sys.stderr)
        return 2
    folder, target = map(Path, arguments)
    if not list(folder.glob("*.json")):
        print(f"{folder}: no *.json here; make one with {maker}", file=sys.stderr)
        return 2
    target.write_text(page(folder), encoding="utf-8")
    print(f"written to {target}")
    return 0


def render_sections(
    sections: Sequence[Section], format: Literal["terminal", "markdown", "latex"], width: int = 100
) -> str:
    """Sections of tables as text; width: columns of the terminal format."""
    if format == "markdown":
        return _markdown(sections)
    if format == "latex":
        return _latex(sections)
    return _terminal(sections, width)


def report_json(report: Report) -> dict[str, Any]:
    """Plain JSON data, without NaN: `claims` in percent as published, `studies` in the metric's own unit (accuracy
    from 0 to 1). What is unknown is None. `ci95_*` is the interval of `difference`; `values`: score by seed."""
    return {
        "claims": [_claim_record(row) for row in report.claims],
        "studies": [
            {
                "name": table.name,
                "profile": table.profile,
                "evaluation": table.evaluation,
                "data": table.data,
                "metric": table.metric,
                "protocol": table.protocol,
                "question": table.question,
                "notes": list(table.notes),
                "made": dict(table.made),
                "rows": [_row_record(row) for row in table.rows],
            }
            for table in report.tables
        ],
    }


def label(metric: str) -> str:
    """`test/macro_f1` as `test macro F1, %`, `test/mae_yaw` as `test MAE yaw, °`."""
    words = metric.replace("/", " ").replace("_", " ")
    for plain, proper in (("macro f1", "macro F1"), ("auc", "AUC"), ("mae", "MAE"), ("geodesic", "geodesic error")):
        words = words.replace(plain, proper)
    unit = "%" if in_percent(metric) else "°" if "MAE" in words or "geodesic" in words else ""
    return f"{words}, {unit}" if unit else words


def _claim_record(row: ClaimRow) -> dict[str, Any]:
    return {
        "dataset": row.dataset,
        "model": row.model,
        "metric": row.metric,
        "claimed": row.claimed,
        "verified": row.verified,
        "sd": row.sd,
        "n_seeds": row.n_seeds,
        "status": row.status,
        "protocol": row.protocol,
    }


def _row_record(row: StudyRow) -> dict[str, Any]:
    difference = row.difference or Summary(0)
    return {
        "variant": row.variant,
        "n_seeds": row.score.n,
        "mean": row.score.mean,
        "sd": row.score.sd,
        "mean_ci95_low": row.score.low,
        "mean_ci95_high": row.score.high,
        "difference": difference.mean,
        "ci95_low": difference.low,
        "ci95_high": difference.high,
        "image_passes": row.image_passes,
        "seconds": row.seconds,
        "values": {str(seed): value for seed, value in sorted(row.values.items())},
    }


# --- CSV: claims and studies in one table, so that any reader takes it ---

CSV_COLUMNS = (
    "table",
    "study",
    "profile",
    "evaluation",
    "data",
    "variant",
    "metric",
    "unit",
    "claimed",
    "n_seeds",
    "mean",
    "sd",
    "mean_ci95_low",
    "mean_ci95_high",
    "difference",
    "ci95_low",
    "ci95_high",
    "image_passes",
    "seconds",
    "status",
    "protocol",
)


def _csv(report: Report) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for claim in report.claims:
        writer.writerow(
            _safe(
                {
                    "table": "claims",
                    "data": claim.dataset,
                    "variant": claim.model,
                    "metric": claim.metric,
                    "unit": "percent",
                    "claimed": claim.claimed,
                    "n_seeds": claim.n_seeds,
                    "mean": claim.verified,
                    "sd": claim.sd,
                    "mean_ci95_low": claim.low,
                    "mean_ci95_high": claim.high,
                    "status": claim.status,
                    "protocol": claim.protocol,
                }
            )
        )
    for table in report.tables:
        unit = "fraction" if in_percent(table.metric) else ""
        for row in table.rows:
            writer.writerow(
                _safe(
                    {
                        "table": "study",
                        "study": table.name,
                        "profile": table.profile,
                        "evaluation": table.evaluation,
                        "data": table.data,
                        "metric": table.metric,
                        "unit": unit,
                        "protocol": table.protocol,
                    }
                    | {key: value for key, value in _row_record(row).items() if key in CSV_COLUMNS}
                )
            )
    return text.getvalue()


def _safe(record: dict[str, Any]) -> dict[str, Any]:
    """Text that a spreadsheet would run as a formula gets a leading apostrophe; numbers stay numbers."""
    return {
        key: f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
        for key, value in record.items()
    }


# --- what the three human formats share ---


@dataclass(frozen=True)
class Table:
    """A table of text. lead: one sentence above it; right: columns of numbers; notes: lines below it."""

    title: str
    lead: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Tables under a heading, with some text before them."""

    heading: str
    text: str
    tables: tuple[Table, ...]


def _sections(report: Report) -> list[Section]:
    sections = [
        Section("Claims of the paper", NO_RUNS if report.empty else "", (_claims(report.claims, report.tolerance),))
    ]
    claimed = {claim.data for claim in CLAIMS}
    own = [table for table in report.tables if table.data in claimed]
    other = [table for table in report.tables if table.data not in claimed]
    if own:
        sections.append(Section("Studies on the claims' data", READING, tuple(_study(table) for table in own)))
    if other:
        sections.append(
            Section(
                "Studies on other data",
                f"These numbers verify no claim. {READING}",
                tuple(_study(table) for table in other),
            )
        )
    return sections


def _claims(claims: Sequence[ClaimRow], tolerance: float) -> Table:
    header = ("Dataset", "Model", "Metric", "Claimed", "Verified", "Status")
    rows = [(row.dataset, row.model, row.metric, f"{row.claimed:.2f}", _verified(row), row.status) for row in claims]
    rule = RULE.format(tolerance=tolerance)
    protocols = tuple(dict.fromkeys(row.protocol for row in claims if row.protocol))
    if not protocols:  # a column of dashes says nothing
        return Table("", "", header, tuple(rows), frozenset({3, 4}), (rule,))
    return Table(
        "",
        "",
        (*header, "Protocol"),
        tuple((*cells, row.protocol or DASH) for cells, row in zip(rows, claims, strict=True)),
        frozenset({3, 4}),
        (rule, *(f"Protocol {name}: {PROTOCOLS[name]}." for name in protocols if name in PROTOCOLS)),
    )


def _verified(row: ClaimRow) -> str:
    if row.verified is None:
        return DASH
    sd = "" if row.sd is None else f" ± {row.sd:.2f}"
    return f"{row.verified:.2f}{sd} (n = {row.n_seeds})"


def _study(table: StudyTable) -> Table:
    percent = in_percent(table.metric)
    header = (
        "Variant",
        "Seeds",
        label(table.metric),
        "Difference [95 %]" + (", points" if percent else ""),
        "Image passes",
        "Seconds",
    )
    rows = tuple(
        (
            row.variant,
            str(row.score.n),
            score_text(row.score, percent),
            "baseline" if row.difference is None else difference_text(row.difference, percent),
            DASH if row.image_passes is None else f"{row.image_passes:,.0f}",
            DASH if row.seconds is None else f"{row.seconds:,.1f}" if row.seconds < 100 else f"{row.seconds:,.0f}",
        )
        for row in table.rows
    )
    protocol = PROTOCOLS.get(table.protocol, table.protocol)
    about = (
        f"Protocol {table.protocol}: {protocol}."
        if protocol != table.protocol
        else f"Protocol: {protocol}."
        if protocol
        else "",
        "" if rows else "The study declares no variants.",
    )
    lower = "Lower is better." if not percent and table.rows else ""
    notes = tuple(line for line in (lower, *about, *table.notes) if line)
    kind = f", evaluation: {table.evaluation}" if table.evaluation else ""
    return Table(
        f"{table.name} ({table.profile}){kind}, data: {table.data or 'none yet'}",
        table.question,
        header,
        rows,
        frozenset({1, 2, 3, 4, 5}),
        notes,
    )


def score_text(score: Summary, percent: bool) -> str:
    """Mean ± standard deviation; in percent when asked."""
    if score.mean is None:
        return DASH
    return _number(score.mean, percent) + ("" if score.sd is None else f" ± {_number(score.sd, percent)}")


def difference_text(difference: Summary, percent: bool) -> str:
    """Difference with its 95 % interval; in points when asked."""
    if difference.mean is None:
        return DASH
    text = _number(difference.mean, percent, sign=True)
    if difference.low is None or difference.high is None:
        return text
    return f"{text} [{_number(difference.low, percent, sign=True)}, {_number(difference.high, percent, sign=True)}]"


def _number(value: float, percent: bool, sign: bool = False) -> str:
    form = "+" if sign else ""
    text = format(100 * value, f"{form}.2f") if percent else format(value, f"{form}.3f")
    return text.replace("-", "−")


def _line(text: str) -> str:
    """One printable line: control characters, which could drive a terminal or break a table, become spaces."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)


# --- terminal ---


def _terminal(sections: Iterable[Section], width: int) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table as Grid
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    for section in sections:
        console.print(Text(section.heading), Text("=" * len(section.heading)), sep="\n")
        if section.text:
            console.print(Text(section.text))
        for table in section.tables:
            console.print()
            if table.title:
                console.print(Text(_line(table.title)))
            if table.lead:
                console.print(Text(_line(table.lead)))
            if table.title or table.lead:
                console.print()
            if table.rows:
                grid = Grid(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
                for index, name in enumerate(table.header):
                    number = index in table.right
                    # Only words may wrap: a broken number misleads.
                    grid.add_column(
                        Text(name),
                        justify="right" if number else "left",
                        no_wrap=number and index != 3,
                        overflow="fold",
                    )
                for row in table.rows:
                    grid.add_row(*(Text(_line(cell).replace(" ± ", "\u00a0±\u00a0")) for cell in row))
                console.print(grid)
            for note in table.notes:
                console.print(Padding(Text(_line(note)), (0, 0, 0, 2)))
        console.print()
    lines = out.getvalue().replace("\u00a0", " ").splitlines()
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


# --- Markdown ---


def _markdown(sections: Iterable[Section]) -> str:
    blocks = []
    for section in sections:
        blocks.append(f"## {_escape_markdown(section.heading)}")
        if section.text:
            blocks.append(_escape_markdown(section.text))
        for table in section.tables:
            if table.title:
                blocks.append(f"### {_escape_markdown(table.title)}")
            if table.lead:
                blocks.append(_escape_markdown(table.lead))
            if table.rows:
                ruler = tuple("---:" if index in table.right else "---" for index in range(len(table.header)))
                header, *rows = [tuple(_escape_markdown(cell) for cell in row) for row in (table.header, *table.rows)]
                blocks.append("\n".join(f"| {' | '.join(row)} |" for row in (header, ruler, *rows)))
            if table.notes:
                blocks.append("\n".join(f"- {_escape_markdown(note)}" for note in table.notes))
    return "\n\n".join(blocks) + "\n"


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", _line(text)).strip()


# --- LaTeX ---

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "[": "{[}",
        "]": "{]}",
        "*": "{*}",  # `\\ [` and `\\*` are commands
        "±": r"$\pm$",
        "−": "$-$",
        "×": r"$\times$",
        "·": r"$\cdot$",
        "—": "---",
        "–": "--",
    }
)


def _escape_latex(text: str) -> str:
    return _line(text).translate(_LATEX).strip()


def _latex(sections: Iterable[Section]) -> str:
    """Tables for a document with \\usepackage{booktabs} and UTF-8 input."""
    import pandas as pd

    blocks = [r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"]
    for section in sections:
        blocks.append(rf"\section*{{{_escape_latex(section.heading)}}}")
        if section.text:
            blocks.append(_escape_latex(section.text))
        for table in section.tables:
            if table.rows:
                frame = pd.DataFrame(
                    [[_escape_latex(cell) for cell in row] for row in table.rows],
                    columns=[_escape_latex(name) for name in table.header],
                )
                columns = "".join("r" if index in table.right else "l" for index in range(len(table.header)))
                words = (table.title or section.heading, table.lead)
                caption = ". ".join(_escape_latex(text) for text in words if text)
                blocks.append(
                    frame.style.hide(axis="index")
                    .to_latex(
                        hrules=True, position="htbp", position_float="centering", column_format=columns, caption=caption
                    )
                    .strip()
                )
            elif table.title:
                blocks.append(_escape_latex(table.title))
            if table.notes:
                blocks.append("\n\n".join(_escape_latex(note) for note in table.notes))
    return "\n\n".join(blocks) + "\n"
