"""The bound of seeds until decided: its boundaries, its states by hand, and what it can decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hmtl_ablate.reporting.sequential import STATES, Bound, Course, boundaries, decidable, follow, settle, spent

BOUND = Bound(seeds=12, alpha=0.05, margin=0.01)
FIRST = 5.9215
"""c_4 of it: the t quantile with 3 degrees of freedom of 0.05 · (4/12)^1.5 = 0.009623, two-sided."""


def course(*differences: float | None, bound: Bound = BOUND) -> Course:
    return follow(dict(enumerate(differences)), bound)


def test_the_boundaries_of_twelve_seeds() -> None:
    """Those that a Monte Carlo of the same design gave before, to two digits."""
    published = [5.89, 5.12, 4.30, 3.77, 3.42, 3.18, 2.99, 2.84, 2.71]
    assert boundaries(12, 0.05) == pytest.approx(published, rel=0.008)
    assert boundaries(12, 0.05)[0] == pytest.approx(FIRST, abs=0.0001)


def test_one_look_is_the_t_test() -> None:
    assert boundaries(4, 0.05) == pytest.approx([stats.t.isf(0.025, 3)])


@pytest.mark.parametrize(("seeds", "alpha"), [(12, 0.05), (8, 0.05 / 6)])
def test_the_boundaries_spend_alpha_as_declared(seeds: int, alpha: float) -> None:
    """200,000 studies without a difference; four standard errors."""
    paths, looks = 200_000, np.arange(4, seeds + 1)
    values = np.random.default_rng(1).standard_normal((paths, seeds))
    crossed = np.zeros(paths, dtype=bool)
    for n, boundary in zip(looks, boundaries(seeds, alpha), strict=True):
        own = values[:, :n]
        crossed |= np.abs(own.mean(1)) * math.sqrt(n) > boundary * own.std(1, ddof=1)
        expected = spent(int(n), seeds, alpha)
        assert crossed.mean() == pytest.approx(expected, abs=4 * math.sqrt(expected / paths))
    assert spent(seeds, seeds, alpha) == alpha
    assert spent(3, seeds, alpha) == 0


def test_better_by_hand() -> None:
    """0.04, 0.05, 0.06, 0.05: mean 0.05, sd √(0.0002 / 3) = 0.008165, half 5.9215 · 0.008165 / 2 = 0.024174."""
    found = course(0.04, 0.05, 0.06, 0.05)
    assert found.state == "better"
    assert found.estimate.n == 4
    assert found.estimate.mean == pytest.approx(0.05)
    assert found.estimate.low == pytest.approx(0.05 - 0.024174, abs=1e-5)
    assert found.estimate.high == pytest.approx(0.05 + 0.024174, abs=1e-5)
    assert course(-0.04, -0.05, -0.06, -0.05).state == "worse"
    lower = Bound(12, 0.05, 0.01, sign=-1)
    assert course(0.04, 0.05, 0.06, 0.05, bound=lower).state == "worse"
    assert course(-0.04, -0.05, -0.06, -0.05, bound=lower).state == "better"


def test_no_difference_that_matters_by_hand() -> None:
    """±0.001: mean 0, sd √(4e-6 / 3) = 0.0011547, half 0.0034188, within 0.01; not within 0.003."""
    values = (0.001, -0.001, 0.001, -0.001)
    assert course(*values).state == "no difference that matters"
    assert course(*values, bound=Bound(12, 0.05, 0.003)).state == "open"
    assert course(*values, bound=Bound(12, 0.05, None)).state == "open"


def test_a_small_but_clear_difference_is_better_not_none() -> None:
    """0.004 to 0.006: half 0.0024, so the interval leaves out 0, and is within 0.01 too."""
    assert course(0.004, 0.005, 0.006, 0.005).state == "better"


def test_open_until_its_seeds_are_used_up() -> None:
    """0, 0.05, 0.1, 0.05: mean 0.05, sd 0.0408, half 0.121."""
    values = (0.0, 0.05, 0.1, 0.05) + 4 * (0.05, -0.05)
    assert [course(*values[:n]).state for n in (0, 1, 3, 4, 11)] == ["open"] * 5
    assert course(*values).state == "undecided"
    assert course(0.05).estimate.low is None
    assert course(0.04, 0.05, 0.06).estimate.high is None


def test_equal_differences_decide_nothing() -> None:
    assert course(*[0.05] * 4).state == "open"
    assert course(*[0.05] * 4).estimate.low is None
    assert course(*[0.0] * 12).state == "undecided"


def test_a_missing_pair_is_a_look_that_is_not_taken() -> None:
    """Seed 1 failed: after five seeds the boundary is that of four pairs."""
    found = course(0.04, None, 0.05, 0.06, 0.05)
    assert (found.state, found.estimate.n, found.missing) == ("better", 4, (1,))
    assert found.estimate.high == pytest.approx(0.05 + 0.024174, abs=1e-5)
    assert list(found.values) == [0, 2, 3, 4]
    assert course(0.04, None, 0.05, 0.06).state == "open"
    assert course(*[None] * 12).state == "undecided"


DIFFERENCES = st.lists(st.none() | st.floats(-0.1, 0.1, allow_subnormal=False), min_size=12, max_size=12)


@given(DIFFERENCES, st.integers(1, 12))
def test_a_decision_is_not_unmade_by_what_follows(values: list[float | None], known: int) -> None:
    before, after = course(*values[:known]), course(*values)
    if before.state != "open":
        assert after == before


@given(st.lists(st.integers(-100, 100), min_size=12, max_size=12))
def test_the_other_direction_is_the_other_state(values: list[int]) -> None:
    swapped = {"better": "worse", "worse": "better"}
    own, other = course(*[v / 1000 for v in values]), course(*[-v / 1000 for v in values])
    assert other.state == swapped.get(own.state, own.state)
    assert other.estimate.n == own.estimate.n


def test_many_at_once_are_decided_as_one_by_one() -> None:
    random = np.random.default_rng(3)
    values = random.standard_normal((200, 12)) * 0.01 + random.choice([0.0, 0.01, -0.02], 200)[:, None]
    for sign in (1, -1):
        bound = Bound(12, 0.05, 0.01, sign)
        found = [course(*row, bound=bound) for row in values]
        codes, used = settle(values, bound)
        assert [STATES[code] for code in codes] == [one.state for one in found]
        assert list(used) == [one.estimate.n for one in found]
        assert {one.state for one in found} == {*STATES} - {"open"}


def test_what_one_look_can_decide_is_the_power_of_a_t_test() -> None:
    """Four seeds are one look: the power is that of a noncentral t distribution."""
    boundary = stats.t.isf(0.025, 3)
    reach = decidable(0.02, 0.04, 4, 0.05, 1)
    assert reach.power == pytest.approx(stats.nct.sf(boundary, 3, 2 * math.sqrt(4)), abs=0.03)
    assert stats.nct.sf(boundary, 3, reach.detectable / 0.02 * math.sqrt(4)) == pytest.approx(0.8, abs=0.03)
    assert reach.seeds == 4
    assert reach == decidable(0.02, 0.04, 4, 0.05, 1)


def test_more_seeds_and_fewer_comparisons_decide_more() -> None:
    few, many, split = (decidable(1, 1, *given) for given in ((6, 0.05, 1), (12, 0.05, 1), (12, 0.05, 6)))
    assert few.power < many.power > split.power
    assert few.detectable > many.detectable < split.detectable
