"""CK+ (Lucey et al. 2010): posed expressions, from neutral to the peak."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    EMOTION_NAMES,
    EMOTIONS,
    NO_SPLIT,
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
from hmtl_ablate.data.sets._shared import emotion_folders, numbered_emotion
from hmtl_ablate.errors import DataError

CKPLUS = tuple(emotion for emotion in EMOTIONS if emotion != "neutral")
CKPLUS_EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
"""CK+'s own numbers, from 1; 0, neutral, labels no sequence."""
CKPLUS_IMAGES = ("cohn-kanade-images", "extended-cohn-kanade-images/cohn-kanade-images")
CKPLUS_LABELS = ("Emotion", "Emotion_labels/Emotion", "Emotion_labels")


CKPLUS_48 = re.compile(r"(S\d{3})_\d{3}_\d+\.", re.IGNORECASE)


def read_ckplus(path: Path, _: DataConfig) -> Source:
    """The last frame, which is the peak, of each sequence with a file in Emotion/: 327 of 7 emotions in the full set.

    Or the 48-pixel release on Kaggle (CK+48): one folder per emotion with the last three frames of each sequence.
    https://www.jeffcohn.net/Resources/ (CK+48: https://www.kaggle.com/datasets/shawon10/ckplus); non-commercial
    research, for those who sign its agreement.
    """
    need_folder(path)
    images = next((path / name for name in CKPLUS_IMAGES if (path / name).is_dir()), None)
    labels = next((path / name for name in CKPLUS_LABELS if (path / name).is_dir()), None)
    if images and labels:
        return _ckplus_sequences(path, images, labels)
    if images:
        raise DataError(f"{path}: no Emotion/ next to {images.name}/; unpack Emotion_labels.zip, a separate download")
    if not _is_ckplus_48(path):
        raise wrong_layout(
            path,
            "CK+",
            "cohn-kanade-images/ and Emotion/, or one folder per emotion (CK+48)",
            lambda p: any((p / name).is_dir() for name in CKPLUS_IMAGES) or _is_ckplus_48(p),
        )
    build = Builder(path)
    for folder, emotion in emotion_folders(path, CKPLUS):
        build.add_named(
            images_in(folder), CKPLUS_48, "S010_004_00000017.png", partial(_ckplus_48_labels, CKPLUS.index(emotion))
        )
    return build.source({"emotion": CKPLUS})


def _is_ckplus_48(path: Path) -> bool:
    return any(EMOTION_NAMES.get(folder.name.lower()) in CKPLUS and images_in(folder) for folder in folders_in(path))


def _ckplus_48_labels(emotion: int, name: re.Match[str]) -> tuple[Labels, str]:
    return {"emotion": emotion}, name[1].upper()


def _ckplus_sequences(root: Path, images: Path, labels: Path) -> Source:
    build = Builder(root)
    for subject in folders_in(images):
        for sequence in folders_in(subject):
            frames = sorted(images_in(sequence), key=lambda frame: frame.stem)
            labelled = [
                file for file in files_in(labels / subject.name / sequence.name) if file.name.endswith("_emotion.txt")
            ]
            try:
                if not labelled:
                    raise LeftOut("sequence without an emotion label")
                if not frames:
                    raise SampleError("no images of this sequence")
                number = numbers_in(labelled[0])
                emotion = numbered_emotion(" ".join(f"{value:g}" for value in number), CKPLUS_EMOTIONS, 1, CKPLUS)
            except SampleError as fault:
                build.refuse(build.shown(sequence), fault)
            else:
                build.add(
                    build.shown(frames[-1]),
                    NO_SPLIT,
                    frames[-1],
                    {"emotion": emotion},
                    subject=subject.name,
                    label_file=labelled[0],
                )
    if not build.samples and not build.dropped:
        raise DataError(
            f"{labels}: no emotion file belongs to a sequence of {images}, e.g. "
            f"{labels.name}/S005/001/S005_001_00000011_emotion.txt"
        )
    return build.source({"emotion": CKPLUS})


register_dataset(
    "ckplus",
    read_ckplus,
    page="https://www.jeffcohn.net/Resources/",
    licence="non-commercial research, signed agreement",
)
