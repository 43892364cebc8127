"""How small a difference a number of seeds can detect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

POWER = 0.8
ALPHA = 0.05


def power_of(difference: float, sd: float, seeds: int, alpha: float = ALPHA) -> float:
    """Probability that the two-sided paired t test finds a true mean difference: noncentral t with noncentrality
    difference · √seeds / sd (Cohen 1988, section 2.3).

    sd: standard deviation of the paired differences, above 0, in the unit of the difference; seeds: at least 2.
    """
    from scipy import stats

    df, shift = seeds - 1, difference * math.sqrt(seeds) / sd
    bound = stats.t.ppf(1 - alpha / 2, df)
    other = float(stats.nct.cdf(-bound, df, shift))  # NaN where it is too small for SciPy
    return float(stats.nct.sf(bound, df, shift)) + (0.0 if math.isnan(other) else other)


def smallest_difference(sd: float, seeds: int, alpha: float = ALPHA, power: float = POWER) -> float | None:
    """The smallest true mean difference that the paired t test of this many seeds finds with this power, in the unit of
    sd; None for fewer than 2 seeds or without a spread.

    10 seeds find 0.996 sd, 34 seeds 0.494 sd.
    """
    if seeds < 2 or not sd > 0:
        return None
    from scipy.optimize import brentq

    most = 0.5
    while power_of(most, 1.0, seeds, alpha) < power:
        most *= 2
    return sd * float(brentq(lambda size: power_of(size, 1.0, seeds, alpha) - power, 0.0, most, xtol=1e-9))


def spread(scores: Mapping[str, Mapping[int, float]], baseline: str) -> tuple[dict[str, float], float | None]:
    """Standard deviation of each arm's paired differences from the baseline, and the pooled one of all arms.

    scores: arm → seed → score. An arm has its own with at least 3 pairs. The pooled variance weighs each arm's by its
    degrees of freedom; it is None with fewer than 2 of them in all.
    """
    own: dict[str, float] = {}
    total, freedom = 0.0, 0
    base = scores.get(baseline, {})
    for arm, values in scores.items():
        differences = [value - base[seed] for seed, value in sorted(values.items()) if seed in base]
        if arm == baseline or len(differences) < 2:
            continue
        variance = _variance(differences)
        total, freedom = total + variance * (len(differences) - 1), freedom + len(differences) - 1
        if len(differences) >= 3:
            own[arm] = math.sqrt(variance)
    return own, math.sqrt(total / freedom) if freedom >= 2 else None


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
