"""The search of one arm: Optuna draws its configurations, the race says which seed of which one is trained next.

What is known of a configuration is in Optuna's storage and in the folders of its training runs, so that a run which
resumes decides as if it had never ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.trial import TrialState

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.running.optuna_search import Draw, OptunaSearch
from hmtl_ablate.study.pareto import front
from hmtl_ablate.study.racing import FIRST, Place, Race, other_values, ranking, run_score, told, wanted
from hmtl_ablate.training.folder import TrialFolder, TrialResult

Run = tuple[int, int]
"""Number of a configuration, and a seed."""


class Racer:
    """Hands out the training runs of one arm's search, and takes their results."""

    def __init__(self, optuna_search: OptunaSearch, store: Path) -> None:
        self._optuna, self._store = optuna_search, store
        self.search = optuna_search.search
        self.race = Race(optuna_search.seeds, self.search.direction)
        self.scores: dict[int, dict[int, float]] = {}
        """Number of each configuration → seed → score."""
        self.others: dict[int, list[float]] = {}
        """Number of a configuration → its values of `search.others`, with the first seed."""
        self.out: dict[int, str] = {}
        """Configurations that ended early → why."""
        self._draws: dict[int, Draw] = {}
        self._passes: dict[Run, float] = {}
        """Image passes of the runs that ended, and, so far, of those under way."""
        self._running: set[Run] = set()
        self._left: set[Run] = set()
        """Runs without a result that this driver does not try again."""
        self._promoted: set[int] = set()
        self._told: set[int] = set()
        """Configurations whose end Optuna knows."""
        self._closed = False
        """Whether no further configuration is drawn."""
        self._known: list[Run] = []
        for draw, state, values in optuna_search.configurations():
            self._recall(draw, state, values)
        for draw in optuna_search.adopt():
            self._add(draw)

    def give(self, taken: Sequence[Mapping[str, Any]]) -> None:
        """Have the declared starting points drawn first, then those taken from another study; each once, whatever the
        number of drivers."""
        for values in self.search.start:
            self._optuna.give(values, "start")
        for values in taken:
            self._optuna.give(values, "from")

    # What is next -----------------------------------------------------------------------------------------------

    def next(self) -> Draw | None:
        """The next training run: the next seed of a configuration, or a new configuration; None when there is none, for
        now or for good."""
        if self.search.budget is not None and self.effort[0] >= self.search.budget:
            return None
        if found := self._open():
            return self._start(*found[0])
        if self._closed:
            return None
        draw = self._optuna.next()
        if draw is not None:
            self._add(draw)
            return self._start(draw.trial.number, self.race.seeds[0])
        self._closed = True
        found = self._open()
        return self._start(*found[0]) if found else None

    @property
    def effort(self) -> tuple[float, int]:
        """Image passes spent, with those under way at the mean of the others, and the number of runs."""
        ended = [passes for run, passes in self._passes.items() if run not in self._running]
        usual = fmean(ended) if ended else 0.0
        under_way = sum(max(self._passes.get(run, 0.0), usual) for run in self._running)
        return sum(ended) + under_way, len(ended) + len(self._running)

    @property
    def ended_before(self) -> int:
        """Training runs that had ended before this driver."""
        return len(self._known)

    def expected(self) -> int:
        """Training runs that it will have made, as far as is known; with a budget alone, those that it pays for."""
        spent, begun = self.effort
        if self.search.trials is None and self.search.budget is not None and begun and spent:
            return begun + math.ceil(max(self.search.budget - spent, 0.0) * begun / spent) * (not self._closed)
        first = min(FIRST, len(self.race.seeds))
        to_come = 0 if self._closed or self.search.trials is None else max(self.search.trials - len(self._draws), 0)
        unfinished = sum(first - len(own) for n, own in self.scores.items() if n not in self.out and len(own) < first)
        ended = sum(run not in self._running for run in self._passes)
        further = sum(
            self._draws[n].config.seed != seed and seed in self.race.seeds[first:] for n, seed in self._open()
        )
        advanced = sum(seed in self.race.seeds[first:] for _, seed in self._running)
        return ended + unfinished + advanced + further + first * to_come

    def counted(self) -> int:
        """Configurations that count towards the total; a question to the database."""
        return self._optuna.counted()

    def _open(self) -> list[Run]:
        runs = wanted(self.scores, self.race, out=self.out, earlier=self._promoted, closed=self._closed)
        return [run for run in runs if run not in self._running and run not in self._left]

    def _start(self, number: int, seed: int) -> Draw:
        self._running.add((number, seed))
        if seed in self.race.seeds[FIRST:]:
            self._promoted.add(number)
        config = self._config(number, seed)
        return replace(self._draws[number], config=config, trial_id=self._optuna.identify(config))

    def _config(self, number: int, seed: int) -> TrialConfig:
        return self._draws[number].config.replaced({("seed",): seed})

    # What came of it --------------------------------------------------------------------------------------------

    def report(self, draw: Draw, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Note an epoch of a running draw; True when the pruner would stop it, which it does with the first seed alone.

        Raises what the search's database does.
        """
        run = draw.trial.number, draw.config.seed
        if run in self._running:
            self._passes[run] = metrics.get("image_passes", 0.0)
        value = metrics.get(self.search.metric, math.nan)
        first = draw.config.seed == self.race.seeds[0]
        return first and math.isfinite(value) and self._optuna.report(draw, epoch, value)

    def end(self, draw: Draw, result: TrialResult, history: Sequence[Mapping[str, float]]) -> str:
        """Take a draw's result, and tell Optuna what its configuration has come to. It may be called twice.

        Returns a warning, or "". Raises what the search's database does.
        """
        number = draw.trial.number
        for row in history:  # what a killed driver did not pass on; known epochs stay as they are
            self.report(draw, int(row["epoch"]), row)
        self._note(number, draw.config.seed, result, history)
        self._running.discard((number, draw.config.seed))
        value = told(self.scores[number], self.race)
        if number not in self._told and (number in self.out or value is not None):
            if number in self.out:
                self._optuna.tell(draw, TrialState.PRUNED if result.status == "pruned" else TrialState.FAIL)
            else:
                assert value is not None
                self._optuna.tell(draw, TrialState.COMPLETE, [value, *self.others.get(number, ())])
            self._told.add(number)
        if result.status == "finished" and number in self.out:
            names = " or ".join(self.search.objectives)
            return f"search {draw.trial_id}: {names} could not be measured; the search counts it as failed"
        return ""

    def leave(self, draw: Draw) -> None:
        """Leave a run without a result to the next driver; its configuration takes up a place in the total."""
        run = draw.trial.number, draw.config.seed
        self._running.discard(run)
        self._passes.pop(run, None)
        self._left.add(run)

    # Where it ended ---------------------------------------------------------------------------------------------

    def ended(self) -> list[tuple[TrialConfig, str, str]]:
        """The training runs that had ended before this driver, each with the arm and how it was drawn."""
        kinds = {number: draw.kind for number, draw in self._draws.items()}
        return [(self._config(n, seed), self.search.arm, kinds[n]) for n, seed in self._known]

    def ranking(self) -> list[Place]:
        """The configurations that have a score, the best first; with several objectives first the Pareto front."""
        return ranking(self.scores, self.race, out=self.out, front=self._front())

    def best(self, count: int) -> list[Draw]:
        """The best configurations, the best first, each with the search's first seed."""
        return [self._draws[place.configuration] for place in self.ranking()[:count]]

    # ------------------------------------------------------------------------------------------------------------

    def _front(self) -> set[int] | None:
        """The configurations on the Pareto front; None with one objective."""
        if not self.search.others:
            return None
        known = {
            n: (fmean(own.values()), *self.others[n]) for n, own in self.scores.items() if own and n in self.others
        }
        return front(known, list(self.search.objectives.values()))

    def _add(self, draw: Draw) -> None:
        self._draws[draw.trial.number] = draw
        self.scores.setdefault(draw.trial.number, {})

    def _recall(self, draw: Draw, state: TrialState, values: Sequence[float] | None) -> None:
        """Take a configuration that Optuna knows to have ended its first round, with all of its runs in the store."""
        number = draw.trial.number
        self._add(draw)
        self._told.add(number)
        for place, seed in enumerate(self.race.seeds):
            folder = TrialFolder(self._store / "trials" / self._optuna.identify(self._config(number, seed)))
            result = folder.sound_result()
            if result is not None:
                self._known.append((number, seed))
                self._note(number, seed, result, folder.history())
            elif place >= FIRST and (folder.path / "config.json").exists():
                self._promoted.add(number)
        if state == TrialState.PRUNED:
            self.out.setdefault(number, "stopped early")
        elif state == TrialState.FAIL:
            self.out.setdefault(number, "diverged")
        elif len(self.race.seeds) == 1 and values is not None and not folder.damage():  # folders may be removed
            self.scores[number].setdefault(self.race.seeds[0], values[0])
            self.others.setdefault(number, list(values[1:]))

    def _note(self, number: int, seed: int, result: TrialResult, history: Sequence[Mapping[str, float]]) -> None:
        self._passes[number, seed] = result.image_passes
        if result.status != "finished":
            self.out[number] = "stopped early" if result.status == "pruned" else "diverged"
            return
        score = self.score(result, history)
        others = other_values(
            {**result.metrics, "image_passes": result.image_passes, "seconds": result.seconds}, self.search.others
        )
        if score is None or others is None:
            self.out[number] = "not measured"
            return
        self.scores[number][seed] = score
        if seed == self.race.seeds[0]:
            self.others[number] = others

    def score(self, result: TrialResult, history: Sequence[Mapping[str, float]]) -> float | None:
        """The objective of a finished run; None when it was not measured."""
        return run_score(result.metrics, history, self.search.metric, racing=self.search.racing > 1)
