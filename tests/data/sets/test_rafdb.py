"""RAF-DB: the publisher's numbers and splits."""

from __future__ import annotations

from pathlib import Path

from hmtl_ablate.data.reading import TEST, TRAIN
from tests.data.conftest import (
    label,
    rafdb,
    read,
)


def test_rafdb_numbers_and_splits(tmp_path: Path) -> None:
    rafdb(tmp_path)
    source = read("rafdb", tmp_path)
    assert [label(source, f"Image/aligned/train_{i:05}_aligned.jpg") for i in range(7)] == [
        "surprise",
        "fear",
        "disgust",
        "happiness",
        "sadness",
        "anger",
        "neutral",
    ]
    assert [sample.split for sample in source.samples] == [TRAIN] * 14 + [TEST] * 7


def test_rafdb_faulty_rows_are_listed(tmp_path: Path) -> None:
    rafdb(tmp_path)
    with (tmp_path / "EmoLabel" / "list_patition_label.txt").open("a") as file:
        file.write("train_00000.jpg 8\ntrain_99999.jpg 1\nvalid_00001.jpg 1\ntest_0014.jpg\n")
    assert dict(read("rafdb", tmp_path).dropped) == {
        "train_00000.jpg": "emotion '8' is not 1 to 7",
        "train_99999.jpg": "file is missing",
        "valid_00001.jpg": "its name does not start with train_ or test_",
        "test_0014.jpg": "row 25 is not a name and a number",
    }
