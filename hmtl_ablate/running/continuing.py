"""What a run trains after its first trials: trials that depend on the results of others.

A `Continuation` looks at results and asks for more trials; the conductor trains them and asks again, until no
continuation asks for any. What a continuation asks for must follow from the results alone, so that a run that resumes
asks for the same trials again, and finds them finished.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.running.racing import Racer
from hmtl_ablate.study import WINNER, Study, Variant

Score = Callable[[Variant, int, str], float | None]
"""score(variant, seed, metric): of the finished trial that counts in the report, in the metric's own unit; None without
one."""


@dataclass(frozen=True)
class More:
    """Trials that a continuation asks for."""

    trials: tuple[tuple[Variant, int], ...]
    """Variants with a seed each, in the order they run. A variant that the study does not have becomes one of it."""
    why: str
    """One line for the user."""


class Continuation(Protocol):
    """Asks for trials that depend on the results of others."""

    def more(self, score: Score) -> More | None:
        """The trials to train next, now that all that were asked for are over; None when there are none."""


def continuations(study: Study, searches: tuple[Racer, ...]) -> tuple[Continuation, ...]:
    """What a study declares that depends on results, in the order in which it is trained."""
    from hmtl_ablate.running.deciding import Deciding  # it needs More
    from hmtl_ablate.running.path import AblationPath  # it needs this module's types

    found: list[Continuation] = []
    if study.decide is not None:
        found.append(Deciding(study, study.decide))
    if study.search is not None and study.search.confirm and searches:
        found.append(Confirmation(study, searches))
    found += [AblationPath(study, name) for name, design in study.designs.items() if design.kind == "path"]
    return tuple(found)


class Confirmation:
    """The best configurations of each arm of the search; of a search without arms the best one beside SL with all its
    other options, at equal epochs and at equal image passes.

    They get the seeds that the search has not seen: its own are where the best were picked for being lucky, too.
    """

    def __init__(self, study: Study, searches: tuple[Racer, ...]) -> None:
        self._study, self._searches = study, searches
        self._asked = False

    def more(self, score: Score) -> More | None:
        """The trials of the best configurations, once."""
        if self._asked:
            return None
        found: list[Variant] = []
        names = []
        for search in self._searches:
            arm = f", {search.search.arm}" if search.search.arm else ""
            for rank, best in enumerate(search.best(search.search.confirm), 1):
                variant = confirmed(best.config, f"{WINNER}{arm}" + (f", rank {rank}" if rank > 1 else ""))
                found += winners_of(best.config) if not arm and rank == 1 else [variant]
                names.append(best.trial_id[:6])
        if not found:
            return None
        self._asked = True
        seeds = self._study.seeds[1:] or self._study.seeds
        return More(
            tuple((one, seed) for seed in seeds for one in found),
            f"confirming the search's best, {', '.join(names)}, with seeds {', '.join(map(str, seeds))}",
        )


def confirmed(best: TrialConfig, name: str) -> Variant:
    """A configuration of a search as a variant."""
    raw = best.declared()
    raw.pop("seed", None)
    return Variant(name, raw)


def winners_of(best: TrialConfig) -> list[Variant]:
    """A search's best configuration as a variant, behind what it must beat: SL with the same options, and, when it
    costs more than one pass an image, SL with as many views."""
    winner = confirmed(best, WINNER)
    raw = winner.raw
    if not best.pretext or not best.training.supervised:
        return [winner]
    alone = {key: value for key, value in raw.items() if key != "pretext"}
    alone["loss"] = {key: value for key, value in raw.get("loss", {}).items() if key != "combine"}
    found = [Variant(f"{WINNER}, SL alone", alone)]
    views = best.passes_per_image
    if views > best.data.views:
        found.append(
            Variant(f"{WINNER}, SL with {views} views", {**alone, "data": {**raw.get("data", {}), "views": views}})
        )
    return [*found, winner]
