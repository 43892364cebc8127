"""Optimiser and learning-rate schedule."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.optim import Lookahead

from hmtl_ablate.config import TrainingConfig
from hmtl_ablate.training.optim import build_optimizer, learning_rate


def test_warm_up_then_cosine_by_hand() -> None:
    config = TrainingConfig(epochs=10, warmup_epochs=2, lr=0.4)
    rates = [learning_rate(config, epoch) for epoch in (0, 1, 2, 4, 6, 10)]
    quarter = 0.4 * 0.5 * (1 + math.cos(math.pi / 4))
    assert rates == pytest.approx([0.0, 0.2, 0.4, quarter, 0.2, 0.0], abs=1e-9)


def test_without_warm_up_and_without_cosine() -> None:
    assert learning_rate(TrainingConfig(epochs=4, warmup_epochs=0, lr=0.4), 0) == 0.4
    assert learning_rate(TrainingConfig(epochs=4, warmup_epochs=4, lr=0.4), 4) == pytest.approx(0.4)


@given(st.integers(1, 50), st.floats(0, 1), st.floats(0, 1))
def test_the_rate_is_between_0_and_the_peak(epochs: int, warm: float, at: float) -> None:
    config = TrainingConfig(epochs=epochs, warmup_epochs=warm * epochs, lr=0.1)
    assert 0 <= learning_rate(config, at * epochs) <= 0.1 + 1e-12


@pytest.mark.parametrize(("name", "expected"), [("adabelief", "AdaBelief"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_the_named_optimizer_spares_biases_and_norms(name: Any, expected: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    optimizer = build_optimizer(model, TrainingConfig(optimizer=name, lookahead=False, weight_decay=0.3))
    assert type(optimizer).__name__ == expected
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {parameter: decay[id(value)] for parameter, value in model.named_parameters()} == {
        "0.weight": 0.3,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
    }


def test_lookahead_goes_half_way_at_every_sixth_step() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    config = TrainingConfig(optimizer="sgd", lookahead=True, lr=1.0, weight_decay=0.0, epochs=1, warmup_epochs=0)
    optimizer = build_optimizer(model, config)
    assert isinstance(optimizer, Lookahead)
    values = []
    for _ in range(13):
        for group in optimizer.param_groups:
            group["momentum"] = 0.0
        model.weight.grad = torch.full((1, 1), -1.0)
        optimizer.step()
        values.append(model.weight.item())
    # The slow weights start at the first synchronisation, 6; at the second, 6 + 0.5 × (12 − 6).
    assert values == pytest.approx([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 9, 10])
