"""Readers of the head-pose sets: 300W-LP, AFLW2000-3D and BIWI, each as it is published.

Angles are those of the benchmarks since HopeNet (Ruiz et al. 2018): yaw, pitch, roll in degrees, no face beyond ±99°.
The poses are read with the list of files, not with the images, because they say which faces are left out.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    NO_SPLIT,
    TRAIN,
    Box,
    Builder,
    SampleError,
    Source,
    by_stem,
    files_in,
    folders_in,
    head_pose,
    images_in,
    need_folder,
    numbers_in,
    wrong_layout,
)
from hmtl_ablate.errors import DataError

# --- 300W-LP and AFLW2000-3D ------------------------------------------------------------------------------------------

LP_FOLDERS = frozenset(name + flip for name in ("AFW", "HELEN", "IBUG", "LFPW") for flip in ("", "_Flip"))
MARGIN = 0.2
"""k of HopeNet's face box: the landmarks' box, wider by 2k of its width on both sides, taller by 2k of its height above
and 0.6k below. HopeNet draws k for 300W-LP from 0.2 to 0.4; here it is 0.2 for both sets, and augmentation does the
rest."""


def read_300wlp(path: Path, _: DataConfig) -> Source:
    """300W-LP: AFW/, HELEN/, IBUG/, LFPW/ and their mirrored _Flip folders, each image beside its .mat.

    All of it trains; the benchmarks test on AFLW2000-3D and BIWI. Each photograph is there in some ten drawn poses and
    mirrored, so it counts as one subject: drawn splits and folds keep it together. Cropped to the face (`MARGIN`).
    http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm; research only.
    """
    need_folder(path)
    folders = [folder for folder in folders_in(path) if folder.name in LP_FOLDERS]
    if not folders:
        raise wrong_layout(
            path,
            "300W-LP",
            "AFW/, HELEN/, IBUG/, LFPW/ and their _Flip folders",
            lambda p: any(folder.name in LP_FOLDERS for folder in folders_in(p)),
        )
    return _with_mats(path, folders, TRAIN, photograph=True)


def read_aflw2000(path: Path, _: DataConfig) -> Source:
    """AFLW2000-3D: image00002.jpg beside image00002.mat and so on, in one folder; 1,969 of 2,000 are within ±99°.

    Cropped to the face (`MARGIN`). The benchmarks test on all of it; it has no official split here, so that a trial can
    be trained on it too. http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm; research only.
    """
    need_folder(path)

    def fits(folder: Path) -> bool:
        return any(re.match(r"image\d{5}\.", file.name) for file in files_in(folder))

    if not fits(path):
        raise wrong_layout(path, "AFLW2000-3D", "image00002.jpg beside image00002.mat and so on", fits)
    return _with_mats(path, [path], NO_SPLIT)


def _with_mats(root: Path, folders: list[Path], split: int, photograph: bool = False) -> Source:
    build = Builder(root)
    images = 0
    for folder in folders:
        files = files_in(folder)
        mats = by_stem(file for file in files if file.suffix.lower() == ".mat")
        for image in images_in(folder):
            images += 1
            mat = mats.get(image.stem.lower())
            try:
                if mat is None:
                    raise SampleError("no .mat with its pose beside it")
                values = _load(mat)
                pitch, yaw, roll = (math.degrees(angle) for angle in _pose_para(values, mat))
                pose, box = head_pose(yaw, pitch, roll), _face_box(values)
            except SampleError as fault:
                build.refuse(build.shown(image), fault)
            else:
                # AFW_134212_1_3.jpg is drawn from the photograph AFW_134212_1
                subject = image.stem.rpartition("_")[0] if photograph else ""
                build.add(build.shown(image), split, image, {"pose": pose}, box, subject=subject, label_file=mat)
    missing = sum(reason.startswith("no .mat") for _, reason in build.dropped)
    if images and missing == images:
        raise DataError(
            f"{root}: none of the {images} images has its .mat beside it, which holds the pose, e.g. "
            f"{build.dropped[0][0]}"
        )
    return build.source({})


def _load(mat: Path) -> dict[str, Any]:
    from scipy.io import loadmat  # a slow import, for two formats only

    try:
        return loadmat(mat, variable_names=["Pose_Para", "pt2d", "pt3d_68"])
    except Exception as error:  # SciPy raises whatever a damaged file leads it to
        raise SampleError(f"{mat.name} can't be read") from error


def _pose_para(values: dict[str, Any], mat: Path) -> list[float]:
    """Pitch, yaw and roll in radians; four more numbers place and scale the head."""
    try:
        return [float(angle) for angle in np.ravel(values["Pose_Para"])[:3]]
    except (KeyError, TypeError, ValueError) as error:
        raise SampleError(f"{mat.name} holds no Pose_Para") from error


def _face_box(values: dict[str, Any]) -> Box | None:
    """The face by its landmarks, pt3d_68 (AFLW2000-3D) or else pt2d, in pixels; None without them."""
    points = next((np.asarray(values[key], float)[:2] for key in ("pt3d_68", "pt2d") if key in values), None)
    if points is None:
        return None
    seen = points[:, ~(points == -1).all(axis=0)]  # -1, -1 marks a landmark that is not seen
    if seen.shape[1] < 2 or not np.isfinite(seen).all():
        raise SampleError("its landmarks make no face box")
    left, top = seen.min(axis=1).tolist()
    width, height = (seen.max(axis=1) - seen.min(axis=1)).tolist()
    side, up, down = 2 * MARGIN * width, 2 * MARGIN * height, 0.6 * MARGIN * height
    return left - side, top - up, width + 2 * side, height + up + down


# --- BIWI -------------------------------------------------------------------------------------------------------------

BIWI_AGAIN = {"15": "03", "18": "05", "21": "02", "22": "07"}
"""Recordings of a person who was recorded before."""
BIWI_HEAD = 300.0
"""Millimetres: side of the square around the head's centre that is kept; a head is about 200 wide and 250 tall."""


def read_biwi(path: Path, _: DataConfig) -> Source:
    """BIWI: 01/ to 24/ with frame_00003_rgb.png beside frame_00003_pose.txt, here, in hpdb/ or in faces_0/ (Kaggle).

    Cropped around the head where the recording's rgb.cal is there, else whole frames. The subject is the recording, or
    the same person's first one. https://icu.ee.ethz.ch/research/datsets.html (a copy:
    https://www.kaggle.com/datasets/kmader/biwi-kinect-head-pose-database); non-commercial use.
    """
    need_folder(path)

    def recordings(folder: Path) -> list[Path]:
        return [inner for inner in folders_in(folder) if re.fullmatch(r"\d\d", inner.name) and _rgb_images(inner)]

    root = next((folder for folder in (path, path / "faces_0", path / "hpdb") if recordings(folder)), None)
    if root is None:
        raise wrong_layout(
            path,
            "BIWI",
            "01/ to 24/ with frame_00003_rgb.png beside frame_00003_pose.txt",
            lambda p: bool(recordings(p)),
        )
    build = Builder(root)
    missing = 0
    for folder in recordings(root):
        camera = _camera(folder)
        for image in _rgb_images(folder):
            label = image.with_name(image.stem[: -len("rgb")] + "pose.txt")
            missing += not label.is_file()
            try:
                pose, centre = _biwi_pose(label)
                box = _head_box(camera, centre) if camera else None
            except SampleError as fault:
                build.refuse(build.shown(image), fault)
            else:
                build.add(
                    build.shown(image),
                    NO_SPLIT,
                    image,
                    {"pose": pose},
                    box,
                    label_file=label,
                    subject=BIWI_AGAIN.get(folder.name, folder.name),
                )
    if missing == len(build.dropped) and not build.samples and not build.left_out:
        raise DataError(f"{root}: none of the {missing} images has its pose beside it, e.g. frame_00003_pose.txt")
    return build.source({})


def _rgb_images(folder: Path) -> list[Path]:
    return [file for file in images_in(folder) if file.stem.lower().endswith("_rgb")]


def _biwi_pose(label: Path) -> tuple[tuple[float, float, float], NDArray[np.float64]]:
    """Angles of the rotation matrix in `label`, by HopeNet's convention, and the head's centre in millimetres."""
    numbers = numbers_in(label)
    if len(numbers) != 12:
        raise SampleError(f"{label.name} holds {len(numbers)} numbers in place of a 3 × 3 rotation and a translation")
    turn = np.array(numbers[:9]).reshape(3, 3).T
    yaw = -math.atan2(-turn[2, 0], math.hypot(turn[2, 1], turn[2, 2]))
    pitch = math.atan2(turn[2, 1], turn[2, 2])
    roll = -math.atan2(turn[1, 0], turn[0, 0])
    return head_pose(math.degrees(yaw), math.degrees(pitch), math.degrees(roll)), np.array(numbers[9:])


def _camera(folder: Path) -> list[float]:
    """The numbers of rgb.cal: camera matrix (9), distortion (4), rotation (9), translation (3); [] without it."""
    file = folder / "rgb.cal"
    if not file.is_file():
        return []
    try:
        numbers = numbers_in(file)
    except SampleError as error:
        raise DataError(f"{file}: {error}") from error
    if len(numbers) < 25:
        raise DataError(f"{file}: {len(numbers)} numbers are no calibration of a camera")
    return numbers


def _head_box(camera: list[float], centre: NDArray[np.float64]) -> Box:
    """The square of `BIWI_HEAD` around `centre`, which is seen from the depth camera, in the colour image."""
    matrix, turn = np.array(camera[:9]).reshape(3, 3), np.array(camera[13:22]).reshape(3, 3)
    x, y, depth = (matrix @ (turn @ centre + camera[22:25])).tolist()
    if not (depth > 0 and math.isfinite(x + y + depth)):
        raise SampleError("its head is not before the camera")
    side = BIWI_HEAD * camera[0] / depth
    return x / depth - side / 2, y / depth - side / 2, side, side
