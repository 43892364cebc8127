"""What the readers of several published datasets share: emotion codes, FER2013's table, 300W-LP's .mat files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.data.reading import (
    EMOTION_NAMES,
    EMOTIONS,
    KAGGLE_USAGE,
    LABEL_BYTES,
    Box,
    Builder,
    SampleError,
    Source,
    by_stem,
    files_in,
    folders_in,
    head_pose,
    images_in,
    read_bytes,
    whole,
)
from hmtl_ablate.errors import DataError

# --- emotions ---------------------------------------------------------------------------------------------------------

BASIC = tuple(emotion for emotion in EMOTIONS if emotion != "contempt")
"""The six basic emotions and neutral: the classes of most datasets."""
TWO_LETTERS = {
    "AF": "fear",
    "AN": "anger",
    "DI": "disgust",
    "FE": "fear",
    "HA": "happiness",
    "NE": "neutral",
    "SA": "sadness",
    "SU": "surprise",
}
"""Codes in the file names of KDEF and JAFFE."""


def numbered_emotion(text: str, names: Sequence[str], first: int, classes: Sequence[str]) -> int:
    """Index in `classes` of the emotion that a publisher numbers.

    `names` are the emotions in the publisher's order, the first one numbered `first`. Raises `SampleError` for anything
    but one of those numbers.
    """
    number = whole(text)
    if number is None or not first <= number < first + len(names):
        raise SampleError(f"emotion {text!r} is not {first} to {first + len(names) - 1}")
    return classes.index(names[number - first])


def emotion_folders(top: Path, classes: Sequence[str]) -> list[tuple[Path, str]]:
    """Sub-folders of `top` and their emotions; raises `DataError` for one that does not name one of `classes`."""
    found = []
    for folder in folders_in(top):
        emotion = EMOTION_NAMES.get(folder.name.lower(), "")
        if emotion not in classes:
            raise DataError(f"{top}: {folder.name}/ is not one of the emotions {', '.join(classes)}")
        found.append((folder, emotion))
    if not found:
        raise DataError(f"{top}: no emotion folders (such as {classes[1]}/) here")
    return found


# --- Kaggle's table of FER2013 ----------------------------------------------------------------------------------------

KAGGLE_IMAGES = ("fer2013.csv", "icml_face_data.csv")
"""Names under which Kaggle publishes the table of FER2013."""


def kaggle_table(path: Path) -> Path | None:
    """The table of FER2013 in the folder `path`, if it is there."""
    return next((path / name for name in KAGGLE_IMAGES if (path / name).is_file()), None)


def kaggle_face(row: dict[str, str]) -> tuple[int, NDArray[np.uint8]]:
    """Split and image (uint8 [48, 48]) of a row of FER2013's table; raises `SampleError` when it is faulty."""
    split = KAGGLE_USAGE.get(row["usage"].strip().lower())
    if split is None:
        raise SampleError(f"Usage {row['usage']!r} is not one of Training, PublicTest, PrivateTest")
    try:
        values = np.array(row["pixels"].split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise SampleError("pixels are not numbers") from error
    side = math.isqrt(len(values))
    if side < 8 or side * side != len(values):
        raise SampleError(f"{len(values)} pixels instead of 48 × 48")
    if values.min() < 0 or values.max() > 255:
        raise SampleError("pixels outside 0 to 255")
    return split, values.astype(np.uint8).reshape(side, side)


# --- images with a .mat each: 300W-LP and AFLW2000-3D -----------------------------------------------------------------

MARGIN = 0.2
"""k of HopeNet's face box (Ruiz et al. 2018): the box of the landmarks, wider by 2k of its width on both sides, taller
by 2k of its height above and 0.6k below. HopeNet draws k for 300W-LP from 0.2 to 0.4; here it is 0.2 for both datasets,
and augmentation varies the crop."""


MAT_NUMBERS = 10_000
"""Largest array that is read from a .mat: a small compressed file may hold more than the memory."""


def read_with_mats(root: Path, folders: list[Path], split: int, *, photograph: bool = False) -> Source:
    """The images in `folders`, each with the .mat of the same name that holds its pose, cropped to the face.

    With `photograph` the subject is the photograph that an image was made from: AFW_134212_1 of AFW_134212_1_3.jpg. The
    poses are read with the list of files, not with the images, because they decide which faces are left out.
    """
    build = Builder(root, "images next to a .mat each", upright=False)
    images = 0
    for folder in folders:
        mats = by_stem(file for file in files_in(folder) if file.suffix.lower() == ".mat")
        for image in images_in(folder):
            images += 1
            mat = mats.get(image.stem.lower())
            with build.row(build.shown(image)):
                if mat is None:
                    raise SampleError("no .mat with its pose next to it")
                values = _load_mat(mat)
                pitch, yaw, roll = (math.degrees(angle) for angle in _pose_para(values, mat))
                pose, box = head_pose(yaw, pitch, roll), _face_box(values)
                subject = image.stem.rpartition("_")[0] if photograph else ""
                build.add(build.shown(image), split, image, {"pose": pose}, box, subject=subject, label_files=[mat])
    missing = sum(reason.startswith("no .mat") for _, reason in build.dropped)
    if images and missing == images:
        raise DataError(
            f"{root}: none of the {images} images has its .mat next to it, which holds the pose, e.g. "
            f"{build.dropped[0][0]}"
        )
    return build.source({})


def _load_mat(mat: Path) -> dict[str, Any]:
    from scipy.io import loadmat, whosmat  # a slow import, for two datasets only

    raw, names = read_bytes(mat, LABEL_BYTES), ["Pose_Para", "pt2d", "pt3d_68"]
    try:
        if any(math.prod(shape) > MAT_NUMBERS for name, shape, _ in whosmat(io.BytesIO(raw)) if name in names):
            raise SampleError(f"{mat.name} holds more than {MAT_NUMBERS} numbers")
        return loadmat(io.BytesIO(raw), variable_names=names)
    except SampleError:
        raise
    except Exception as error:  # a damaged file makes SciPy raise almost anything
        raise SampleError(f"{mat.name} can't be read") from error


def _pose_para(values: dict[str, Any], mat: Path) -> list[float]:
    """Pitch, yaw and roll in radians; the remaining four numbers place and scale the head."""
    try:
        return [float(angle) for angle in np.ravel(values["Pose_Para"])[:3]]
    except (KeyError, TypeError, ValueError) as error:
        raise SampleError(f"{mat.name} holds no Pose_Para") from error


def _face_box(values: dict[str, Any]) -> Box | None:
    """The face by its landmarks, pt3d_68 (AFLW2000-3D) or else pt2d, in pixels; None without them."""
    points = next((np.asarray(values[key], float)[:2] for key in ("pt3d_68", "pt2d") if key in values), None)
    if points is None:
        return None
    return box_around(points[:, ~(points == -1).all(axis=0)])  # -1, -1 marks a hidden landmark


def box_around(seen: NDArray[np.float64]) -> Box:
    """The face box of landmarks [2, n], x and y in pixels, wider and taller by `MARGIN`."""
    if seen.shape[1] < 2 or not np.isfinite(seen).all():
        raise SampleError("its landmarks make no face box")
    left, top = seen.min(axis=1).tolist()
    width, height = (seen.max(axis=1) - seen.min(axis=1)).tolist()
    side, up, down = 2 * MARGIN * width, 2 * MARGIN * height, 0.6 * MARGIN * height
    return left - side, top - up, width + 2 * side, height + up + down
