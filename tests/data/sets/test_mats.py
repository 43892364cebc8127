"""300W-LP and AFLW2000-3D: angles and face boxes against values worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from hmtl_ablate.data.reading import decode
from tests.data.conftest import (
    aflw2000,
    corners,
    lp300w,
    mat,
    picture,
    read,
    save,
    seen,
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
    [sample, *_] = read(name, tmp_path).samples
    # x 20 to 40: 0.4 × 20 on both sides; y 30 to 60: 0.4 × 30 above and 0.12 × 30 below; 46 high, so 46 wide
    assert sample.frame == pytest.approx((12, 18, 36, 45.6))
    np.testing.assert_array_equal(seen(sample), whole(tmp_path / file)[18:64, 7:53])


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
        "image00005.jpg": "no .mat with its pose next to it",
        "image00006.png": "image00006.mat holds no Pose_Para",
    }
