"""Racing: which configuration of a search is trained with which seed next.

A search's trial is a configuration, and its fidelity is the number of seeds it is trained with. Every configuration
gets two; the best third of them gets four (asynchronous successive halving, Li et al. 2018); those race for the seeds
that are left, and one that is worse than the leader by the Wilcoxon signed-rank test of Optuna's WilcoxonPruner gets no
more. The p value decides where image passes go; it is no evidence, because the leader was chosen for its scores.

Everything here is a function of scores alone, without a state and without chance: the order in which training runs end
is of no consequence, so a search that was killed decides as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Literal

from hmtl_ablate.study.declaration import COSTS

FIRST = 2
"""Seeds of every configuration; what the sampler learns is the mean over them."""
SECOND = 4
"""Seeds of the best third."""
REDUCTION = 3
"""One in so many configurations is promoted from FIRST to SECOND seeds."""
TESTED = 5
"""Seeds from which a configuration can be eliminated by the test."""
P_THRESHOLD = 0.1
"""p value below which it is."""

SCORE = "search/score"
"""Metric, in the tracking store, of a trial that a search selects by: `run_score`."""

Scores = Mapping[int, Mapping[int, float]]
"""Number of a configuration → seed → score of its finished training run."""


@dataclass(frozen=True)
class Race:
    """The rules of one race."""

    seeds: tuple[int, ...]
    """The search's seeds, in the order in which a configuration gets them; their number is the most it can get."""
    direction: Literal["max", "min"] = "max"
    """Whether larger or smaller scores are better."""

    def rank(self, score: float) -> float:
        """Sort key of a score: the best one is the smallest."""
        return -score if self.direction == "max" else score


@dataclass(frozen=True)
class Place:
    """Where a configuration ended."""

    configuration: int
    seeds: int
    """Seeds that it has a score with."""
    score: float
    """Mean over them."""


def search_seeds(study: Collection[int], most: int) -> tuple[int, ...]:
    """The seeds of a search: the study's first, so that what older searches have trained is used, then whole numbers
    upwards from above the study's largest. The study's other seeds are left for the confirmation, unseen."""
    above = max(study) + 1
    return (next(iter(study)), *range(above, above + most - 1))


def last_epochs(history: Sequence[Mapping[str, float]], metric: str) -> float | None:
    """The mean of a metric over the last fifth of a run's epochs, rounded down, one at least: what a configuration is
    worth with one seed. (The best epoch's value is a maximum of noise, and grows with the number of epochs.) None where
    the metric is missing or not finite in one of them."""
    rows = history[-max(1, len(history) // 5) :]
    values = [row.get(metric, math.nan) for row in rows]
    return fmean(values) if values and all(map(math.isfinite, values)) else None


def run_score(
    metrics: Mapping[str, float], history: Sequence[Mapping[str, float]], metric: str, *, racing: bool
) -> float | None:
    """The objective of a finished training run: in a race `last_epochs`, else the best epoch's value; None when it was
    not measured."""
    return last_epochs(history, metric) if racing else metrics.get(f"best/{metric}")


def told(own: Mapping[int, float], race: Race) -> float | None:
    """What the sampler learns of a configuration: the mean over its first two seeds; None before it has both."""
    first = race.seeds[:FIRST]
    return fmean(own[seed] for seed in first) if all(seed in own for seed in first) else None


def promoted(
    scores: Scores, race: Race, *, out: Collection[int] = (), earlier: Collection[int] = (), closed: bool = False
) -> set[int]:
    """Configurations that get four seeds: the best third, rounded down, of those that have ended their first round.

    out: configurations that ended early (diverged, or stopped by a pruner); they count as ended, and are never
    promoted. earlier: those that were promoted before, and stay so. closed: no further configuration comes, so that,
    once all have ended their first round, two are promoted at least: one alone would have nobody to race with.
    """
    if len(race.seeds) <= FIRST:
        return set()
    first = {n: value for n, own in scores.items() if n not in out and (value := told(own, race)) is not None}
    ended = len(first) + len(set(out))
    room = ended // REDUCTION
    if closed and ended == len(scores) and len(first) > 1:
        room = max(room, 2)
    best = sorted(first, key=lambda n: (race.rank(first[n]), n))[:room]
    under_way = {n for n in first if len(scores[n]) > FIRST}
    return (set(best) | under_way | set(earlier)) - set(out)


def eliminated(scores: Scores, race: Race, *, out: Collection[int] = ()) -> dict[int, int]:
    """Configuration that is out of the race → the one that was better.

    One with at least five seeds is compared with the leader, the best mean among these, over the seeds that both have:
    it is out where its mean over them is worse, and the one-sided Wilcoxon signed-rank test has p < 0.1.
    """
    tested = {n: fmean(own.values()) for n, own in scores.items() if n not in out and len(own) >= TESTED}
    if len(tested) < 2:
        return {}
    leader = min(tested, key=lambda n: (race.rank(tested[n]), n))
    found = {}
    for n in tested:
        common = sorted(scores[n].keys() & scores[leader].keys())
        differences = tuple(race.rank(scores[leader][seed]) - race.rank(scores[n][seed]) for seed in common)
        if n != leader and len(common) >= TESTED and fmean(differences) < 0 and p_worse(differences) < P_THRESHOLD:
            found[n] = leader
    return found


@lru_cache(maxsize=65536)
def p_worse(differences: tuple[float, ...]) -> float:
    """One-sided p value of the Wilcoxon signed-rank test that the differences are below 0, as Optuna's WilcoxonPruner
    has it: zeros are split between both signs."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences, alternative="less", zero_method="zsplit").pvalue)


def wanted(
    scores: Scores, race: Race, *, out: Collection[int] = (), earlier: Collection[int] = (), closed: bool = False
) -> list[tuple[int, int]]:
    """(configuration, seed) of the training runs that may be made now, the most advanced configurations first.

    scores has an entry, possibly an empty one, for every configuration that was drawn. The second seed waits for the
    first, so that a configuration that diverges costs one training run; seeds three and four come together; from the
    fifth each waits for the test. Where fewer than two configurations race, none gets more than four seeds.
    """
    up = promoted(scores, race, out=out, earlier=earlier, closed=closed)
    lost = eliminated(scores, race, out=out)
    racing = up - lost.keys()
    found: list[tuple[int, int, int]] = []
    for n, own in scores.items():
        if n in out or n in lost:
            continue
        missing = [seed for seed in race.seeds if seed not in own]
        first = [seed for seed in race.seeds[:FIRST] if seed not in own]
        second = [seed for seed in race.seeds[:SECOND] if seed not in own]
        if first:
            found.append((3 - (len(own) > 0), n, first[0]))
        elif n in up and second:
            found += [(1, n, seed) for seed in second]
        elif n in up and missing and len(racing) > 1:
            found.append((0, n, missing[0]))
    return [(n, seed) for _, n, seed in sorted(found, key=lambda one: (one[0], one[1]))]


def other_values(metrics: Mapping[str, float], names: Collection[str]) -> list[float] | None:
    """A finished training run's values of further objectives: a metric's at the best epoch, or a cost
    (`image_passes`, `seconds`); None when one was not measured."""
    found = [metrics.get(name.removeprefix("cost/") if name in COSTS else f"best/{name}", math.nan) for name in names]
    return found if all(map(math.isfinite, found)) else None


def ranking(
    scores: Scores, race: Race, *, out: Collection[int] = (), front: Collection[int] | None = None
) -> list[Place]:
    """The configurations that have a score, the best first. front: those on the Pareto front of several objectives,
    which come before all others; None where there is one objective.

    First those that have had at least four seeds and are not eliminated, by the mean over the seeds that all of them
    have; then those that were eliminated; then those that were not promoted, by the mean over the first two seeds; last
    those with a single seed. One that diverged or was stopped by a pruner has no place.
    """
    lost = eliminated(scores, race, out=out)
    groups: dict[int, list[int]] = {}
    for n, own in scores.items():
        if own and n not in out:
            behind = front is not None and n not in front
            groups.setdefault(_BEHIND if behind else _group(own, race, n in lost), []).append(n)
    places = []
    for group in sorted(groups):
        members = groups[group]
        common = [seed for seed in race.seeds if all(seed in scores[n] for n in members)] or list(race.seeds)
        mean = {n: fmean([scores[n][seed] for seed in common if seed in scores[n]]) for n in members}
        for n in sorted(members, key=lambda n: (race.rank(mean[n]), n)):
            places.append(Place(n, len(scores[n]), fmean(scores[n].values())))
    return places


_BEHIND = 4
"""The group of configurations that are not on the Pareto front."""


def _group(own: Mapping[int, float], race: Race, lost: bool) -> int:
    """0: in the race; 1: eliminated; 2: has ended its first round; 3: has not."""
    if lost:
        return 1
    if len(race.seeds) > FIRST and all(seed in own for seed in race.seeds[:SECOND]):
        return 0
    return 2 if told(own, race) is not None else 3
