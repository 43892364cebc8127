"""Every format passes one conformance suite on files written here in its layout, and says what is wrong with others."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.formats import (
    EMOTIONS,
    FERPLUS_VOTES,
    FORMATS,
    NO_SPLIT,
    TEST,
    TRAIN,
    VALID,
    SampleError,
    Source,
    crop,
    decode,
    read_source,
    register,
)
from hmtl_ablate.errors import DataError


def picture(seed: int, side: int = 24, grey: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6) if grey else (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def save(path: Path, seed: int, side: int = 24, grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(seed, side, grey))


def table(path: Path, rows: list[list[object]]) -> None:
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


def kaggle(root: Path, images: str = "fer2013.csv") -> None:
    header = ["emotion", "pixels", "Usage"] if images == "fer2013.csv" else ["emotion", " Usage", " pixels"]
    rows: list[list[object]] = [header]
    labels: list[list[object]] = [["Usage", "Image name", *FERPLUS_VOTES]]
    for i in range(24):
        usage = "Training" if i < 16 else "PublicTest" if i < 20 else "PrivateTest"
        pixels = " ".join(map(str, picture(i, 48, grey=True).ravel()))
        rows.append([0, pixels, usage] if images == "fer2013.csv" else [0, usage, pixels])
        labels.append([usage, f"fer{i}.png", *votes(EMOTIONS[i % 8])])
    table(root / images, rows)
    table(root / "fer2013new.csv", labels)


def affectnet_row(path: str, expression: object, box: tuple[int, ...] = (4, 4, 16, 16)) -> list[object]:
    return [path, *box, "1.0;2.0", expression, 0.1, -0.2]


def affectnet(root: Path) -> None:
    header = ["subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks",
              "expression", "valence", "arousal"]
    for name, start, count in (("training.csv", 0, 16), ("validation.csv", 100, 8)):
        rows: list[list[object]] = [header] if name == "training.csv" else []  # as published
        for i in range(count):
            save(root / "Manually_Annotated_Images" / str(i) / f"{start + i}.jpg", start + i)
            rows.append(affectnet_row(f"{i}/{start + i}.jpg", i % 8))
        table(root / name, rows)


def affectnet_later(root: Path) -> None:
    for name, start, count in (("train_set", 0, 16), ("val_set", 100, 8)):
        for i in range(count):
            save(root / name / "images" / f"{start + i}.jpg", start + i)
            (root / name / "annotations").mkdir(exist_ok=True)
            np.save(root / name / "annotations" / f"{start + i}_exp.npy", np.array(str(i % 8)))


def folder(root: Path, splits: tuple[str, ...] = ("",), classes: tuple[str, ...] = EMOTIONS) -> None:
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            for i in range(2):
                save(root / split / name / f"{i}.jpg", 1000 * s + 10 * c + i)


def manifest(root: Path) -> None:
    rows: list[list[object]] = [["image", "emotion", "gender", "yaw", "pitch", "roll"]]
    for i in range(16):
        save(root / "images" / f"{i}.jpg", i)
        rows.append([f"{i}.jpg", EMOTIONS[i % 8], "female" if i % 2 else "male", i, -i, 0.5])
    table(root / "labels.csv", rows)


LAYOUTS: dict[str, tuple[str, Callable[[Path], None], set[int]]] = {
    "ferplus": ("ferplus", ferplus, {TRAIN, VALID}),
    "ferplus, Kaggle": ("ferplus", kaggle, {TRAIN, VALID, TEST}),
    "ferplus, Kaggle icml": ("ferplus", lambda root: kaggle(root, "icml_face_data.csv"), {TRAIN, VALID, TEST}),
    "affectnet": ("affectnet", affectnet, {TRAIN, VALID}),
    "affectnet, later": ("affectnet", affectnet_later, {TRAIN, VALID}),
    "folder": ("folder", folder, {NO_SPLIT}),
    "folder, splits": ("folder", lambda root: folder(root, ("train", "val", "test")), {TRAIN, VALID, TEST}),
    "csv": ("csv", manifest, {NO_SPLIT}),
    "rendered": ("rendered", lambda root: None, {TRAIN, VALID, TEST}),
}


def read(name: str, path: Path | None) -> Source:
    return read_source(DataConfig(name=name), path)


def emotion_of(source: Source, name: str) -> str:
    sample = next(sample for sample in source.samples if sample.name == name)
    index = sample.read(48)[1]["emotion"]
    assert isinstance(index, int)
    return source.classes["emotion"][index]


def test_every_format_has_a_layout() -> None:
    assert set(FORMATS) == {name for name, _, _ in LAYOUTS.values()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_conformance(layout: str, tmp_path: Path) -> None:
    name, write, splits = LAYOUTS[layout]
    root = tmp_path / "set"
    root.mkdir()
    write(root)
    source, again = (read_source(DataConfig(name=name, images=64 if name == "rendered" else None),
                                 root if FORMATS[name].needs_path else None) for _ in range(2))
    assert [sample.name for sample in source.samples] == [sample.name for sample in again.samples]
    assert len({sample.name for sample in source.samples}) == len(source.samples)
    assert {sample.split for sample in source.samples} == splits
    assert source.dropped == ()
    assert source.classes["emotion"] == EMOTIONS
    seen = set()
    for sample, twin in zip(source.samples[:32], again.samples[:32], strict=True):
        image, labels = sample.read(48)
        assert image.dtype == np.uint8
        assert image.ndim == 2 or image.shape[2] == 3
        np.testing.assert_array_equal(image, twin.read(48)[0])
        assert labels == twin.read(48)[1]
        for task, label in labels.items():
            if isinstance(label, int):
                assert 0 <= label < len(source.classes[task])
            else:
                assert len(label) == 3
                assert all(-180 <= angle <= 180 for angle in label)
        seen.add(labels["emotion"])
        assert all(os.path.exists(file) for file in sample.files)
    assert seen == set(range(8))


# --- names and paths --------------------------------------------------------------------------------------------------

def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'ferplus'"):
        read("ferpluss", None)


def test_a_lab_registers_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmtl_ablate.data.formats.FORMATS", dict(FORMATS))
    folder(tmp_path)
    register("lab", lambda path, data: read("folder", path))
    assert len(read("lab", tmp_path).samples) == 16


def test_rendered_takes_no_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes no path"):
        read("rendered", tmp_path)


@pytest.mark.parametrize("name", sorted(name for name in FORMATS if FORMATS[name].needs_path))
def test_wrong_paths(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"needs its path: --data {name}=PATH"):
        read(name, None)
    (tmp_path / "faces").mkdir()
    with pytest.raises(DataError, match=r"no such file or folder; did you mean 'faces'"):
        read(name, tmp_path / "facse")
    with pytest.raises(DataError, match="empty"):
        read(name, tmp_path / "faces")
    (tmp_path / "faces.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="unpack"):
        read(name, tmp_path / "faces.zip")
    (tmp_path / "faces" / "notes.txt").write_text("nothing")
    with pytest.raises(DataError):
        read(name, tmp_path / "faces")


@pytest.mark.parametrize("name", sorted(name for name in FORMATS if FORMATS[name].needs_path))
def test_no_permission(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)  # chmod does not stop root
    with pytest.raises(DataError, match="no permission to read"):
        read(name, tmp_path)


@pytest.mark.parametrize(("name", "write", "right", "given"), [
    ("ferplus", ferplus, "a/b", "a"),
    ("ferplus", ferplus, "a/b", "."),
    ("ferplus", ferplus, "a", "a/FER2013Train"),
    ("ferplus", kaggle, "a/b", "a"),
    ("affectnet", affectnet, "a/b", "a"),
    ("affectnet", affectnet, "a", "a/Manually_Annotated_Images"),
    ("affectnet", affectnet_later, "a", "a/train_set"),
    ("folder", folder, "a/b", "a"),
    ("folder", folder, "a", "a/fear"),
    ("folder", lambda root: folder(root, ("train", "test")), "a/b", "a"),
    ("csv", manifest, "a/b", "a"),
    ("csv", manifest, "a", "a/images"),
])
def test_wrong_level(name: str, write: Callable[[Path], None], right: str, given: str, tmp_path: Path) -> None:
    write(tmp_path / right)
    with pytest.raises(DataError) as caught:
        read(name, tmp_path / given)
    assert str(caught.value).endswith(f"the right level seems to be {tmp_path / right}")


# --- FER+ -------------------------------------------------------------------------------------------------------------

def test_ferplus_votes_map_to_the_class_order(tmp_path: Path) -> None:
    ferplus(tmp_path)
    source = read("ferplus", tmp_path)
    for i, emotion in enumerate(EMOTIONS):
        assert emotion_of(source, f"FER2013Valid/fer{i}.png") == emotion


def test_ferplus_leaves_out_ties_unknown_and_nf_and_lists_faults(tmp_path: Path) -> None:
    ferplus(tmp_path)
    with (tmp_path / "FER2013Train" / "label.csv").open("a", newline="") as file:
        csv.writer(file).writerows([
            ["fer0.png", "", 4, 4, 0, 0, 0, 0, 0, 0, 0, 0], ["fer1.png", "", *votes("unknown")],
            ["fer2.png", "", *votes("NF")], ["fer3.png", "", 4, 4, 0, 0, 0, 0, 0, 0, 0, 5],
            ["fer4.png", "", 4, "x", 0, 0, 0, 0, 0, 0, 0, 0], ["fer5.png", "", 1, 2],
            ["gone.png", "", *votes("fear")]])
    source = read("ferplus", tmp_path)
    assert source.left_out == {"tie": 1, "unknown": 1, "NF": 2}
    assert dict(source.dropped) == {
        "FER2013Train/fer4.png": "votes are not numbers", "FER2013Train/fer5.png": "4 columns in place of 12",
        "FER2013Train/gone.png": "file is missing"}
    assert len(source.samples) == 24


def test_ferplus_test_folder_is_the_official_test(tmp_path: Path) -> None:
    ferplus(tmp_path)
    save(tmp_path / "FER2013Test" / "a.png", 7, 48, grey=True)
    table(tmp_path / "FER2013Test" / "label.csv", [["a.png", "", *votes("anger")]])
    assert [sample.name for sample in read("ferplus", tmp_path).samples if sample.split == TEST] == [
        "FER2013Test/a.png"]


def test_ferplus_without_labels_or_images(tmp_path: Path) -> None:
    ferplus(tmp_path)
    for image in (tmp_path / "FER2013Train").glob("*.png"):
        image.unlink()
    with pytest.raises(DataError, match="none of the 16 images"):
        read("ferplus", tmp_path)
    (tmp_path / "FER2013Train" / "label.csv").unlink()
    with pytest.raises(DataError, match=r"FER2013Train: no label\.csv"):
        read("ferplus", tmp_path)


def test_kaggle_layouts_agree_with_each_other_and_need_both_files(tmp_path: Path) -> None:
    kaggle(tmp_path / "a")
    kaggle(tmp_path / "b", "icml_face_data.csv")
    one, two = read("ferplus", tmp_path / "a"), read("ferplus", tmp_path / "b")
    for left, right in zip(one.samples, two.samples, strict=True):
        np.testing.assert_array_equal(left.read(48)[0], right.read(48)[0])
        assert left.split == right.split
    np.testing.assert_array_equal(one.samples[3].read(48)[0], picture(3, 48, grey=True))
    assert emotion_of(one, "fer2013.csv row 8") == EMOTIONS[6]
    (tmp_path / "a" / "fer2013new.csv").unlink()
    with pytest.raises(DataError, match=r"put fer2013new\.csv beside it"):
        read("ferplus", tmp_path / "a")
    (tmp_path / "b" / "icml_face_data.csv").unlink()
    with pytest.raises(DataError, match="images are missing"):
        read("ferplus", tmp_path / "b")


def test_kaggle_files_that_do_not_belong_together(tmp_path: Path) -> None:
    kaggle(tmp_path)
    lines = (tmp_path / "fer2013new.csv").read_text().splitlines()
    (tmp_path / "fer2013new.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(DataError, match="do not belong together"):
        read("ferplus", tmp_path)


# --- AffectNet --------------------------------------------------------------------------------------------------------

def test_affectnet_filters_of_the_paper(tmp_path: Path) -> None:
    affectnet(tmp_path)
    with (tmp_path / "training.csv").open("a", newline="") as file:
        csv.writer(file).writerows([
            affectnet_row("0/a.tif", 1), affectnet_row("0/b.BMP", 1), affectnet_row("0/0.jpg", 8),
            affectnet_row("1/1.jpg", 10), affectnet_row("2/2.jpg", 11), affectnet_row("3/3.jpg", "happy"),
            ["4/4.jpg", "NULL", 1, 1, 1, "", 3, 0, 0], ["5/5.jpg", 1]])
    source = read("affectnet", tmp_path)
    assert len(source.samples) == 24
    assert source.left_out == {".tif or .bmp file": 2, "none, uncertain or no face": 2}
    assert dict(source.dropped) == {
        "2/2.jpg": "expression '11' is not 0 to 10", "3/3.jpg": "expression 'happy' is not 0 to 10",
        "4/4.jpg": "face box NULL, 1, 1, 1 is not four numbers", "training.csv row 25": "2 columns in place of 9"}


@pytest.mark.parametrize("header", [True, False])
def test_affectnet_header_is_optional_in_both_lists(header: bool, tmp_path: Path) -> None:
    affectnet(tmp_path)
    names = (tmp_path / "training.csv").read_text().splitlines()[0]
    for file in ("training.csv", "validation.csv"):
        lines = [line for line in (tmp_path / file).read_text().splitlines() if line != names]
        (tmp_path / file).write_text("\n".join([names, *lines] if header else lines))
    assert [sample.split for sample in read("affectnet", tmp_path).samples] == [TRAIN] * 16 + [VALID] * 8


def test_affectnet_crops_the_face_box(tmp_path: Path) -> None:
    affectnet(tmp_path)
    image, _ = read("affectnet", tmp_path).samples[0].read(48)
    whole = decode((tmp_path / "Manually_Annotated_Images" / "0" / "0.jpg").read_bytes())
    np.testing.assert_array_equal(image, whole[4:20, 4:20])


def test_crop_stays_inside_the_image_and_refuses_boxes_outside() -> None:
    image = picture(0, 20)
    np.testing.assert_array_equal(crop(image, (-5, 10, 15, 50)), image[10:, :10])
    with pytest.raises(SampleError, match="outside the 20 × 20 image"):
        crop(image, (30, 0, 5, 5))


def test_affectnet_missing_parts(tmp_path: Path) -> None:
    affectnet(tmp_path)
    (tmp_path / "validation.csv").unlink()
    with pytest.raises(DataError, match=r"validation\.csv is missing"):
        read("affectnet", tmp_path)
    (tmp_path / "training.csv").unlink()
    with pytest.raises(DataError, match="no labels file"):
        read("affectnet", tmp_path)


def test_affectnet_later_lists_bad_annotations(tmp_path: Path) -> None:
    affectnet_later(tmp_path)
    notes = tmp_path / "train_set" / "annotations"
    (notes / "0_exp.npy").unlink()
    (notes / "1_exp.npy").write_bytes(b"")
    np.save(notes / "2_exp.npy", np.array("8"))
    reasons = []
    for sample in read("affectnet", tmp_path).samples:
        try:
            sample.read(48)
        except SampleError as error:
            reasons.append((sample.name, str(error)))
    assert reasons == [("train_set/images/0.jpg", "no annotation 0_exp.npy"),
                       ("train_set/images/1.jpg", "annotation 1_exp.npy can't be read"),
                       ("train_set/images/2.jpg", "expression '8' is not 0 to 7")]


# --- folder -----------------------------------------------------------------------------------------------------------

def test_folder_other_class_names_are_sorted(tmp_path: Path) -> None:
    folder(tmp_path, classes=("wink", "Blink", "neutral"))
    assert read("folder", tmp_path).classes["emotion"] == ("Blink", "neutral", "wink")


def test_folder_emotions_keep_the_paper_order_under_common_names(tmp_path: Path) -> None:
    folder(tmp_path, classes=("angry", "Happy", "sad", "neutral"))
    source = read("folder", tmp_path)
    assert source.classes["emotion"] == ("neutral", "happiness", "sadness", "anger")
    assert emotion_of(source, "Happy/0.jpg") == "happiness"


def test_folder_faults(tmp_path: Path) -> None:
    save(tmp_path / "flat" / "0.jpg", 0)
    with pytest.raises(DataError, match="images but no class folders"):
        read("folder", tmp_path / "flat")
    save(tmp_path / "one" / "joy" / "0.jpg", 0)
    with pytest.raises(DataError, match="one class folder only, joy"):
        read("folder", tmp_path / "one")
    folder(tmp_path / "odd", ("train", "more"))
    with pytest.raises(DataError, match="train/ is a split but more/ is not"):
        read("folder", tmp_path / "odd")
    folder(tmp_path / "both", ("train", "val", "valid"))
    with pytest.raises(DataError, match="two folders for one split"):
        read("folder", tmp_path / "both")
    folder(tmp_path / "notrain", ("val", "test"))
    with pytest.raises(DataError, match="no train folder"):
        read("folder", tmp_path / "notrain")


# --- csv --------------------------------------------------------------------------------------------------------------

def csv_set(root: Path, rows: list[list[object]], count: int = 20) -> Path:
    for i in range(count):
        save(root / f"{i}.png", i)
    table(root / "faces.csv", rows)
    return root / "faces.csv"


@pytest.mark.parametrize("header", ["path", "Image", "file", "filename", "img"])
@pytest.mark.parametrize("label", ["emotion", "Label", "expression"])
def test_csv_column_aliases(header: str, label: str, tmp_path: Path) -> None:
    rows: list[list[object]] = [["id", label, header], *([i, EMOTIONS[i % 8], f"{i}.png"] for i in range(20))]
    source = read("csv", csv_set(tmp_path, rows))
    assert len(source.samples) == 20
    assert emotion_of(source, "3.png") == "surprise"


def test_csv_splits_numbers_semicolons_and_missing_labels(tmp_path: Path) -> None:
    file = csv_set(tmp_path, [])
    file.write_text("path;label;sex;split\n0.png;3;;train\n1.png;;f;val\n2.png;7.0;male;test\n", encoding="utf-8-sig")
    source = read("csv", file)
    assert [(sample.split, sample.read(8)[1]) for sample in source.samples] == [
        (TRAIN, {"emotion": 3}), (VALID, {"gender": 1}), (TEST, {"emotion": 7, "gender": 0})]


def test_csv_other_classes_are_sorted(tmp_path: Path) -> None:
    rows: list[list[object]] = [["path", "label"], *([f"{i}.png", "zbca"[i % 4]] for i in range(20))]
    source = read("csv", csv_set(tmp_path, rows))
    assert source.classes["emotion"] == ("a", "b", "c", "z")
    assert emotion_of(source, "2.png") == "c"


def test_csv_faulty_rows_are_listed(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["path", "emotion", "gender", "yaw", "pitch", "roll", "split"],
        *([f"{i}.png", EMOTIONS[i % 8], "m", 0, 0, 0, "train"] for i in range(20)),
        ["0.png", "hapiness", "m", 0, 0, 0, "train"], ["1.png", "fear", "x", 0, 0, 0, "train"],
        ["2.png", "fear", "m", "left", 0, 0, "train"], ["3.png", "fear", "m", 400, 0, 0, "train"],
        ["4.png", "fear", "m", 0, 0, 0, "other"], ["5.png", "", "", "", "", "", "train"], ["6.png"],
        ["", "fear", "m", 0, 0, 0, "train"]]
    source = read("csv", csv_set(tmp_path, rows))
    reasons = dict(source.dropped)
    assert len(source.samples) == 20
    assert "did you mean 'happiness'" in reasons["0.png"]
    assert "gender 'x'" in reasons["1.png"]
    assert "not numbers" in reasons["2.png"]
    assert "±180°" in reasons["3.png"]
    assert "split 'other'" in reasons["4.png"]
    assert reasons["5.png"] == "no label"
    assert reasons["faces.csv row 28"] == "1 columns in place of 7"
    assert reasons["faces.csv row 29"] == "no path"


@pytest.mark.parametrize(("text", "says"), [
    ("", "is empty"), ("a,b\n1,2\n", "its columns are a, b"), ("path,yaw\n0.png,1\n", "belong together"),
    ("path,label\n", "no rows"), ("path,label\ngone.png,fear\n", "none of its images is there, e.g. gone.png"),
    ("path,label\n\xff,1\n", "UTF-8")])
def test_csv_faulty_tables(text: str, says: str, tmp_path: Path) -> None:
    file = csv_set(tmp_path, [])
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=says):
        read("csv", file)


def test_csv_which_of_two(tmp_path: Path) -> None:
    manifest(tmp_path)
    table(tmp_path / "more.csv", [["path"]])
    with pytest.raises(DataError, match=r"which of labels\.csv, more\.csv"):
        read("csv", tmp_path)
    assert len(read("csv", tmp_path / "labels.csv").samples) == 16


# --- decoding ---------------------------------------------------------------------------------------------------------

def encoded(ending: str, **kwargs: bool) -> bytes:
    return cv2.imencode(ending, picture(1, 64, **kwargs))[1].tobytes()


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_truncated_images_are_refused(ending: str, share: float) -> None:
    raw = encoded(ending)
    with pytest.raises(SampleError, match=r"truncated|decoded"):
        decode(raw[:int(len(raw) * share)])


def test_damaged_images_are_refused() -> None:
    raw = bytearray(encoded(".png"))
    raw[len(raw) // 2] ^= 0xFF
    with pytest.raises(SampleError, match="damaged"):
        decode(bytes(raw))
    with pytest.raises(SampleError, match="empty"):
        decode(b"")
    with pytest.raises(SampleError, match="can't be decoded"):
        decode(b"<html>404</html>")


def test_whole_images_are_decoded_to_rgb() -> None:
    np.testing.assert_array_equal(decode(encoded(".png")), picture(1, 64)[..., ::-1])
    assert decode(encoded(".jpg", grey=True) + b"trailing bytes").shape == (64, 64, 3)
