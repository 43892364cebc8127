"""Means with their intervals, and differences paired by seed. SciPy gives the t distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Summary:
    """n values in short; what can't be said of so few values is None.

    sd: standard deviation with n - 1 in the denominator; low, high: 95 % interval of the mean by Student's t.
    """

    n: int
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def summarise(values: Sequence[float]) -> Summary:
    """Summary of finite values in any unit; n = 0 has no mean, n = 1 neither sd nor interval."""
    n = len(values)
    if n == 0:
        return Summary(0)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Summary:
    """Summary of `values - baseline` over the seeds that both have; its interval is that of the paired t test."""
    return summarise([value - baseline[seed] for seed, value in sorted(values.items()) if seed in baseline])
