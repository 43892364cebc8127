"""FER+: majority votes, and faulty copies."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.data.reading import EMOTIONS, TEST, TRAIN
from hmtl_ablate.data.registry import read_source
from hmtl_ablate.data.splits import shares_of
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


ROWS = [  # ten votes; the label by majority and by plurality, or why the row is left out
    ([6, 4, 0, 0, 0, 0, 0, 0, 0, 0], "neutral", "neutral"),  # more than half
    ([5, 5, 0, 0, 0, 0, 0, 0, 0, 0], "no majority", "tie"),  # half is not more than half
    ([4, 3, 3, 0, 0, 0, 0, 0, 0, 0], "no majority", "neutral"),
    ([5, 1, 1, 1, 1, 1, 0, 0, 0, 0], "neutral", "neutral"),  # single votes are dropped first: 5 of 5
    ([4, 3, 1, 1, 1, 0, 0, 0, 0, 0], "neutral", "neutral"),  # 4 of 7 once they are
    ([0, 0, 0, 0, 0, 0, 0, 0, 6, 4], "unknown", "unknown"),
    ([0, 0, 0, 0, 0, 0, 0, 0, 2, 8], "not a face", "not a face"),
    ([0, 0, 9, 0, 0, 0, 1, 0, 0, 0], "surprise", "surprise"),
    ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], "no majority", "tie"),
    ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "no votes", "no votes"),
]


@pytest.mark.parametrize("rule", ["majority", "plurality", "soft"])
def test_the_published_rule_and_a_plurality_differ(rule: Any, tmp_path: Path) -> None:
    """Fault A1, and the case ferplus_votes: FER+'s labels are not a plurality of the votes."""
    for name in ("FER2013Train", "FER2013Valid"):
        for number in range(len(ROWS)):
            save(tmp_path / name / f"{number}.png", number, 48, grey=True)
        table(tmp_path / name / "label.csv", [[f"{n}.png", "", *row[0]] for n, row in enumerate(ROWS)])
    source = read_source(DataConfig.model_validate({"name": "ferplus", "votes": rule}), tmp_path)
    expected = [row[2 if rule == "plurality" else 1] for row in ROWS]
    for name in ("FER2013Train", "FER2013Valid"):
        found = {s.name: label(source, s.name) for s in source.samples if s.name.startswith(name)}
        assert found == {f"{name}/{n}.png": label for n, label in enumerate(expected) if label in EMOTIONS}
    assert source.left_out == {why: 2 * expected.count(why) for why in sorted({*expected} - {*EMOTIONS})}
    assert source.layout == "Microsoft's folders with a label.csv each"
    assert f"data.votes: {rule}" in source.notes[0]


def test_soft_labels_are_vote_shares_without_single_votes(tmp_path: Path) -> None:
    """Fault A1: 4 neutral, 3 happy, 2 unknown (and one vote for surprise) are 4/7 and 3/7, but no majority of 9."""
    ferplus(tmp_path)
    cast = [[6, 3, 1, 0, 0, 0, 0, 0, 0, 0], [4, 3, 1, 0, 0, 0, 0, 0, 2, 0], [6, 0, 0, 0, 2, 0, 0, 0, 2, 0]]
    table(tmp_path / "FER2013Train" / "label.csv", [[f"fer{n}.png", "", *votes] for n, votes in enumerate(cast)])
    source = read_source(DataConfig(name="ferplus", votes="soft"), tmp_path)
    shares = {sample.name: sample.read(48)[1]["emotion.shares"] for sample in source.samples if sample.split == TRAIN}
    assert shares == {
        "FER2013Train/fer0.png": (6 / 9, 3 / 9, 0, 0, 0, 0, 0, 0),
        "FER2013Train/fer2.png": (6 / 8, 0, 0, 0, 0, 0, 2 / 8, 0),  # anger is the last but one
    }


def test_packs_of_soft_labels_are_packs_of_their_own(tmp_path: Path) -> None:
    ferplus(tmp_path / "set")
    packs = {
        rule: open_pack(DataConfig(name="ferplus", votes=rule), tmp_path / "set", tmp_path)
        for rule in ("majority", "soft")
    }
    one, soft = packs["majority"], packs["soft"]
    assert one.folder != soft.folder
    np.testing.assert_array_equal(one.labels["emotion"], soft.labels["emotion"])
    assert shares_of(one, DataConfig(name="ferplus"), "emotion") is None
    assert one.identity(["emotion"]) != soft.identity(["emotion"])
    assert soft.identity(["gender"]) == one.identity(["gender"])  # a trial that does not read them keeps its id


def test_shares_follow_left_out_emotions(tmp_path: Path) -> None:
    ferplus(tmp_path / "set")
    cast = [[6, 0, 0, 0, 0, 0, 0, 3, 0, 0], [2, 0, 0, 0, 0, 0, 0, 7, 0, 0]]
    table(
        tmp_path / "set" / "FER2013Train" / "label.csv", [[f"fer{n}.png", "", *votes] for n, votes in enumerate(cast)]
    )
    data = DataConfig(name="ferplus", votes="soft", leave_out=("contempt",))
    shares = shares_of(open_pack(data, tmp_path / "set", tmp_path), data, "emotion")
    assert shares is not None
    assert shares.dtype == np.float32
    assert shares[0].tolist() == [1, 0, 0, 0, 0, 0, 0]  # the votes for contempt do not count
    assert np.isnan(shares[1]).all()  # its label is left out


def test_another_dataset_has_no_votes(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"data\.votes: soft: dataset 'rendered' has no such choice, only ferplus; set it to majority"
    ):
        read_source(DataConfig(votes="soft"), None)


def test_ferplus_leaves_out_rows_without_a_face_or_a_majority_and_lists_faults(tmp_path: Path) -> None:
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
    assert source.left_out == {"no majority": 2, "unknown": 1, "not a face": 1}
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
