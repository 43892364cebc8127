"""BIWI: angles and head boxes against values worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from hmtl_ablate.data.reading import decode
from hmtl_ablate.errors import DataError
from tests.data.conftest import (
    biwi,
    biwi_pose,
    picture,
    read,
    seen,
    subjects,
)

LEFT_OUT = {"pose beyond ±99°": 1}


def whole(path: Path) -> np.ndarray:
    return decode(path.read_bytes())


SIN, COS = 0.5, math.sqrt(0.75)  # of 30°


@pytest.mark.parametrize(
    ("rotation", "pose"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], (0, 0, 0)),
        ([[COS, 0, SIN], [0, 1, 0], [-SIN, 0, COS]], (30, 0, 0)),
        ([[1, 0, 0], [0, COS, SIN], [0, -SIN, COS]], (0, 30, 0)),
        ([[COS, SIN, 0], [-SIN, COS, 0], [0, 0, 1]], (0, 0, -30)),
        # turned by yaw 30°, then seen from a camera that is rolled by 30°
        ([[COS * COS, SIN * COS, SIN], [-SIN, COS, 0], [-SIN * COS, -SIN * SIN, COS]], (30, 0, -30)),
    ],
)
def test_biwi_angles(rotation: list[list[float]], pose: tuple[float, ...], tmp_path: Path) -> None:
    biwi(tmp_path)
    biwi_pose(tmp_path / "01" / "frame_00003_pose.txt", rotation)
    assert read("biwi", tmp_path).samples[0].read(48)[1]["pose"] == pytest.approx(pose, abs=1e-9)


def test_biwi_crops_the_head_with_the_colour_camera(tmp_path: Path) -> None:
    biwi(tmp_path)
    frame = tmp_path / "01" / "frame_00003_rgb.png"
    cv2.imwrite(str(frame), cv2.resize(picture(0, 480), (640, 480)))
    # (120 − 20, −100, 1000) mm is at (370, 190); 300 mm are 150 pixels there
    np.testing.assert_array_equal(seen(read("biwi", tmp_path).samples[0]), whole(frame)[115:265, 295:445])
    (tmp_path / "01" / "rgb.cal").unlink()
    np.testing.assert_array_equal(seen(read("biwi", tmp_path).samples[0]), whole(frame))
    (tmp_path / "01" / "rgb.cal").write_text("1 2 3")
    with pytest.raises(DataError, match=r"rgb\.cal: 3 numbers are not a camera calibration"):
        read("biwi", tmp_path)


def test_biwi_people_recorded_twice_are_one_subject(tmp_path: Path) -> None:
    biwi(tmp_path)
    assert set(subjects(read("biwi", tmp_path)).items()) == {
        (f"{folder}/frame_0000{frame}_rgb.png", subject)
        for folder, subject in (("01", "01"), ("03", "03"), ("15", "03"))
        for frame in (3, 4)
    }


def test_biwi_faulty_poses_are_listed(tmp_path: Path) -> None:
    biwi(tmp_path)
    (tmp_path / "01" / "frame_00003_pose.txt").unlink()
    (tmp_path / "01" / "frame_00004_pose.txt").write_text("1 0 0")
    (tmp_path / "03" / "frame_00003_pose.txt").write_text("no pose")
    biwi_pose(tmp_path / "03" / "frame_00004_pose.txt", np.eye(3), (0, 0, -1))
    biwi_pose(tmp_path / "15" / "frame_00003_pose.txt", [[-1, 0, 0], [0, 1, 0], [0, 0, -1]])
    source = read("biwi", tmp_path)
    assert len(source.samples) == 1
    assert source.left_out == LEFT_OUT
    assert dict(source.dropped) == {
        "01/frame_00003_rgb.png": "no frame_00003_pose.txt",
        "01/frame_00004_rgb.png": "frame_00004_pose.txt holds 3 numbers instead of a 3 × 3 rotation and a translation",
        "03/frame_00003_rgb.png": "frame_00003_pose.txt does not hold numbers",
        "03/frame_00004_rgb.png": "its head is behind the camera",
    }
