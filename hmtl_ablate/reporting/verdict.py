"""The rule of the verdict on a study's controlled arms (docs/methods.md, Verdict). Differences in, findings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from hmtl_ablate.config import metric_info
from hmtl_ablate.reporting.sequential import State
from hmtl_ablate.reporting.statistics import holm, p_above, p_within
from hmtl_ablate.study import Decide, Verdict

Kind = Literal["helps because of the task", "helps as augmentation", "helps, cause undecided", "hurts", "undecided"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Claim = Literal["helps", "task", "augmentation", "hurts"]
CLAIMS: tuple[Claim, ...] = get_args(Claim)
"""What is tested of each arm: it helps; also because of the task; also as augmentation does; it hurts."""


@dataclass(frozen=True)
class Differences:
    """What an arm is judged by: its differences from four controls at the same seeds, in the metric's own unit, signed
    so that positive ones are gains."""

    views: Sequence[float]
    epochs: Sequence[float]
    distortion: Sequence[float]
    random_answers: Sequence[float]

    @property
    def seeds(self) -> int:
        """How many."""
        return len(self.views)


@dataclass(frozen=True)
class Finding:
    """The verdict on one arm."""

    kind: Kind
    p: Mapping[Claim, float]
    """p of each claim, adjusted for the number of controlled arms; empty where nothing was tested, or where seeds were
    added until decided."""


def findings(arms: Sequence[Differences | None], rule: Verdict, margin: float | None) -> list[Finding]:
    """The verdict on each of a study's controlled arms, in order.

    arms: None for one that can't be judged; it still counts as one of the comparisons. margin: `rule.smallest` in the
    unit of the differences; None where the metric has no unit that it could be in.
    """
    raw = [_claims(arm, margin) for arm in arms]
    adjusted = {claim: holm([one[claim] for one in raw]) for claim in CLAIMS}
    return [
        _finding({} if arm is None else {claim: adjusted[claim][number] for claim in CLAIMS}, rule.alpha)
        for number, arm in enumerate(arms)
    ]


def margin_of(rule: Verdict | Decide, metric: str) -> float | None:
    """`rule.smallest` in the metric's own unit; None for a metric without a unit at the default, which is in points."""
    unit = metric_info(metric).unit
    if not unit and not rule.changed("smallest"):
        return None
    return rule.smallest / 100 if unit == "%" else rule.smallest


def by_states(views: State, epochs: State, distortion: State, random_answers: State) -> Kind:
    """The verdict on an arm whose seeds were added until decided, from the states of its comparisons with four
    controls."""
    if views == epochs == "better":
        if distortion == random_answers == "better":
            return "helps because of the task"
        if distortion == "no difference that matters":
            return "helps as augmentation"
        return "helps, cause undecided"
    return "hurts" if views == "worse" else "undecided"


def _claims(arm: Differences | None, margin: float | None) -> dict[Claim, float]:
    """p of each claim; a claim that needs several tests has the largest p of them (intersection-union)."""
    if arm is None:
        return dict.fromkeys(CLAIMS, 1.0)
    helps = max(p_above(arm.views), p_above(arm.epochs))
    return {
        "helps": helps,
        "task": max(helps, p_above(arm.distortion), p_above(arm.random_answers)),
        "augmentation": 1.0 if margin is None else max(helps, p_within(arm.distortion, margin)),
        "hurts": p_above([-value for value in arm.views]),
    }


def _finding(p: Mapping[Claim, float], alpha: float) -> Finding:
    def holds(claim: Claim) -> bool:
        return p.get(claim, 1.0) <= alpha

    if holds("task"):
        return Finding("helps because of the task", p)
    if holds("augmentation"):
        return Finding("helps as augmentation", p)
    if holds("helps"):
        return Finding("helps, cause undecided", p)
    return Finding("hurts" if holds("hurts") else "undecided", p)
