import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from hmtl_ablate.config import PuzzlingOptions
from hmtl_ablate.pretext import FeatureShape, build
from hmtl_ablate.pretext.puzzling import shuffle_tiles


def tiles(grid: int) -> torch.Tensor:
    """An image whose tile number k is filled with k + 1: [1, 1, 2·grid, 2·grid]."""
    return (torch.arange(grid * grid).reshape(1, 1, grid, grid) + 1.0).repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_by_hand_two_by_two() -> None:
    image = torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]])[None, None]
    # position 0 shows tile 3 (bottom right), 1 shows 0, 2 shows 1, 3 shows 2
    expected = torch.tensor([[10.0, 11, 0, 1], [14, 15, 4, 5], [2, 3, 8, 9], [6, 7, 12, 13]])
    assert torch.equal(shuffle_tiles(image, torch.tensor([[3, 0, 1, 2]]), 2)[0, 0], expected)


@given(st.integers(2, 6), st.integers(0, 10_000))
def test_labels_invert_the_shuffle(grid: int, seed: int) -> None:
    order = torch.rand(3, grid * grid, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    images = torch.rand(3, 2, 4 * grid, 4 * grid, generator=torch.Generator().manual_seed(seed))
    back = shuffle_tiles(shuffle_tiles(images, order, grid), order.argsort(dim=1), grid)
    assert torch.equal(back, images)


@given(st.integers(2, 5), st.integers(0, 10_000))
def test_position_p_shows_tile_order_p(grid: int, seed: int) -> None:
    order = torch.rand(1, grid * grid, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    shown = shuffle_tiles(tiles(grid), order, grid)[0, 0, ::2, ::2].flatten()
    assert shown.tolist() == (order[0] + 1.0).tolist()


def test_what_the_grid_does_not_divide_is_blank() -> None:
    shuffled = shuffle_tiles(torch.ones(1, 3, 11, 11), torch.arange(9)[None], 3)
    assert shuffled.shape == (1, 3, 11, 11)
    assert shuffled.sum().item() == 3 * 81
    assert shuffled[0, 0, 0].sum() == 0
    assert shuffled[0, 0, 1].sum() == 9


def test_loss_is_the_mean_cross_entropy_of_the_positions() -> None:
    task = build("puzzling", PuzzlingOptions(grid=2), FeatureShape(8, 4, 1, 1, 4))
    logits, order = torch.randn(1, 4, 4), torch.tensor([[2, 0, 3, 1]])
    by_hand = sum(F.cross_entropy(logits[0, p][None], order[0, p][None]) for p in range(4)) / 4
    assert task.loss(logits, torch.zeros(1, 3, 8, 8), order).item() == pytest.approx(float(by_hand))


def test_correct_answers_score_one_and_rebuild_the_image() -> None:
    task = build("puzzling", PuzzlingOptions(grid=3), FeatureShape(12, 4, 1, 1, 4))
    images = torch.rand(5, 3, 12, 12)
    order = task.draw(5, torch.Generator().manual_seed(0))
    correct = F.one_hot(order, 9).float() * 20
    changed = task.change(images, order)
    assert not torch.equal(changed, images)
    assert task.score(correct, images, order).tolist() == [1.0] * 5
    assert torch.equal(task.rebuilt(correct, images, order), images)
