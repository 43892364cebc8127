"""FER2013: the publisher's numbers, and faulty rows."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from hmtl_ablate.errors import DataError
from tests.data.conftest import (
    fer2013,
    folder,
    label,
    picture,
    read,
    table,
)


def test_fer2013_numbers_and_faulty_rows(tmp_path: Path) -> None:
    fer2013(tmp_path)
    with (tmp_path / "fer2013.csv").open("a", newline="") as file:
        csv.writer(file).writerows([[7, "0 " * 2304, "Training"], [3, "0 " * 2304, "Test"], [3, "0 0 0", "Training"]])
    source = read("fer2013", tmp_path / "fer2013.csv")
    assert [label(source, f"fer2013.csv row {row}") for row in range(2, 9)] == [
        "anger",
        "disgust",
        "fear",
        "happiness",
        "sadness",
        "surprise",
        "neutral",
    ]
    np.testing.assert_array_equal(source.samples[3].read(48)[0], picture(3, 48, grey=True))
    assert [reason for _, reason in source.dropped] == [
        "emotion '7' is not 0 to 6",
        "Usage 'Test' is not one of Training, PublicTest, PrivateTest",
        "3 pixels instead of 48 × 48",
    ]


def test_fer2013_faulty_folders_and_columns(tmp_path: Path) -> None:
    folder(tmp_path / "a", ("train", "test"), ("happy", "joy"))
    with pytest.raises(DataError, match="joy/ is not one of the emotions neutral, happiness"):
        read("fer2013", tmp_path / "a")
    table(tmp_path / "b" / "fer2013.csv", [["pixels", "Usage"]])
    with pytest.raises(DataError, match="no column emotion"):
        read("fer2013", tmp_path / "b")
