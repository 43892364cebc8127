"""CK+ (Lucey et al. 2010): posed expressions, from neutral to the peak."""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path

import numpy as np

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    CENTRE,
    EMOTION_NAMES,
    EMOTIONS,
    NO_SPLIT,
    Box,
    Builder,
    Labels,
    LeftOut,
    SampleError,
    Source,
    files_in,
    folders_in,
    images_in,
    need_folder,
    numbers_in,
    wrong_layout,
)
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.data.sets._shared import box_around, emotion_folders, numbered_emotion
from hmtl_ablate.errors import DataError

CKPLUS = tuple(emotion for emotion in EMOTIONS if emotion != "neutral")
CKPLUS_EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
"""CK+'s own numbers, from 1; 0, neutral, labels no sequence."""
CKPLUS_IMAGES = ("cohn-kanade-images", "extended-cohn-kanade-images/cohn-kanade-images")
CKPLUS_LABELS = ("Emotion", "Emotion_labels/Emotion", "Emotion_labels")
CKPLUS_LANDMARKS = ("Landmarks", "Landmarks/Landmarks")
CKPLUS_48 = re.compile(r"(S\d{3})_(\d{3})_(\d+)\.", re.IGNORECASE)
LANDMARKS = 68
"""Points of a face in Landmarks/."""
FRAMES = {"peak": 1, "last3": 3}
"""Value of data.frames → frames at the end of each sequence that are used."""
FRAMES_NOTE = {
    "peak": "frames: the last of each sequence, its peak (data.frames: peak)",
    "last3": "frames: the last three of each sequence (data.frames: last3)",
}


def read_ckplus(path: Path, data: DataConfig) -> Source:
    """The last frame, which is the peak, of each sequence with a file in Emotion/: 327 of 7 emotions in the full set.

    A frame is a scene of 640 × 490 pixels. It is cropped to the box of its landmarks (Landmarks/, a download of its
    own; `MARGIN` in _shared.py) or, without them, to the centred square of its height. With `data.frames: last3` the
    last three frames of each sequence are used.

    Or the 48-pixel release on Kaggle (CK+48): one folder per emotion with the last three frames of each sequence, which
    are cropped already.
    https://www.jeffcohn.net/Resources/ (CK+48: https://www.kaggle.com/datasets/shawon10/ckplus); non-commercial
    research, for those who sign its agreement.
    """
    need_folder(path)
    images = next((path / name for name in CKPLUS_IMAGES if (path / name).is_dir()), None)
    labels = next((path / name for name in CKPLUS_LABELS if (path / name).is_dir()), None)
    if images and labels:
        return _ckplus_sequences(path, images, labels, data.frames)
    if images:
        raise DataError(f"{path}: no Emotion/ next to {images.name}/; unpack Emotion_labels.zip, a separate download")
    if not _is_ckplus_48(path):
        raise wrong_layout(
            path,
            "CK+",
            "cohn-kanade-images/ and Emotion/, or one folder per emotion (CK+48)",
            lambda p: any((p / name).is_dir() for name in CKPLUS_IMAGES) or _is_ckplus_48(p),
        )
    build = Builder(path, "CK+48: one folder per emotion")
    build.notes.append(FRAMES_NOTE[data.frames])
    for folder, emotion in emotion_folders(path, CKPLUS):
        files = images_in(folder)
        last = _last_frames(files, FRAMES[data.frames])
        meaning = partial(_ckplus_48_labels, CKPLUS.index(emotion), last)
        build.add_named(files, CKPLUS_48, "S010_004_00000017.png", meaning)
    return build.source({"emotion": CKPLUS})


def _last_frames(files: list[Path], count: int) -> frozenset[tuple[str, str, str]]:
    """Subject, sequence and frame of the last `count` frames of each sequence, as in the files' names."""
    sequences: dict[tuple[str, str], list[str]] = {}
    for file in files:
        if found := CKPLUS_48.match(file.name):
            sequences.setdefault((found[1].upper(), found[2]), []).append(found[3])
    return frozenset((*key, frame) for key, frames in sequences.items() for frame in sorted(frames)[-count:])


def _is_ckplus_48(path: Path) -> bool:
    return any(EMOTION_NAMES.get(folder.name.lower()) in CKPLUS and images_in(folder) for folder in folders_in(path))


def _ckplus_48_labels(emotion: int, last: frozenset[tuple[str, str, str]], name: re.Match[str]) -> tuple[Labels, str]:
    if (name[1].upper(), name[2], name[3]) not in last:
        raise LeftOut("frame before the peak")
    return {"emotion": emotion}, name[1].upper()


def _ckplus_sequences(root: Path, images: Path, labels: Path, frames_used: str) -> Source:
    landmarks = next((root / name for name in reversed(CKPLUS_LANDMARKS) if (root / name).is_dir()), None)
    parts = [images.name, labels.name, *([landmarks.name] if landmarks else [])]
    build = Builder(root, f"as published: {', '.join(f'{name}/' for name in parts)}", upright=False)
    build.notes.append(FRAMES_NOTE[frames_used])
    unmarked = 0
    for subject in folders_in(images):
        for sequence in folders_in(subject):
            frames = sorted(images_in(sequence), key=lambda frame: frame.stem)
            labelled = [
                file for file in files_in(labels / subject.name / sequence.name) if file.name.endswith("_emotion.txt")
            ]
            with build.row(build.shown(sequence)):
                if not labelled:
                    raise LeftOut("sequence without an emotion label")
                if not frames:
                    raise SampleError("no images of this sequence")
                number = numbers_in(labelled[0])
                emotion = numbered_emotion(" ".join(f"{value:g}" for value in number), CKPLUS_EMOTIONS, 1, CKPLUS)
                for frame in frames[-FRAMES[frames_used] :]:
                    unmarked += _add_frame(build, frame, emotion, labelled[0], landmarks)
    if not build.samples and not build.dropped:
        raise DataError(
            f"{labels}: no emotion file belongs to a sequence of {images}, e.g. "
            f"{labels.name}/S005/001/S005_001_00000011_emotion.txt"
        )
    if unmarked:
        build.notes.append(
            f"{unmarked} frames have no file in Landmarks/: cropped to the centred square of their height"
        )
    return build.source({"emotion": CKPLUS})


def _add_frame(build: Builder, frame: Path, emotion: int, label: Path, landmarks: Path | None) -> bool:
    """Add a frame of a labelled sequence; returns whether it has no landmarks."""
    subject, sequence = frame.parts[-3:-1]
    labels = {"emotion": emotion}
    marks = landmarks / subject / sequence / f"{frame.stem}_landmarks.txt" if landmarks else None
    if marks is None or not os.path.lexists(marks):
        build.add(build.shown(frame), NO_SPLIT, frame, labels, CENTRE, subject=subject, label_files=[label])
        return True
    with build.row(build.shown(frame)):
        box = _face(marks)
        build.add(build.shown(frame), NO_SPLIT, frame, labels, box, subject=subject, label_files=[label, marks])
    return False


def _face(marks: Path) -> Box:
    points = np.array(numbers_in(marks))
    if len(points) != 2 * LANDMARKS:
        raise SampleError(f"{marks.name} holds {len(points)} numbers instead of {LANDMARKS} points")
    return box_around(points.reshape(LANDMARKS, 2).T)


register_dataset(
    "ckplus",
    read_ckplus,
    page="https://www.jeffcohn.net/Resources/",
    licence="non-commercial research, signed agreement",
    options=("frames",),
)
