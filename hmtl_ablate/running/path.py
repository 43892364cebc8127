"""The path of an ablation design: one component at a time, the one that gains most first, then its steps estimated."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hmtl_ablate.config import metric_info
from hmtl_ablate.running.continuing import More, Score
from hmtl_ablate.study import Arm, Study, selection_metric, walk


class AblationPath:
    """A design of kind `path` (`study.walk`).

    Its rounds train every component that is left on top of the path so far, with the first seeds, and compare the
    study's metric on the validation split, never on test. Once the path is whole, its steps get the other seeds. The
    baseline and the full model are variants of the study, which have all seeds anyway.
    """

    def __init__(self, study: Study, name: str) -> None:
        self._study, self._name, self._design = study, name, study.designs[name]
        self._own = {one.name: one for one in study.candidates}
        self._asked: set[tuple[str, int]] = set()

    def more(self, score: Score) -> More | None:
        """The next round's trials, or those of the steps; None when neither is left."""
        selection = self._study.seeds[: self._design.selection]
        way = walk(self._design, lambda variant: self._value(variant, score))
        if way.waiting:
            number, rounds = len(way.steps), len(self._design.factors) - 1
            why = f"path {self._name}: round {number} of {rounds}, seeds {_listed(selection)}"
            return self._new(way.waiting, selection, why)
        if not way.is_whole(self._design):
            return None  # every trial of a round has failed
        rest = self._study.seeds[self._design.selection :]
        return self._new(
            way.steps, rest, f"path {self._name}: {', '.join(way.order)}; its steps, seeds {_listed(rest)}"
        )

    def _new(self, arms: Iterable[Arm], seeds: Iterable[int], why: str) -> More | None:
        names = dict.fromkeys((arm.variant, seed) for seed in seeds for arm in arms if arm.variant in self._own)
        new = [one for one in names if one not in self._asked]
        self._asked.update(new)
        return More(tuple((self._own[name], seed) for name, seed in new), why) if new else None

    def _value(self, variant: str, score: Score) -> float | None:
        """Mean over the selection seeds, higher is better; None before its trials were asked for, -inf where one of
        them has no score."""
        metric = selection_metric(self._study.metric)
        known = next(one for one in self._study.trainable if one.name == variant)
        seeds = self._study.seeds[: self._design.selection]
        if variant in self._own and any((variant, seed) not in self._asked for seed in seeds):
            return None
        values = [score(known, seed, metric) for seed in seeds]
        found = [value for value in values if value is not None]
        if len(found) < len(values):
            return -math.inf
        return math.fsum(found) / len(found) * (-1 if metric_info(metric).direction == "min" else 1)


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
