"""Seeds until decided: one seed more for the comparisons that are still open (docs/methods.md)."""

from __future__ import annotations

from hmtl_ablate.reporting.decisions import bound_of
from hmtl_ablate.reporting.sequential import Course, follow
from hmtl_ablate.running.continuing import More, Score
from hmtl_ablate.study import Comparison, Decide, Study


class Deciding:
    """Asks for the next seed of both sides of each open comparison, until none is open or the seeds are used up.

    A comparison that is closed costs no more seeds of its own. Looks are taken in the order of the study's seeds, so
    that a run that resumes takes the same ones.
    """

    def __init__(self, study: Study, rule: Decide) -> None:
        self._study = study
        self._bound = bound_of(rule, len(study.comparisons), study.metric)
        self._variants = {variant.name: variant for variant in study.variants}
        self._used = len(study.first_seeds)
        """Number of seeds whose trials were asked for; all of these are over at the next look."""

    def more(self, score: Score) -> More | None:
        """The next seed of the open comparisons."""
        if self._used == len(self._study.seeds):
            return None
        known = self._study.comparisons
        still = [pair for pair in known if self._course(pair, score).state == "open"]
        if not still:
            return None
        seed = self._study.seeds[self._used]
        self._used += 1
        names = {name for pair in still for name in pair}
        listed = "; ".join(" − ".join(pair) for pair in still)
        return More(
            tuple((variant, seed) for name, variant in self._variants.items() if name in names),
            f"seed {seed}: after {self._used - 1} seeds, {len(still)} of {len(known)} comparisons are open ({listed})",
        )

    def _course(self, pair: Comparison, score: Score) -> Course:
        return follow(
            {seed: self._difference(pair, seed, score) for seed in self._study.seeds[: self._used]}, self._bound
        )

    def _difference(self, pair: Comparison, seed: int, score: Score) -> float | None:
        ours, theirs = (score(self._variants[name], seed, self._study.metric) for name in pair)
        return None if ours is None or theirs is None else ours - theirs
