"""Means with their intervals, and differences paired by seed. SciPy gives the t distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean over n values and how well it is known; what so few values can't say is None."""

    n: int
    mean: float | None = None
    sd: float | None = None
    """Standard deviation, with n - 1 in the denominator."""
    low: float | None = None
    high: float | None = None
    """Ends of the 95 % interval of the mean by Student's t."""


def estimate(values: Sequence[float]) -> Estimate:
    """Estimate from finite values in any unit; n = 0 has no mean, n = 1 neither sd nor interval."""
    n = len(values)
    if n == 0:
        return Estimate(0)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(1, mean)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    return Estimate(n, mean, sd, mean - half, mean + half)


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate:
    """Estimate of `values - baseline`, each seed → score, over the seeds that both have.

    Its interval is that of the paired t test.
    """
    return estimate([value - baseline[seed] for seed, value in sorted(values.items()) if seed in baseline])
