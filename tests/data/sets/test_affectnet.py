"""AffectNet: filters, face boxes, valence and arousal."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.data.reading import TRAIN, VALID, SampleError, decode
from hmtl_ablate.data.sets.affectnet import COLUMNS
from hmtl_ablate.errors import DataError
from tests.data.conftest import (
    affectnet,
    affectnet_later,
    affectnet_row,
    read,
    save,
    seen,
    table,
)


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
        "training.csv row 25": "2 columns instead of 9",
    }


@pytest.mark.parametrize("header", [True, False])
def test_affectnet_header_is_optional_in_both_lists(header: bool, tmp_path: Path) -> None:
    affectnet(tmp_path)
    names = (tmp_path / "training.csv").read_text().splitlines()[0]
    for file in ("training.csv", "validation.csv"):
        lines = [line for line in (tmp_path / file).read_text().splitlines() if line != names]
        (tmp_path / file).write_text("\n".join([names, *lines] if header else lines))
    assert [sample.split for sample in read("affectnet", tmp_path).samples] == [TRAIN] * 16 + [VALID] * 8


def test_affectnet_is_cropped_to_the_face_box_or_used_whole(tmp_path: Path) -> None:
    """Fault A2: the authors resize the whole published image (data.face_crop: none)."""
    affectnet(tmp_path)
    sample = read("affectnet", tmp_path).samples[0]
    whole = decode((tmp_path / "Manually_Annotated_Images" / "0" / "0.jpg").read_bytes())
    np.testing.assert_array_equal(seen(sample), whole[4:20, 4:20])
    np.testing.assert_array_equal(seen(sample, face_margin=0.125), whole[2:22, 2:22])
    np.testing.assert_array_equal(seen(sample, face_crop="none"), whole)
    packs = {
        crop: open_pack(DataConfig(name="affectnet", size=24, face_crop=crop), tmp_path, tmp_path / "store")
        for crop in ("box", "none")
    }
    assert packs["box"].fingerprint != packs["none"].fingerprint
    np.testing.assert_array_equal(packs["none"].images[0], whole)


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


def affects(root: Path) -> dict[str, object]:
    """Name of each image without its ending → valence and arousal."""
    return {Path(s.name).stem: s.read(48)[1].get("affect") for s in read("affectnet", root).samples}


@pytest.mark.parametrize("header", [True, False])
def test_affectnet_valence_and_arousal(header: bool, tmp_path: Path) -> None:
    pairs = [(0.25, -0.5), (-1, 1), (-2, -2), (-2, 0.5), (0.5, 1.01), ("nan", 0), ("", "")]
    rows: list[Sequence[object]] = [COLUMNS] if header else []
    rows += [affectnet_row(f"{i}.jpg", i, affect=pair) for i, pair in enumerate(pairs)]
    rows.append(affectnet_row("7.jpg", 7)[:7])  # ends with the expression
    for i in range(8):
        save(tmp_path / "Manually_Annotated_Images" / f"{i}.jpg", i)
    table(tmp_path / "training.csv", rows)
    table(tmp_path / "validation.csv", [])
    assert affects(tmp_path) == {"0": (0.25, -0.5), "1": (-1.0, 1.0), **dict.fromkeys("234567")}


def test_affectnet_lists_without_valence_still_have_emotions(tmp_path: Path) -> None:
    affectnet(tmp_path)
    for name in ("training.csv", "validation.csv"):
        lines = [line.split(",")[:7] for line in (tmp_path / name).read_text().splitlines()]
        (tmp_path / name).write_text("\n".join(",".join(cells) for cells in lines))
    assert list(affects(tmp_path).values()) == [None] * 24


def test_affectnet_later_valence_and_arousal(tmp_path: Path) -> None:
    affectnet_later(tmp_path)
    notes = tmp_path / "train_set" / "annotations"
    np.save(notes / "0_val.npy", np.array(-2.0))
    (notes / "1_aro.npy").unlink()
    (notes / "2_val.npy").write_bytes(b"")
    np.save(notes / "3_val.npy", np.array([0.75]))
    found = affects(tmp_path)
    assert {name: found[name] for name in "01234"} == {
        "0": None,
        "1": None,
        "2": None,
        "3": (0.75, -0.1875),
        "4": (0.25, -0.25),
    }
