"""BIWI (Fanelli et al. 2013): head pose from a depth camera.

Angles follow the convention of HopeNet (Ruiz et al. 2018): yaw, pitch, roll in degrees, no face beyond ±99°.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    NO_SPLIT,
    Box,
    Builder,
    SampleError,
    Source,
    folders_in,
    head_pose,
    images_in,
    need_folder,
    numbers_in,
    wrong_layout,
)
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.errors import DataError

BIWI_AGAIN = {"15": "03", "18": "05", "21": "02", "22": "07"}
"""Second recordings of a person → the first."""
CAMERA = "rgb.cal"
"""The colour camera's calibration."""
BIWI_HEAD = 300.0
"""Side of the square crop around the head's centre, in millimetres; a head is about 200 wide and 250 tall."""


def read_biwi(path: Path, _: DataConfig) -> Source:
    """01/ to 24/ with frame_00003_rgb.png next to frame_00003_pose.txt, in the folder itself, in hpdb/ or in faces_0/.

    faces_0/ is Kaggle's copy (https://www.kaggle.com/datasets/kmader/biwi-kinect-head-pose-database). Frames are
    cropped around the head where the recording has its rgb.cal. The subject is a person's first recording.
    """
    need_folder(path)

    def recordings(folder: Path) -> list[Path]:
        return [inner for inner in folders_in(folder) if re.fullmatch(r"\d\d", inner.name) and _rgb_images(inner)]

    root = next((folder for folder in (path, path / "faces_0", path / "hpdb") if recordings(folder)), None)
    if root is None:
        raise wrong_layout(
            path,
            "BIWI",
            "01/ to 24/ with frame_00003_rgb.png next to frame_00003_pose.txt",
            lambda p: bool(recordings(p)),
        )
    build = Builder(root, f"recordings in {root.name}/, images next to a pose each", upright=False)
    missing = 0
    for folder in recordings(root):
        camera = _camera(folder)
        build.files += [str(folder / CAMERA)] if camera else []
        for image in _rgb_images(folder):
            label = image.with_name(image.stem[: -len("rgb")] + "pose.txt")
            missing += not label.is_file()
            with build.row(build.shown(image)):
                pose, centre = _biwi_pose(label)
                box = _head_box(camera, centre) if camera else None
                build.add(
                    build.shown(image),
                    NO_SPLIT,
                    image,
                    {"pose": pose},
                    box,
                    label_files=[label],
                    subject=BIWI_AGAIN.get(folder.name, folder.name),
                )
    if missing == len(build.dropped) and not build.samples and not build.left_out:
        raise DataError(f"{root}: none of the {missing} images has its pose next to it, e.g. frame_00003_pose.txt")
    return build.source({})


def _rgb_images(folder: Path) -> list[Path]:
    return [file for file in images_in(folder) if file.stem.lower().endswith("_rgb")]


def _biwi_pose(label: Path) -> tuple[tuple[float, float, float], NDArray[np.float64]]:
    """Yaw, pitch and roll of the rotation matrix in `label` in degrees, and the head's centre in millimetres."""
    numbers = numbers_in(label)
    if len(numbers) != 12:
        raise SampleError(f"{label.name} holds {len(numbers)} numbers instead of a 3 × 3 rotation and a translation")
    turn = np.array(numbers[:9]).reshape(3, 3).T
    yaw = -math.atan2(-turn[2, 0], math.hypot(turn[2, 1], turn[2, 2]))
    pitch = math.atan2(turn[2, 1], turn[2, 2])
    roll = -math.atan2(turn[1, 0], turn[0, 0])
    return head_pose(math.degrees(yaw), math.degrees(pitch), math.degrees(roll)), np.array(numbers[9:])


def _camera(folder: Path) -> list[float]:
    """The numbers of rgb.cal: camera matrix (9), distortion (4), rotation (9), translation (3); [] without it."""
    file = folder / CAMERA
    if not file.is_file():
        return []
    try:
        numbers = numbers_in(file)
    except SampleError as error:
        raise DataError(f"{file}: {error}") from error
    if len(numbers) < 25:
        raise DataError(f"{file}: {len(numbers)} numbers are not a camera calibration")
    return numbers


def _head_box(camera: list[float], centre: NDArray[np.float64]) -> Box:
    """The square of `BIWI_HEAD` around `centre`, given in the depth camera's frame, in the colour image."""
    matrix, turn = np.array(camera[:9]).reshape(3, 3), np.array(camera[13:22]).reshape(3, 3)
    with np.errstate(all="ignore"):  # numbers that are not finite are refused below
        x, y, depth = (matrix @ (turn @ centre + camera[22:25])).tolist()
    if not (depth > 0 and math.isfinite(x + y + depth)):
        raise SampleError("its head is behind the camera")
    side = BIWI_HEAD * camera[0] / depth
    return x / depth - side / 2, y / depth - side / 2, side, side


register_dataset("biwi", read_biwi, page="https://icu.ee.ethz.ch/research/datsets.html", licence="non-commercial use")
