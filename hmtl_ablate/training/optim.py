"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.optim import Lookahead, create_optimizer_v2
from torch import nn

from hmtl_ablate.config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser that the config names; no weight decay of biases and norms (timm's default).

    AdaBelief has the rectification and the eps of the authors' adabelief_tf (docs/paper.md, recipe); timm's own
    defaults are without and 1e-16.
    """
    options: dict[str, Any] = {"rectify": True, "eps": 1e-14} if config.optimizer == "adabelief" else {}
    optimizer = create_optimizer_v2(
        model, opt=config.optimizer, lr=config.lr, weight_decay=config.weight_decay, momentum=0.9, **options
    )
    return Lookahead(optimizer, alpha=0.5, k=6) if config.lookahead else optimizer


def synchronise(optimizer: torch.optim.Optimizer) -> None:
    """Bring Lookahead's fast weights to its slow ones, which are those to evaluate; other optimisers have nothing to
    bring."""
    if isinstance(optimizer, Lookahead):
        optimizer.sync_lookahead()


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """Rate at a fractional epoch, 0 … config.epochs: linear warm-up from 0, then a cosine to 0 (docs/paper.md)."""
    if epoch < config.warmup:
        return config.lr * epoch / config.warmup
    rest = (epoch - config.warmup) / max(config.epochs - config.warmup, 1e-9)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))
