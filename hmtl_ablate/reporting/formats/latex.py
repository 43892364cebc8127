"""LaTeX: floats for a document with \\usepackage{booktabs}, \\usepackage{graphicx} and \\usepackage[T1]{fontenc}."""

from __future__ import annotations

import unicodedata
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
        "…": r"\dots{}",
        "°": r"\textdegree{}",
        "²": r"\textsuperscript{2}",
        "ο": "o",
        "→": r"$\to$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "≈": r"$\approx$",
        "“": "``",
        "”": "''",
        "‘": "`",
        "’": "'",
        "ß": r"\ss{}",
        "ø": r"\o{}",
        "Ø": r"\O{}",
        "æ": r"\ae{}",
        "Æ": r"\AE{}",
        "ł": r"\l{}",
        "Ł": r"\L{}",
    }
)
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu "
    "nu xi pi rho sigma tau upsilon phi chi psi omega"
)
_ESCAPES |= {
    ord(unicodedata.lookup(f"GREEK SMALL LETTER {_n.replace('lambda', 'lamda')}")): rf"$\{_n}$" for _n in _GREEK.split()
}
_CAPITALS = "gamma delta theta lambda xi pi sigma upsilon phi psi omega"
_ESCAPES |= {
    ord(unicodedata.lookup(f"GREEK CAPITAL LETTER {_n.replace('lambda', 'lamda')}")): rf"$\{_n.title()}$"
    for _n in _CAPITALS.split()
}
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u030c": "v"}
_ACCENTS |= {"\u0327": "c", "\u0304": "=", "\u0328": "k"}
LONG_CELL = 44
"""Characters of a cell beyond which it is set in several lines, half as many em wide."""
VERBATIM = 50
"""Characters of a line that fit into a column of a document of two."""
SMALLEST_SCALE = 0.7
"""Of a table that is shrunk to its column: one that would be smaller goes over both columns of a document of two."""
ROWS = 40
"""Most rows of a float, so that it has room on a page."""
LONG_WORD, PIECE = 20, 10
"""Characters of a word beyond which it may be broken, and those of a piece."""


def write(sections: Sequence[Section], width: int) -> str:
    """One complete float per table, its answers and notes inside; headings and other sentences are comments, so that
    the file can be taken in anywhere by \\input. `width` does not matter."""
    blocks = [r"% needs \usepackage{booktabs}, \usepackage{graphicx} and \usepackage[T1]{fontenc}"]
    for section in sections:
        blocks += [_comment(words) for words in (section.heading, section.text) if words]
        for table in section.tables:
            title = table.title or section.heading
            if table.rows:
                blocks += _floats(table, title)
            else:
                blocks += [
                    _comment(words) for words in (table.title, table.lead, *table.answers, *table.notes) if words
                ]
    return "\n\n".join(blocks) + "\n"


def _comment(text: str) -> str:
    return "% " + one_line(text)


def _floats(table: Table[Any], title: str) -> list[str]:
    """The table's floats: several where one would be longer than a page, the answers and notes in the last one."""
    lines = _rows(table)
    parts = -(-len(lines) // ROWS)
    size = -(-len(lines) // parts)
    notes = (*table.answers, *table.notes)
    below = _below(notes) if notes else []
    code = _code(table.code.splitlines()) if table.code else []
    return [
        _float(
            table,
            ". ".join(words for words in (title, table.lead) if words) if part == 0 else f"{title} (continued)",
            lines[part * size : (part + 1) * size],
            table.label if part == 0 or not table.label else f"{table.label}-part-{part + 1}",
            [*below, *code] if part == parts - 1 else [],
        )
        for part in range(parts)
    ]


def _float(table: Table[Any], caption: str, rows: list[str], label: str, below: list[str]) -> str:
    # The box is set in front of the float, whose kind its width decides. Box 2 is local to the group: \newsavebox could
    # be said once per document only, and \resizebox takes box 0.
    lines = [r"\begingroup\small\sbox2{%", *_tabular(table, rows), "}%"]
    lines.append(rf"\ifdim {SMALLEST_SCALE}\wd2>\columnwidth\def\hmtlfloat{{table*}}\else\def\hmtlfloat{{table}}\fi")
    lines += [r"\begin{\hmtlfloat}[htbp]", r"\centering\small\sloppy", rf"\caption{{{_breakable(caption)}}}"]
    if label:
        lines.append(rf"\label{{tab:{label}}}")
    lines += [r"\smallskip", ""]
    lines.append(r"\ifdim\wd2>\linewidth\resizebox{\linewidth}{!}{\usebox2}\else\usebox2\fi")
    return "\n".join([*lines, *below, r"\end{\hmtlfloat}\endgroup"])


def _below(notes: Sequence[str]) -> list[str]:
    return [
        "",
        r"\smallskip",
        r"\begin{minipage}{\linewidth}\footnotesize\raggedright\sloppy",
        *(_breakable(note) + r"\par" for note in notes),
        r"\end{minipage}",
    ]


def _code(lines: list[str]) -> list[str]:
    """Lines as they are; where pdflatex can't set them so, in its typewriter font with what `_escape` makes of them."""
    plain = all(line.isascii() and len(line) <= VERBATIM and "\\end{verbatim}" not in line for line in lines)
    if plain:
        return [r"\begin{footnotesize}", r"\begin{verbatim}", *lines, r"\end{verbatim}", r"\end{footnotesize}"]
    indents = [len(line) - len(line.lstrip()) for line in lines]
    return [
        "",
        r"\begin{minipage}{\linewidth}\footnotesize\ttfamily\raggedright\sloppy",
        *(rf"\hspace*{{{n / 2}em}}{_breakable(line)}\par" for n, line in zip(indents, lines, strict=True)),
        r"\end{minipage}",
    ]


def _rows(table: Table[Any]) -> list[str]:
    marked = [table.best_rows(column) for column in table.shown]
    rows = [
        [_cell(text, bold=number in best) for text, best in zip(cells, marked, strict=True)]
        for number, cells in enumerate(table.cells())
    ]
    return [" & ".join(cells) + r" \\" for cells in rows]


def _tabular(table: Table[Any], rows: list[str]) -> list[str]:
    return [
        rf"\begin{{tabular}}{{{''.join(column.align[0] for column in table.shown)}}}",
        r"\toprule",
        " & ".join(_cell(column.title) for column in table.shown) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}%",
    ]


def _cell(text: str, bold: bool = False) -> str:
    if len(text) > LONG_CELL:
        return rf"\parbox[t]{{{LONG_CELL // 2}em}}{{\raggedright\strut {_breakable(text)}\strut}}"
    return rf"{{\boldmath\textbf{{{_escape(text)}}}}}" if bold else _escape(text)


def _breakable(text: str) -> str:
    """Escaped, with places to break a word that is longer than most lines of a column."""
    words = one_line(text).split()
    return " ".join(
        _escape(word)
        if len(word) <= LONG_WORD
        else r"\allowbreak{}".join(_escape(word[n : n + PIECE]) for n in range(0, len(word), PIECE))
        for word in words
    )


def _escape(text: str) -> str:
    return "".join(_character(one) for one in unicodedata.normalize("NFC", one_line(text))).strip()


def _character(one: str) -> str:
    """What prints a character in pdflatex, in ASCII: of a letter with an accent both, of one that no font of T1 has
    its nearest letters, else its number."""
    known = _ESCAPES.get(ord(one))
    if known is not None:
        return known
    if one.isascii():
        return one
    if unicodedata.category(one) in ("Mn", "Cf"):
        return ""  # a joiner or selector without a letter of its own
    base, *marks = list(unicodedata.normalize("NFKD", one))
    if len(marks) == 1 and base.isascii() and marks[0] in _ACCENTS:
        return rf"\{_ACCENTS[marks[0]]}{{{base}}}"
    if base != one:
        return "".join(_character(part) for part in (base, *marks))
    return f"(U+{ord(one):04X})"


register_text("latex", write)
