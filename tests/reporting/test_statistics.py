import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from hmtl_ablate.reporting.statistics import estimate, holm, p_above, p_within, paired_difference


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


def test_equal_values_have_no_interval() -> None:
    same = estimate([0.5, 0.5, 0.5])
    assert (same.n, same.mean, same.sd, same.low, same.high) == (3, 0.5, 0.0, None, None)


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


def test_p_of_three_differences_by_hand() -> None:
    # 0.04, 0.03, 0.05: mean 0.04, sd 0.01, t = 0.04 √3 / 0.01, t² = 48. With two degrees of freedom the two-sided
    # p is 1 - t / √(2 + t²) = 1 - √(48 / 50) = 0.020204; one-sided half of that. Above 0.01: t² = 27, 1 - √(27 / 29).
    assert p_above([0.04, 0.03, 0.05]) == pytest.approx(1 - math.sqrt(48 / 50))
    assert p_above([0.04, 0.03, 0.05], 0.01) == pytest.approx(1 - math.sqrt(27 / 29))
    assert p_above([-0.04, -0.03, -0.05]) == 1.0
    assert p_above([0.01, -0.02, 0.01]) == pytest.approx(1.0)  # the mean is 0


def test_p_above_is_the_two_sided_p_in_one_direction() -> None:
    ours, theirs = [0.72, 0.74, 0.73, 0.71], [0.70, 0.73, 0.72, 0.72]
    both = [one - other for one, other in zip(ours, theirs, strict=True)]
    assert p_above(both) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert p_above(both) == pytest.approx(2 * stats.ttest_rel(ours, theirs, alternative="greater").pvalue)


def test_equivalence_by_hand() -> None:
    # 0.01, 0, -0.01: mean 0, sd 0.01; to ±0.05 t² = 75, 1 - √(75 / 77). Around 0.02 the nearer end counts: t² = 27.
    assert p_within([0.01, 0.0, -0.01], 0.05) == pytest.approx(1 - math.sqrt(75 / 77))
    assert p_within([0.03, 0.02, 0.01], 0.05) == pytest.approx(1 - math.sqrt(27 / 29))
    assert p_within([-0.03, -0.02, -0.01], 0.05) == pytest.approx(1 - math.sqrt(27 / 29))
    assert p_within([0.07, 0.06, 0.08], 0.05) == 1.0


def test_what_has_no_spread_or_fewer_than_three_seeds_is_not_tested() -> None:
    """Three equal differences, as a test split of 100 images gives them, are no certainty."""
    for differences in ([], [0.1], [0.1, 0.2], [0.01, 0.01, 0.01], [0.72 - 0.71, 0.62 - 0.61, 0.52 - 0.51]):
        assert (p_above(differences), p_within(differences, 1.0)) == (1.0, 1.0)


@given(st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=3, max_size=8), st.floats(0.01, 1))
def test_p_says_what_the_interval_says(values: list[float], margin: float) -> None:
    known = estimate(values)
    if len(set(values)) > 1 and known.low is not None and known.high is not None:
        if abs(known.low) > 1e-9:
            assert (p_above(values) <= 0.05) == (known.low > 0)
        if min(abs(known.low + margin), abs(known.high - margin)) > 1e-9:
            assert (p_within(values, margin) <= 0.05) == (-margin < known.low and known.high < margin)


def test_holm_by_hand() -> None:
    # sorted 0.005 · 4 = 0.02, 0.01 · 3 = 0.03, 0.03 · 2 = 0.06, 0.04 · 1 = 0.04, raised to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    ps = [0.3, 0.001, 0.04, 0.04, 1.0]
    assert holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]))
    assert holm([0.05]) == [0.05]
    assert holm([]) == []
