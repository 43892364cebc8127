"""CK+: peak frames, subjects, and faulty labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.conftest import (
    ckplus,
    ckplus_48,
    label,
    read,
    save,
    subjects,
)


def test_ckplus_takes_the_peak_frame_of_labelled_sequences(tmp_path: Path) -> None:
    ckplus(tmp_path)
    source = read("ckplus", tmp_path)
    peaks = [
        f"cohn-kanade-images/S{5 + i // 2:03}/{1 + i % 2:03}/S{5 + i // 2:03}_{1 + i % 2:03}_00000011.png"
        for i in range(7)
    ]
    assert [label(source, peak) for peak in peaks] == [
        "anger",
        "contempt",
        "disgust",
        "fear",
        "happiness",
        "sadness",
        "surprise",
    ]
    assert subjects(source) == {peak: peak.split("/")[1] for peak in peaks}
    assert source.left_out == {"sequence without an emotion label": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("   0.0000000e+00\n", "emotion '0' is not 1 to 7"),
        ("3.5", "emotion '3.5' is not 1 to 7"),
        ("", "emotion '' is not 1 to 7"),
        ("happy", "S005_001_00000011_emotion.txt does not hold numbers"),
    ],
)
def test_ckplus_faulty_labels_are_listed(text: str, says: str, tmp_path: Path) -> None:
    ckplus(tmp_path)
    (tmp_path / "Emotion" / "S005" / "001" / "S005_001_00000011_emotion.txt").write_text(text)
    assert read("ckplus", tmp_path).dropped == (("cohn-kanade-images/S005/001", says),)


def test_ckplus_48_takes_subjects_from_the_names(tmp_path: Path) -> None:
    ckplus_48(tmp_path)
    save(tmp_path / "fear" / "face.png", 0)
    source = read("ckplus", tmp_path)
    assert len(source.samples) == 21
    assert label(source, "happy/S014_004_00000017.png") == "happiness"
    assert subjects(source)["happy/S014_004_00000017.png"] == "S014"
    assert source.dropped == (("fear/face.png", "its name is not like S010_004_00000017.png"),)
