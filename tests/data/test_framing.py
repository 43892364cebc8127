"""The square that a pack stores: cropped or padded, never squeezed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.framing import cut, placed
from hmtl_ablate.data.reading import CENTRE, Frame, SampleError
from hmtl_ablate.data.registry import DATASETS

WIDE = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
"""8 high, 12 wide."""


def test_a_whole_image_is_padded_to_a_square() -> None:
    """Faults A2 and A3: the aspect is kept; 2 black rows above and 2 below."""
    found = placed(cut(WIDE, None, DataConfig()), 12)
    np.testing.assert_array_equal(found[2:10], WIDE)
    assert not found[:2].any()
    assert not found[10:].any()
    tall = placed(cut(WIDE.transpose(1, 0, 2), None, DataConfig()), 12)
    np.testing.assert_array_equal(tall[:, 2:10], WIDE.transpose(1, 0, 2))


def test_a_centred_square_has_the_height_of_a_wide_image() -> None:
    np.testing.assert_array_equal(placed(cut(WIDE, CENTRE, DataConfig()), 8), WIDE[:, 2:10])


@pytest.mark.parametrize(
    ("box", "margin", "rows", "columns"),
    [
        ((4, 2, 4, 4), 0.0, slice(2, 6), slice(4, 8)),
        ((4, 3, 4, 2), 0.0, slice(2, 6), slice(4, 8)),  # the longer side, about the centre
        ((4, 2, 4, 4), 0.25, slice(1, 7), slice(3, 9)),
    ],
)
def test_a_face_box_becomes_the_square_around_it(box: Frame, margin: float, rows: slice, columns: slice) -> None:
    found = cut(WIDE, box, DataConfig(face_margin=margin))
    np.testing.assert_array_equal(placed(found, found.part.shape[0]), WIDE[rows, columns])
    whole = cut(WIDE, box, DataConfig(face_crop="none"))
    np.testing.assert_array_equal(whole.part, WIDE)


def test_a_box_beyond_the_image_is_black_there() -> None:
    found = placed(cut(WIDE, (-2, -2, 4, 4), DataConfig()), 4)
    np.testing.assert_array_equal(found[2:, 2:], WIDE[:2, :2])
    assert not found[:2].any()
    assert not found[:, :2].any()


def test_a_circle_stays_a_circle() -> None:
    """Faults A2 and A3: one scale for both axes, whatever the image's shape."""
    y, x = np.mgrid[:60, :200]
    disc = np.repeat((((x - 100) ** 2 + (y - 30) ** 2 < 25**2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    found = placed(cut(disc, None, DataConfig()), 100)[..., 0] > 127
    assert np.ptp(np.flatnonzero(found.any(axis=0))) == np.ptp(np.flatnonzero(found.any(axis=1)))


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ((30, 0, 5, 5), "outside the 12 × 8 image"),
        ((math.nan, 0, 5, 5), "is not four numbers"),
        ((0, 0, math.inf, 5), "is not four numbers"),
        ((0, 0, 1e9, 1e9), "far larger than the 12 × 8 image"),
        ((0, 0, 0, 5), "outside"),
    ],
)
def test_impossible_boxes_are_faults_of_their_row(box: Frame, says: str) -> None:
    """Fault C12: a face box that is not a number ended the data check."""
    with pytest.raises(SampleError, match=says):
        cut(WIDE, box, DataConfig())


@pytest.mark.parametrize("shape", [(1, 5000, 3), (5000, 1, 3)])
def test_thin_images_need_no_square_of_their_longer_side(shape: tuple[int, ...]) -> None:
    found = placed(cut(np.full(shape, 200, np.uint8), None, DataConfig()), 16)
    assert found.shape == (16, 16, 3)
    assert (found > 0).any(axis=2).sum() == 16


def test_only_datasets_that_have_an_option_take_it() -> None:
    assert {name for name, known in DATASETS.items() if known.options} == {"ferplus", "ckplus"}
