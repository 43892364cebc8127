"""Random-effects mean of effects, their heterogeneity, and the interval that a further effect is expected in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, stdtrit


@dataclass(frozen=True)
class Pooled:
    """k effects together, in their own unit; the true ones are taken as normal around `mean` with variance `tau2`."""

    k: int
    mean: float
    low: float
    high: float
    """Ends of the 95 % interval of the mean by Hartung and Knapp (2001), of t with k − 1 degrees of freedom."""
    tau2: float
    """Variance between the true effects (Paule and Mandel 1982)."""
    q: float
    """Cochran's Q."""
    p: float
    """Of Q against χ² with k − 1 degrees of freedom."""
    i2: float
    """Share of the spread that sampling error does not explain, 0 to 1 (Higgins and Thompson 2002)."""
    predicted: tuple[float, float] | None
    """The 95 % interval of the true effect in a further study; None with two effects."""
    weights: tuple[float, ...]
    """Of the effects in the mean, in their order; their sum is 1."""


def pooled(effects: Sequence[tuple[float, float]]) -> Pooled:
    """The random-effects mean of (effect, its standard error > 0), at least two; statsmodels computes it."""
    from statsmodels.stats.meta_analysis import combine_effects  # 1 s of imports, which few reports need

    k = len(effects)
    scale = max(se for _, se in effects)  # the same numbers whatever the unit
    values = np.array([value / scale for value, _ in effects])
    found = combine_effects(values, np.array([(se / scale) ** 2 for _, se in effects]), method_re="pm")
    mean, tau2, q = scale * float(found.mean_effect_re), scale**2 * float(found.tau2), float(found.q)
    half = float(stdtrit(k - 1, 0.975)) * scale * float(found.sd_eff_w_re_hksj)
    return Pooled(
        k=k,
        mean=mean,
        low=mean - half,
        high=mean + half,
        tau2=tau2,
        q=q,
        p=float(chdtrc(k - 1, q)),
        i2=max(0.0, 1 - (k - 1) / q) if q > 0 else 0.0,
        predicted=prediction_interval(mean, scale * float(found.sd_eff_w_re), tau2, k),
        weights=tuple(float(weight) for weight in found.weights_rel_re),
    )


def prediction_interval(mean: float, se: float, tau2: float, k: int) -> tuple[float, float] | None:
    """mean ± t · √(τ² + se²), with the 97.5 % quantile of t with k − 2 degrees of freedom (Higgins, Thompson and
    Spiegelhalter 2009, eq. 12); None for k < 3. se: of the random-effects mean, 1/√Σw."""
    if k < 3:
        return None
    half = float(stdtrit(k - 2, 0.975)) * math.sqrt(tau2 + se**2)
    return mean - half, mean + half
