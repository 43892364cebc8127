"""Pictures: their size and what they show."""

from pathlib import Path

import cv2
import numpy as np
import torch

from hmtl_ablate.training.pictures import GAP, save_confusion, save_rows


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1]  # RGB


def test_rows_of_images_are_zoomed_and_keep_their_colours(tmp_path: Path) -> None:
    images = torch.zeros(3, 3, 48, 48)
    images[:, 0] = 1.0  # red
    images[2, 1] = 7.0  # clipped: yellow
    save_rows(tmp_path / "new" / "x.png", [("true", images), ("changed", images)])
    picture = read(tmp_path / "new" / "x.png")
    tile = 2 * 48 + 2 * GAP  # twice the side, with a gap around
    assert picture.shape == (2 * tile, 90 + 3 * tile, 3)
    middle = tile // 2
    assert picture[middle, 90 + middle].tolist() == [255, 0, 0]
    assert picture[tile + middle, 90 + 2 * tile + middle].tolist() == [255, 255, 0]
    assert picture[0, 90].tolist() == [255, 255, 255]


def test_a_confusion_matrix_is_shaded_by_share_of_the_row(tmp_path: Path) -> None:
    save_confusion(tmp_path / "c.png", [[3, 1], [0, 0]], ["happiness", "fear"])
    picture = read(tmp_path / "c.png")
    margin, cell = 96, 62
    assert picture.shape == (margin + 2 * cell + GAP,) * 2 + (3,)
    corners = [
        picture[margin + row * cell + 2, margin + column * cell + 2].tolist() for row in (0, 1) for column in (0, 1)
    ]
    shade = [[255 - int(40 * s), 255 - int(120 * s), 255 - int(200 * s)] for s in (0.75, 0.25, 0, 0)]
    assert corners in (shade, [one[::-1] for one in shade])
