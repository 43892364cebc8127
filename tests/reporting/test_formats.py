"""The registry of formats: a format is a file; and what each format does to one small table."""

import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

from hmtl_ablate.cli.report import report
from hmtl_ablate.errors import HmtlError
from hmtl_ablate.reporting import formats, results
from hmtl_ablate.reporting.document import Column, Document, Section, Table, one_line
from hmtl_ablate.reporting.formats import (
    DATA_FORMATS,
    TEXT_FORMATS,
    check_format,
    format_names,
    register_data,
    register_text,
)
from hmtl_ablate.reporting.render import build_report, render, render_sections
from hmtl_ablate.reporting.results import load_results
from tests.reporting.example import empty, example  # type: ignore[import-not-found]

COLUMNS = (
    Column[tuple[str, float]]("name", lambda row: row[0], "Name", align="left"),
    Column[tuple[str, float]]("size", lambda row: row[1], "Size", lambda row: f"{row[1]:.1f}"),
    Column[tuple[str, float]]("hidden", lambda row: 0),
)
TABLE = Table("Two", "A lead.", COLUMNS, (("a_b", 1.0), ("c", 22.5)), ("A note.",))
SECTIONS = [Section("Sizes", "Some text.", (TABLE,))]


@pytest.fixture
def registries() -> Iterator[None]:
    """Whatever a test registers is gone after it."""
    before = dict(TEXT_FORMATS), dict(DATA_FORMATS)
    yield
    registry: Any
    for registry, content in zip((TEXT_FORMATS, DATA_FORMATS), before, strict=True):
        registry.clear()
        registry.update(content)


def test_every_file_is_a_format_and_every_format_a_file() -> None:
    assert {module.name for module in pkgutil.iter_modules(formats.__path__)} == set(format_names())


def test_markdown() -> None:
    assert render_sections(SECTIONS, "markdown") == (
        "## Sizes\n\nSome text.\n\n### Two\n\nA lead.\n\n"
        "| Name | Size |\n| --- | ---: |\n| a\\_b | 1.0 |\n| c | 22.5 |\n\n- A note.\n"
    )


def test_terminal() -> None:
    assert render_sections(SECTIONS, "terminal") == (
        "Sizes\n=====\nSome text.\n\nTwo\nA lead.\n\nName  Size\n──────────\na_b    1.0\nc     22.5\n  A note.\n"
    )


def test_latex() -> None:
    text = render_sections(SECTIONS, "latex")
    assert text.startswith("% needs \\usepackage{booktabs}")
    assert "% Sizes\n\n% Some text.\n\n\\begingroup" in text
    assert "\\sbox2{%\n\\begin{tabular}{lr}\n\\toprule\nName & Size" in text
    assert "\\begin{\\hmtlfloat}[htbp]\n\\centering\\small\\sloppy\n\\caption{Two. A lead.}" in text
    assert "Name & Size \\\\\n\\midrule\na\\_b & 1.0 \\\\\nc & 22.5 \\\\\n\\bottomrule" in text
    assert text.endswith("A note.\\par\n\\end{minipage}\n\\end{\\hmtlfloat}\\endgroup\n")


def test_a_new_format_for_people(registries: None) -> None:
    register_text("words", lambda sections, width: f"{len(sections)} sections\n")
    assert "words" in format_names()
    assert render(example(), "words") == "3 sections\n"
    assert render_sections(SECTIONS, "words") == "1 sections\n"


def test_a_new_format_for_programs(registries: None) -> None:
    def count(document: Document) -> str:
        return f"{len(document.claims.rows)} claims, {len(document.studies)} studies\n"

    register_data("counts", count)
    assert render(example(), "counts") == "3 claims, 6 studies\n"
    assert render(empty(), "counts") == "1 claims, 0 studies\n"


def test_an_unknown_format_is_refused_with_the_nearest() -> None:
    with pytest.raises(HmtlError, match=r"no report format 'markdwon'; did you mean 'markdown'\?"):
        check_format("markdwon")
    with pytest.raises(HmtlError, match="no report format 'xml'; valid: csv, html, json, latex, markdown, terminal"):
        render(empty(), "xml")


def test_sections_alone_are_no_whole_report() -> None:
    with pytest.raises(HmtlError, match="can't be written as 'csv'; valid: latex, markdown, terminal"):
        render_sections(SECTIONS, "csv")


def test_one_line() -> None:
    assert one_line("a\nb\x1b[31m\u2028c\td") == "a b [31m c d"


@pytest.mark.parametrize("name", format_names())
def test_the_command_line_takes_every_format(name: str, store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    report(runs=store.path, form=name)
    assert capsys.readouterr().out.strip() == render(build_report(load_results(None, store.path)), name).strip()


def test_the_command_line_refuses_a_format_before_it_reads_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "load_results", None)
    with pytest.raises(HmtlError, match="no report format 'latx'; did you mean 'latex'"):
        report(form="latx")
