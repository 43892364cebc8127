"""LaTeX: tables for a document with \\usepackage{booktabs} and UTF-8 input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hmtl_ablate.reporting.document import Section, Table, one_line
from hmtl_ablate.reporting.formats import register_text

_ESCAPES = str.maketrans(
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


def write(sections: Sequence[Section], width: int) -> str:
    """Floating tables with captions, each followed by its notes; `width` does not matter."""
    blocks = [r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"]
    for section in sections:
        blocks.append(rf"\section*{{{_escape(section.heading)}}}")
        if section.text:
            blocks.append(_escape(section.text))
        for table in section.tables:
            if table.rows:
                blocks.append(_float(table, table.title or section.heading))
            elif table.title:
                blocks.append(". ".join(_escape(words) for words in (table.title, table.lead) if words))
            if table.notes:
                blocks.append("\n\n".join(_escape(note) for note in table.notes))
    return "\n\n".join(blocks) + "\n"


def _float(table: Table[Any], title: str) -> str:
    import pandas as pd

    frame = pd.DataFrame(
        [[_escape(cell) for cell in cells] for cells in table.cells()],
        columns=[_escape(column.title) for column in table.shown],
    )
    text = frame.style.hide(axis="index").to_latex(
        hrules=True,
        position="htbp",
        position_float="centering",
        column_format="".join(column.align[0] for column in table.shown),
        caption=". ".join(_escape(words) for words in (title, table.lead) if words),
    )
    return text.strip()


def _escape(text: str) -> str:
    return one_line(text).translate(_ESCAPES).strip()


register_text("latex", write)
