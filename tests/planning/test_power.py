"""The smallest difference that seeds detect, against Cohen's and G*Power's tables of the paired t test."""

import math

import pytest

from hmtl_ablate.planning.power import power_of, smallest_difference, spread


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_the_fewest_pairs_with_power_80(effect: float, seeds: int) -> None:
    """G*Power 3.1, matched pairs, two-sided, alpha 0.05: 34, 15 and 10 pairs for dz = 0.5, 0.8 and 1."""
    enough, fewer = smallest_difference(1.0, seeds), smallest_difference(1.0, seeds - 1)
    assert enough is not None
    assert fewer is not None
    assert enough <= effect < fewer


def test_the_difference_is_in_the_unit_of_the_spread() -> None:
    one, two = smallest_difference(1.0, 5), smallest_difference(2.5, 5)
    assert one is not None
    assert two == pytest.approx(2.5 * one)
    assert power_of(one, 1.0, 5) == pytest.approx(0.8, abs=1e-6)
    assert power_of(0.0, 1.0, 5) == pytest.approx(0.05, abs=1e-6)  # no difference: alpha


@pytest.mark.parametrize(("sd", "seeds"), [(1.0, 1), (0.0, 5), (math.nan, 5)])
def test_without_pairs_or_spread_nothing_is_known(sd: float, seeds: int) -> None:
    assert smallest_difference(sd, seeds) is None


def test_the_spread_of_paired_differences() -> None:
    """Differences 1, 2, 3 (sd 1) and 0, 4 (sd √8): pooled √((2 · 1 + 1 · 8) / 3)."""
    scores = {
        "SL": {0: 10.0, 1: 20.0, 2: 30.0, 7: 0.0},
        "a": {0: 11.0, 1: 22.0, 2: 33.0, 9: 5.0},
        "b": {0: 10.0, 1: 24.0},
        "c": {0: 10.0},
    }
    own, pooled = spread(scores, "SL")
    assert own == {"a": pytest.approx(1.0)}
    assert pooled == pytest.approx(math.sqrt(10 / 3))
    assert spread({"SL": {0: 1.0}, "a": {0: 1.0}}, "SL") == ({}, None)
