"""The bundles of this repository's own studies."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmtl_ablate import verify

BUNDLES = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*.hmtl.zip"))


def test_there_are_some() -> None:
    assert BUNDLES


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
def test_what_they_say_fits_together(path: Path) -> None:
    found = verify(path)
    assert found.consistent, found
