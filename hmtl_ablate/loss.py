"""How losses are weighted and combined. Pure functions of tensors."""

from __future__ import annotations

from collections.abc import Mapping
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


def combine(supervised: Tensor, pretext: Mapping[str, Tensor], weights: Mapping[str, float],
            how: Literal["sum", "geometric"]) -> Tensor:
    """One loss from the task losses; all are scalars.

    sum: L = S + Σ wᵢ Pᵢ. geometric: L = exp((log S + Σ wᵢ log Pᵢ) / (1 + Σ wᵢ)), the weighted geometric mean (the
    unweighted one: Chennupati et al. 2019, *MultiNet++*, eq. 2).
    """
    if how == "sum":
        return supervised + sum(weights[name] * loss for name, loss in pretext.items())
    tiny = torch.finfo(torch.float32).tiny  # log 0 would make the gradient NaN
    logs = supervised.clamp_min(tiny).log() + sum(
        weights[name] * loss.clamp_min(tiny).log() for name, loss in pretext.items())
    return torch.exp(logs / (1 + sum(weights[name] for name in pretext)))
