"""What a search promised, and what unseen seeds gave: the best configurations of each of its arms.

A search's best is picked for its score on the search's seeds, and part of that score was luck: it promises too much
(the winner's curse). The seeds of the confirmation have not been looked at; they alone give an estimate.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.document import DASH, Column, Table
from hmtl_ablate.reporting.statistics import Estimate, estimate
from hmtl_ablate.reporting.tuning import DRAWS_FOR_A_BAND, TuningPoint, tuning_curve
from hmtl_ablate.reporting.wording import count_text, label, number_text, plural
from hmtl_ablate.study import WINNER
from hmtl_ablate.study.pareto import front
from hmtl_ablate.study.racing import SCORE, Race, other_values, ranking, search_seeds

CURSE = (
    "The search's seeds are where a configuration was picked for its score, so that score promises too much; the "
    "unseen seeds alone give an estimate. Promised − found is the winner's curse."
)


@dataclass(frozen=True)
class Found:
    """One of the best configurations of an arm."""

    arm: str
    rank: int
    """From 1, by the search's seeds."""
    variant: str
    """Name under which it is confirmed."""
    changes: Mapping[str, Any]
    """Searched option → its value."""
    promised: Estimate
    """The objective with the search's seeds."""
    confirmed: Estimate
    """The objective with unseen seeds."""
    test: Estimate
    """The study's metric with unseen seeds."""
    others: Mapping[str, float] = field(default_factory=dict)
    """Further objective → its value with the search's seed; then the configurations are those of the Pareto front."""

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
    arms: tuple[ArmTotals, ...]


def study_search(study: Mapping[Hashable, Any], trials: pd.DataFrame) -> StudySearch | None:
    """The search of a study's row from the rows of its trials; None where no search was recorded."""
    declared: dict[str, dict[str, Any]] = study["search"]
    if not declared:
        return None
    first = next(iter(declared.values()))
    rows = trials[trials["status"].isin(["finished", "pruned", "failed"])].to_dict("records")
    searched = [row for row in rows if row["standing"] == "search"]
    own = {arm: [row for row in searched if row["arm"] == arm] for arm in declared}
    return StudySearch(
        objective=first["objective"],
        racing=first["racing"],
        metric=study["metric"],
        found=tuple(one for arm, about in declared.items() for one in _found(arm, about, own[arm], rows, study)),
        arms=tuple(_totals(arm, found, declared[arm], study["seeds"][0]) for arm, found in own.items()),
    )


def search_tables(table: Any) -> tuple[Table[Any], ...]:
    """For people: the best configurations of each arm, and each arm's tuning curve."""
    search: StudySearch | None = table.search
    if search is None or not search.arms:
        return ()
    title = f"Search · {table.name} ({table.profile}), data: {table.data or 'none yet'}"
    best = Table(title, "", _columns(search), search.found, (CURSE, *_configurations(search), *_spent(search)))
    curves = tuple((arm.arm, point) for arm in search.arms for point in _marks(arm.curve))
    if not curves:
        return (best,)
    title = f"Tuning curves · {table.name} ({table.profile}), data: {table.data or 'none yet'}"
    return (best, Table(title, "", _curve_columns(search), curves, _curve_notes(search)))


def search_data(table: Any, csv: Mapping[str, Any]) -> Table[tuple[str, str, str, Estimate]] | None:
    """For programs: one row per configuration and estimate. csv: the cells that the study's rows share in CSV."""
    search: StudySearch | None = table.search
    if search is None:
        return None
    rows = tuple(
        (one.variant, part, metric, value)
        for one in search.found
        for part, metric, value in (
            ("promised by the search", search.objective, one.promised),
            ("found with unseen seeds", search.objective, one.confirmed),
            ("found with unseen seeds", search.metric, one.test),
        )
    )
    columns: tuple[Column[tuple[str, str, str, Estimate]], ...] = (
        Column("variant", lambda row: row[0]),
        Column("part", lambda row: row[1]),
        Column("metric", lambda row: row[2]),
        Column("n_seeds", lambda row: row[3].n),
        Column("mean", lambda row: row[3].mean),
        Column("sd", lambda row: row[3].sd),
        Column("mean_ci95_low", lambda row: row[3].low),
        Column("mean_ci95_high", lambda row: row[3].high),
    )
    return Table("", "", columns, rows, csv={**csv, "table": "search"})


def search_json(search: StudySearch | None) -> dict[str, Any]:
    """For JSON: the key `search` with the costs of the arms and their best configurations; {} without a search."""
    if search is None:
        return {}
    arms = [asdict(arm) for arm in search.arms]
    return {"search": {"objective": search.objective, "racing": search.racing, "arms": arms, "best": records(search)}}


def records(search: StudySearch | None) -> list[dict[str, Any]]:
    """One record per configuration, in the objective's own unit (accuracy from 0 to 1)."""
    return [
        {
            "arm": one.arm,
            "rank": one.rank,
            "variant": one.variant,
            "options": dict(one.changes),
            "others": dict(one.others),
            "search_seeds": one.promised.n,
            "promised": one.promised.mean,
            "unseen_seeds": one.confirmed.n,
            "found": one.confirmed.mean,
            "found_ci95_low": one.confirmed.low,
            "found_ci95_high": one.confirmed.high,
            "optimism": one.optimism,
            "test": one.test.mean,
            "test_ci95_low": one.test.low,
            "test_ci95_high": one.test.high,
        }
        for one in (() if search is None else search.found)
    ]


def curve_records(search: StudySearch | None) -> list[dict[str, Any]]:
    """One record per arm and number of random draws: its tuning curve, in the objective's own unit."""
    arms = () if search is None else search.arms
    return [{"arm": arm.arm, **asdict(point)} for arm in arms for point in arm.curve]


# --------------------------------------------------------------------------------------------------------------------


def _found(
    arm: str,
    about: Mapping[str, Any],
    own: list[dict[Hashable, Any]],
    rows: list[dict[Hashable, Any]],
    study: Mapping[Hashable, Any],
) -> list[Found]:
    numbers, scores, out = _scores(own)
    race = Race(search_seeds(study["seeds"], about["racing"]), about["direction"])
    known = {n: {seed: one for seed, one in found.items() if seed in race.seeds} for n, found in scores.items()}
    options = {number: _options(row) for row, number in zip(own, numbers, strict=True)}
    found = []
    others = _others(own, numbers, about)
    best = _front(known, others, about)
    shown = max(about["confirm"], 1, len(best or ()))
    for rank, place in enumerate(ranking(known, race, out=out, front=best)[:shown], 1):
        variant = f"{WINNER}{f', {arm}' if arm else ''}{f', rank {rank}' if rank > 1 else ''}"
        variant = about.get("names", {}).get(variant, variant)
        config = options[place.configuration]
        unseen = [row for row in rows if row["standing"] == "declared" and row["variant"] == variant]
        same = [row for row in unseen if row["status"] == "finished" and _options(row) == config]
        found.append(
            Found(
                arm=arm,
                rank=rank,
                variant=variant,
                changes={key: config[key] for key in about["keys"] if key in config},
                others=others.get(place.configuration, {}),
                promised=estimate(list(known[place.configuration].values())),
                confirmed=_estimate(same, SCORE),
                test=_estimate(same, study["metric"]),
            )
        )
    return found


def _others(
    own: list[dict[Hashable, Any]], numbers: list[int], about: Mapping[str, Any]
) -> dict[int, dict[str, float]]:
    """Number of a configuration → its values of the further objectives, with the search's first seed."""
    names = about.get("others", {})
    found: dict[int, dict[str, float]] = {}
    for row, number in zip(own, numbers, strict=True):
        metrics = {str(key).removeprefix("metrics."): value for key, value in row.items() if value is not None}
        values = other_values(metrics, names) if row["status"] == "finished" else None
        if values is not None:
            found.setdefault(number, dict(zip(names, values, strict=True)))
    return found


def _front(
    scores: Mapping[int, Mapping[int, float]], others: Mapping[int, Mapping[str, float]], about: Mapping[str, Any]
) -> set[int] | None:
    """The configurations on the Pareto front; None for a search with one objective."""
    if not about.get("others"):
        return None
    values = {n: (next(iter(own.values())), *others[n].values()) for n, own in scores.items() if own and n in others}
    return front(values, [about["direction"], *about["others"].values()])


def _scores(own: list[dict[Hashable, Any]]) -> tuple[list[int], dict[int, dict[int, float]], set[int]]:
    """Number of each row's configuration, in the order of their starts; scores of each; those that ended early."""
    numbers: dict[str, int] = {}
    order: list[int] = []
    scores: dict[int, dict[int, float]] = {}
    out: set[int] = set()
    for row in own:
        number = numbers.setdefault(json.dumps(_options(row), sort_keys=True), len(numbers))
        order.append(number)
        score = row.get(f"metrics.{SCORE}")
        if row["status"] == "finished" and score is not None and score == score:  # a NaN where other rows have one
            scores.setdefault(number, {})[int(row["seed"])] = float(score)
        elif row["ending"] in ("stopped early", "diverged", "finished"):
            out.add(number)
    return order, {n: scores.get(n, {}) for n in numbers.values()}, out


def _options(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {key: value for key, value in row["options"].items() if key != "seed"}


def _estimate(rows: list[dict[Hashable, Any]], metric: str) -> Estimate:
    values = [row.get(f"metrics.{metric}") for row in rows]
    return estimate([float(value) for value in values if value is not None and value == value])


def _curve(own: list[dict[Hashable, Any]], about: Mapping[str, Any], seed: int) -> tuple[TuningPoint, ...]:
    """The tuning curve of an arm's random draws with one seed; a draw that diverged counts as the worst of them."""
    rows = [row for row in own if row["draw"] == "random" and row["seed"] == seed]
    if any(row["status"] == "pruned" for row in rows):
        return ()
    scores = [row.get(f"metrics.{SCORE}") if row["status"] == "finished" else None for row in rows]
    known = [score for score in scores if score is not None and score == score]
    worst = min(known, default=0.0) if about["direction"] == "max" else max(known, default=0.0)
    passes = [float(value) if (value := row.get("metrics.image_passes")) == value and value else 0.0 for row in rows]
    filled = [worst if score is None or score != score else float(score) for score in scores]
    return tuning_curve(filled, passes, about["direction"]) if known else ()


def _marks(curve: tuple[TuningPoint, ...]) -> list[TuningPoint]:
    """The points that are shown: after 1, 2, 5, 10, 20, 50, … draws, and after all."""
    shown = {factor * 10**power for power in range(7) for factor in (1, 2, 5)} | {len(curve)}
    return [point for point in curve if point.n in shown]


def _curve_columns(search: StudySearch) -> tuple[Column[tuple[str, TuningPoint]], ...]:
    percent = in_percent(search.objective)
    arms = any(arm.arm for arm in search.arms)
    return (
        Column("arm", lambda row: row[0], "Arm" if arms else "", align="left"),
        Column("n", lambda row: float(row[1].n), "Draws", lambda row: str(row[1].n)),
        Column("passes", lambda row: row[1].passes, "Image passes", lambda row: count_text(row[1].passes)),
        Column("expected", lambda row: row[1].expected, "Expected best", lambda r: number_text(r[1].expected, percent)),
        Column("median", lambda row: row[1].median, "Median", lambda row: number_text(row[1].median, percent)),
        Column(
            "band",
            lambda row: None,
            "95 % band",
            lambda row: f"{number_text(row[1].low, percent)} … {number_text(row[1].high, percent)}",
        ),
    )


def _curve_notes(search: StudySearch) -> tuple[str, ...]:
    few = [arm for arm in search.arms if arm.curve and len(arm.curve) < DRAWS_FOR_A_BAND]
    notes = [
        f"The best {label(search.objective)} of so many random draws, each with the search's first seed. Nothing is "
        "said beyond the draws that were made. — in a band: these draws do not bound it.",
        *(f"{arm.arm or 'Search'}: {len(arm.curve)} random draws are too few for a band." for arm in few),
    ]
    return tuple(notes)


def _totals(arm: str, own: list[dict[Hashable, Any]], about: Mapping[str, Any], seed: int) -> ArmTotals:
    kinds = {json.dumps(_options(row), sort_keys=True): row["draw"] for row in own}
    passes = [row.get("metrics.image_passes") for row in own]
    return ArmTotals(
        arm=arm,
        configurations=len(kinds),
        draws=dict(sorted(Counter(kinds.values()).items())),
        runs=len(own),
        image_passes=sum(value for value in passes if value is not None and value == value),
        curve=_curve(own, about, seed),
    )


def _columns(search: StudySearch) -> tuple[Column[Found], ...]:
    percent, tested = in_percent(search.objective), in_percent(search.metric)
    return (
        Column("best", lambda row: row.variant, "Best", _short, align="left"),
        Column(
            "promised",
            lambda row: row.promised.mean,
            f"Promised: {label(search.objective)}",
            lambda row: _with_n(row.promised, percent),
            wrap=True,
        ),
        Column(
            "found", lambda row: row.confirmed.mean, "Found", lambda row: _with_n(row.confirmed, percent), wrap=True
        ),
        Column("optimism", lambda row: row.optimism, "Promised − found", lambda row: _signed(row.optimism, percent)),
        Column(
            "test", lambda row: row.test.mean, label(search.metric), lambda row: _with_n(row.test, tested), wrap=True
        ),
    )


def _short(row: Found) -> str:
    return row.variant.removeprefix(f"{WINNER}, ")


def _with_n(value: Estimate, percent: bool) -> str:
    if value.mean is None:
        return DASH
    sd = "" if value.sd is None else f" ± {number_text(value.sd, percent)}"
    return f"{number_text(value.mean, percent)}{sd} (n = {value.n})"


def _signed(value: float | None, percent: bool) -> str:
    return number_text(value, percent, sign=True)


def _configurations(search: StudySearch) -> list[str]:
    lines = [
        f"{_short(one)}: {', '.join(f'{key} {_value(value)}' for key, value in one.changes.items()) or 'no options'}"
        + "".join(f"; {key} {value:,.4g}" for key, value in one.others.items())
        for one in search.found
    ]
    if any(one.others for one in search.found):
        lines.insert(0, f"The Pareto front, by {label(search.objective)}: no configuration dominates one of these.")
    return lines


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _spent(search: StudySearch) -> list[str]:
    """One line per arm: what it has drawn, trained and spent."""
    words = {
        "random": "at random",
        "sampler": "from scores",
        "grid": "of the grid",
        "start": "declared",
        "from": "taken",
    }
    lines = []
    for arm in search.arms:
        draws = ", ".join(f"{count} {words.get(kind, kind or 'unknown')}" for kind, count in arm.draws.items())
        lines.append(
            f"{arm.arm or 'Search'}: {plural(arm.configurations, 'configuration')} ({draws}), "
            f"{plural(arm.runs, 'training run')}, {arm.image_passes:,.0f} image passes"
        )
    return lines
