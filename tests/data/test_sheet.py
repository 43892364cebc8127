"""The contact sheet of `data check --sheet`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.build import check_data, open_pack
from hmtl_ablate.data.sheet import COLUMNS, LINE, SIDE, TITLE, contact_sheet
from hmtl_ablate.errors import DataError
from tests.data.conftest import save, table

CSV = DataConfig(name="csv", size=SIDE)


def labelled(root: Path) -> Path:
    """Four women, one man; the yaw of all but one."""
    rows: list[list[object]] = [["image", "gender", "yaw", "pitch", "roll"]]
    for number, gender in enumerate("fffmf"):
        save(root / f"{number}.png", number, SIDE)
        rows.append([f"{number}.png", gender, *((10 * number, 0, 0) if number else ("", "", ""))])
    table(root / "labels.csv", rows)
    return root


def cell(sheet: np.ndarray, top: int, column: int) -> np.ndarray:
    left = TITLE + column * SIDE
    return sheet[top : top + SIDE, left : left + SIDE]


def test_each_class_has_a_row_and_numbers_are_in_order(tmp_path: Path) -> None:
    """Fault D: a set with gender and pose was listed by its gender alone."""
    pack = open_pack(CSV, labelled(tmp_path / "set"), tmp_path)
    sheet = contact_sheet(pack.manifest, pack.labels, lambda position: pack.images[position])
    assert sheet.shape == (3 * LINE + (2 + 4) * SIDE, TITLE + COLUMNS * SIDE, 3)
    men, women, poses = 2 * LINE, 2 * LINE + SIDE, 3 * LINE + 2 * SIDE
    np.testing.assert_array_equal(cell(sheet, men, 0), pack.images[3])
    assert (cell(sheet, men, 1) == 255).all()
    for column, position in enumerate((0, 1, 2, 4)):
        np.testing.assert_array_equal(cell(sheet, women, column), pack.images[position])
    for row, position in enumerate((1, 2, 3, 4)):  # yaw 10, 20, 30, 40
        np.testing.assert_array_equal(cell(sheet, poses + row * SIDE, 0), pack.images[position])


def test_the_sheet_of_a_dataset_is_that_of_its_pack(tmp_path: Path) -> None:
    root = labelled(tmp_path / "set")
    pack = open_pack(CSV, root, tmp_path)
    for path, name in ((root, "set.png"), (pack.folder, "pack.png")):
        assert check_data(CSV, path, sheet=tmp_path / name) == pack.manifest
    one, two = (cv2.imread(str(tmp_path / name)) for name in ("set.png", "pack.png"))
    np.testing.assert_array_equal(one, two)


def test_images_without_labels(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", number)
    check_data(DataConfig(name="images", size=16), tmp_path, sheet=tmp_path / "sheet.jpg")
    sheet = cv2.imread(str(tmp_path / "sheet.jpg"))
    assert sheet is not None
    assert len(sheet) == 2 * LINE + 3 * SIDE


@pytest.mark.parametrize(
    ("name", "says"), [("sheet.xyz", "a picture ends in"), ("gone/sheet.png", "there is no folder")]
)
def test_a_sheet_that_cant_be_written_is_refused_first(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        check_data(CSV, tmp_path / "missing", sheet=tmp_path / name)
