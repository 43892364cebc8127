"""Head pose: rotations and errors by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_ablate.supervised.pose import (
    Pose,
    angles_of_matrix,
    geodesic,
    matrix_of_angles,
    matrix_of_six,
    pose_metrics,
)

ANGLES = st.tuples(st.floats(-85, 85), st.floats(-170, 170), st.floats(-170, 170))


def test_matrices_by_hand() -> None:
    turned = matrix_of_angles(torch.tensor([[90.0, 0, 0], [0, 90, 0], [0, 0, 90]]))
    assert torch.allclose(turned[0] @ torch.tensor([0.0, 0, 1]), torch.tensor([1.0, 0, 0]), atol=1e-6)  # yaw: z to x
    assert torch.allclose(turned[1] @ torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1]), atol=1e-6)  # pitch: y to z
    assert torch.allclose(turned[2] @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), atol=1e-6)  # roll: x to y


@settings(deadline=None)
@given(ANGLES)
def test_angles_survive_the_matrix(angles: tuple[float, float, float]) -> None:
    given_angles = torch.tensor([angles], dtype=torch.float64)
    assert torch.allclose(angles_of_matrix(matrix_of_angles(given_angles)), given_angles, atol=1e-4)


def test_straight_sideways_is_defined() -> None:
    angles = angles_of_matrix(matrix_of_angles(torch.tensor([[90.0, 10.0, 0.0]], dtype=torch.float64)))
    assert angles[0].tolist() == pytest.approx([90.0, 10.0, 0.0], abs=1e-3)


@settings(deadline=None)
@given(
    st.lists(st.floats(-2, 2), min_size=6, max_size=6).filter(
        lambda six: np.linalg.norm(np.cross(six[:3], six[3:])) > 1e-2
    )
)
def test_six_numbers_make_a_rotation(six: list[float]) -> None:
    (matrix,) = matrix_of_six(torch.tensor([six], dtype=torch.float64))
    assert torch.allclose(matrix @ matrix.T, torch.eye(3, dtype=torch.float64), atol=1e-5)
    assert torch.det(matrix).item() == pytest.approx(1.0, abs=1e-5)


def test_geodesic_is_the_angle_between_and_has_a_gradient_at_zero() -> None:
    apart = geodesic(matrix_of_angles(torch.tensor([[30.0, 0, 0]])), matrix_of_angles(torch.tensor([[-15.0, 0, 0]])))
    assert math.degrees(apart.item()) == pytest.approx(45.0, abs=1e-3)
    six = torch.tensor([[1.0, 0, 0, 0, 1, 0]], requires_grad=True)
    geodesic(matrix_of_six(six), matrix_of_angles(torch.zeros(1, 3))).sum().backward()
    assert six.grad is not None
    assert bool(torch.isfinite(six.grad).all())


def test_pose_metrics_by_hand() -> None:
    found = pose_metrics(torch.tensor([[10.0, 0, 0], [-10, 4, 179]]), torch.tensor([[4.0, 0, 0], [-10, 0, -179]]))
    assert (found["mae_yaw"], found["mae_pitch"], found["mae_roll"]) == pytest.approx((3, 2, 1), abs=1e-4)
    assert found["mae"] == pytest.approx(2.0, abs=1e-4)


@pytest.mark.parametrize("head", ["regression", "rotation6d"])
def test_a_missing_pose_costs_nothing_and_has_no_gradient(head: str) -> None:
    task = Pose(np.zeros((2, 3), np.float32), head)
    outputs = torch.randn(2, task.width, requires_grad=True)
    loss = task.loss(outputs, torch.tensor([[10.0, 5.0, 0.0], [math.nan] * 3]))
    assert loss[0] > 0
    assert loss[1] == 0
    loss.sum().backward()
    assert outputs.grad is not None
    assert outputs.grad[0].abs().sum() > 0
    assert outputs.grad[1].abs().sum() == 0


def test_pose_loss_by_hand() -> None:
    task = Pose(np.zeros((1, 3), np.float32), "regression")  # outputs are in units of 45 degrees
    loss = task.loss(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[30.0, 0.0, 0.0]]))
    assert loss.item() == pytest.approx(math.radians(15) / 3)


def test_a_mirrored_head_has_the_opposite_yaw_and_roll() -> None:
    task = Pose(np.zeros((1, 3), np.float32), "regression")
    assert task.flip(torch.tensor([[10.0, 5.0, -2.0]])).tolist() == [[-10.0, 5.0, 2.0]]
