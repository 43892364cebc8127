"""JAFFE: codes in file names."""

from __future__ import annotations

from pathlib import Path

from tests.data.conftest import (
    jaffe,
    label,
    read,
    subjects,
)


def test_jaffe_codes(tmp_path: Path) -> None:
    jaffe(tmp_path)
    source = read("jaffe", tmp_path)
    assert [label(source, sample.name) for sample in source.samples[:7]] == [
        "anger",
        "disgust",
        "fear",
        "happiness",
        "neutral",
        "sadness",
        "surprise",
    ]
    assert label(source, "KA.AN1.39.tiff", "gender") == "female"
    assert set(subjects(source).values()) == {"KA", "YM"}
