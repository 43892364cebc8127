"""FER2013 (Goodfellow et al. 2013), as Kaggle publishes it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    FOLDER_SPLITS,
    TEST,
    TRAIN,
    Builder,
    Sample,
    Source,
    folders_in,
    images_below,
    in_memory,
    need_folder,
    table_of,
    wrong_layout,
)
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.data.sets._shared import (
    BASIC,
    KAGGLE_IMAGES,
    emotion_folders,
    kaggle_face,
    kaggle_table,
    numbered_emotion,
)

FER2013_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""FER2013's own numbers, from 0."""


def read_fer2013(path: Path, _: DataConfig) -> Source:
    """Kaggle's table (fer2013.csv or icml_face_data.csv), or train/ and test/ with one folder per emotion.

    The table has official valid and test sets; in the folders (https://www.kaggle.com/datasets/msambare/fer2013) test/
    holds both.
    """
    table = path if path.is_file() and path.name in KAGGLE_IMAGES else None
    if table is None:
        need_folder(path)
        table = kaggle_table(path)
    if table:
        return _fer2013_table(table)
    build = Builder(path, "train/ and test/ with one folder per emotion")
    tops = [
        (folder, FOLDER_SPLITS[folder.name.lower()])
        for folder in folders_in(path)
        if folder.name.lower() in FOLDER_SPLITS
    ]
    if not {TRAIN, TEST} <= {split for _, split in tops}:
        raise wrong_layout(
            path,
            "FER2013",
            f"{' or '.join(KAGGLE_IMAGES)}, or train/ and test/ with one folder per emotion",
            lambda p: kaggle_table(p) is not None or ((p / "train").is_dir() and (p / "test").is_dir()),
        )
    for top, split in tops:
        for folder, emotion in emotion_folders(top, BASIC):
            for file in images_below(folder):
                build.add(build.shown(file), split, file, {"emotion": BASIC.index(emotion)})
    return build.source({"emotion": BASIC})


def _fer2013_table(table: Path) -> Source:
    build = Builder(table.parent, f"Kaggle's table {table.name}")
    build.files.append(str(table))
    for number, row in enumerate(table_of(table, ("emotion", "pixels", "Usage"))):
        shown = f"{table.name} row {number + 2}"
        with build.row(shown):
            emotion = numbered_emotion(row["emotion"], FER2013_EMOTIONS, 0, BASIC)
            split, image = kaggle_face(row)
            build.samples.append(Sample(shown, split, partial(in_memory, image, {"emotion": emotion})))
    return build.source({"emotion": BASIC})


register_dataset(
    "fer2013",
    read_fer2013,
    page="https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
    licence="the competition's rules",
)
