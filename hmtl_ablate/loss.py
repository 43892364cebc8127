"""Weights and combinations of losses: pure functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor


def class_weights(counts: Tensor, how: Literal["none", "inverse", "effective"], beta: float = 0.999) -> Tensor:
    """Weight of each class in the supervised loss.

    counts: [K], training images of each class; classes without images get weight 0 unless `how` is none.
    inverse: majority count / class count (authors' scripts). effective: (1 − β) / (1 − β^n), scaled to mean 1 over the
    classes present (Cui et al. 2019, *Class-Balanced Loss Based on Effective Number of Samples*, eq. 2).
    """
    counts = counts.double()
    if how == "none":
        return torch.ones_like(counts).float()
    present = counts > 0
    raw = counts.max() / counts if how == "inverse" else (1 - beta) / (1 - beta**counts)
    weights = torch.where(present, raw, torch.zeros_like(counts))
    if how == "effective":
        weights = weights * present.sum() / weights.sum()
    return weights.float()


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Σ wᵢ Lᵢ; all losses are scalars, at least one."""
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def geometric_mean(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """exp(Σ wᵢ log Lᵢ / Σ wᵢ), the weighted geometric mean (unweighted: Chennupati et al. 2019, MultiNet++, eq. 2)."""
    tiny = torch.finfo(torch.float32).tiny  # log 0 would make the gradient NaN
    logs = torch.stack([weights[name] * loss.clamp_min(tiny).log() for name, loss in losses.items()])
    return torch.exp(logs.sum() / sum(weights[name] for name in losses))


def geometric_over_views(losses: Tensor, whole: Tensor, weights: Sequence[float]) -> Tensor:
    """The weighted geometric mean of the views' losses, Π Lᵥ^(wᵥ / Σ w), as the authors' siamese script combines them.

    losses: [V], this worker's; whole: [V], their means over the workers, without gradient (one worker: the same
    values); weights: of the views, not all 0. A view of weight 0 does not count. Returns a scalar whose mean over the
    workers, and that of its gradient, are those of the geometric mean of `whole`: G is homogeneous of degree 1, so
    G = Σ (∂G/∂Lᵥ) Lᵥ.
    """
    whole = whole.detach().requires_grad_()
    with torch.enable_grad():
        total = geometric_mean(
            {str(view): loss for view, loss in enumerate(whole)}, {str(view): w for view, w in enumerate(weights)}
        )
        (slopes,) = torch.autograd.grad(total, whole)
    return (slopes * losses).sum()


def focused_geometric_mean(losses: Mapping[str, Tensor], weights: Mapping[str, float], focus: Sequence[str]) -> Tensor:
    """The geometric mean of all losses times that of the tasks in `focus` (Chennupati et al. 2019, eq. 3)."""
    return geometric_mean(losses, weights) * geometric_mean({name: losses[name] for name in focus}, weights)


def uncertainty(
    losses: Mapping[str, Tensor],
    weights: Mapping[str, float],
    log_variances: Mapping[str, Tensor],
    regressions: Collection[str],
) -> Tensor:
    """Σ wᵢ (cᵢ exp(−sᵢ) Lᵢ + sᵢ / 2), sᵢ = log σᵢ² a learned scalar; cᵢ is ½ for a regression, else 1.

    Kendall, Gal and Cipolla 2018, *Multi-Task Learning Using Uncertainty to Weigh Losses*, eq. 7 and 10.
    """
    terms = [
        weights[name]
        * ((0.5 if name in regressions else 1.0) * torch.exp(-log_variances[name]) * loss + 0.5 * log_variances[name])
        for name, loss in losses.items()
    ]
    return torch.stack(terms).sum()


def dynamic_weights(
    last: Mapping[str, float], before: Mapping[str, float], temperature: float = 2.0
) -> dict[str, float]:
    """λᵢ = K exp(rᵢ / T) / Σ exp(rⱼ / T) with rᵢ = Lᵢ(t − 1) / Lᵢ(t − 2): a loss that falls slowly gets more weight.

    last, before: mean losses of the previous epoch, and of the one before it; T = 2 as in the paper. Liu,
    Johns and Davison 2019, *End-to-End Multi-Task Learning with Attention* (dynamic weight averaging), eq. 7.
    """
    rates = {name: loss / max(before[name], 1e-12) / temperature for name, loss in last.items()}
    highest = max(rates.values())  # subtracted before exp, which would overflow; it cancels
    powers = {name: math.exp(rate - highest) for name, rate in rates.items()}
    return {name: len(powers) * power / sum(powers.values()) for name, power in powers.items()}


def project_conflicting(gradients: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    """Sum of the tasks' gradients, each first projected onto the normal plane of those that it conflicts with.

    gradients: [T, N]; orders: for each task, the order in which it is compared with all tasks (random in the paper;
    itself is skipped). Where gᵢ · gⱼ < 0: gᵢ ← gᵢ − (gᵢ · gⱼ) / ‖gⱼ‖² gⱼ, with the original gⱼ. Returns [N]. Yu et al.
    2020, *Gradient Surgery for Multi-Task Learning* (PCGrad), algorithm 1.
    """
    projected = gradients.clone()
    squares = gradients.square().sum(dim=1).clamp_min(torch.finfo(gradients.dtype).tiny)
    for task, order in enumerate(orders):
        for other in order:
            if other != task:
                overlap = torch.dot(projected[task], gradients[other])
                # clamped, not branched on: a branch would wait for the GPU
                projected[task] -= overlap.clamp(max=0) / squares[other] * gradients[other]
    return projected.sum(dim=0)
