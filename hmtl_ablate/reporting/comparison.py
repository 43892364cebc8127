"""The comparisons of a study's table: each arm against the baseline, and against SL at equal image passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hmtl_ablate.config import metric_info
from hmtl_ablate.reporting.sampling import Sampling
from hmtl_ablate.reporting.statistics import SEEDS_TO_TEST, Estimate, estimate, holm, p_different, seeds_for

ALPHA = 0.05
"""Of the family of a table's comparisons."""
SEEDS_TO_RANK = 6
"""The signed-rank test of 5 pairs can't reach p = 0.05: its smallest two-sided p is 2/2⁵."""
EQUAL_PASSES = 0.01
"""Image passes that differ by at most this share count as equal: batches are whole."""
SAME = (
    *("data.name", "data.size", "data.fraction", "model.backbone", "model.weights"),
    *("training.epochs", "training.supervised"),
)
"""Options that both arms share where one is compared with the other at equal image passes."""
WIDTHS = {"%": 0.005, "°": 0.5, "": 0.005}
"""Unit of a metric → half-width that `Comparison.seeds_needed` is for, in the metric's own unit."""

Scores = Mapping[str, Mapping[int, float]]
"""Variant → seed → value of the study's metric."""


@dataclass(frozen=True)
class Arm:
    """What decides with which arms one is compared."""

    passes: float | None
    """Image passes, mean per trial; None without a finished trial."""
    options: Mapping[str, Any]
    """Of its trials, {dotted key: value}, with names of arms in place of trial ids (`results.by_arm`); {} without a
    trial."""

    @property
    def pretext(self) -> bool:
        """Whether it trains a pretext task."""
        return any(key.startswith("pretext.") and value is not None for key, value in self.options.items())


@dataclass(frozen=True)
class Comparison:
    """`variant` minus `minus`, paired by seed, in the metric's own unit."""

    variant: str
    minus: str
    equal_passes: bool
    """Whether `minus` is SL with as many image passes, and not the table's baseline."""
    values: Mapping[int, float]
    """Seed → difference, of the seeds that both have."""
    estimate: Estimate
    """With the interval of this comparison alone."""
    p: float | None = None
    """Two-sided paired t test; None with fewer than 3 pairs."""
    p_holm: float | None = None
    """The same, adjusted for all comparisons of the table; it decides."""
    wilcoxon: float | None = None
    """Two-sided Wilcoxon signed-rank test, exact where it can be; from 6 pairs on. It decides nothing."""
    d_z: float | None = None
    """Mean over standard deviation of the differences (Cohen 1988); None without spread."""
    low: float | None = None
    high: float | None = None
    """Ends of the simultaneous interval, of level 1 − 0.05/m for m comparisons (Bonferroni)."""
    seeds_needed: int | None = None
    """Seeds at which the 95 % t interval would be ±0.5 points wide (±0.5°; ±0.005 of a metric without a unit), at this
    standard deviation."""
    images: Sampling | None = None
    """Sampling error over the test images, over seeds, and over both; None where the predictions are not known."""
    mcnemar: Mapping[int, float] = field(default_factory=dict)
    """Seed → p of McNemar's exact test, not adjusted; {} for a task without classes and without predictions."""
    family: int = 1
    """Number m of the table's comparisons, those that may still come among them."""


def comparisons(
    scores: Scores, metric: str, arms: Mapping[str, Arm], tested: Callable[[str], bool] = lambda name: True
) -> tuple[Comparison, ...]:
    """Each variant against the first one, and each arm with a pretext task against SL at equal image passes.

    scores: the baseline first. arms: what is known of each. tested: whether a variant is one of the family; the others
    have no test here. Every comparison of the family counts in its size m, whether it has seeds enough or not; so does
    one at equal image passes that an arm without a finished trial may still bring, so that m never grows.
    """
    names = list(scores)
    family = [name for name in names[1:] if tested(name)]
    pairs = [(name, names[0], False) for name in family]
    pairs += [(name, fair, True) for name in family if (fair := equal_passes(name, names, arms))]
    raw = [_pair(scores, variant, minus) for variant, minus, _ in pairs]
    ps = [_p(values) for values in raw]
    number = len(pairs) + sum(_may_come(name, names, arms) for name in family)
    adjusted = holm([*(1.0 if p is None else p for p in ps), *[1.0] * (number - len(pairs))])
    width = WIDTHS[metric_info(metric).unit]
    return tuple(
        _comparison(pair, values, p, p_holm, number, width)
        for pair, values, p, p_holm in zip(pairs, raw, ps, adjusted[: len(pairs)], strict=True)
    )


def equal_passes(name: str, names: Sequence[str], arms: Mapping[str, Arm]) -> str:
    """SL that an arm is compared with fairly: without a pretext task, at equal image passes, and alike in `SAME`; ""
    without one, and where the baseline is such an arm. Of several the one whose options are nearest."""
    own = arms.get(name, Arm(None, {}))
    if not own.pretext or _alike(own, arms.get(names[0], Arm(None, {}))):
        return ""
    found = [other for other in names[1:] if other in arms and _alike(own, arms[other])]
    return min(found, key=lambda other: _apart(own, arms[other]), default="")


def _alike(arm: Arm, other: Arm) -> bool:
    """Whether an arm is compared with the other one fairly."""
    if arm.passes is None or other.passes is None or other.pretext or not other.options:
        return False
    return same_options(arm.options, other.options) and same_passes(arm.passes, other.passes)


def _may_come(name: str, names: Sequence[str], arms: Mapping[str, Arm]) -> bool:
    """Whether `equal_passes` finds nothing for an arm now, and may find something when others are finished."""
    own = arms.get(name)
    if own is None or (own.options and not own.pretext) or equal_passes(name, names, arms):
        return False
    if _alike(own, arms[names[0]]):
        return False
    others = [arms[other] for other in names[1:] if other != name and other in arms]
    unknown = [one for one in others if not one.pretext and None in (own.passes, one.passes)]
    return any(not own.options or not one.options or same_options(own.options, one.options) for one in unknown)


def same_options(own: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two arms are alike in `SAME`."""
    return all(own.get(key) == other.get(key) for key in SAME)


def same_passes(own: float, other: float) -> bool:
    """Whether two arms have as many image passes."""
    return abs(own - other) <= EQUAL_PASSES * own


def _apart(arm: Arm, other: Arm) -> int:
    keys = arm.options.keys() | other.options.keys()
    return sum(arm.options.get(key) != other.options.get(key) for key in keys)


def _pair(scores: Scores, variant: str, minus: str) -> dict[int, float]:
    ours, theirs = scores[variant], scores[minus]
    return {seed: ours[seed] - theirs[seed] for seed in sorted(ours) if seed in theirs}


def _p(values: Mapping[int, float]) -> float | None:
    return p_different(list(values.values())) if len(values) >= SEEDS_TO_TEST else None


def _comparison(
    pair: tuple[str, str, bool],
    values: Mapping[int, float],
    p: float | None,
    p_holm: float,
    number: int,
    width: float,
) -> Comparison:
    found = estimate(list(values.values()))
    if p is None:
        return Comparison(*pair, values, found, family=number)
    assert found.mean is not None
    assert found.sd is not None
    shared = estimate(list(values.values()), 1 - ALPHA / number)
    spread = found.low is not None
    return Comparison(
        *pair,
        values,
        found,
        p,
        p_holm,
        _wilcoxon(list(values.values())),
        found.mean / found.sd if spread else None,
        shared.low,
        shared.high,
        seeds_for(found.sd, width) if spread else None,
        family=number,
    )


def _wilcoxon(values: Sequence[float]) -> float | None:
    if len(values) < SEEDS_TO_RANK or not any(values):
        return None
    from scipy import stats  # a slow import, which a report of fewer seeds does not need

    return float(stats.wilcoxon(values).pvalue)
