"""Images without labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmtl_ablate.data.reading import NO_SPLIT
from hmtl_ablate.errors import DataError
from tests.data.conftest import (
    read,
    unlabelled,
)


def test_images_are_found_at_every_level_and_have_no_labels(tmp_path: Path) -> None:
    unlabelled(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    source = read("images", tmp_path)
    assert [(sample.name, sample.split, sample.read(8)[1]) for sample in source.samples] == [
        (name, NO_SPLIT, {}) for name in ("0.jpg", "a/1.png", "a/b/2.bmp", "c/3.JPG")
    ]
    assert source.classes == {}
    with pytest.raises(DataError, match="give the dataset's folder"):
        read("images", tmp_path / "0.jpg")
