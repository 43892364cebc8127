"""The figures of studies as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hmtl_ablate.errors import HmtlError
from hmtl_ablate.reporting.evidence import Evidence
from hmtl_ablate.reporting.figures import drawings, evidence
from hmtl_ablate.reporting.figures.style import png, svg
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable


def write_figures(tables: Sequence[StudyTable], results: Results, folder: Path) -> list[Path]:
    """Write each figure as `<study>-<profile>-<figure>.png` and `.svg` into the folder, which is made where there is
    none; an evaluation's name follows the profile, and a number where two studies would have the same name.

    Gives the paths, in order. Raises HmtlError when a file can't be written.
    """
    written: list[Path] = []
    taken: set[str] = set()
    for table in tables:
        stem = _free("-".join(_safe(part) for part in (table.name, table.profile, table.evaluation) if part), taken)
        for kind, drawing in drawings(table, results):
            contents = {"png": png(drawing.figure), "svg": svg(drawing.figure).encode()}
            written += [_write(folder / f"{stem}-{kind.key}.{end}", content) for end, content in contents.items()]
    return written


def write_evidence(found: Sequence[Evidence], folder: Path) -> list[Path]:
    """Write the forest plot of each metric as `evidence-<task>-<metric>.png` and `.svg`; paths and errors as above."""
    written: list[Path] = []
    for one in found:
        drawing = evidence.draw(one)
        if drawing is not None:
            stem = f"evidence-{_safe(one.task)}-{_safe(one.metric)}"
            contents = {"png": png(drawing.figure), "svg": svg(drawing.figure).encode()}
            written += [_write(folder / f"{stem}.{end}", content) for end, content in contents.items()]
    return written


def _safe(name: str) -> str:
    """Letters, digits, _ and - of a name, so that it can't leave the folder nor hide a file."""
    return re.sub(r"[^\w-]+", "_", name).strip("_")[:60] or "_"


def _free(stem: str, taken: set[str]) -> str:
    """The name, with a number where it is taken; compared without case, as some file systems do."""
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(taken) + 2))
    free = next(name for name in names if name.lower() not in taken)
    taken.add(free.lower())
    return free


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise HmtlError(f"--figures: {path} can't be written: {error.strerror}; choose another folder") from error
    return path
