"""The decisions of a study whose seeds were added until decided, as numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hmtl_ablate.config import metric_info
from hmtl_ablate.reporting.registered import changes
from hmtl_ablate.reporting.sequential import Bound, Course, follow
from hmtl_ablate.reporting.verdict import margin_of
from hmtl_ablate.study import Comparison, Decide

STOPPING = (
    "Seeds were added until decided: the test split was looked at for stopping only, and nothing was selected on it. "
    "Intervals are sequential; a t interval or a p value would not hold, and there is none."
)
"""Said under every table of such a study."""


@dataclass(frozen=True)
class Decision:
    """One declared comparison."""

    variant: str
    minus: str
    course: Course


@dataclass(frozen=True)
class StudyDecisions:
    """The comparisons of one study, in the order in which they were declared."""

    metric: str
    rule: Decide
    bound: Bound
    comparisons: tuple[Decision, ...]
    registered: Mapping[str, Any]
    """`tracking.records.Registration` as plain data; empty where there is none."""
    changed: Mapping[str, tuple[str, str]]
    """What is not as it was registered: `registered.changes`."""

    @property
    def courses(self) -> Mapping[Comparison, Course]:
        """(variant, the one it is compared with) → its course."""
        return {(one.variant, one.minus): one.course for one in self.comparisons}

    @property
    def level(self) -> float:
        """Of each comparison's intervals, all looks together, in percent."""
        return 100 * (1 - self.bound.alpha)


def bound_of(rule: Decide, comparisons: int, metric: str) -> Bound:
    """How each of so many comparisons is decided; differences are in the metric's own unit."""
    sign = -1 if metric_info(metric).direction == "min" else 1
    return Bound(rule.seeds, rule.alpha / max(comparisons, 1), margin_of(rule, metric), sign)


def study_decisions(
    study: Mapping[Any, Any], scores: Mapping[str, Mapping[int, float]], over: Collection[tuple[str, int]]
) -> StudyDecisions | None:
    """The decisions of a study; None for one whose seeds are fixed.

    study: a row of `Results.studies`; scores: variant → seed → value of its metric, of finished trials that count;
    over: (variant, seed) of all trials that ended, those that do not count among them.
    """
    declared = dict(study.get("decide") or {})
    if not declared:
        return None
    pairs = declared.pop("comparisons", [])
    rule, metric = Decide.model_validate(declared), str(study["metric"])
    bound = bound_of(rule, len(pairs), metric)
    return StudyDecisions(
        metric,
        rule,
        bound,
        tuple(
            Decision(variant, minus, follow(_pairs(study, (variant, minus), scores, over), bound))
            for variant, minus in pairs
        ),
        study["registered"],
        changes(study),
    )


def _pairs(
    study: Mapping[Any, Any],
    pair: Comparison,
    scores: Mapping[str, Mapping[int, float]],
    over: Collection[tuple[str, int]],
) -> dict[int, float | None]:
    """Seed → difference, None without a pair, up to the first seed that is not over: looks are taken in order."""
    found: dict[int, float | None] = {}
    ours, theirs = (scores.get(name, {}) for name in pair)
    for seed in study["seeds"]:
        if any(seed not in study["asked"].get(name, ()) or (name, seed) not in over for name in pair):
            break
        found[seed] = ours[seed] - theirs[seed] if seed in ours and seed in theirs else None
    return found
