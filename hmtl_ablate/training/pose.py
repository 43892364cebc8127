"""Head pose as angles and as rotation matrices.

R = Rz(roll) · Ry(yaw) · Rx(pitch), as the benchmarks on 300W-LP and AFLW2000 use it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ANGLES = ("yaw", "pitch", "roll")


def matrix_of_angles(angles: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of angles [N, 3]: yaw, pitch, roll in degrees."""
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
    level = (matrices[:, 0, 0].square() + matrices[:, 1, 0].square()).sqrt()
    upright = level < 1e-6  # looking straight up the axis: pitch and roll turn about the same one
    yaw = torch.atan2(-matrices[:, 2, 0], level)
    pitch = torch.where(
        upright, torch.atan2(-matrices[:, 1, 2], matrices[:, 1, 1]), torch.atan2(matrices[:, 2, 1], matrices[:, 2, 2])
    )
    roll = torch.where(upright, torch.zeros_like(yaw), torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    return torch.rad2deg(torch.stack([yaw, pitch, roll], dim=-1))


def matrix_of_six(numbers: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of six numbers [N, 6], by Gram and Schmidt: two columns made orthonormal, the third
    their cross product (Zhou et al. 2019, *On the Continuity of Rotation Representations*, eq. 15)."""
    first = F.normalize(numbers[:, :3], dim=1)
    second = F.normalize(numbers[:, 3:] - (first * numbers[:, 3:]).sum(dim=1, keepdim=True) * first, dim=1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def geodesic(matrices: Tensor, others: Tensor) -> Tensor:
    """Angle in radians, [N], of the rotation between two; its gradient is finite everywhere (Hempel et al. 2022,
    6DRepNet, eq. 6)."""
    trace = (matrices * others).sum(dim=(1, 2))
    return torch.acos(((trace - 1) / 2).clamp(-1 + 1e-6, 1 - 1e-6))
