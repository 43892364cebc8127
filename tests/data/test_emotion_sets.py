"""The emotion sets: labels, subjects and splits by each publisher's own rules, and what is wrong with broken copies."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from hmtl_ablate.data.formats import EMOTIONS, TEST, TRAIN, VALID, SampleError, decode
from hmtl_ablate.errors import DataError
from tests.data.conftest import (  # type: ignore[import-not-found]
    affectnet,
    affectnet_later,
    affectnet_row,
    ckplus,
    ckplus_48,
    fer2013,
    ferplus,
    folder,
    jaffe,
    kaggle,
    kdef,
    label,
    picture,
    rafdb,
    read,
    save,
    subjects,
    table,
    votes,
)

# --- FER+ -------------------------------------------------------------------------------------------------------------


def test_ferplus_votes_map_to_the_class_order(tmp_path: Path) -> None:
    ferplus(tmp_path)
    source = read("ferplus", tmp_path)
    for i, emotion in enumerate(EMOTIONS):
        assert label(source, f"FER2013Valid/fer{i}.png") == emotion


def test_ferplus_leaves_out_ties_unknown_and_nf_and_lists_faults(tmp_path: Path) -> None:
    ferplus(tmp_path)
    with (tmp_path / "FER2013Train" / "label.csv").open("a", newline="") as file:
        csv.writer(file).writerows(
            [
                ["fer0.png", "", 4, 4, 0, 0, 0, 0, 0, 0, 0, 0],
                ["fer1.png", "", *votes("unknown")],
                ["fer2.png", "", *votes("NF")],
                ["fer3.png", "", 4, 4, 0, 0, 0, 0, 0, 0, 0, 5],
                ["fer4.png", "", 4, "x", 0, 0, 0, 0, 0, 0, 0, 0],
                ["fer5.png", "", 1, 2],
                ["gone.png", "", *votes("fear")],
            ]
        )
    source = read("ferplus", tmp_path)
    assert source.left_out == {"tie": 1, "unknown": 1, "NF": 2}
    assert dict(source.dropped) == {
        "FER2013Train/fer4.png": "votes are not numbers",
        "FER2013Train/fer5.png": "4 columns in place of 12",
        "FER2013Train/gone.png": "file is missing",
    }
    assert len(source.samples) == 24


def test_ferplus_test_folder_is_the_official_test(tmp_path: Path) -> None:
    ferplus(tmp_path)
    save(tmp_path / "FER2013Test" / "a.png", 7, 48, grey=True)
    table(tmp_path / "FER2013Test" / "label.csv", [["a.png", "", *votes("anger")]])
    assert [sample.name for sample in read("ferplus", tmp_path).samples if sample.split == TEST] == [
        "FER2013Test/a.png"
    ]


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
    assert label(one, "fer2013.csv row 8") == EMOTIONS[6]
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


# --- FER2013 ----------------------------------------------------------------------------------------------------------


def test_fer2013_numbers_and_faulty_rows(tmp_path: Path) -> None:
    fer2013(tmp_path)
    with (tmp_path / "fer2013.csv").open("a", newline="") as file:
        csv.writer(file).writerows([[7, "0 " * 2304, "Training"], [3, "0 " * 2304, "Test"], [3, "0 0 0", "Training"]])
    source = read("fer2013", tmp_path / "fer2013.csv")
    assert [label(source, f"fer2013.csv row {row}") for row in range(2, 9)] == [
        "anger",
        "disgust",
        "fear",
        "happiness",
        "sadness",
        "surprise",
        "neutral",
    ]
    np.testing.assert_array_equal(source.samples[3].read(48)[0], picture(3, 48, grey=True))
    assert [reason for _, reason in source.dropped] == [
        "emotion '7' is not 0 to 6",
        "Usage 'Test' is none of Training, PublicTest, PrivateTest",
        "3 pixels in place of 48 × 48",
    ]


def test_fer2013_faulty_folders_and_columns(tmp_path: Path) -> None:
    folder(tmp_path / "a", ("train", "test"), ("happy", "joy"))
    with pytest.raises(DataError, match="joy/ is none of the emotions neutral, happiness"):
        read("fer2013", tmp_path / "a")
    table(tmp_path / "b" / "fer2013.csv", [["pixels", "Usage"]])
    with pytest.raises(DataError, match="no column emotion"):
        read("fer2013", tmp_path / "b")


# --- AffectNet --------------------------------------------------------------------------------------------------------


def test_affectnet_filters_of_the_paper(tmp_path: Path) -> None:
    affectnet(tmp_path)
    with (tmp_path / "training.csv").open("a", newline="") as file:
        csv.writer(file).writerows(
            [
                affectnet_row("0/a.tif", 1),
                affectnet_row("0/b.BMP", 1),
                affectnet_row("0/0.jpg", 8),
                affectnet_row("1/1.jpg", 10),
                affectnet_row("2/2.jpg", 11),
                affectnet_row("3/3.jpg", "happy"),
                ["4/4.jpg", "NULL", 1, 1, 1, "", 3, 0, 0],
                ["5/5.jpg", 1],
            ]
        )
    source = read("affectnet", tmp_path)
    assert len(source.samples) == 24
    assert source.left_out == {".tif or .bmp file": 2, "none, uncertain or no face": 2}
    assert dict(source.dropped) == {
        "2/2.jpg": "expression '11' is not 0 to 10",
        "3/3.jpg": "expression 'happy' is not 0 to 10",
        "4/4.jpg": "face box NULL, 1, 1, 1 is not four numbers",
        "training.csv row 25": "2 columns in place of 9",
    }


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
    assert reasons == [
        ("train_set/images/0.jpg", "no annotation 0_exp.npy"),
        ("train_set/images/1.jpg", "annotation 1_exp.npy can't be read"),
        ("train_set/images/2.jpg", "expression '8' is not 0 to 7"),
    ]


# --- RAF-DB -----------------------------------------------------------------------------------------------------------


def test_rafdb_numbers_and_splits(tmp_path: Path) -> None:
    rafdb(tmp_path)
    source = read("rafdb", tmp_path)
    assert [label(source, f"Image/aligned/train_{i:05}_aligned.jpg") for i in range(7)] == [
        "surprise",
        "fear",
        "disgust",
        "happiness",
        "sadness",
        "anger",
        "neutral",
    ]
    assert [sample.split for sample in source.samples] == [TRAIN] * 14 + [TEST] * 7


def test_rafdb_faulty_rows_are_listed(tmp_path: Path) -> None:
    rafdb(tmp_path)
    with (tmp_path / "EmoLabel" / "list_patition_label.txt").open("a") as file:
        file.write("train_00000.jpg 8\ntrain_99999.jpg 1\nvalid_00001.jpg 1\ntest_0014.jpg\n")
    assert dict(read("rafdb", tmp_path).dropped) == {
        "train_00000.jpg": "emotion '8' is not 1 to 7",
        "train_99999.jpg": "file is missing",
        "valid_00001.jpg": "its name starts with neither train_ nor test_",
        "test_0014.jpg": "row 25 is not a name and a number",
    }


# --- CK+ --------------------------------------------------------------------------------------------------------------


def test_ckplus_takes_the_peak_frame_of_labelled_sequences(tmp_path: Path) -> None:
    ckplus(tmp_path)
    source = read("ckplus", tmp_path)
    peaks = [
        f"cohn-kanade-images/S{5 + i // 2:03}/{1 + i % 2:03}/S{5 + i // 2:03}_{1 + i % 2:03}_00000011.png"
        for i in range(7)
    ]
    assert [label(source, peak) for peak in peaks] == [
        "anger",
        "contempt",
        "disgust",
        "fear",
        "happiness",
        "sadness",
        "surprise",
    ]
    assert subjects(source) == {peak: peak.split("/")[1] for peak in peaks}
    assert source.left_out == {"sequence without an emotion label": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("   0.0000000e+00\n", "emotion '0' is not 1 to 7"),
        ("3.5", "emotion '3.5' is not 1 to 7"),
        ("", "emotion '' is not 1 to 7"),
        ("happy", "S005_001_00000011_emotion.txt does not hold numbers"),
    ],
)
def test_ckplus_faulty_labels_are_listed(text: str, says: str, tmp_path: Path) -> None:
    ckplus(tmp_path)
    (tmp_path / "Emotion" / "S005" / "001" / "S005_001_00000011_emotion.txt").write_text(text)
    assert read("ckplus", tmp_path).dropped == (("cohn-kanade-images/S005/001", says),)


def test_ckplus_48_takes_subjects_from_the_names(tmp_path: Path) -> None:
    ckplus_48(tmp_path)
    save(tmp_path / "fear" / "face.png", 0)
    source = read("ckplus", tmp_path)
    assert len(source.samples) == 21
    assert label(source, "happy/S014_004_00000017.png") == "happiness"
    assert subjects(source)["happy/S014_004_00000017.png"] == "S014"
    assert source.dropped == (("fear/face.png", "its name is not as in S010_004_00000017.png"),)


# --- KDEF and JAFFE ---------------------------------------------------------------------------------------------------


def test_kdef_codes(tmp_path: Path) -> None:
    kdef(tmp_path)
    save(tmp_path / "AF01" / "AF31V.JPG", 0)  # a name that the real set has
    source = read("kdef", tmp_path)
    codes = dict(
        zip(
            ("AF", "AN", "DI", "HA", "NE", "SA", "SU"),
            ("fear", "anger", "disgust", "happiness", "neutral", "sadness", "surprise"),
            strict=True,
        )
    )
    assert {code: label(source, f"BF01/BF01{code}S.JPG") for code in codes} == codes
    assert label(source, "AF01/AF01HAS.JPG", "gender") == "female"
    assert label(source, "AM02/AM02HAS.JPG", "gender") == "male"
    assert {name[:4]: subject for name, subject in subjects(source).items()} == {
        "AF01": "F01",
        "BF01": "F01",
        "AM02": "M02",
    }
    assert source.left_out == {"not a frontal view": 21}
    assert source.dropped == (("AF01/AF31V.JPG", "its name is not as in AF01AFS.JPG"),)


def test_jaffe_codes(tmp_path: Path) -> None:
    jaffe(tmp_path)
    source = read("jaffe", tmp_path)
    assert [label(source, sample.name) for sample in source.samples[:7]] == [
        "anger",
        "disgust",
        "fear",
        "happiness",
        "neutral",
        "sadness",
        "surprise",
    ]
    assert label(source, "KA.AN1.39.tiff", "gender") == "female"
    assert set(subjects(source).values()) == {"KA", "YM"}
