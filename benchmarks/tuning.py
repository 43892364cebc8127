"""What samplers, pruners and racing are worth: whole searches replayed on a table of training runs.

`tuning_table.csv`, made by `python -m benchmarks.tuning_table`, has 150 configurations of one space, each trained with
five seeds. A replay shuffles the seeds and spends the same image passes with each strategy; a configuration that a
sampler draws is replaced by the nearest one of the table that is left. What a configuration is truly worth is its mean
test accuracy over the five seeds, which no strategy sees.
"""

from __future__ import annotations

import csv
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from benchmarks.bench import Record, Row
from benchmarks.tuning_table import EPOCHS, table_search
from hmtl_ablate.study import SAMPLERS, Parameter
from hmtl_ablate.study.pruners import parse_pruner
from hmtl_ablate.study.racing import Race, eliminated, promoted, ranking, told, wanted

TABLE = Path(__file__).parent / "tuning_table.csv"
BUDGETS = (30, 120)
"""Whole training runs that every strategy may spend, in image passes."""
LARGE = 60
"""Budget from which strategies that stop runs early are left out: they would see the whole table."""
REPLAYS = 200
BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Entry:
    """One configuration of the table; accuracies in percent."""

    values: Mapping[str, Any]
    passes: int
    """Image passes of one training run."""
    curves: Mapping[int, tuple[float, ...]]
    """Seed → val accuracy after each epoch."""
    truth: float
    """Mean test accuracy over the seeds."""


Table = Sequence[Entry]
Trace = list[tuple[float, int]]
"""(image passes spent, configuration that would be picked now), in the order of time."""


@dataclass
class Replay:
    """What one strategy did with one shuffle of the seeds."""

    trace: Trace
    promised: float
    """Score for which the last pick was picked."""
    seen: tuple[int, ...]
    """Seeds that this score is over."""
    drawn: set[int]
    dropped: set[int]
    """Configurations that were stopped early or got no further seeds."""

    @property
    def pick(self) -> int:
        return self.trace[-1][1]


def read_table(path: Path = TABLE) -> Table:
    """The table, in the order of its configurations."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    search = table_search()
    found: dict[int, list[dict[str, str]]] = {}
    for row in rows:
        found.setdefault(int(row["configuration"]), []).append(row)
    return [
        Entry(
            {p.key: _parsed(p, own[0][p.key]) for p in search.parameters},
            int(own[0]["passes"]),
            {int(row["seed"]): tuple(float(row[f"val {epoch}"]) for epoch in range(1, EPOCHS + 1)) for row in own},
            fmean(float(row["test"]) for row in own),
        )
        for _, own in sorted(found.items())
    ]


def _parsed(parameter: Parameter, text: str) -> Any:
    """A value of the table."""
    return next((value for value in parameter.choices if str(value) == text), None) or float(text)


class Draws:
    """A sampler on the table: each configuration once."""

    def __init__(self, table: Table, sampler: str, pruner: str, seed: int) -> None:
        self._table, self._sampler = table, SAMPLERS[sampler]
        self._parameters = table_search().parameters
        self.study = optuna.create_study(
            study_name=f"replay {seed}",  # hyperband assigns a trial to a bracket by it
            direction="maximize",
            sampler=self._sampler.build(seed),
            pruner=parse_pruner(pruner).build(EPOCHS),
        )
        self._left = list(range(len(table)))
        random.Random(seed).shuffle(self._left)
        self._points = np.array([[_unit(p, entry.values[p.key]) for p in self._parameters] for entry in table])
        self._distributions = {p.key: _distribution(p) for p in self._parameters}

    def next(self) -> tuple[int, optuna.Trial]:
        """A configuration and its trial, whose parameters are the configuration's."""
        drawn = len(self._table) - len(self._left)
        number = self._left[0] if self._sampler.drawn(drawn) == "random" else self._nearest()
        self._left.remove(number)
        self.study.enqueue_trial(dict(self._table[number].values))
        trial = self.study.ask(self._distributions)
        return number, trial

    def _nearest(self) -> int:
        """The configuration nearest to what the sampler draws; Optuna forgets the draw."""
        asked = self.study.ask(self._distributions)
        self.study.tell(asked, state=TrialState.FAIL)
        point = np.array([_unit(p, asked.params[p.key]) for p in self._parameters])
        distances = np.where(
            [p.kind == "choice" for p in self._parameters],
            self._points[self._left] != point,
            np.abs(self._points[self._left] - point),
        )
        return self._left[int((distances**2).sum(axis=1).argmin())]


def _unit(parameter: Parameter, value: Any) -> float:
    """A value's place in its range, 0 to 1; the number of a choice."""
    if parameter.kind == "choice":
        return float(parameter.choices.index(value))
    if parameter.kind == "loguniform":
        return log(value / parameter.low) / log(parameter.high / parameter.low)
    return (value - parameter.low) / (parameter.high - parameter.low)


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    if parameter.kind == "choice":
        return optuna.distributions.CategoricalDistribution(parameter.choices)
    return optuna.distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.kind == "loguniform")


def single_seed(table: Table, seeds: Sequence[int], sampler: str, pruner: str, seed: int, budget: float) -> Replay:
    """A search with one seed: the score is the best epoch's, and the pruner sees each epoch."""
    draws, first = Draws(table, sampler, pruner, seed), seeds[0]
    spent, best, trace = 0.0, (-1.0, -1), Trace()
    dropped, drawn = set[int](), set[int]()
    while spent < budget and len(drawn) < len(table):
        number, trial = draws.next()
        entry, pruned = table[number], False
        drawn.add(number)
        for epoch, value in enumerate(entry.curves[first], 1):
            spent += entry.passes / EPOCHS
            trial.report(value, epoch)
            if epoch < EPOCHS and trial.should_prune():
                pruned = True
                break
        if pruned:
            dropped.add(number)
            draws.study.tell(trial, state=TrialState.PRUNED)
            continue
        score = max(entry.curves[first])
        draws.study.tell(trial, score)
        best = max(best, (score, number))
        trace.append((spent, best[1]))
    return Replay(trace, best[0], (first,), drawn, dropped)


def raced(table: Table, seeds: Sequence[int], sampler: str, pruner: str, seed: int, budget: float) -> Replay:
    """A search that races: `hmtl_ablate.study.racing`, one training run at a time."""
    assert pruner == "none"
    draws, race = Draws(table, sampler, "none", seed), Race(tuple(seeds))
    scores: dict[int, dict[int, float]] = {}
    trials: dict[int, optuna.Trial] = {}
    spent, trace, up = 0.0, Trace(), set[int]()
    while spent < budget:
        runs = wanted(scores, race, earlier=up)
        if not runs:
            if len(scores) == len(table):
                break
            number, trials[number] = draws.next()  # type: ignore[index]
            scores[number] = {}
            continue
        number, own = runs[0]
        up |= promoted(scores, race, earlier=up)
        last = table[number].curves[own][-max(1, EPOCHS // 5) :]
        scores[number][own] = fmean(last)
        spent += table[number].passes
        if (value := told(scores[number], race)) is not None and number in trials:
            draws.study.tell(trials.pop(number), value)
        trace.append((spent, ranking(scores, race)[0].configuration))
    pick = trace[-1][1]
    dropped = set(eliminated(scores, race)) | {n for n in scores if n not in up and told(scores[n], race) is not None}
    return Replay(trace, fmean(scores[pick].values()), tuple(scores[pick]), set(scores), dropped)


Strategy = tuple[Callable[..., Replay], str, str]
STRATEGIES: dict[str, Strategy] = {
    "random": (single_seed, "random", "none"),
    "random, median": (single_seed, "random", "median"),
    "random, successive halving": (single_seed, "random", "successive_halving"),
    "random, hyperband": (single_seed, "random", "hyperband"),
    "tpe": (single_seed, "tpe", "none"),
    "tpe, successive halving": (single_seed, "tpe", "successive_halving"),
    "random, racing": (raced, "random", "none"),
    "tpe, racing": (raced, "tpe", "none"),
}
"""Name → how it is replayed, sampler, pruner."""
BASELINE, AIMED = "random", "tpe, successive halving"


def tuning(repeats: int, tiny: bool) -> Record:
    """Image passes to what random search reaches, the truth about the picks, and what is dropped on the way."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    table, count = read_table(), 3 if tiny else REPLAYS
    rows = [row for runs in ((6,) if tiny else BUDGETS) for row in _rows(table, runs, count)]
    return Record(
        "tuning",
        f"What do samplers, pruners and racing find for the passes of {BUDGETS[0]} or {BUDGETS[1]} whole runs?",
        rows,
        [
            f"{count} replays on {len(table)} configurations × {len(table[0].curves)} seeds; medians or means, with "
            "the 95 % interval of a bootstrap over the replays. Truth: mean test accuracy over the seeds, in percent.",
            f"Of all configurations the best has a truth of {max(e.truth for e in table):.1f}, the median one of "
            f"{median(e.truth for e in table):.1f}.",
        ],
    )


def _rows(table: Table, runs: int, count: int) -> list[Row]:
    """All rows of one budget."""
    budget = float(runs * table[0].passes)
    found = {
        name: [_replay(strategy, table, number, budget) for number in range(count)]
        for name, strategy in STRATEGIES.items()
        if runs < LARGE or strategy[2] == "none"
    }
    rows = [
        *_passes_rows(found, table, budget),
        *_truth_rows(found, table),
        *_curse_rows(found, table),
        *_lost_rows(found, table),
    ]
    return [replace(row, what=f"{runs} runs, {row.what}") for row in rows]


def _replay(strategy: Strategy, table: Table, number: int, budget: float) -> Replay:
    how, sampler, pruner = strategy
    seeds = sorted(table[0].curves)
    random.Random(number).shuffle(seeds)
    return how(table, seeds, sampler, pruner, number, budget)


def _truth_at(table: Table, replay: Replay, passes: float) -> float:
    """What the pick after so many passes is worth; before the first run ends, what a blind draw is."""
    earlier = [pick for spent, pick in replay.trace if spent <= passes]
    return table[earlier[-1]].truth if earlier else fmean(entry.truth for entry in table)


def _passes_rows(found: Mapping[str, list[Replay]], table: Table, budget: float) -> list[Row]:
    """Passes, as a share of the budget, at which the median pick is as good as random search's at the end; 1 where it
    never is."""
    grid = np.linspace(0, budget, 201)[1:]
    truths = {name: np.array([[_truth_at(table, one, p) for p in grid] for one in own]) for name, own in found.items()}
    source = np.random.default_rng(0)
    samples: dict[str, list[float]] = {name: [] for name in found}
    count = len(found[BASELINE])
    for drawn in [np.arange(count), *source.integers(0, count, (BOOTSTRAPS, count))]:
        target = np.median(truths[BASELINE][drawn, -1])
        for name, own in truths.items():
            reached = np.flatnonzero(np.median(own[drawn], axis=0) >= target)
            samples[name].append(float(grid[reached[0]] / budget) if len(reached) else 1.0)
    rows = []
    for name in list(found)[1:]:
        low, high = np.quantile(samples[name][1:], [0.025, 0.975], method="nearest")
        what, goal = f"{name}: passes to the pick of random search", "≤ 0.333" if name == AIMED else ""
        rows.append(Row(what, "all of random search's", "", samples[name][0], float(low), float(high), goal=goal))
    return rows


def _truth_rows(found: Mapping[str, list[Replay]], table: Table) -> list[Row]:
    """The truth about the final pick, and its difference from random search's, paired by replay."""
    rows, baseline = [], [table[one.pick].truth for one in found[BASELINE]]
    for name, own in found.items():
        truths = [table[one.pick].truth for one in own]
        rows.append(_mean_row(f"{name}: true mean of the pick", "", truths, "points"))
        if name != BASELINE:
            differences = [a - b for a, b in zip(truths, baseline, strict=True)]
            goal = "≥ 0" if name == "random, racing" else ""
            rows.append(_mean_row(f"{name}: true mean of the pick", BASELINE, differences, "points more", goal))
    return rows


def _curse_rows(found: Mapping[str, list[Replay]], table: Table) -> list[Row]:
    """What the pick's score promised, less its val accuracy at the end with the seeds that the search did not see;
    where most picks have seen all of the table's seeds there is no row."""
    rows = []
    for name, own in found.items():
        gaps = []
        for one in own:
            unseen = [curve[-1] for seed, curve in table[one.pick].curves.items() if seed not in one.seen]
            if unseen:
                gaps.append(one.promised - fmean(unseen))
        if 2 * len(gaps) > len(own):
            what = f"{name}: promise of the pick ({len(gaps)} replays with unseen seeds)"
            rows.append(_mean_row(what, "val, unseen seeds", gaps, "points more"))
    return rows


def _lost_rows(found: Mapping[str, list[Replay]], table: Table) -> list[Row]:
    """How often the best configuration that was drawn is stopped early, eliminated or never promoted."""
    rows = []
    for name, own in found.items():
        lost = [float(max(one.drawn, key=lambda n: table[n].truth) in one.dropped) for one in own]
        drawn = fmean(len(one.drawn) for one in own)
        rows.append(
            _mean_row(f"{name}: the best of {drawn:.0f} drawn is dropped", "", [100 * one for one in lost], "%")
        )
    return rows


def _mean_row(what: str, against: str, values: Sequence[float], unit: str, goal: str = "") -> Row:
    source, data = np.random.default_rng(0), np.array(values)
    means = data[source.integers(0, len(data), (BOOTSTRAPS, len(data)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Row(what, against, "", float(data.mean()), float(low), float(high), unit, goal)
