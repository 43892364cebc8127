"""The head-pose sets: angles and face boxes against values worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from hmtl_ablate.data.formats import decode
from hmtl_ablate.errors import DataError
from tests.data.conftest import (  # type: ignore[import-not-found]
    aflw2000,
    biwi,
    biwi_pose,
    corners,
    lp300w,
    mat,
    picture,
    read,
    save,
    subjects,
)

LEFT_OUT = {"pose beyond ±99°": 1}


def whole(path: Path) -> np.ndarray:
    return decode(path.read_bytes())


def test_pose_para_is_pitch_yaw_roll_in_radians(tmp_path: Path) -> None:
    save(tmp_path / "AFW" / "a.jpg", 0, 80)
    mat(tmp_path / "AFW" / "a.mat", math.pi / 18, -math.pi / 6, math.pi / 12)
    image, labels = read("300wlp", tmp_path).samples[0].read(48)
    assert labels["pose"] == pytest.approx((-30, 10, 15))  # yaw, pitch, roll
    np.testing.assert_array_equal(image, whole(tmp_path / "AFW" / "a.jpg"))  # no landmarks: the whole image


@pytest.mark.parametrize(
    ("name", "write", "file"), [("300wlp", lp300w, "AFW/AFW_0_0.jpg"), ("aflw2000", aflw2000, "image00002.jpg")]
)
def test_faces_are_cropped_by_their_landmarks(name: str, write: object, file: str, tmp_path: Path) -> None:
    assert callable(write)
    write(tmp_path)
    image, _ = read(name, tmp_path).samples[0].read(48)
    # x 20 to 40: 0.4 × 20 on both sides; y 30 to 60: 0.4 × 30 above and 0.12 × 30 below
    np.testing.assert_array_equal(image, whole(tmp_path / file)[18:64, 12:48])


@pytest.mark.parametrize("name", ["300wlp", "aflw2000"])
def test_mats_beyond_99_degrees_are_left_out_and_faulty_ones_listed(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "AFW" if name == "300wlp" else tmp_path
    for number in range(7):
        save(folder / f"image0000{number}.jpg", number, 80)
    degree = math.pi / 180
    mat(folder / "image00000.mat", 98.9 * degree, -98.9 * degree, 0)
    mat(folder / "image00001.mat", 0, 0, 99.1 * degree)
    mat(folder / "image00002.mat", math.nan, 0, 0)
    mat(folder / "image00003.mat", 0, 0, 0, pt2d=-np.ones((2, 68)))
    (folder / "image00004.mat").write_bytes(b"MATLAB 5.0 and then nothing")
    np.savez(folder / "image00005.npz")
    cv2.imwrite(str(folder / "image00006.png"), picture(0))
    from scipy.io import savemat

    savemat(folder / "image00006.mat", {"pt2d": corners()})
    (folder / "image00006.jpg").unlink()
    source = read(name, tmp_path)
    assert [Path(sample.name).name for sample in source.samples] == ["image00000.jpg"]
    assert source.left_out == LEFT_OUT
    assert {Path(file).name: reason for file, reason in source.dropped} == {
        "image00002.jpg": "yaw, pitch, roll 0.0, nan, 0.0 are not numbers",
        "image00003.jpg": "its landmarks make no face box",
        "image00004.jpg": "image00004.mat can't be read",
        "image00005.jpg": "no .mat with its pose beside it",
        "image00006.png": "image00006.mat holds no Pose_Para",
    }


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
    # (120 − 20, −100, 1000) mm lies at (370, 190); 300 mm are 150 pixels there
    np.testing.assert_array_equal(read("biwi", tmp_path).samples[0].read(48)[0], whole(frame)[115:265, 295:445])
    (tmp_path / "01" / "rgb.cal").unlink()
    np.testing.assert_array_equal(read("biwi", tmp_path).samples[0].read(48)[0], whole(frame))
    (tmp_path / "01" / "rgb.cal").write_text("1 2 3")
    with pytest.raises(DataError, match=r"rgb\.cal: 3 numbers are no calibration"):
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
        "01/frame_00004_rgb.png": "frame_00004_pose.txt holds 3 numbers in place of a 3 × 3 rotation and a translation",
        "03/frame_00003_rgb.png": "frame_00003_pose.txt does not hold numbers",
        "03/frame_00004_rgb.png": "its head is not before the camera",
    }
