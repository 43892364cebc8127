import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmtl_ablate.reporting.tuning import DRAWS_FOR_A_BAND, tuning_curve


def test_the_expected_best_by_hand() -> None:
    """Of 1, 2, 4: the best of two is 1 with 1/9, 2 with 3/9, 4 with 5/9; of three with 1/27, 7/27, 19/27."""
    curve = tuning_curve([4.0, 1.0, 2.0], [10.0, 20.0, 30.0])
    assert [point.n for point in curve] == [1, 2, 3]
    assert [point.passes for point in curve] == [20.0, 40.0, 60.0]
    assert [point.expected for point in curve] == pytest.approx([7 / 3, 27 / 9, 91 / 27])
    # medians: F ≥ 0.5, F ≥ 0.7071, F ≥ 0.7937
    assert [point.median for point in curve] == [2.0, 4.0, 4.0]
    assert all(point.low is None and point.high is None for point in curve)  # too few for a band


def test_the_smallest_is_best_when_asked() -> None:
    up = tuning_curve([1.0, 2.0, 4.0], [1.0] * 3)
    down = tuning_curve([-1.0, -2.0, -4.0], [1.0] * 3, "min")
    assert [point.expected for point in down] == [-point.expected for point in up]
    assert [point.median for point in down] == [-point.median for point in up]


def test_a_band_by_hand() -> None:
    """20 draws 1 … 20: Kolmogorov's 95 % quantile is 0.2941 (Massey 1951, table 1: 0.294).

    One draw: F = 0.5 ± 0.2941 is first reached at 0.2059 · 20 = 4.1 → 5 and 0.7941 · 20 = 15.9 → 16.
    Four draws: 0.5^(1/4) = 0.8409: 0.5468 · 20 = 10.9 → 11, and above 1 on the other side, where no draw is.
    """
    curve = tuning_curve([float(n) for n in range(1, 21)], [1.0] * 20)
    assert (curve[0].low, curve[0].median, curve[0].high) == (5.0, 10.0, 16.0)
    assert (curve[3].low, curve[3].median, curve[3].high) == (11.0, 17.0, None)


def test_a_band_needs_twenty_draws() -> None:
    assert DRAWS_FOR_A_BAND == 20
    assert tuning_curve([1.0] * 19, [1.0] * 19)[0].low is None
    assert tuning_curve([1.0] * 20, [1.0] * 20)[0].low == 1.0


def test_no_draws_have_no_curve() -> None:
    assert tuning_curve([], []) == ()


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40), st.sampled_from(["max", "min"]))
def test_more_draws_are_never_expected_to_be_worse(scores: list[float], direction: str) -> None:
    curve = tuning_curve(scores, [2.0] * len(scores), direction)  # type: ignore[arg-type]
    sign = 1 if direction == "max" else -1
    for one, more in pairwise(curve):
        assert sign * more.expected >= sign * one.expected - 1e-9
        assert sign * more.median >= sign * one.median
    assert math.isclose(curve[0].expected, float(np.mean(scores)), rel_tol=1e-9, abs_tol=1e-9)
    assert len(curve) == len(scores)  # nothing is extrapolated


@pytest.mark.slow
def test_the_band_holds_as_often_as_it_says() -> None:
    """Of 2,000 searches of 30 uniform draws, 95 % have the true median curve, 0.5^(1/n), wholly inside the band."""
    source, held = np.random.default_rng(0), 0
    for _ in range(2000):
        curve = tuning_curve(source.uniform(size=30).tolist(), [1.0] * 30)
        held += all(
            (point.low is None or point.low <= 0.5 ** (1 / point.n))
            and (point.high is None or point.high >= 0.5 ** (1 / point.n))
            for point in curve
        )
    assert held / 2000 >= 0.94
