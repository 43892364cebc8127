"""Tables: column names, splits, labels, and faulty rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from hmtl_ablate.data.reading import EMOTIONS, TEST, TRAIN, VALID
from hmtl_ablate.errors import DataError
from tests.data.conftest import (
    label,
    manifest,
    read,
    save,
    subjects,
    table,
)


def csv_set(root: Path, rows: list[Sequence[object]], count: int = 20) -> Path:
    for i in range(count):
        save(root / f"{i}.png", i)
    table(root / "faces.csv", rows)
    return root / "faces.csv"


@pytest.mark.parametrize("header", ["path", "Image", "file", "filename", "img"])
@pytest.mark.parametrize("column", ["emotion", "Label", "expression"])
def test_csv_column_aliases(header: str, column: str, tmp_path: Path) -> None:
    rows: list[Sequence[object]] = [["id", column, header], *([i, EMOTIONS[i % 8], f"{i}.png"] for i in range(20))]
    source = read("csv", csv_set(tmp_path, rows))
    assert len(source.samples) == 20
    assert label(source, "3.png") == "surprise"


def test_csv_splits_numbers_semicolons_and_missing_labels(tmp_path: Path) -> None:
    file = csv_set(tmp_path, [])
    file.write_text("path;label;sex;split\n0.png;3;;train\n1.png;;f;val\n2.png;7.0;male;test\n", encoding="utf-8-sig")
    source = read("csv", file)
    assert [(sample.split, sample.read(8)[1]) for sample in source.samples] == [
        (TRAIN, {"emotion": 3}),
        (VALID, {"gender": 1}),
        (TEST, {"emotion": 7, "gender": 0}),
    ]


def test_csv_other_classes_are_sorted(tmp_path: Path) -> None:
    rows: list[Sequence[object]] = [["path", "label"], *([f"{i}.png", "zbca"[i % 4]] for i in range(20))]
    source = read("csv", csv_set(tmp_path, rows))
    assert source.classes["emotion"] == ("a", "b", "c", "z")
    assert label(source, "2.png") == "c"


def test_csv_faulty_rows_are_listed(tmp_path: Path) -> None:
    rows: list[Sequence[object]] = [
        ["path", "emotion", "gender", "yaw", "pitch", "roll", "split"],
        *([f"{i}.png", EMOTIONS[i % 8], "m", 0, 0, 0, "train"] for i in range(20)),
        ["0.png", "hapiness", "m", 0, 0, 0, "train"],
        ["1.png", "fear", "x", 0, 0, 0, "train"],
        ["2.png", "fear", "m", "left", 0, 0, "train"],
        ["3.png", "fear", "m", 400, 0, 0, "train"],
        ["4.png", "fear", "m", 0, 0, 0, "other"],
        ["5.png", "", "", "", "", "", "train"],
        ["6.png"],
        ["", "fear", "m", 0, 0, 0, "train"],
    ]
    source = read("csv", csv_set(tmp_path, rows))
    reasons = dict(source.dropped)
    assert len(source.samples) == 20
    assert "did you mean 'happiness'" in reasons["0.png"]
    assert "gender 'x'" in reasons["1.png"]
    assert "not numbers" in reasons["2.png"]
    assert "±180°" in reasons["3.png"]
    assert "split 'other'" in reasons["4.png"]
    assert reasons["5.png"] == "no label"
    assert reasons["faces.csv row 28"] == "1 columns instead of 7"
    assert reasons["faces.csv row 29"] == "no path"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "its columns are a, b"),
        ("path,yaw\n0.png,1\n", "belong together"),
        ("path,label\n", "no row has a path"),
        ("path,label\ngone.png,fear\n", "none of its images exists, e.g. gone.png"),
        ("path,l\xffbel\n0.png,1\n", "UTF-8"),
    ],
)
def test_csv_faulty_tables(text: str, says: str, tmp_path: Path) -> None:
    file = csv_set(tmp_path, [])
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=says):
        read("csv", file)


def test_csv_which_of_two(tmp_path: Path) -> None:
    manifest(tmp_path)
    table(tmp_path / "more.csv", [["path"]])
    with pytest.raises(DataError, match=r"which of labels\.csv, more\.csv"):
        read("csv", tmp_path)
    assert len(read("csv", tmp_path / "labels.csv").samples) == 16


@pytest.mark.parametrize("header", ["subject", "Identity", "person"])
def test_csv_subjects(header: str, tmp_path: Path) -> None:
    rows: list[Sequence[object]] = [["path", "emotion", header], ["0.png", "fear", "Ann"], ["1.png", "fear", ""]]
    assert subjects(read("csv", csv_set(tmp_path, rows))) == {"0.png": "Ann", "1.png": ""}


def test_csv_poses_beyond_99_degrees_are_no_labels(tmp_path: Path) -> None:
    rows: list[Sequence[object]] = [
        ["path", "gender", "yaw", "pitch", "roll"],
        ["0.png", "m", 99, -99, 0],
        ["1.png", "f", 99.5, 0, 0],
        ["2.png", "", 0, -100, 0],
    ]
    source = read("csv", csv_set(tmp_path, rows))
    assert [sample.read(8)[1] for sample in source.samples] == [
        {"gender": 0, "pose": (99.0, -99.0, 0.0)},
        {"gender": 1},
    ]
    assert source.left_out == {"pose beyond ±99°": 1}
    assert source.dropped == ()


def test_csv_affect_is_missing_when_empty_or_out_of_range(tmp_path: Path) -> None:
    rows: list[Sequence[object]] = [
        ["path", "emotion", "valence", "arousal"],
        ["0.png", "fear", -1, 1],
        ["1.png", "fear", -2, -2],  # AffectNet's code for a missing label
        ["2.png", "fear", 0.5, ""],
        ["3.png", "fear", "nan", 0],
        ["4.png", "fear", 5, 7],  # another scale
        ["5.png", "", 0.25, -0.5],
        ["6.png", "", 5, 7],
        ["7.png", "", "", ""],
    ]
    source = read("csv", csv_set(tmp_path, rows))
    emotion = {"emotion": 0}  # the only class
    assert [sample.read(8)[1] for sample in source.samples] == [
        {**emotion, "affect": (-1.0, 1.0)},
        emotion,
        emotion,
        emotion,
        emotion,
        {"affect": (0.25, -0.5)},
    ]
    assert dict(source.dropped) == {"6.png": "valence, arousal 5, 7 are not within ±1", "7.png": "no label"}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("path,label,arousal", "valence and arousal belong together"),
        ("path,roll,yaw", "yaw, pitch and roll belong together"),
        ("valence,arousal", "it needs a path column"),
        ("path,age", "it needs .* a label: emotion"),
    ],
)
def test_csv_incomplete_columns(header: str, says: str, tmp_path: Path) -> None:
    file = csv_set(tmp_path, [])
    file.write_text(header + "\n")
    with pytest.raises(DataError, match=says):
        read("csv", file)
