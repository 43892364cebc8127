import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_ablate.data.augment import training_view
from hmtl_ablate.data.renderer import render_faces
from hmtl_ablate.data.views import validation_view

LEVELS = ("none", "weak", "strong")
FACE = render_faces(1, 64, seed=0)[0][0]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_depends_on_image_and_seed_alone(level: str, channels: int) -> None:
    image = FACE[..., :channels]
    view = training_view(level, 64, 48, channels)
    first = view(image, 7)
    for seed in range(5):
        view(image, seed)
    assert np.array_equal(view(image, 7), first)
    assert np.array_equal(training_view(level, 64, 48, channels)(image, 7), first)
    assert any(not np.array_equal(view(image, seed), first) for seed in range(5))


@settings(max_examples=20)
@given(st.sampled_from(LEVELS), st.integers(16, 80), st.integers(0, 60), st.sampled_from([1, 3]))
def test_every_size_gives_three_channels_of_bytes(level: str, size: int, extra: int, channels: int) -> None:
    image = np.random.default_rng(size).integers(0, 256, (size + extra, size + extra, channels), dtype=np.uint8)
    for seen in (training_view(level, size + extra, size, channels)(image, 1), validation_view(image, size)):
        assert seen.shape == (size, size, 3)
        assert seen.dtype == np.uint8


def test_levels_grow_in_strength() -> None:
    still = validation_view(FACE, 48).astype(float)
    moved = {
        level: np.mean([np.abs(training_view(level, 64, 48, 3)(FACE, seed) - still).mean() for seed in range(60)])
        for level in LEVELS
    }
    assert moved["none"] < moved["weak"] < moved["strong"]


def test_half_of_the_views_are_flipped() -> None:
    image = np.zeros((48, 48, 3), np.uint8)
    image[:, 24:] = 255
    view = training_view("none", 48, 48, 3)
    flipped = sum(int(view(image, seed)[24, 4, 0]) > 127 for seed in range(200))
    assert 70 <= flipped <= 130


def test_steps_are_drawn_independently() -> None:
    flat = np.full((48, 48, 3), 128, np.uint8)  # nothing but other colours changes it
    view = training_view("weak", 48, 48, 3)
    seen = [(abs(int(view(flat, seed)[24, 24, 0]) - 128) > 1, view.flipped) for seed in range(600)]
    for side in (True, False):
        coloured = [jittered for jittered, flipped in seen if flipped == side]
        assert 250 <= len(coloured) <= 350
        assert 0.28 <= sum(coloured) / len(coloured) <= 0.5  # a jitter of p = 0.4


def test_the_crop_of_none_is_0_69_to_0_80() -> None:
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[:, None, None], 200, axis=1).repeat(3, axis=2)
    view = training_view("none", 200, 100, 3)
    shares = [(int(v[-1, 0, 0]) - int(v[0, 0, 0]) + 1) / 200 for v in (view(ramp, seed) for seed in range(50))]
    assert min(shares) > 0.67
    assert max(shares) < 0.82


def test_the_validation_view_is_a_central_crop() -> None:
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[:, None, None], 200, axis=1).repeat(3, axis=2)
    seen = validation_view(ramp, 170)
    assert (int(seen[0, 0, 0]), int(seen[-1, 0, 0])) == (15, 184)


def test_strong_cuts_a_hole_of_40_in_112() -> None:
    flat = np.full((112, 112, 3), 255, np.uint8)
    seen = training_view("strong", 112, 112, 3)(flat, 3)
    assert (seen[..., 0] == 127).sum() >= 0.9 * 40 * 40


def test_a_grey_set_stays_grey() -> None:
    view = training_view("weak", 64, 48, 1)
    for seed in range(20):
        seen = view(FACE[..., :1], seed).astype(int)
        assert np.abs(seen - seen[..., :1]).max() <= 1
