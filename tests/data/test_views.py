"""The validation view, and the parameters of the augmentation levels."""

from __future__ import annotations

import numpy as np
import pytest

from hmtl_ablate.data.views import DOWNSCALE, HOLE, JITTER, LEVELS, NOISE, validation_view


def coordinates(side: int) -> np.ndarray:
    """An image whose red is the column and whose green is the row."""
    image = np.zeros((side, side, 3), np.uint8)
    image[..., 0] = np.arange(side)
    image[..., 1] = np.arange(side)[:, None]
    return image


@pytest.mark.parametrize(
    ("stored", "size", "first", "last"),
    [
        (100, 85, 7, 91),  # 0.85 of 100 is 85, from (100 − 85) // 2 on
        (60, 51, 4, 54),
        (250, 224, 25, 224),  # from 224 px on it is 0.80: 200, from 25 on
    ],
)
def test_the_validation_view_is_the_central_crop(stored: int, size: int, first: int, last: int) -> None:
    view = validation_view(coordinates(stored), size)
    assert view.shape == (size, size, 3)
    assert view.dtype == np.uint8
    corners = [view[0, 0, :2], view[-1, -1, :2], view[0, -1, :2]]
    np.testing.assert_array_equal(corners, [[first, first], [last, last], [last, first]])


def test_a_smaller_view_averages_pixels() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 1::2] = 200  # every other column; the crop of 34 starts at column 3, which is bright
    np.testing.assert_array_equal(validation_view(image, 17), np.full((17, 17, 3), 100))


def test_grey_images_get_three_equal_channels() -> None:
    grey = coordinates(60)[..., :1]
    view = validation_view(grey, 51)
    np.testing.assert_array_equal(view, np.repeat(view[..., :1], 3, axis=-1))
    np.testing.assert_array_equal(view[..., 0], validation_view(coordinates(60), 51)[..., 0])


def test_parameters_are_the_papers() -> None:
    """docs/paper.md: the authors' scripts, which give lengths in pixels of their 112 px input."""
    none, weak, strong = (LEVELS[name] for name in ("none", "weak", "strong"))
    assert list(LEVELS) == ["none", "weak", "strong"]
    assert (none.crop, weak.crop, strong.crop) == ((0.69, 0.80), (0.69, 0.99), (0.75, 1.0))
    assert (none.turn, weak.turn, strong.turn) == (0, 15, 25)
    assert (none.jitter, weak.jitter, strong.jitter) == (0, 0.4, 0.9)
    assert (none.grey, weak.grey, strong.grey) == (0, 0.2, 0.3)
    assert [level.noisy for level in LEVELS.values()] == [False, False, True]
    assert JITTER["brightness"] == (-0.32, 0.32)  # added
    assert JITTER["contrast"] == JITTER["saturation"] == (0.68, 1.32)
    assert pytest.approx(40) == HOLE * 112
    assert DOWNSCALE[0] * 112 == pytest.approx(64)
    assert NOISE == (0, 0.05)
