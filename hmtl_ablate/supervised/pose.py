"""Head pose: yaw, pitch and roll in degrees.

R = Rz(roll) · Ry(yaw) · Rx(pitch), as the benchmarks on 300W-LP and AFLW2000 use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from hmtl_ablate.supervised.base import Labels, Metric, SupervisedTask, TaskOptions
from hmtl_ablate.supervised.registry import register_supervised_task

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray
    from torch import Tensor

ANGLES = ("yaw", "pitch", "roll")


class Pose(SupervisedTask):
    """Head pose by one of two heads.

    regression: three outputs, angles in units of 45°, and the mean absolute error in radians. rotation6d: six outputs,
    and the geodesic distance in radians. So a loss weight means much the same for both.
    """

    regression: ClassVar[bool] = True
    rotation_safe: ClassVar[bool] = False  # and the sign of roll differs between datasets, so labels can't be adjusted
    UNIT: ClassVar[float] = 45.0
    value_names = ANGLES

    def __init__(self, labels: NDArray[Any], head: str) -> None:
        """labels: float32 [N, 3], yaw, pitch, roll in degrees, NaN missing; head: regression or rotation6d."""
        super().__init__(labels)
        self.six, self.width = head == "rotation6d", 6 if head == "rotation6d" else 3

    @classmethod
    def build(cls, labels: Labels, options: TaskOptions) -> Self:
        return cls(labels.values, options.model.pose_head)

    def angles(self, outputs: Tensor) -> Tensor:
        """Yaw, pitch, roll in degrees, [n, 3], from outputs [n, width]."""
        return angles_of_matrix(matrix_of_six(outputs)) if self.six else outputs * self.UNIT

    def flip(self, targets: Tensor) -> Tensor:
        """A mirrored head has the opposite yaw and roll."""
        return targets * targets.new_tensor([-1.0, 1.0, -1.0])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Error in radians."""
        import torch

        there = self.present(targets)
        targets = torch.where(there[:, None], targets, 0.0)
        if self.six:
            error = geodesic(matrix_of_six(outputs), matrix_of_angles(targets))
        else:
            error = torch.deg2rad(self.angles(outputs) - targets).abs().mean(dim=1)
        return torch.where(there, error, 0.0)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """mae, mae_yaw, mae_pitch, mae_roll and geodesic in degrees; loss in radians."""
        return {"loss": float(self.loss(outputs, targets).mean())} | pose_metrics(self.angles(outputs), targets)

    def predictions(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """label and angles: float32 [n, 3], degrees."""
        return {"label": targets, "angles": self.angles(outputs)}

    def outputs(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Angles in the head's unit, or the first two columns of their rotation matrix."""
        angles = arrays["angles"]
        if not self.six:
            return angles / self.UNIT
        return matrix_of_angles(angles)[:, :, :2].transpose(1, 2).flatten(1)


def pose_metrics(angles: Tensor, targets: Tensor) -> dict[str, float]:
    """mae_yaw, mae_pitch, mae_roll, their mean mae, and the mean geodesic error; all in degrees.

    angles, targets: float [N, 3], yaw, pitch and roll in degrees. A full turn is no error.
    """
    import torch

    apart = (angles - targets).abs() % 360
    errors = torch.minimum(apart, 360 - apart).mean(dim=0)
    turned = torch.rad2deg(geodesic(matrix_of_angles(angles.double()), matrix_of_angles(targets.double())))
    return {
        "mae": float(errors.mean()),
        **{f"mae_{name}": float(errors[k]) for k, name in enumerate(ANGLES)},
        "geodesic": float(turned.mean()),
    }


def matrix_of_angles(angles: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of angles [N, 3]: yaw, pitch, roll in degrees."""
    import torch

    yaw, pitch, roll = torch.deg2rad(angles).unbind(dim=-1)
    one, zero = torch.ones_like(yaw), torch.zeros_like(yaw)

    def rows(*cells: Tensor) -> Tensor:
        return torch.stack(cells, dim=-1).unflatten(-1, (3, 3))

    about_x = rows(one, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos())
    about_y = rows(yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos())
    about_z = rows(roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one)
    return about_z @ about_y @ about_x


def angles_of_matrix(matrices: Tensor) -> Tensor:
    """Yaw, pitch, roll in degrees, [N, 3], of rotation matrices [N, 3, 3]; at yaw ±90° roll is taken as 0."""
    import torch

    level = (matrices[:, 0, 0].square() + matrices[:, 1, 0].square()).sqrt()
    upright = level < 1e-6  # gimbal lock: pitch and roll turn about the same axis
    yaw = torch.atan2(-matrices[:, 2, 0], level)
    pitch = torch.where(
        upright, torch.atan2(-matrices[:, 1, 2], matrices[:, 1, 1]), torch.atan2(matrices[:, 2, 1], matrices[:, 2, 2])
    )
    roll = torch.where(upright, torch.zeros_like(yaw), torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    return torch.rad2deg(torch.stack([yaw, pitch, roll], dim=-1))


def matrix_of_six(numbers: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of six numbers [N, 6], by Gram and Schmidt: two columns made orthonormal, the third
    their cross product (Zhou et al. 2019, *On the Continuity of Rotation Representations*, eq. 15)."""
    import torch
    import torch.nn.functional as F

    first = F.normalize(numbers[:, :3], dim=1)
    second = F.normalize(numbers[:, 3:] - (first * numbers[:, 3:]).sum(dim=1, keepdim=True) * first, dim=1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def geodesic(matrices: Tensor, others: Tensor) -> Tensor:
    """Angle in radians, [N], of the rotation from one matrix [N, 3, 3] to the other; its gradient is finite everywhere
    (Hempel et al. 2022, 6DRepNet, eq. 6)."""
    import torch

    trace = (matrices * others).sum(dim=(1, 2))
    return torch.acos(((trace - 1) / 2).clamp(-1 + 1e-6, 1 - 1e-6))


register_supervised_task(
    "pose",
    Pose,
    {
        "mae": Metric("min", "MAE", "°"),
        "mae_yaw": Metric("min", "MAE yaw", "°"),
        "mae_pitch": Metric("min", "MAE pitch", "°"),
        "mae_roll": Metric("min", "MAE roll", "°"),
        "geodesic": Metric("min", "geodesic error", "°"),
        "loss": Metric("min", "loss"),
    },
)
