import math

import pytest
from scipy import stats

from hmtl_ablate.reporting.statistics import estimate, paired_difference


def test_three_values_by_hand() -> None:
    # mean 4, deviations -2, 0, 2: variance (4 + 0 + 4) / 2 = 4; t(0.975, 2) = 4.302653; half = 4.302653 · 2 / √3
    estimated = estimate([2.0, 4.0, 6.0])
    assert (estimated.n, estimated.mean, estimated.sd) == (3, 4.0, 2.0)
    assert estimated.low == pytest.approx(4 - 4.968275, abs=1e-5)
    assert estimated.high == pytest.approx(4 + 4.968275, abs=1e-5)


def test_few_values_say_less() -> None:
    assert estimate([]) == estimate(())
    assert (estimate([]).n, estimate([]).mean) == (0, None)
    one = estimate([0.7])
    assert (one.n, one.mean, one.sd, one.low, one.high) == (1, 0.7, None, None, None)


def test_equal_values_have_an_interval_without_width() -> None:
    same = estimate([0.5, 0.5, 0.5])
    assert (same.sd, same.low, same.high) == (0.0, 0.5, 0.5)


def test_the_difference_is_paired_by_seed() -> None:
    # By hand: differences 0.02, 0.01, 0.03 → mean 0.02, sd 0.01, half 4.302653 · 0.01 / √3 = 0.0248414.
    baseline = {0: 0.50, 1: 0.70, 2: 0.60}
    difference = paired_difference({2: 0.63, 0: 0.52, 1: 0.71}, baseline)
    assert difference.mean == pytest.approx(0.02)
    assert difference.low == pytest.approx(0.02 - 0.0248414, abs=1e-6)
    assert difference.high == pytest.approx(0.02 + 0.0248414, abs=1e-6)
    reference = stats.ttest_rel([0.52, 0.71, 0.63], [0.50, 0.70, 0.60]).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((reference.low, reference.high))


def test_only_seeds_that_both_have_are_compared() -> None:
    difference = paired_difference({0: 0.6, 1: 0.9, 5: 0.1}, {0: 0.5, 1: 0.6, 7: 0.9})
    assert difference.n == 2
    assert difference.mean == pytest.approx(0.2)
    single = paired_difference({0: 0.6, 5: 0.1}, {0: 0.5})
    assert single.mean == pytest.approx(0.1)
    assert (single.n, single.low, single.high) == (1, None, None)
    assert paired_difference({5: 0.1}, {0: 0.5}).mean is None


def test_the_interval_holds_the_mean_95_times_in_100() -> None:
    rng = stats.norm(loc=3.0).rvs(size=(4000, 3), random_state=7)
    inside = [s.low <= 3.0 <= s.high for s in map(estimate, rng.tolist()) if s.low is not None and s.high is not None]
    assert math.isclose(sum(inside) / len(inside), 0.95, abs_tol=0.012)
