"""The exact text of every format.

To change it on purpose: `UPDATE_SNAPSHOTS=1 pytest tests/reporting/test_snapshots.py`, then read `git diff`.
"""

import os
from pathlib import Path

import pytest

from hmtl_ablate.reporting.formats import format_names
from hmtl_ablate.reporting.render import render
from tests.reporting import example  # type: ignore[import-not-found]

FOLDER = Path(__file__).parent / "snapshots"


@pytest.mark.parametrize("format", format_names())
@pytest.mark.parametrize("name", ["example", "empty"])
def test_the_text_is_that_of_the_snapshot(name: str, format: str) -> None:
    file = FOLDER / f"{name}.{format}.txt"
    text = render(getattr(example, name)(), format)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_bytes(text.encode())
    assert text.encode() == file.read_bytes()


def test_a_narrow_terminal_breaks_words_and_keeps_numbers_whole() -> None:
    file = FOLDER / "example.narrow.txt"
    text = render(example.example(), "terminal", width=60)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_bytes(text.encode())
    assert text.encode() == file.read_bytes()
