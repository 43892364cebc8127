"""CK+: peak frames, subjects, and faulty labels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.registry import read_source
from tests.data.conftest import (
    ckplus,
    ckplus_48,
    label,
    picture,
    read,
    save,
    seen,
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


def scenes(root: Path) -> Path:
    """One sequence of wide frames, and landmarks of its last two: x 60 to 80, y 10 to 40."""
    for frame in range(1, 5):
        path = root / "cohn-kanade-images" / "S005" / "001" / f"S005_001_{frame:08}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(picture(frame, 96), (96, 64)))
    label = root / "Emotion" / "S005" / "001" / "S005_001_00000004_emotion.txt"
    label.parent.mkdir(parents=True)
    label.write_text("   3.0000000e+00\n")
    points = "\n".join(
        f"   {x:.7e}   {y:.7e}" for x, y in zip(np.linspace(60, 80, 68), np.linspace(40, 10, 68), strict=True)
    )
    for frame in (3, 4):
        marks = root / "Landmarks" / "S005" / "001" / f"S005_001_{frame:08}_landmarks.txt"
        marks.parent.mkdir(parents=True, exist_ok=True)
        marks.write_text(points)
    return root


def test_ckplus_is_cropped_by_its_landmarks(tmp_path: Path) -> None:
    """Fault A3: frames are scenes; they were squeezed to a square without a crop."""
    root = scenes(tmp_path)
    source = read("ckplus", root)
    [sample] = source.samples
    # 20 wide, 0.4 × 20 more on both sides; 30 high, 0.4 × 30 more above and 0.12 × 30 below: 36 × 45.6
    assert sample.frame == pytest.approx((52, -2, 36, 45.6))
    scene = sample.read(48)[0]
    np.testing.assert_array_equal(seen(sample), scene[:44, 47:93])  # the 46 px square from (47, -2); black above
    assert seen(sample, face_crop="none").shape == (64, 96, 3)
    assert source.layout == "as published: cohn-kanade-images/, Emotion/, Landmarks/"
    assert [Path(file).parts[-4] for file in sample.files] == ["cohn-kanade-images", "Emotion", "Landmarks"]


def test_ckplus_without_landmarks_is_the_centred_square_of_its_height(tmp_path: Path) -> None:
    """Fault A3."""
    root = scenes(tmp_path)
    shutil.rmtree(root / "Landmarks")
    source = read("ckplus", root)
    [sample] = source.samples
    np.testing.assert_array_equal(seen(sample), sample.read(48)[0][:, 16:80])
    assert any(note.startswith("1 frames have no file in Landmarks/") for note in source.notes)


def test_ckplus_last_three_frames(tmp_path: Path) -> None:
    """Fault A3: one frame of a sequence, or its last three."""
    source = read_source(DataConfig(name="ckplus", frames="last3"), scenes(tmp_path))
    assert [Path(sample.name).stem for sample in source.samples] == [f"S005_001_0000000{n}" for n in (2, 3, 4)]
    assert [sample.frame == "centre" for sample in source.samples] == [True, False, False]
    (tmp_path / "Landmarks" / "S005" / "001" / "S005_001_00000004_landmarks.txt").write_text("1 2 3")
    source = read_source(DataConfig(name="ckplus", frames="last3"), tmp_path)
    assert [reason for _, reason in source.dropped] == [
        "S005_001_00000004_landmarks.txt holds 3 numbers instead of 68 points"
    ]


@pytest.mark.parametrize(("frames", "count"), [("peak", 7), ("last3", 21)])
def test_ckplus_48_takes_subjects_from_the_names(frames: Any, count: int, tmp_path: Path) -> None:
    """Fault A3: data.frames means the same in both layouts."""
    ckplus_48(tmp_path)
    save(tmp_path / "fear" / "face.png", 0)
    source = read_source(DataConfig.model_validate({"name": "ckplus", "frames": frames}), tmp_path)
    assert len(source.samples) == count
    assert source.left_out == ({"frame before the peak": 14} if frames == "peak" else {})
    assert label(source, "happy/S014_004_00000017.png") == "happiness"
    assert subjects(source)["happy/S014_004_00000017.png"] == "S014"
    assert source.dropped == (("fear/face.png", "its name is not like S010_004_00000017.png"),)
