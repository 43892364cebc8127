"""What a search promised, and what unseen seeds gave: the best configurations of each of its arms.

A search's best is picked for its score on the search's seeds, and part of that score was luck: it promises too much
(the winner's curse). The seeds of the confirmation have not been looked at; they alone give an estimate.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, Literal

import pandas as pd

from hmtl_ablate.errors import ConfigError
from hmtl_ablate.reporting.importance import importances
from hmtl_ablate.reporting.statistics import Estimate, estimate, finite
from hmtl_ablate.reporting.tuning import TuningPoint, tuning_curve
from hmtl_ablate.reporting.winner import variant_options
from hmtl_ablate.study import WINNER
from hmtl_ablate.study.pareto import front
from hmtl_ablate.study.racing import SCORE, Race, other_values, ranking, search_seeds
from hmtl_ablate.tracking.records import nested

ENDED = ("stopped early", "diverged", "finished")
"""Endings of a trial that are its configuration's own; others are faults of a machine."""


@dataclass(frozen=True)
class Configuration:
    """One configuration of an arm that the search has tried."""

    arm: str
    number: int
    """From 1, in the order of the arm's starts."""
    options: Mapping[str, Any]
    """Option → value, all of them but the seed."""
    changes: Mapping[str, Any]
    """Searched option → value, of those that it has."""
    scores: Mapping[int, float]
    """Seed of the search → the objective, of those that it was trained with to the end."""
    ended_early: bool = False
    """Whether a trial of it was stopped early, diverged, or ended without a score; such a one has no rank, whatever its
    other seeds gave."""

    @property
    def score(self) -> float | None:
        """Mean over its seeds, in the objective's own unit; None without one."""
        return fmean(self.scores.values()) if self.scores else None


@dataclass(frozen=True)
class Found:
    """One configuration of an arm that has a score."""

    arm: str
    number: int
    """Of `Configuration`."""
    rank: int
    """From 1, by the search's seeds."""
    variant: str
    """Name under which it is confirmed, where the search confirms so many."""
    changes: Mapping[str, Any]
    """Searched option → its value."""
    promised: Estimate
    """The objective with the search's seeds."""
    confirmed: Estimate
    """The objective with unseen seeds."""
    test: Estimate
    """The study's metric with unseen seeds."""
    others: Mapping[str, float] = field(default_factory=dict)
    """Further objective → its value with the search's first seed; {} in a search with one objective."""
    on_front: bool = False
    """Whether it is on the Pareto front of several objectives."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of an arm's best: what a variant with this configuration declares, nested; {} of all others."""

    @property
    def optimism(self) -> float | None:
        """How much more was promised than found; of an objective that is minimized it is negative."""
        if self.promised.mean is None or self.confirmed.mean is None:
            return None
        return self.promised.mean - self.confirmed.mean


@dataclass(frozen=True)
class ArmTotals:
    """What the search of one arm has cost."""

    arm: str
    configurations: int
    draws: Mapping[str, int]
    """How they were drawn → their number."""
    runs: int
    image_passes: float
    curve: tuple[TuningPoint, ...] = ()
    """Tuning curve of its random draws with the search's first seed; empty where a pruner stopped some of them."""


@dataclass(frozen=True)
class StudySearch:
    """The search of a study."""

    objective: str
    racing: int
    """The most seeds of a configuration; 1: no race."""
    metric: str
    """The study's metric."""
    found: tuple[Found, ...]
    """Every configuration that has a score, arm by arm, the best first; those on the Pareto front before all others."""
    arms: tuple[ArmTotals, ...]
    tried: tuple[Configuration, ...]
    """Every configuration, arm by arm, in the order of their starts."""
    direction: Literal["max", "min"] = "max"
    others: Mapping[str, Literal["max", "min"]] = field(default_factory=dict)
    """Further objectives and their directions."""
    space: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Searched option → its range or choices, as `running.study_log` records them; {} in older runs."""

    @cached_property
    def importances(self) -> dict[str, float]:
        """Searched option → its share of the importance over the configurations of all arms (`importances`)."""
        known = [(one.changes, one.promised.mean) for one in self.found if one.promised.mean is not None]
        return importances(known, self.direction, self.space)


def study_search(study: Mapping[Hashable, Any], trials: pd.DataFrame) -> StudySearch | None:
    """The search of a study's row from the rows of its trials; None where no search was recorded."""
    declared: dict[str, dict[str, Any]] = study["search"]
    if not declared:
        return None
    first = next(iter(declared.values()))
    rows = trials[trials["status"].isin(["finished", "pruned", "failed"])].to_dict("records")
    searched = [row for row in rows if row["standing"] == "search"]
    own = {arm: [row for row in searched if row["arm"] == arm] for arm in declared}
    tried = {arm: _tried(arm, about, own[arm], study) for arm, about in declared.items()}
    return StudySearch(
        objective=first["objective"],
        racing=first["racing"],
        metric=study["metric"],
        found=tuple(one for arm, about in declared.items() for one in _found(about, tried[arm], own[arm], rows, study)),
        arms=tuple(_totals(arm, found, declared[arm], study["seeds"][0]) for arm, found in own.items()),
        tried=tuple(one for found in tried.values() for one in found),
        direction=first["direction"],
        others=first.get("others", {}),
        space=_space(declared.values()),
    )


# --------------------------------------------------------------------------------------------------------------------


def _tried(
    arm: str, about: Mapping[str, Any], own: list[dict[Hashable, Any]], study: Mapping[Hashable, Any]
) -> list[Configuration]:
    """The configurations of an arm from the rows of its trials."""
    seeds = search_seeds(study["seeds"], about["racing"])
    groups: dict[str, list[dict[Hashable, Any]]] = {}
    for row in own:
        groups.setdefault(_text(row), []).append(row)
    found = []
    for number, rows in enumerate(groups.values(), 1):
        options = _options(rows[0])
        scores = {int(row["seed"]): score for row in rows if (score := _score(row)) is not None}
        found.append(
            Configuration(
                arm=arm,
                number=number,
                options=options,
                changes={key: options[key] for key in about["keys"] if options.get(key) is not None},
                scores={seed: score for seed, score in scores.items() if seed in seeds},
                ended_early=any(_score(row) is None and row["ending"] in ENDED for row in rows),
            )
        )
    return found


def _found(
    about: Mapping[str, Any],
    tried: Sequence[Configuration],
    own: list[dict[Hashable, Any]],
    rows: list[dict[Hashable, Any]],
    study: Mapping[Hashable, Any],
) -> list[Found]:
    race = Race(search_seeds(study["seeds"], about["racing"]), about["direction"])
    configurations = {one.number: one for one in tried}
    known = {number: one.scores for number, one in configurations.items()}
    out = {number for number, one in configurations.items() if one.ended_early}
    finished: dict[str, list[dict[Hashable, Any]]] = {}
    for row in rows:
        if row["standing"] == "declared" and row["status"] == "finished":
            finished.setdefault(row["variant"], []).append(row)
    found = []
    others = _others(own, tried, about)
    best = _front(known, others, about)
    for rank, place in enumerate(ranking(known, race, out=out, front=best), 1):
        one = configurations[place.configuration]
        variant = f"{WINNER}{f', {one.arm}' if one.arm else ''}{f', rank {rank}' if rank > 1 else ''}"
        variant = about.get("names", {}).get(variant, variant)
        same = [row for row in finished.get(variant, ()) if _options(row) == one.options]
        found.append(
            Found(
                arm=one.arm,
                number=one.number,
                rank=rank,
                variant=variant,
                changes=one.changes,
                promised=estimate(list(one.scores.values())),
                confirmed=_estimate(same, SCORE),
                test=_estimate(same, study["metric"]),
                others=others.get(one.number, {}),
                on_front=one.number in (best or ()),
                options=_winner(one.options, (*about["keys"], *about.get("base", ()))) if rank == 1 else {},
            )
        )
    return found


def _winner(config: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """What a variant declares to get the configuration; of one that this version does not accept, these keys alone."""
    try:
        return variant_options(config, keys)
    except ConfigError:
        return nested({key: config[key] for key in keys if config.get(key) is not None})


def _space(declared: Collection[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The searched options of all arms; one that two arms search in other ranges has none, as neither is the whole."""
    found: dict[str, Mapping[str, Any]] = {}
    for about in declared:
        for key, own in about.get("space", {}).items():
            found[key] = own if found.get(key, own) == own else {}
    return found


def _others(
    own: list[dict[Hashable, Any]], tried: Sequence[Configuration], about: Mapping[str, Any]
) -> dict[int, dict[str, float]]:
    """Number of a configuration → its values of the further objectives, with the search's first seed."""
    names = about.get("others", {})
    numbers = {json.dumps(one.options, sort_keys=True): one.number for one in tried}
    found: dict[int, dict[str, float]] = {}
    for row in own:
        metrics = {str(key).removeprefix("metrics."): value for key, value in row.items() if value is not None}
        values = other_values(metrics, names) if row["status"] == "finished" else None
        if values is not None:
            found.setdefault(numbers[_text(row)], dict(zip(names, values, strict=True)))
    return found


def _front(
    scores: Mapping[int, Mapping[int, float]], others: Mapping[int, Mapping[str, float]], about: Mapping[str, Any]
) -> set[int] | None:
    """The configurations on the Pareto front; None for a search with one objective."""
    if not about.get("others"):
        return None
    values = {n: (next(iter(own.values())), *others[n].values()) for n, own in scores.items() if own and n in others}
    return front(values, [about["direction"], *about["others"].values()])


def _options(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {key: value for key, value in row["options"].items() if key != "seed"}


def _text(row: Mapping[Hashable, Any]) -> str:
    """The configuration of a trial's row, to group by."""
    return json.dumps(_options(row), sort_keys=True)


def _score(row: Mapping[Hashable, Any]) -> float | None:
    """The objective of a finished trial; None of any other, and where it is no number."""
    return finite(row.get(f"metrics.{SCORE}")) if row["status"] == "finished" else None


def _estimate(rows: list[dict[Hashable, Any]], metric: str) -> Estimate:
    values = [finite(row.get(f"metrics.{metric}")) for row in rows]
    return estimate([value for value in values if value is not None])


def _curve(own: list[dict[Hashable, Any]], about: Mapping[str, Any], seed: int) -> tuple[TuningPoint, ...]:
    """The tuning curve of an arm's random draws with one seed; a draw that diverged counts as the worst of them, and
    one that a fault of its machine ended as none."""
    rows = [row for row in own if row["draw"] == "random" and row["seed"] == seed]
    rows = [row for row in rows if row["status"] != "failed" or row["ending"] in ENDED]
    if any(row["status"] == "pruned" for row in rows):
        return ()
    scores = [_score(row) for row in rows]
    known = [score for score in scores if score is not None]
    worst = min(known, default=0.0) if about["direction"] == "max" else max(known, default=0.0)
    filled = [worst if score is None else score for score in scores]
    return tuning_curve(filled, [_passes(row) for row in rows], about["direction"]) if known else ()


def _passes(row: Mapping[Hashable, Any]) -> float:
    """Image passes of a trial; 0 where none were recorded."""
    return finite(row.get("metrics.image_passes")) or 0.0


def _totals(arm: str, own: list[dict[Hashable, Any]], about: Mapping[str, Any], seed: int) -> ArmTotals:
    kinds = {_text(row): row["draw"] for row in own}
    return ArmTotals(
        arm=arm,
        configurations=len(kinds),
        draws=dict(sorted(Counter(kinds.values()).items())),
        runs=len(own),
        image_passes=sum(map(_passes, own)),
        curve=_curve(own, about, seed),
    )
