"""What the readers share: decoding, cropping, tables, labels and folders."""

from __future__ import annotations

import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from hmtl_ablate.data.reading import (
    NO_SPLIT,
    Builder,
    Labels,
    LeftOut,
    SampleError,
    affect_label,
    class_order,
    decode,
    head_pose,
    images_below,
    images_in,
    numbers_in,
    read_file,
    rows_of,
    suggest_level,
    table_of,
    whole,
)
from hmtl_ablate.errors import DataError
from tests.data.conftest import (
    picture,
    save,
)

# --- images -----------------------------------------------------------------------------------------------------------


def encoded(ending: str, **kwargs: bool) -> bytes:
    return cv2.imencode(ending, picture(1, 64, **kwargs))[1].tobytes()


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_truncated_images_are_refused(ending: str, share: float) -> None:
    raw = encoded(ending)
    with pytest.raises(SampleError, match=r"truncated|decoded"):
        decode(raw[: int(len(raw) * share)])


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


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "classes", "index"),
    [
        (("angry", "Happy"), ("happiness", "anger"), {"angry": 1, "Happy": 0}),
        (("sad", "sadness"), ("sadness",), {"sad": 0, "sadness": 0}),
        (("wink", "happy", "Blink"), ("Blink", "happy", "wink"), {"Blink": 0, "happy": 1, "wink": 2}),
    ],
)
def test_class_order(names: tuple[str, ...], classes: tuple[str, ...], index: dict[str, int]) -> None:
    assert class_order(names) == (classes, index)


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), (" 3.0", 3), ("-2", -2), ("3.5", None), ("", None), ("x", None), ("nan", None)]
)
def test_whole_numbers(text: str, value: int | None) -> None:
    assert whole(text) == value


def test_head_poses() -> None:
    assert head_pose(99, -99, 0) == (99, -99, 0)
    with pytest.raises(LeftOut, match="pose beyond ±99°"):
        head_pose(0, 0, 99.1)
    with pytest.raises(SampleError, match="yaw, pitch, roll 0, inf, 0 are not numbers"):
        head_pose(0, math.inf, 0)


@pytest.mark.parametrize(
    ("valence", "arousal", "label"),
    [
        ("0.5", "-0.25", (0.5, -0.25)),
        (" -1 ", "1.0", (-1.0, 1.0)),
        ("-2", "-2", None),
        ("0", "1.001", None),
        ("nan", "0", None),
        ("0", "", None),
        ("high", "0", None),
    ],
)
def test_affect_labels(valence: str, arousal: str, label: tuple[float, float] | None) -> None:
    assert affect_label(valence, arousal) == label


# --- sources ----------------------------------------------------------------------------------------------------------


def test_a_builder_separates_faults_from_rows_left_out(tmp_path: Path) -> None:
    def meaning(name: re.Match[str]) -> tuple[Labels, str]:
        if name[2] == "x":
            raise LeftOut("profile")
        if name[2] == "y":
            raise SampleError("wrong")
        return {"gender": 1}, name[1]

    files = [tmp_path / "a" / name for name in ("ann_z.png", "ann_x.png", "bob_x.png", "bob_y.png", "face.png")]
    save(files[0], 0)
    build = Builder(tmp_path)
    build.add_named(files, re.compile(r"(\w+)_(\w)\."), "ann_z.png", meaning)
    build.drop("row 7", "no label")
    source = build.source({"gender": ("male", "female")})
    assert [(sample.name, sample.subject, sample.split) for sample in source.samples] == [
        ("a/ann_z.png", "ann", NO_SPLIT)
    ]
    assert source.samples[0].read(8)[1] == {"gender": 1}
    assert source.left_out == {"profile": 2}
    assert source.dropped == (
        ("a/bob_y.png", "wrong"),
        ("a/face.png", "its name is not like ann_z.png"),
        ("row 7", "no label"),
    )


def test_a_file_that_vanished_or_cant_be_read(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="file is missing"):
        read_file(str(tmp_path / "a.png"), {}, True, 8)
    with pytest.raises(SampleError, match="not a regular file"):
        read_file(str(tmp_path), {}, True, 8)


# --- tables and folders -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_byte_order_marks(delimiter: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f"x{delimiter}y y\n\n1{delimiter}2\n", encoding="utf-8-sig")
    assert list(rows_of(file)) == [["x", "y y"], ["1", "2"]]


def test_tables_are_read_by_column_name_and_short_rows_filled(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("Path, Label\na.png,1\nb.png\n")
    assert list(table_of(file, ("path",))) == [{"path": "a.png", "label": "1"}, {"path": "b.png", "label": ""}]
    with pytest.raises(DataError, match="no column split; its columns are path, label"):
        list(table_of(file, ("Path", "split")))


def test_numbers_in_text_files(tmp_path: Path) -> None:
    file = tmp_path / "pose.txt"
    with pytest.raises(SampleError, match=r"no pose\.txt"):
        numbers_in(file)
    file.write_text("1 -2.5\n\n3e1 ")
    assert numbers_in(file) == [1.0, -2.5, 30.0]
    file.write_text("1 two")
    with pytest.raises(SampleError, match=r"pose\.txt does not hold numbers"):
        numbers_in(file)


def test_folders_are_sorted_and_hidden_entries_skipped(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.bmp", "__MACOSX/d.png"):
        save(tmp_path / name, 0) if not name.endswith("txt") else (tmp_path / name).write_text("")
    assert [file.name for file in images_in(tmp_path)] == ["a.JPG", "b.png"]
    assert [file.name for file in images_below(tmp_path)] == ["a.JPG", "b.png", "c.bmp"]
    assert images_in(tmp_path / "gone") == []


def test_the_suggested_level_is_below_before_it_is_above(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    assert suggest_level(tmp_path, lambda path: path.name in "bc") == f"; did you mean {tmp_path / 'a' / 'b'}?"
    assert suggest_level(tmp_path / "a" / "b", lambda path: path == tmp_path) == f"; did you mean {tmp_path}?"
    assert suggest_level(tmp_path, lambda path: path.name == "c") == ""  # three levels down
