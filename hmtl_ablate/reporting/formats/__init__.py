"""How a report is written: one file per format in this folder, each ending in its own `register_…`.

A text format writes sections of tables for people, from a report or from a table of analysis/. A data format writes a
whole report for programs, a page format one for people, with figures. To add a format, add a file; `--format` then
knows it. Importing this package loads neither rich nor pandas: a format imports what it needs when it writes.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from hmtl_ablate.errors import HmtlError, nearest_registered
from hmtl_ablate.reporting.document import Document, Section

if TYPE_CHECKING:
    from hmtl_ablate.reporting.render import Report

TextWriter = Callable[[Sequence[Section], int], str]
"""(sections, columns of the terminal) → text that ends with a newline."""
DataWriter = Callable[[Document], str]
"""The whole report → text that ends with a newline."""
PageWriter = Callable[["Report", Document], str]
"""The report, for its numbers and the trials' folders, and its tables → text that ends with a newline."""

TEXT_FORMATS: dict[str, TextWriter] = {}
DATA_FORMATS: dict[str, DataWriter] = {}
PAGE_FORMATS: dict[str, PageWriter] = {}


def register_text(name: str, write: TextWriter) -> None:
    """Add a format for people, or replace one."""
    TEXT_FORMATS[name] = write


def register_data(name: str, write: DataWriter) -> None:
    """Add a format for programs, or replace one."""
    DATA_FORMATS[name] = write


def register_page(name: str, write: PageWriter) -> None:
    """Add a format for people that takes a whole report, or replace one."""
    PAGE_FORMATS[name] = write


def format_names() -> tuple[str, ...]:
    """What `--format` takes: text formats, then data formats, then page formats."""
    return (*TEXT_FORMATS, *DATA_FORMATS, *PAGE_FORMATS)


def check_format(name: str) -> None:
    """Raises HmtlError, with the nearest valid name, when there is no such format."""
    if name not in format_names():
        raise HmtlError(f"there is no report format {name!r}; {nearest_registered(name, format_names())}")


for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
