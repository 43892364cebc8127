"""The bundles of this repository's own studies."""

from __future__ import annotations

import json
import zipfile
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


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
def test_the_report_of_the_results_page_is_the_bundles(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        bundled = json.loads(archive.read("report.json"))["studies"]
    report = path.with_name(path.name.replace(".hmtl.zip", ".json"))
    assert json.loads(report.read_text("utf-8"))["studies"] == bundled
