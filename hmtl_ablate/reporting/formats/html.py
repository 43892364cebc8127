"""HTML: one self-contained page of answers, tables, figures, and faces. It loads nothing and runs no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmtl_ablate import __version__
from hmtl_ablate.reporting.document import DASH, TOGETHER, Document, Table, one_line
from hmtl_ablate.reporting.formats import register_page
from hmtl_ablate.reporting.registered import changes, registration_notes
from hmtl_ablate.reporting.wording import NO_RUNS, READING, bound_text, clock_text, count_text, label

if TYPE_CHECKING:
    from markupsafe import Markup

    from hmtl_ablate.reporting.figures.style import Drawing
    from hmtl_ablate.reporting.render import Report
    from hmtl_ablate.reporting.results import Results
    from hmtl_ablate.reporting.tables import StudyTable

LARGEST_PICTURE = 4 * 2**20
"""Bytes of a picture of faces that is taken into the page."""
UNBROKEN = 28
"""Characters that have room on a line of a phone in the largest text of the page."""


def write(report: Report, document: Document) -> str:
    """The page. Whatever users named is escaped; pictures are `data:` URIs."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_printable, keep_trailing_newline=True
    )
    environment.filters["unbroken"] = _unbroken
    source = files("hmtl_ablate.reporting").joinpath("templates/report.html").read_text("utf-8")
    return environment.from_string(source).render(
        studies=[_study(*pair, report) for pair in zip(report.tables, document.shown, strict=True)],
        claims=_evidence(report, document) if report.options.evidence else _claims(document),
        empty=NO_RUNS if report.empty else "",
        reading=READING,
        version=__version__,
    )


def _printable(value: Any) -> Any:
    return one_line(value) if type(value) is str else value


def _unbroken(text: str) -> Markup:
    """The text escaped, each number with its sign, name and unit in an element that no line break divides."""
    from markupsafe import Markup, escape

    parts: list[str] = []
    end = 0
    text = one_line(text)
    for found in TOGETHER.finditer(text):
        if " " in found[0] and len(found[0]) <= UNBROKEN:
            parts += [escape(text[end : found.start()]), '<span class="one">', escape(found[0]), "</span>"]
            end = found.end()
    return Markup("".join([*parts, escape(text[end:])]))


def _study(table: StudyTable, shown: tuple[Table[Any], ...], report: Report) -> dict[str, Any]:
    from hmtl_ablate.reporting.answer import answers

    results = report.results
    return {
        "title": shown[0].title,
        "question": table.question,
        "answers": answers(table),
        "tables": [_table(one, title="" if place else "Results") for place, one in enumerate(shown)],
        "figures": [] if results is None else _figures(table, results),
        "faces": [] if results is None or not report.options.pictures else _faces(table, results),
        "facts": _facts(table, results),
    }


def _table(table: Table[Any], title: str = "") -> dict[str, Any]:
    best = [table.best_rows(column) for column in table.shown]
    return {
        "title": title or table.title,
        "columns": table.shown,
        "rows": [
            [
                {"text": text, "align": column.align, "best": number in marked}
                for text, column, marked in zip(cells, table.shown, best, strict=True)
            ]
            for number, cells in enumerate(table.cells())
        ],
        "notes": table.notes,
        "code": table.code.splitlines(),
    }


def _claims(document: Document) -> dict[str, Any]:
    section = document.sections[-1]
    tables = [_table(table, title=table.title or "Claimed and verified") for table in section.tables]
    return {"heading": section.heading, "text": section.text, "tables": tables, "answers": [], "figures": []}


def _evidence(report: Report, document: Document) -> dict[str, Any]:
    """The evidence on a pretext task, in the place of the claims."""
    from hmtl_ablate.reporting.figures.evidence import draw

    drawn = [(f"Gains of {one.task} in {label(one.metric)}", draw(one)) for one in report.evidence]
    return {
        **_claims(document),
        "answers": [table.lead for table in document.sections[-1].tables],
        "figures": [_figure(title, drawing) for title, drawing in drawn if drawing is not None],
    }


# Pictures -------------------------------------------------------------------------------------------------------------


def _figures(table: StudyTable, results: Results) -> list[dict[str, Any]]:
    from hmtl_ablate.reporting.figures import drawings

    return [_figure(kind.title, drawing) for kind, drawing in drawings(table, results)]


def _figure(title: str, drawing: Drawing) -> dict[str, Any]:
    from hmtl_ablate.reporting.figures.style import svg

    width, height = drawing.figure.get_size_inches()
    source = _data("image/svg+xml", svg(drawing.figure).encode())
    size = {"width": round(72 * width), "height": round(72 * height)}
    return {"title": title, "alt": drawing.alt, "source": source, **size}


def _faces(table: StudyTable, results: Results) -> list[dict[str, Any]]:
    """Pictures of the pretext tasks of one trial per arm, that of its first seed."""
    from hmtl_ablate.reporting.figures.arms import folders

    found = []
    for variant, seeds in folders(table, results).items():
        for seed, folder in list(seeds.items())[:1]:
            for task, file in last_pictures(folder.path / "pictures").items():
                title = f"{variant}: {task}"
                alt = f"{title}, seed {seed}: faces as the task changes them, and what the model makes of them"
                found.append({"title": title, "alt": alt, "source": _data("image/jpeg", _small(file))})
    return found


def last_pictures(folder: Path) -> dict[str, Path]:
    """Pretext task → its picture of the last epoch that has one."""
    pictures = sorted(folder.glob("*-epoch-*.png"))
    return {
        file.name.rpartition("-epoch-")[0]: file
        for file in pictures
        if not file.is_symlink() and file.stat().st_size <= LARGEST_PICTURE
    }


def _small(file: Path) -> bytes:
    """The picture as JPEG: a tenth of the PNG's bytes, and a page may have many."""
    from PIL import Image

    data = io.BytesIO()
    with Image.open(file) as picture:
        picture.convert("RGB").save(data, format="JPEG", quality=88)
    return data.getvalue()


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# Facts ----------------------------------------------------------------------------------------------------------------


def _facts(table: StudyTable, results: Results | None) -> list[dict[str, Any]]:
    """Environment, cost, failures and registration, as tables."""
    made = [(name, str(table.made.get(key) or DASH)) for key, name in ENVIRONMENT.items()]
    seconds = table.made.get("seconds")
    if isinstance(seconds, int | float):
        made.append(("training time of the finished trials", clock_text(seconds)))
    notes = _registration(table, results)
    facts = [_plain("Environment", ("", ""), made, left=2, notes=notes)]
    if cost := _cost(table.plan):
        facts.append(_plain("Cost of the last run", ("Quantity", "Planned", "Actual"), cost, left=1))
    failed = [(row.variant, ending, str(count)) for row in table.rows for ending, count in sorted(row.failed.items())]
    if failed:
        facts.append(_plain("Failed trials by class", ("Variant", "Class", "Trials"), failed, left=2))
    return facts


ENVIRONMENT = {"commit": "commit", "device": "device", "torch": "PyTorch"}


def _cost(plan: Mapping[str, Any]) -> list[tuple[str, ...]]:
    actual = plan.get("actual")
    if not isinstance(actual, Mapping):
        return []
    about = bound_text(bool(plan.get("at_least")), bool(plan.get("at_most")))
    texts = {"trials": count_text, "image_passes": count_text, "seconds": _clock}
    return [
        (
            key.replace("_", " ").replace("seconds", "time"),
            DASH if plan.get(key) is None else about + text(plan[key]),
            text(actual.get(key)),
        )
        for key, text in texts.items()
    ]


def _clock(seconds: float | None) -> str:
    return DASH if seconds is None else clock_text(seconds)


def _registration(table: StudyTable, results: Results | None) -> list[str]:
    if results is None or not table.run_id:
        return []
    study = next(row for row in results.studies.to_dict("records") if row["run_id"] == table.run_id)
    return registration_notes(study["registered"], changes(study))


def _plain(
    title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], left: int, notes: list[str] | None = None
) -> dict[str, Any]:
    """A table of texts; left: how many of its columns are words."""
    aligns = ["left" if place < left else "right" for place in range(len(columns))]
    return {
        "title": title,
        "columns": [
            {"key": name.lower(), "title": name, "align": align} for name, align in zip(columns, aligns, strict=True)
        ],
        "rows": [
            [{"text": text, "align": align, "best": False} for text, align in zip(row, aligns, strict=True)]
            for row in rows
        ],
        "notes": notes or [],
        "code": [],
    }


register_page("html", write)
