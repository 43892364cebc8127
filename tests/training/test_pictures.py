"""The pictures of a trial."""

from pathlib import Path

import cv2
import pytest

from hmtl_ablate.data.reading import EMOTIONS
from hmtl_ablate.training.pictures import SCALE, SMALLEST, fitted, save_confusion


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1]  # RGB


@pytest.mark.parametrize("name", EMOTIONS)
def test_every_emotion_is_written_whole_over_its_column(name: str) -> None:
    """Fault D: "happines"."""
    shown, scale = fitted(name, 58)
    assert shown == name
    assert SMALLEST <= scale <= SCALE
    assert cv2.getTextSize(shown, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] <= 59


def test_a_name_that_can_not_be_read_at_its_size_is_cut() -> None:
    shown, scale = fitted("a very long name of a class", 58)
    assert shown.startswith("a very")
    assert shown.endswith("..")
    assert SMALLEST <= scale < SCALE
    assert fitted("sad", 58) == ("sad", SCALE)
    assert fitted("", 58)[0] == ""


def test_a_confusion_matrix_is_a_picture_with_a_cell_for_each_pair(tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "confusion.png"
    save_confusion(path, [[3, 1], [0, 4]], ("happiness", "sadness"))
    assert cv2.imread(str(path)).shape == (96 + 2 * 62 + 4, 96 + 2 * 62 + 4, 3)
