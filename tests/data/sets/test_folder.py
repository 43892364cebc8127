"""Class folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmtl_ablate.errors import DataError
from tests.data.conftest import (
    folder,
    label,
    read,
    save,
)


def test_folder_other_class_names_are_sorted(tmp_path: Path) -> None:
    folder(tmp_path, classes=("wink", "Blink", "neutral"))
    assert read("folder", tmp_path).classes["emotion"] == ("Blink", "neutral", "wink")


def test_folder_emotions_keep_the_paper_order_under_common_names(tmp_path: Path) -> None:
    folder(tmp_path, classes=("angry", "Happy", "sad", "neutral"))
    source = read("folder", tmp_path)
    assert source.classes["emotion"] == ("neutral", "happiness", "sadness", "anger")
    assert label(source, "Happy/0.jpg") == "happiness"


def test_folder_faults(tmp_path: Path) -> None:
    save(tmp_path / "flat" / "0.jpg", 0)
    with pytest.raises(DataError, match="images but no class folders"):
        read("folder", tmp_path / "flat")
    save(tmp_path / "one" / "joy" / "0.jpg", 0)
    with pytest.raises(DataError, match="one class folder only, joy"):
        read("folder", tmp_path / "one")
    folder(tmp_path / "odd", ("train", "more"))
    with pytest.raises(DataError, match="train/ is a split but more/ is not"):
        read("folder", tmp_path / "odd")
    folder(tmp_path / "both", ("train", "val", "valid"))
    with pytest.raises(DataError, match="two folders for one split"):
        read("folder", tmp_path / "both")
    folder(tmp_path / "notrain", ("val", "test"))
    with pytest.raises(DataError, match="no train folder"):
        read("folder", tmp_path / "notrain")
