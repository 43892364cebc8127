"""Affect: CCC, correlation, errors and loss by hand."""

import math

import numpy as np
import pytest
import torch

from hmtl_ablate.supervised.affect import Affect, concordance, pearson, root_mean_square_error

TASK = Affect(np.zeros((1, 2), np.float32))


def columns(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).T


def test_concordance_by_hand() -> None:
    targets = columns([-1, 0, 1])  # mean 0, variance 2/3
    assert concordance(targets, targets).item() == pytest.approx(1.0)
    assert concordance(-targets, targets).item() == pytest.approx(-1.0)
    # half the scale: covariance 1/3, variances 1/6 and 2/3: (2/3) / (5/6)
    assert concordance(targets / 2, targets).item() == pytest.approx(0.8)
    # a bias of 1: (4/3) / (4/3 + 1)
    assert concordance(targets + 1, targets).item() == pytest.approx(4 / 7)


def test_correlation_and_error_by_hand() -> None:
    targets = columns([-1, 0, 1])
    assert pearson(targets / 2 + 0.3, targets).item() == pytest.approx(1.0)  # neither scale nor bias count
    # deviations 0, 1, -1 with -1, 0, 1: covariance -1/3, variances 2/3
    assert pearson(columns([0, 1, -1]), targets).item() == pytest.approx(-0.5)
    assert root_mean_square_error(columns([0, 0, 0]), targets).item() == pytest.approx(math.sqrt(2 / 3))


@pytest.mark.parametrize("measure", [concordance, pearson])
def test_constant_predictions_and_a_single_image_agree_with_nothing(measure) -> None:
    targets = columns([-0.5, 0.1, 0.4], [0.2, 0.2, 0.2])
    for predicted in (columns([0.1, 0.1, 0.1], [0.1, 0.1, 0.1]), columns([0.1, 0.1, 0.1], [0.2, 0.2, 0.2])):
        assert measure(predicted, targets).tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    assert measure(targets[:1], targets[:1]).tolist() == [0.0, 0.0]


def test_metrics_are_of_each_axis_and_their_mean() -> None:
    targets = torch.tensor([[-1.0, 0.5], [0.0, 0.0], [1.0, -0.5]])
    outputs = torch.stack([targets[:, 0] / 2, targets[:, 1]], dim=1)
    found = TASK.metrics(outputs, targets)
    assert (found["ccc_valence"], found["ccc_arousal"], found["ccc"]) == pytest.approx((0.8, 1.0, 0.9))
    assert (found["rmse_valence"], found["rmse_arousal"]) == pytest.approx((math.sqrt(1 / 6), 0.0))
    assert found["rmse"] == pytest.approx(math.sqrt(1 / 6) / 2)
    assert found["pearson"] == pytest.approx(1.0)
    assert found["loss"] == pytest.approx((1 / 6 + 0) / 2)


def test_loss_is_the_squared_error_and_half_a_label_is_none() -> None:
    outputs = torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.5, 0.0]], requires_grad=True)
    targets = torch.tensor([[-0.5, 0.5], [math.nan, 0.5], [math.nan, math.nan]])
    loss = TASK.loss(outputs, targets)
    assert loss.tolist() == pytest.approx([(1 + 0.25) / 2, 0.0, 0.0])
    loss.sum().backward()
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [pytest.approx([1.0, -0.5]), [0.0, 0.0], [0.0, 0.0]]
    assert TASK.present(targets).tolist() == [True, False, False]


def test_a_mirrored_face_has_the_same_affect() -> None:
    targets = torch.tensor([[0.3, -0.2]])
    assert torch.equal(TASK.flip(targets), targets)


def test_predictions_are_not_clipped() -> None:
    saved = TASK.predictions(torch.tensor([[1.5, -0.2]]), torch.tensor([[1.0, 0.0]]))
    assert {name: array.tolist() for name, array in saved.items()} == {
        "label": [[1.0, 0.0]],
        "prediction": [pytest.approx([1.5, -0.2])],
    }
