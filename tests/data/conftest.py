"""Small datasets in every layout, for the tests of their readers."""

import csv
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.io import savemat

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.framing import cut
from hmtl_ablate.data.reading import EMOTIONS, NO_SPLIT, TEST, TRAIN, VALID, Sample, Source
from hmtl_ablate.data.registry import read_source
from hmtl_ablate.data.sets.ferplus import FERPLUS_VOTES

BASIC = EMOTIONS[:7]
FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CK48 = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
Write = Callable[[Path], None]


def read(name: str, path: Path | None) -> Source:
    return read_source(DataConfig(name=name), path)


def label(source: Source, name: str, task: str = "emotion") -> str:
    """The class of the sample called `name`."""
    index = next(sample for sample in source.samples if sample.name == name).read(48)[1][task]
    assert isinstance(index, int)
    return source.classes[task][index]


def seen(sample: Sample, **options: Any) -> np.ndarray:
    """The part of its image that a pack shows, before resizing; options: of DataConfig."""
    return cut(sample.read(48)[0], sample.frame, DataConfig(**options)).part


def subjects(source: Source) -> dict[str, str]:
    return {sample.name: sample.subject for sample in source.samples}


def picture(seed: int, side: int = 24, grey: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6) if grey else (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def save(path: Path, seed: int, side: int = 24, grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(seed, side, grey))


def table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def votes(emotion: str, by: int = 7) -> list[int]:
    return [by if name == emotion else int(name == "unknown") for name in FERPLUS_VOTES]


def ferplus(root: Path) -> None:
    for seed, (folder, count) in enumerate({"FER2013Train": 16, "FER2013Valid": 8}.items()):
        rows = []
        for i in range(count):
            save(root / folder / f"fer{i}.png", 100 * seed + i, 48, grey=True)
            rows.append([f"fer{i}.png", "(0, 0, 48, 48)", *votes(EMOTIONS[i % 8])])
        table(root / folder / "label.csv", rows)


def fer2013(root: Path, images: str = "fer2013.csv") -> None:
    header = ["emotion", "pixels", "Usage"] if images == "fer2013.csv" else ["emotion", " Usage", " pixels"]
    rows: list[Sequence[object]] = [header]
    for i in range(24):
        usage = "Training" if i < 16 else "PublicTest" if i < 20 else "PrivateTest"
        pixels = " ".join(map(str, picture(i, 48, grey=True).ravel()))
        rows.append([i % 7, pixels, usage] if images == "fer2013.csv" else [i % 7, usage, pixels])
    table(root / images, rows)


def kaggle(root: Path, images: str = "fer2013.csv") -> None:
    fer2013(root, images)
    usages = ["Training"] * 16 + ["PublicTest"] * 4 + ["PrivateTest"] * 4
    table(
        root / "fer2013new.csv",
        [
            ["Usage", "Image name", *FERPLUS_VOTES],
            *([usage, f"fer{i}.png", *votes(EMOTIONS[i % 8])] for i, usage in enumerate(usages)),
        ],
    )


def affectnet_row(
    path: str, expression: object, box: tuple[int, ...] = (4, 4, 16, 16), affect: tuple[object, ...] = (0.1, -0.2)
) -> list[object]:
    return [path, *box, "1.0;2.0", expression, *affect]


def affectnet(root: Path) -> None:
    header = [
        "subDirectory_filePath",
        "face_x",
        "face_y",
        "face_width",
        "face_height",
        "facial_landmarks",
        "expression",
        "valence",
        "arousal",
    ]
    for name, start, count in (("training.csv", 0, 16), ("validation.csv", 100, 8)):
        rows: list[Sequence[object]] = [header] if name == "training.csv" else []  # as published
        for i in range(count):
            save(root / "Manually_Annotated_Images" / str(i) / f"{start + i}.jpg", start + i)
            rows.append(affectnet_row(f"{i}/{start + i}.jpg", i % 8))
        table(root / name, rows)


def affectnet_later(root: Path) -> None:
    for name, start, count in (("train_set", 0, 16), ("val_set", 100, 8)):
        for i in range(count):
            save(root / name / "images" / f"{start + i}.jpg", start + i)
            (root / name / "annotations").mkdir(exist_ok=True)
            for kind, value in (("exp", i % 8), ("val", i / 16), ("aro", -i / 16)):
                np.save(root / name / "annotations" / f"{start + i}_{kind}.npy", np.array(str(value)))


def folder(root: Path, splits: tuple[str, ...] = ("",), classes: tuple[str, ...] = EMOTIONS) -> None:
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            for i in range(2):
                save(root / split / name / f"{i}.jpg", 1000 * s + 10 * c + i)


def manifest(root: Path) -> None:
    rows: list[list[object]] = [["image", "emotion", "gender", "yaw", "pitch", "roll", "valence", "arousal"]]
    for i in range(16):
        save(root / "images" / f"{i}.jpg", i)
        rows.append([f"{i}.jpg", EMOTIONS[i % 8], "female" if i % 2 else "male", i, -i, 0.5, i / 16, -1])
    table(root / "labels.csv", rows)


def rafdb(root: Path) -> None:
    lines = []
    for i in range(21):
        name = f"train_{i:05}" if i < 14 else f"test_{i:04}"
        save(root / "Image" / "aligned" / f"{name}_aligned.jpg", i)
        lines.append(f"{name}.jpg {i % 7 + 1}\n")
    (root / "EmoLabel").mkdir(parents=True)
    (root / "EmoLabel" / "list_patition_label.txt").write_text("".join(lines))


def ckplus(root: Path) -> None:
    for i in range(8):  # the last sequence has no label
        subject, sequence = f"S{5 + i // 2:03}", f"{1 + i % 2:03}"
        for frame in (1, 2, 11):
            save(
                root / "cohn-kanade-images" / subject / sequence / f"{subject}_{sequence}_{frame:08}.png",
                100 * i + frame,
                grey=True,
            )
        folder = root / "Emotion" / subject / sequence
        folder.mkdir(parents=True)
        if i < 7:
            (folder / f"{subject}_{sequence}_00000011_emotion.txt").write_text(f"   {i + 1}.0000000e+00\n")


def ckplus_48(root: Path) -> None:
    for i, emotion in enumerate(CK48):
        for frame in (15, 16, 17):
            save(root / emotion / f"S{10 + i:03}_004_{frame:08}.png", 10 * i + frame, 48, grey=True)


def kdef(root: Path, flat: bool = False) -> None:
    for p, person in enumerate(("AF01", "BF01", "AM02")):
        for e, emotion in enumerate(("AF", "AN", "DI", "HA", "NE", "SA", "SU")):
            for v, view in enumerate(("S", "HL")):
                name = f"{person}{emotion}{view}.JPG"
                save(root / name if flat else root / person / name, 100 * p + 10 * e + v)


def jaffe(root: Path) -> None:
    for s, subject in enumerate(("KA", "YM")):
        for e, emotion in enumerate(("AN", "DI", "FE", "HA", "NE", "SA", "SU")):
            save(root / f"{subject}.{emotion}{1 + s}.{39 + 10 * s + e}.tiff", 10 * s + e, grey=True)


def utkface(root: Path, folders: tuple[str, ...] = ("UTKFace",)) -> None:
    for f, folder in enumerate(folders):
        for i in range(6):
            save(root / folder / f"{20 + i}_{i % 2}_{i % 5}_2017011617452512{i}.jpg.chip.jpg", 10 * f + i)


def mat(path: Path, pitch: float, yaw: float, roll: float, **landmarks: np.ndarray) -> None:
    """As the sets have it: angles in radians, then a translation and a scale."""
    savemat(path, {"Pose_Para": np.array([[pitch, yaw, roll, 40.0, 40.0, 0.0, 0.001]]), **landmarks})


def corners(rows: int = 2) -> np.ndarray:
    """Landmarks [rows, 68] inside x 20 to 40 and y 30 to 60, and one that is not seen."""
    points = np.zeros((rows, 68))
    points[0], points[1] = np.linspace(20, 40, 68), np.linspace(60, 30, 68)
    points[:, 30] = -1
    return points


def posed(path: Path, seed: int, **landmarks: np.ndarray) -> None:
    save(path, seed, 80)
    mat(path.with_suffix(".mat"), 0.1, 0.1 * (seed % 10) - 0.5, -0.2, **landmarks)


def lp300w(root: Path) -> None:
    for f, folder in enumerate(("AFW", "AFW_Flip", "HELEN", "IBUG_Flip")):
        for i in range(3):
            posed(root / folder / f"{folder}_{i}_0.jpg", 10 * f + i, pt2d=corners())


def aflw2000(root: Path) -> None:
    for i in range(6):
        posed(root / f"image{2 + i:05}.jpg", i, pt3d_68=corners(3), pt2d=-np.ones((2, 21)))


def biwi_pose(path: Path, rotation: object, centre: tuple[float, ...] = (120, -100, 1000)) -> None:
    rows = "".join(" ".join(map(str, row)) + " \n" for row in np.asarray(rotation).tolist())
    path.write_text(rows + "\n" + " ".join(map(str, centre)) + "\n")


CAMERA = "500 0 320\n0 500 240\n0 0 1\n\n0 0 0 0\n\n1 0 0\n0 1 0\n0 0 1\n\n-20 0 0\n\n640 480\n"


def biwi(root: Path) -> None:
    for f, folder in enumerate(("01", "03", "15")):
        for i in range(2):
            save(root / folder / f"frame_{3 + i:05}_rgb.png", 10 * f + i, 480)
            biwi_pose(root / folder / f"frame_{3 + i:05}_pose.txt", np.eye(3))
        (root / folder / "rgb.cal").write_text(CAMERA)


def unlabelled(root: Path) -> None:
    for i, name in enumerate(("0.jpg", "a/1.png", "a/b/2.bmp", "c/3.JPG")):
        save(root / name, i)


def within(folder: str, write: Write) -> Write:
    return lambda root: write(root / folder)


@dataclass(frozen=True)
class Layout:
    """One layout of a dataset: how to write it, and what its reader must find."""

    name: str
    write: Write
    splits: Collection[int]
    emotions: tuple[str, ...] = ()
    others: Collection[str] = ()
    """Tasks in addition to emotion."""
    subjects: bool = False


def nothing(root: Path) -> None:
    pass


LAYOUTS: dict[str, Layout] = {
    "rendered": Layout("rendered", nothing, {TRAIN, VALID, TEST}, EMOTIONS, {"gender", "pose", "affect"}),
    "folder": Layout("folder", folder, {NO_SPLIT}, EMOTIONS),
    "folder, splits": Layout(
        "folder", partial(folder, splits=("train", "val", "test")), {TRAIN, VALID, TEST}, EMOTIONS
    ),
    "csv": Layout("csv", manifest, {NO_SPLIT}, EMOTIONS, {"gender", "pose", "affect"}),
    "images": Layout("images", unlabelled, {NO_SPLIT}),
    "ferplus": Layout("ferplus", ferplus, {TRAIN, VALID}, EMOTIONS),
    "ferplus, Kaggle": Layout("ferplus", kaggle, {TRAIN, VALID, TEST}, EMOTIONS),
    "ferplus, Kaggle icml": Layout(
        "ferplus", partial(kaggle, images="icml_face_data.csv"), {TRAIN, VALID, TEST}, EMOTIONS
    ),
    "fer2013": Layout("fer2013", fer2013, {TRAIN, VALID, TEST}, BASIC),
    "fer2013, icml": Layout("fer2013", partial(fer2013, images="icml_face_data.csv"), {TRAIN, VALID, TEST}, BASIC),
    "fer2013, folders": Layout(
        "fer2013", partial(folder, splits=("train", "test"), classes=FER2013), {TRAIN, TEST}, BASIC
    ),
    "affectnet": Layout("affectnet", affectnet, {TRAIN, VALID}, EMOTIONS, {"affect"}),
    "affectnet, later": Layout("affectnet", affectnet_later, {TRAIN, VALID}, EMOTIONS, {"affect"}),
    "rafdb": Layout("rafdb", rafdb, {TRAIN, TEST}, BASIC),
    "rafdb, above": Layout("rafdb", within("basic", rafdb), {TRAIN, TEST}, BASIC),
    "ckplus": Layout("ckplus", ckplus, {NO_SPLIT}, EMOTIONS[1:], subjects=True),
    "ckplus, CK+48": Layout("ckplus", ckplus_48, {NO_SPLIT}, EMOTIONS[1:], subjects=True),
    "kdef": Layout("kdef", kdef, {NO_SPLIT}, BASIC, {"gender"}, subjects=True),
    "kdef, flat": Layout("kdef", partial(kdef, flat=True), {NO_SPLIT}, BASIC, {"gender"}, subjects=True),
    "jaffe": Layout("jaffe", jaffe, {NO_SPLIT}, BASIC, {"gender"}, subjects=True),
    "utkface": Layout("utkface", partial(utkface, folders=("",)), {NO_SPLIT}, others={"gender"}),
    "utkface, above": Layout("utkface", utkface, {NO_SPLIT}, others={"gender"}),
    "utkface, parts": Layout(
        "utkface", partial(utkface, folders=("part1", "part2", "part3")), {NO_SPLIT}, others={"gender"}
    ),
    "300wlp": Layout("300wlp", lp300w, {TRAIN}, others={"pose"}, subjects=True),
    "aflw2000": Layout("aflw2000", aflw2000, {NO_SPLIT}, others={"pose"}),
    "biwi": Layout("biwi", biwi, {NO_SPLIT}, others={"pose"}, subjects=True),
    "biwi, above": Layout("biwi", within("hpdb", biwi), {NO_SPLIT}, others={"pose"}, subjects=True),
    "biwi, Kaggle": Layout("biwi", within("faces_0", biwi), {NO_SPLIT}, others={"pose"}, subjects=True),
}
