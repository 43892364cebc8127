"""Means with their intervals, differences paired by seed, and tests of them. SciPy gives the t distribution:
`scipy.special` has it too, and loads a second sooner than `scipy.stats`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

SEEDS_TO_TEST = 3
"""With fewer paired seeds nothing is tested."""


@dataclass(frozen=True)
class Estimate:
    """A mean over n values and how well it is known; what so few values can't say is None."""

    n: int
    mean: float | None = None
    sd: float | None = None
    """Standard deviation, with n - 1 in the denominator."""
    low: float | None = None
    high: float | None = None
    """Ends of the 95 % interval of the mean by Student's t; where seeds were added until decided, of the sequential
    interval (`sequential.Bound`), and None where there is none."""


def finite(value: Any) -> float | None:
    """The number, or None for what is missing, NaN or infinite."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def all_equal(values: Sequence[float]) -> bool:
    """Whether they are the same number, up to rounding."""
    return math.isclose(min(values), max(values), rel_tol=1e-9, abs_tol=1e-12)


def without_interval(found: Estimate) -> Estimate:
    """The point alone."""
    return replace(found, low=None, high=None)


def estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Estimate from finite values in any unit; n = 0 has no mean, n = 1 no sd. level: of the interval, which a single
    value and equal ones don't have: they say nothing of the spread."""
    n = len(values)
    if n == 0:
        return Estimate(0)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(1, mean)
    sd = float(np.std(values, ddof=1))
    if all_equal(values):
        return Estimate(n, mean, sd)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half, mean + half)


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate:
    """Estimate of `values - baseline`, each seed → score, over the seeds that both have.

    Its interval is that of the paired t test.
    """
    return estimate([value - baseline[seed] for seed, value in sorted(values.items()) if seed in baseline])


def p_above(differences: Sequence[float], bound: float = 0.0) -> float:
    """p of the paired t test that the mean difference is above the bound: twice the one-sided p, 1 at most.

    Twice, because two directions are looked at: p ≤ 0.05 exactly when the bound is below the whole two-sided 95 %
    interval. With fewer than 3 differences, or with equal ones, whose spread is unknown, it is 1.
    """
    n = len(differences)
    if n < SEEDS_TO_TEST or all_equal(differences):
        return 1.0
    known = estimate(differences)
    assert known.mean is not None
    assert known.sd is not None
    return min(1.0, 2 * float(stdtr(n - 1, (bound - known.mean) * math.sqrt(n) / known.sd)))


def p_different(differences: Sequence[float]) -> float:
    """p of the two-sided paired t test that the mean difference is 0; 1 where `p_above` can't test."""
    return min(p_above(differences), p_above([-value for value in differences]))


def p_within(differences: Sequence[float], margin: float) -> float:
    """p of equivalence: the larger p of two tests, mean above -margin and mean below margin (Schuirmann 1987).

    p ≤ 0.05 exactly when the whole two-sided 95 % interval is within ±margin.
    """
    return max(p_above(differences, -margin), p_above([-value for value in differences], -margin))


def seeds_for(sd: float, half_width: float) -> int:
    """The fewest seeds, at least 2, at which the 95 % t interval is at most ±half_width, if the standard deviation of
    the differences stays `sd`; both in one unit, half_width > 0."""

    def narrow(n: int) -> bool:
        return float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n) <= half_width

    high = 2
    while not narrow(high):
        high *= 2
    low = max(high // 2, 1)  # too few, or no interval
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if narrow(middle) else (middle, high)
    return high


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979), in the same order: reject those that are at most alpha.

    The i-th smallest of m is multiplied by m - i + 1, is at least the one before it, and 1 at most. The values are
    those of statsmodels' `multipletests`, which takes 60 ms a call where a report makes hundreds.
    """
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = largest
    return adjusted
