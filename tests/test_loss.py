import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hmtl_ablate.loss import (
    class_weights,
    dynamic_weights,
    focused_geometric_mean,
    geometric_mean,
    project_conflicting,
    uncertainty,
    weighted_sum,
)


def losses(**values: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}


COMBINERS = {
    "sum": weighted_sum,
    "geometric": geometric_mean,
    "focused": lambda two, weights: focused_geometric_mean(two, weights, ["a"]),
    "uncertainty": lambda two, weights: uncertainty(two, weights, {name: torch.zeros(()) for name in two}, {"b"}),
}
ONES = {"a": 1.0, "b": 1.0}


def test_sum_adds_the_weighted_losses() -> None:
    assert weighted_sum(losses(a=2.0, b=3.0), {"a": 1.0, "b": 0.5}).item() == pytest.approx(3.5)


def test_geometric_is_the_weighted_geometric_mean() -> None:
    assert geometric_mean(losses(a=2.0, b=8.0), ONES).item() == pytest.approx(4.0)
    assert geometric_mean(losses(a=2.0, b=16.0), {"a": 1.0, "b": 2.0}).item() == pytest.approx((2 * 16 * 16) ** (1 / 3))


def test_focused_multiplies_by_the_mean_of_the_focus() -> None:
    assert focused_geometric_mean(losses(a=2.0, b=8.0), ONES, ["a"]).item() == pytest.approx(4.0 * 2.0)


def test_uncertainty_by_hand() -> None:
    # classification a: exp(-log 2) * 2 + log(2) / 2; regression b: exp(-log 4) * 3 / 2 + log(4) / 2
    variances = {"a": torch.tensor(math.log(2.0), requires_grad=True), "b": torch.tensor(math.log(4.0))}
    loss = uncertainty(losses(a=2.0, b=3.0), ONES, variances, {"b"})
    assert loss.item() == pytest.approx(1.0 + math.log(2) / 2 + 0.375 + math.log(4) / 2)
    loss.backward()
    assert variances["a"].grad is not None
    assert variances["a"].grad.item() == pytest.approx(-1.0 + 0.5)  # d/ds of exp(-s) L + s / 2


def test_dynamic_weights_by_hand() -> None:
    # a halved, b stayed: rates 0.5 and 1, over T = 2 they are 0.25 and 0.5
    weights = dynamic_weights({"a": 1.0, "b": 3.0}, {"a": 2.0, "b": 3.0})
    total = math.exp(0.25) + math.exp(0.5)
    assert weights == pytest.approx({"a": 2 * math.exp(0.25) / total, "b": 2 * math.exp(0.5) / total})


@given(st.lists(st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), min_size=1, max_size=5))
def test_dynamic_weights_sum_to_the_number_of_tasks(pairs: list[tuple[float, float]]) -> None:
    last = {str(k): pair[0] for k, pair in enumerate(pairs)}
    before = {str(k): pair[1] for k, pair in enumerate(pairs)}
    assert sum(dynamic_weights(last, before).values()) == pytest.approx(len(pairs))


def test_conflicting_gradients_are_projected_by_hand() -> None:
    # g1 = (1, 0), g2 = (-1, 1): g1 . g2 = -1. g1 - (-1 / 2) g2 = (0.5, 0.5); g2 - (-1 / 1) g1 = (0, 1).
    both = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    assert project_conflicting(both, [[0, 1], [1, 0]]).tolist() == pytest.approx([0.5, 1.5])


def test_gradients_that_agree_are_added() -> None:
    assert project_conflicting(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), [[1, 0], [0, 1]]).tolist() == [2.0, 1.0]


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_a_projected_pair_conflicts_no_longer(numbers: list[float]) -> None:
    first, second = torch.tensor(numbers[:3]), torch.tensor(numbers[3:])
    alone = project_conflicting(torch.stack([first, second]), [[1], []]) - second  # the first one, projected
    assert torch.dot(alone, second).item() >= -1e-3


@pytest.mark.parametrize("how", COMBINERS)
def test_every_combination_is_differentiable_and_finite_at_zero(how: str) -> None:
    two = losses(a=2.0, b=0.0)
    loss = COMBINERS[how](two, ONES)
    loss.backward()
    assert loss.ndim == 0
    assert all(one.grad is not None and math.isfinite(one.grad.item()) for one in two.values())


@pytest.mark.parametrize("how", ["sum", "geometric"])
def test_one_loss_alone_is_itself(how: str) -> None:
    assert COMBINERS[how](losses(a=1.7), {"a": 1.0}).item() == pytest.approx(1.7)


@pytest.mark.parametrize("how", COMBINERS)
def test_a_larger_loss_never_combines_to_less(how: str) -> None:
    assert COMBINERS[how](losses(a=2.0, b=3.0), ONES).item() < COMBINERS[how](losses(a=2.0, b=3.5), ONES).item()


def test_inverse_weights_are_majority_over_count() -> None:
    # As docs/paper.md's 1.8, 1.0, 5.28, …, with small counts.
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
