"""Views drawn on a GPU are drawn here on the CPU: the same operations, another device."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from hmtl_ablate.data.augment import training_view
from hmtl_ablate.data.augment_batch import BatchView, Draws
from hmtl_ablate.data.renderer import render_faces
from hmtl_ablate.data.views import LEVELS

FACE = render_faces(1, 64, seed=0)[0][0]


def drawn(view: BatchView, image: np.ndarray, count: int, seed: int = 0) -> tuple[torch.Tensor, Draws]:
    """`count` views of one image, float [count, 3, s, s]."""
    draws = view.draw(count, Generator().manual_seed(seed))
    images = torch.from_numpy(image)[None].expand(count, -1, -1, -1)
    return view(images, draws, Generator().manual_seed(seed)), draws


def measures(views: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers of each view, [n], from views [n, s, s, 3] on the 0 … 1 scale."""
    side = views.shape[1] // 2
    return {
        "mean": views.mean(axis=(1, 2, 3)),
        "contrast": views.std(axis=(1, 2, 3)),
        "red − blue": (views[..., 0] - views[..., 2]).mean(axis=(1, 2)),
        "colour": np.ptp(views, axis=3).mean(axis=(1, 2)),
        "left − right": (views[:, :, :side] - views[:, :, side:]).mean(axis=(1, 2, 3)),
        "top − bottom": (views[:, :side] - views[:, side:]).mean(axis=(1, 2, 3)),
        "edges": np.abs(np.diff(views, axis=2)).mean(axis=(1, 2, 3)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("stored", "size", "channels"), [pytest.param(64, 64, 3, marks=pytest.mark.slow), (64, 40, 3), (64, 40, 1)]
)
def test_equal_in_distribution_to_the_views_drawn_image_by_image(
    level: str, stored: int, size: int, channels: int
) -> None:
    count, image = 400, np.ascontiguousarray(FACE[..., :channels])
    one = training_view(level, stored, size, channels)
    expected = measures(np.stack([one(image, seed) for seed in range(count)]) / 255)
    found = measures(drawn(BatchView(level, stored, size, channels), image, count)[0].permute(0, 2, 3, 1).numpy())
    for name, values in expected.items():
        error = np.sqrt((values.var() + found[name].var()) / count)
        # one sampling instead of two keeps edges a little sharper, and moves means by less than a grey level
        slack = 0.12 * values.mean() if name == "edges" else 1 / 255
        assert abs(values.mean() - found[name].mean()) < 4 * error + slack, name
        assert abs(values.std() - found[name].std()) < 0.15 * values.std() + slack / 2, name


@settings(max_examples=25)
@given(st.sampled_from(list(LEVELS)), st.integers(16, 60), st.integers(0, 60), st.sampled_from([1, 3]))
def test_every_size_gives_three_channels_from_0_to_1(level: str, size: int, extra: int, channels: int) -> None:
    image = np.random.default_rng(size).integers(0, 256, (size + extra, size + extra, channels), dtype=np.uint8)
    views, _ = drawn(BatchView(level, size + extra, size, channels), image, 5, seed=size)
    assert views.shape == (5, 3, size, size)
    assert 0 <= float(views.min()) <= float(views.max()) <= 1
    if channels == 1 and level != "strong":  # the noise is each channel's own
        assert torch.equal(views[:, 0], views[:, 2])


def test_a_view_that_is_neither_turned_nor_cropped_is_the_image_or_its_mirror() -> None:
    view = BatchView("none", 64, 64, 3)
    draws = view.draw(2, Generator().manual_seed(0))
    draws = replace(draws, crop=torch.tensor([[1.0, 0, 0]] * 2), flipped=torch.tensor([False, True]))
    views = view(torch.from_numpy(np.stack([FACE, FACE])), draws)
    whole = torch.from_numpy(FACE).permute(2, 0, 1) / 255
    torch.testing.assert_close(views[0], whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(views[1], whole.flip(2), atol=1e-5, rtol=0)


def test_a_crop_by_hand() -> None:
    ramp = np.arange(64, dtype=np.uint8)[:, None, None].repeat(64, 1).repeat(3, 2)
    view = BatchView("strong", 64, 32, 3, turn=False)
    draws = replace(view.draw(1, Generator().manual_seed(0)), crop=torch.tensor([[0.75, 0.5, 0.0]]))
    # 48 of 64 px, from row round(16 × 0.5) = 8 on, at 1.5 px a row: centres 8.25, 9.75, …
    rows = view._sampled(torch.from_numpy(ramp)[None].permute(0, 3, 1, 2).float(), draws)[0, 0, :, 5]
    torch.testing.assert_close(rows, 8.25 + 1.5 * torch.arange(32.0), atol=0.02, rtol=0)


def test_a_turn_by_hand() -> None:
    """By 90° the top goes to a side: the direction is a coin's toss in training, the centre must stay."""
    ramp = np.arange(0, 128, 2, dtype=np.uint8)[:, None, None].repeat(64, 1).repeat(3, 2)
    view = BatchView("weak", 64, 64, 3)
    draws = replace(
        view.draw(1, Generator().manual_seed(0)),
        crop=torch.tensor([[1.0, 0.5, 0.5]]),
        angle=torch.tensor([90.0]),
        flipped=torch.tensor([False]),
    )
    turned = view._sampled(torch.from_numpy(ramp)[None].permute(0, 3, 1, 2).float(), draws)[0, 0]
    expected = torch.from_numpy(ramp[..., 0]).float()
    assert torch.allclose(turned, expected.rot90(1), atol=1e-2) or torch.allclose(turned, expected.rot90(3), atol=1e-2)


def test_strong_cuts_a_hole_of_40_in_112() -> None:
    views, draws = drawn(BatchView("strong", 112, 112, 3), np.full((112, 112, 3), 255, np.uint8), 4)
    hole = views.amax(dim=1) == 0
    assert (hole.sum(dim=(1, 2)) >= 40 * 40).all()
    top, left = (draws.hole[0] * 73).long().tolist()
    assert hole[0, top : top + 40, left : left + 40].all()


def test_workers_draw_what_one_would() -> None:
    view = BatchView("weak", 64, 48, 3)
    images = torch.from_numpy(render_faces(6, 64, seed=1)[0])
    draws = view.draw(6, Generator().manual_seed(3))
    whole = view(images, draws)
    for rank in range(2):
        mine = torch.arange(rank, 6, 2)
        torch.testing.assert_close(view(images[mine], draws.of(mine)), whole[mine])


def test_half_are_flipped_and_steps_are_drawn_independently() -> None:
    draws = BatchView("weak", 48, 48, 3).draw(4000, Generator().manual_seed(0))
    assert abs(float(draws.flipped.float().mean()) - 0.5) < 0.03
    for side in (True, False):
        assert abs(float(draws.jittered[draws.flipped == side].float().mean()) - 0.4) < 0.05
