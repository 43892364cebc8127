import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hmtl_ablate.loss import class_weights, combine


def test_sum_adds_the_weighted_pretext_losses() -> None:
    loss = combine(torch.tensor(2.0), {"a": torch.tensor(3.0), "b": torch.tensor(5.0)}, {"a": 0.5, "b": 2.0}, "sum")
    assert loss.item() == pytest.approx(2 + 1.5 + 10)


def test_geometric_is_the_weighted_geometric_mean() -> None:
    loss = combine(torch.tensor(2.0), {"a": torch.tensor(8.0)}, {"a": 1.0}, "geometric")
    assert loss.item() == pytest.approx(4.0)
    loss = combine(torch.tensor(2.0), {"a": torch.tensor(16.0)}, {"a": 2.0}, "geometric")
    assert loss.item() == pytest.approx((2 * 16 * 16) ** (1 / 3))


@pytest.mark.parametrize("how", ["sum", "geometric"])
def test_without_pretext_both_are_the_supervised_loss(how: str) -> None:
    assert combine(torch.tensor(1.7), {}, {}, how).item() == pytest.approx(1.7)


def test_geometric_gradient_is_finite_when_a_loss_is_zero() -> None:
    zero = torch.zeros((), requires_grad=True)
    combine(torch.tensor(2.0), {"a": zero * 1.0}, {"a": 1.0}, "geometric").backward()
    assert math.isfinite(zero.grad.item())


def test_inverse_weights_are_majority_over_count() -> None:
    # The counts behind PAPER.md's 1.8, 1.0, 5.28, … in small.
    weights = class_weights(torch.tensor([10, 18, 2, 0]), "inverse")
    assert weights.tolist() == pytest.approx([1.8, 1.0, 9.0, 0.0])


def test_effective_number_weights_by_hand() -> None:
    weights = class_weights(torch.tensor([1, 2]), "effective", beta=0.5)
    raw = [0.5 / 0.5, 0.5 / 0.75]
    assert weights.tolist() == pytest.approx([2 * r / sum(raw) for r in raw])


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=10))
def test_rarer_classes_never_weigh_less(counts: list[int]) -> None:
    for how in ("inverse", "effective"):
        weights = class_weights(torch.tensor(counts), how).tolist()
        order = sorted(range(len(counts)), key=lambda k: counts[k])
        assert all(weights[a] >= weights[b] - 1e-5 for a, b in itertools.pairwise(order))
