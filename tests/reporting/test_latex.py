"""What a paper takes in: floats that pdflatex sets without a complaint."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.reporting.choosing import ReportOptions
from hmtl_ablate.reporting.document import Column, Section, Table
from hmtl_ablate.reporting.formats.latex import write
from hmtl_ablate.reporting.render import build_document, build_report, render
from tests.reporting import example  # type: ignore[import-not-found]
from tests.reporting.test_evidence import PUZZLING, log  # type: ignore[import-not-found]

WORDS = "−0.5 ± 1 × 2 … 90° é Ångström Čapek α Ω ﬁ 😀 漢 “so” a_b"
DOCUMENT = r"""\documentclass%s{article}
\usepackage[T1]{fontenc}\usepackage{booktabs}\usepackage{graphicx}
\begin{document}
See %s.
\input{tables}
\end{document}
"""


COMPLAINTS = (r"Overfull \hbox", "undefined", "multiply defined", "Missing character")


def table(best: str, label: str = "") -> Table[tuple[str, float]]:
    columns: tuple[Column[tuple[str, float]], ...] = (
        Column("name", lambda row: row[0], "Name", align="left"),
        Column("score", lambda row: row[1], "Score", best=best),  # type: ignore[arg-type]
    )
    return Table("Scores", "", columns, (("a", 1.0), ("b", 2.0)), label=label)


@pytest.mark.parametrize(("best", "bold"), [("max", "2.000"), ("min", "1.000")])
def test_the_best_value_is_bold_whichever_way_is_better(best: str, bold: str) -> None:
    text = write([Section("", "", (table(best),))], 80)
    assert text.count(r"\textbf{") == 1
    assert rf"\textbf{{{bold}}}" in text


def test_characters_that_pdflatex_cannot_take_are_printed_in_ascii() -> None:
    text = write([Section("", "", (replace(table(""), notes=(WORDS,)),))], 80)
    assert (
        r"$-$0.5 $\pm$ 1 $\times$ 2 \dots{} 90\textdegree{} \'{e} \r{A}ngstr\"{o}m \v{C}apek $\alpha$ $\Omega$ fi "
        r"(U+1F600) (U+6F22) ``so'' a\_b\par"
    ) in text
    assert text.isascii()


def test_code_is_verbatim_where_pdflatex_takes_it() -> None:
    text = write([Section("", "", (replace(table(""), code="  tuned:\n    lr: 0.1\n"),))], 80)
    assert "\\begin{verbatim}\n  tuned:\n    lr: 0.1\n\\end{verbatim}" in text
    for name in ("α", r"\end{verbatim}\input{x}", "long " * 20):
        text = write([Section("", "", (replace(table(""), code=f"  {name}: 1\n"),))], 80)
        assert text.isascii()
        assert "verbatim}\n" not in text
        assert r"\hspace*{1.0em}" in text


def test_every_float_of_a_report_has_its_own_label() -> None:
    report = example.example()
    twice = replace(report, tables=(*report.tables, *report.tables))
    tables = [one for section in build_document(twice).sections for one in section.tables]
    labels = [one.label for one in tables]
    assert len(set(labels)) == len(labels)
    assert {"hmtl-puzzling-quick", "hmtl-puzzling-quick-2", "hmtl-head-pose-quick-linear-probe"} <= set(labels)
    assert r"\label{tab:hmtl-puzzling-quick}" in render(twice, "latex")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["", "[twocolumn]"])
def test_pdflatex_sets_every_table_within_the_line(option: str, tmp_path: Path) -> None:
    long = replace(
        table("max", "long"),
        rows=(("A variant of very many words " * 6, 1.0), ("options_" * 20, 2.0), (WORDS, 0.5)),
        title="A long caption " * 12 + "identifier" * 12,
        notes=("a note that is long " * 15, "x" * 200, WORDS),
    )
    text = render(example.example(), "latex") + "\n" + write([Section("More", "", (long,))], 80)
    log = _pdflatex(text, option, tmp_path)
    for complaint in COMPLAINTS:
        assert complaint not in log


@pytest.mark.slow
@pytest.mark.parametrize("option", ["", "[twocolumn]"])
def test_pdflatex_sets_the_evidence(option: str, records: Any, tmp_path: Path) -> None:
    log(records, [0.01, 0.02, 0.03], extra={"wide grid": PUZZLING | {"pretext.puzzling.grid": "3"}})
    log(records, [0.00, 0.01, -0.01], "a second study with a long name", data="ferplus")
    log(records, [0.02, 0.03, 0.05], "three", params={"model.backbone": "'resnet18'"})
    text = render(build_report(records.results(), options=ReportOptions(evidence="puzzling")), "latex")
    assert "prediction interval" in text
    written = _pdflatex(text, option, tmp_path)
    for complaint in COMPLAINTS:
        assert complaint not in written


@pytest.mark.slow
def test_a_wide_table_goes_over_both_columns(tmp_path: Path) -> None:
    """4 numbers have room in one column; 10 would be shrunk to about half their size, so that they take both."""
    columns = [Column[str](f"c{n}", lambda row: row, f"Column {n}") for n in range(10)]
    tables = [
        Table("Scores", "", tuple(columns[:n]), ("12.34 x 5.67",), notes=(rf"{n} columns",), label=str(n))
        for n in (3, 10)
    ]
    text = write([Section("", "", tuple(tables))], 80).replace(
        r"\centering", r"\typeout{SET IN: \hmtlfloat, \the\linewidth\space OF \the\textwidth}\centering"
    )
    log = _pdflatex(text, "[twocolumn]", tmp_path)
    found = re.findall(r"SET IN: (\S+), (\S+)pt OF (\S+)pt", log)[-2:]
    assert [kind for kind, _, _ in found] == ["table", "table*"]
    assert [float(line) == float(page) for _, line, page in found] == [False, True]
    for complaint in COMPLAINTS:
        assert complaint not in log


def _pdflatex(text: str, option: str, folder: Path) -> str:
    """The log of a document that refers to all tables of `text`."""
    labels = [line.removeprefix(r"\label{").rstrip("}") for line in text.splitlines() if line.startswith(r"\label{")]
    (folder / "tables.tex").write_text(text)
    (folder / "paper.tex").write_text(DOCUMENT % (option, ", ".join(rf"\ref{{{label}}}" for label in labels)))
    program = shutil.which("pdflatex")
    assert program, "pdflatex is in tests/debian-packages.txt"
    for _ in range(2):  # the second run knows the labels
        command = [program, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    return (folder / "paper.log").read_text(errors="replace")
