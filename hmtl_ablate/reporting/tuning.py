"""Tuning curves: the best score that a search by random draws is expected to have found after so many draws.

From random draws alone, each with its first seed, before anything was eliminated: draws that a sampler made from
scores, or that were stopped early, would bend the curve. Nothing is said beyond the number of draws that were made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

DRAWS_FOR_A_BAND = 20
"""With fewer random draws a curve has no band."""
LEVEL = 0.95
"""Confidence of a band, over all numbers of draws at once."""


@dataclass(frozen=True)
class TuningPoint:
    """A tuning curve after n random draws; scores in the metric's own unit."""

    n: int
    passes: float
    """Image passes that n draws take, at the mean of those that were made."""
    expected: float
    """Expected best score of n draws."""
    median: float
    """Median of the best score of n draws, which the band is for."""
    low: float | None
    """Lower end of the band; None without a band, and where the draws do not bound it."""
    high: float | None
    """Upper end of the band; None likewise."""


def tuning_curve(
    scores: Sequence[float], passes: Sequence[float], direction: Literal["max", "min"] = "max"
) -> tuple[TuningPoint, ...]:
    """The curve over 1 to N draws, of N independent random draws.

    Expected best of n: the mean of the maximum of n draws from the empirical distribution (Dodge et al. 2019, "Show
    Your Work", equation 2). Its median and the band: Lourie et al. 2024 ("Show Your Work with Confidence"), with the
    band of Dvoretzky, Kiefer and Wolfowitz for the distribution function, whose half width is the exact quantile of
    Kolmogorov's statistic; it holds for all n at once, and whatever the distribution is.

    scores, passes: of the same draws, finite. direction: whether the best is the largest or the smallest score.
    """
    if not scores:
        return ()
    sign = 1.0 if direction == "max" else -1.0
    ordered = np.sort(sign * np.asarray(scores, float))
    count, each = len(ordered), math.fsum(passes) / len(scores)
    half = _half_width(count) if count >= DRAWS_FOR_A_BAND else None
    points = []
    for n in range(1, count + 1):
        share = np.arange(count + 1) / count
        expected = float((ordered * np.diff(share**n)).sum())
        wanted = 0.5 ** (1 / n)
        ends = [None if half is None else _quantile(ordered, wanted, half * way) for way in (1, -1)]
        low, high = ends if sign > 0 else reversed(ends)
        points.append(
            TuningPoint(
                n,
                n * each,
                sign * expected,
                sign * _at(ordered, wanted),
                None if low is None else sign * low,
                None if high is None else sign * high,
            )
        )
    return tuple(points)


def _at(ordered: np.ndarray, wanted: float) -> float:
    """Smallest score at which the empirical distribution function is at least `wanted`."""
    return float(ordered[min(math.ceil(wanted * len(ordered) - 1e-9), len(ordered)) - 1])


def _quantile(ordered: np.ndarray, wanted: float, shift: float) -> float | None:
    """Smallest score at which the empirical distribution function, shifted, is at least `wanted`; None beyond the
    scores that there are."""
    place = math.ceil((wanted - shift) * len(ordered) - 1e-9)
    return float(ordered[place - 1]) if 1 <= place <= len(ordered) else None


@lru_cache(maxsize=1024)
def _half_width(count: int) -> float:
    """Half width of the band of a distribution function from `count` draws."""
    from scipy import stats  # a slow import, for bands only

    return float(stats.kstwo.ppf(LEVEL, count))
