"""FER+: majority votes, and faulty copies."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from hmtl_ablate.data.reading import EMOTIONS, TEST
from hmtl_ablate.errors import DataError
from tests.data.conftest import (
    ferplus,
    kaggle,
    label,
    picture,
    read,
    save,
    table,
    votes,
)


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
        "FER2013Train/fer5.png": "4 columns instead of 12",
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
    with pytest.raises(DataError, match=r"put fer2013new\.csv next to it"):
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
