"""Rotation by hand."""

import torch

from hmtl_ablate.config import RotationOptions
from hmtl_ablate.pretext import FeatureShape
from hmtl_ablate.pretext.rotation import Rotation, turn_tiles


def test_quarter_turns_by_hand() -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    turned = [turn_tiles(image, torch.tensor([[number]]), 1)[0, 0].tolist() for number in range(4)]
    assert turned == [[[1, 2], [3, 4]], [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]]


def test_each_tile_turns_by_itself() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    turned = turn_tiles(image, torch.tensor([[0, 1, 2, 3]]), 2)[0, 0]
    assert turned[:2, :2].tolist() == [[0, 1], [4, 5]]
    assert turned[:2, 2:].tolist() == [[3, 7], [2, 6]]
    assert turned[2:, :2].tolist() == [[13, 12], [9, 8]]
    assert turned[2:, 2:].tolist() == [[14, 10], [15, 11]]


def test_a_correct_answer_rebuilds_the_image() -> None:
    task = Rotation(RotationOptions(grid=2), FeatureShape(8, 4, 1, 1, 4))
    images, draw = torch.rand(5, 3, 8, 8), task.draw(5, torch.Generator().manual_seed(0))
    correct = torch.nn.functional.one_hot(draw, 4).float()
    assert torch.equal(task.rebuilt(correct, images, draw), images)
    assert task.score(correct, images, draw).tolist() == [1.0] * 5
