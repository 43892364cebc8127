"""The search of one arm: Optuna draws its configurations, the race says which seed of which one is trained next.

What is known of a configuration is in Optuna's storage and in the folders of its training runs, so that a run which
resumes decides as if it had never ended. Drivers that share a search decide alike: each looks there, in its turn,
before it decides. What another driver has in hand is left to it; what it has ended is taken from there, too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.trial import TrialState

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.running.drivers import Drivers
from hmtl_ablate.running.optuna_search import Draw, OptunaSearch
from hmtl_ablate.study.pareto import front
from hmtl_ablate.study.racing import FIRST, Place, Race, other_values, ranking, run_score, told, wanted
from hmtl_ablate.training.folder import TrialFolder, TrialResult

Run = tuple[int, int]
"""Number of a configuration, and a seed."""
PAUSE = 0.5
"""Seconds after which a search that had nothing to train looks again what other drivers have done."""


class Racer:
    """Hands out the training runs of one arm's search, and takes their results."""

    def __init__(self, optuna_search: OptunaSearch, store: Path, drivers: Drivers | None = None) -> None:
        """drivers: those that share the search; within a turn of this one."""
        self._optuna, self._store, self._drivers = optuna_search, store, drivers or Drivers()
        self.search = optuna_search.search
        self.race = Race(optuna_search.seeds, self.search.direction)
        self.scores: dict[int, dict[int, float]] = {}
        """Number of each configuration → seed → score."""
        self._first: dict[int, dict[int, float]] = {}
        """Those of `scores` that are in their first round."""
        self.others: dict[int, list[float]] = {}
        """Number of a configuration → its values of `search.others`, with the first seed."""
        self.out: dict[int, str] = {}
        """Configurations that ended early → why."""
        self._draws: dict[int, Draw] = {}
        self._passes: dict[Run, float] = {}
        """Image passes of the runs that ended, and, so far, of those under way."""
        self._folders: dict[Run, TrialFolder] = {}
        self._reported: dict[Run, set[int]] = {}
        """Epochs of a run under way that this driver has passed on."""
        self._running: set[Run] = set()
        self._left: set[Run] = set()
        """Runs without a result that this driver does not try again."""
        self._promoted: set[int] = set()
        self._told: set[int] = set()
        """Configurations whose end Optuna knows."""
        self._closed = False
        """Whether no further configuration is drawn."""
        self._elsewhere: set[Run] = set()
        """Runs that other drivers had in hand when this one looked last."""
        self._news = 0
        self._again = -math.inf
        self._look_elsewhere()
        self._known: list[Run] = []
        for draw, state, values in optuna_search.configurations(self._in_first_round):
            self._known += self._recall(draw, state, values)
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
        if time.monotonic() < self._again:
            return None
        with self._drivers.turn():
            self._look()
            draw = self._next()
        if draw is None and self._drivers.met:
            self._again = time.monotonic() + PAUSE
        return draw

    def _next(self) -> Draw | None:
        if ended := self._ended_elsewhere():  # before any decision: its result is known, and costs nothing
            return self._start(*ended[0])
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

    def ready(self) -> bool:
        """Whether `next` has something to train, now that all that this driver had is over; another look at what the
        others have done. Raises what the search's database does."""
        self._again = -math.inf
        with self._drivers.turn():
            self._look()
        if self._ended_elsewhere():
            return True
        if self.search.budget is not None and self.effort[0] >= self.search.budget:
            return False
        return bool(self._open()) or not self._closed

    @property
    def elsewhere(self) -> int:
        """Training runs that other drivers had in hand at the last look."""
        return len(self._elsewhere)

    def news(self) -> int:
        """Training runs of other drivers that this one did not know to have ended when it was asked last."""
        found, self._news = self._news, 0
        return found

    @property
    def effort(self) -> tuple[float, int]:
        """Image passes spent, with those under way at the mean of the others, and the number of runs."""
        running = self._running | self._elsewhere
        begun = [self._passes[run] for run in running if run in self._passes]
        spent, ended = sum(self._passes.values()) - sum(begun), len(self._passes) - len(begun)
        usual = spent / ended if ended else 0.0
        under_way = sum(max(self._passes.get(run, 0.0), usual) for run in running)
        return spent + under_way, ended + len(running)

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
        unfinished = sum(max(first - len(own), 0) for own in self._first.values())
        running = self._running | self._elsewhere
        ended = len(self._passes) - sum(run in self._passes for run in running)
        further = sum(
            self._draws[n].config.seed != seed and seed in self.race.seeds[first:] for n, seed in self._open()
        )
        advanced = sum(seed in self.race.seeds[first:] for _, seed in running)
        return ended + unfinished + advanced + further + first * to_come

    def counted(self) -> int:
        """Configurations that count towards the total; a question to the database."""
        return self._optuna.counted()

    def _open(self) -> list[Run]:
        # without a race there are no runs after the first round, whose members alone need to be looked through
        scores = self.scores if len(self.race.seeds) > FIRST else self._first
        runs = wanted(scores, self.race, out=self.out, earlier=self._promoted, closed=self._closed)
        return [run for run in runs if self._free(run)]

    def _free(self, run: Run) -> bool:
        return run not in self._running and run not in self._left and run not in self._elsewhere

    def _start(self, number: int, seed: int) -> Draw:
        self._running.add((number, seed))
        self._drivers.hold(self._key((number, seed)))
        if seed in self.race.seeds[FIRST:]:
            self._promoted.add(number)
        config = self._config(number, seed)
        return replace(self._draws[number], config=config, trial_id=self._optuna.identify(config))

    def _config(self, number: int, seed: int) -> TrialConfig:
        return self._draws[number].config.replaced({("seed",): seed})

    # Other drivers ----------------------------------------------------------------------------------------------

    def _key(self, run: Run) -> str:
        """A run's name among all drivers."""
        return f"{self._optuna.study.study_name}/{run[0]}/{run[1]}"

    def _look_elsewhere(self) -> None:
        prefix = f"{self._optuna.study.study_name}/"
        held = [run.removeprefix(prefix).split("/") for run in self._drivers.elsewhere() if run.startswith(prefix)]
        self._elsewhere = {(int(run[0]), int(run[1])) for run in held if len(run) == 2}

    @property
    def _in_first_round(self) -> set[int]:
        """Configurations whose end another driver has yet to write down, whatever Optuna says already."""
        return {number for number, seed in self._elsewhere if seed in self.race.seeds[:FIRST]}

    def _look(self) -> None:
        """Learn what other drivers have drawn, promoted and ended. Within a turn."""
        if not self._drivers.met:
            return
        self._look_elsewhere()
        for draw, state, values in self._optuna.configurations(self._told | self._in_first_round):
            self._news += len(self._recall(draw, state, values))
        for draw in self._optuna.adopt(self._draws):
            self._add(draw)
        third = self.race.seeds[FIRST : FIRST + 1]
        for number in self._told - self._promoted - self.out.keys():
            if any(run in self._elsewhere or self._folder(*run).path.exists() for run in ((number, s) for s in third)):
                self._promoted.add(number)

    def _ended_elsewhere(self) -> list[Run]:
        """Runs of a race that other drivers have ended, as far as this one does not know them."""
        if not self._drivers.met or len(self.race.seeds) == 1:
            return []
        found = []
        for number in self._draws.keys() - self.out.keys():
            seeds = self.race.seeds if number in self._promoted else self.race.seeds[:FIRST]
            found += [(number, seed) for seed in seeds if (number, seed) not in self._passes]
        return [run for run in found if self._free(run) and (self._folder(*run).path / "result.json").exists()]

    def _folder(self, number: int, seed: int) -> TrialFolder:
        if (number, seed) not in self._folders:
            identity = self._optuna.identify(self._config(number, seed))
            self._folders[number, seed] = TrialFolder(self._store / "trials" / identity)
        return self._folders[number, seed]

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
        stop = first and math.isfinite(value) and self._optuna.report(draw, epoch, value)
        self._reported.setdefault(run, set()).add(epoch)
        return stop

    def end(self, draw: Draw, result: TrialResult, history: Sequence[Mapping[str, float]]) -> str:
        """Take a draw's result, and tell Optuna what its configuration has come to. It may be called twice.

        Returns a warning, or "". Raises what the search's database does.
        """
        number = draw.trial.number
        run = number, draw.config.seed
        known = self._reported.get(run, set())
        for row in history:  # what was not passed on while the database was away, or by a killed driver
            if row["epoch"] not in known:
                self.report(draw, int(row["epoch"]), row)
        self._note(number, draw.config.seed, result, history)
        self._running.discard(run)
        self._reported.pop(run, None)
        value = told(self.scores[number], self.race)
        if number not in self._told and (number in self.out or value is not None):
            if number in self.out:
                self._optuna.tell(draw, TrialState.PRUNED if result.status == "pruned" else TrialState.FAIL)
            else:
                assert value is not None
                self._optuna.tell(draw, TrialState.COMPLETE, [value, *self.others.get(number, ())])
            self._told.add(number)
        self._drivers.drop(self._key((number, draw.config.seed)))
        self._again = -math.inf
        if result.status == "finished" and number in self.out:
            names = " or ".join(self.search.objectives)
            return f"search {draw.trial_id}: {names} could not be measured; the search counts it as failed"
        return ""

    def leave(self, draw: Draw) -> None:
        """Leave a run without a result to the next driver; its configuration takes up a place in the total."""
        run = draw.trial.number, draw.config.seed
        self._running.discard(run)
        self._reported.pop(run, None)
        self._passes.pop(run, None)
        self._left.add(run)
        self._drivers.drop(self._key(run))
        self._again = -math.inf

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
        number = draw.trial.number
        self._draws[number] = draw
        self._first[number] = self.scores.setdefault(number, {})

    def _recall(self, draw: Draw, state: TrialState, values: Sequence[float] | None) -> list[Run]:
        """Take a configuration that Optuna knows to have ended its first round, with all of its runs in the store that
        were not known; returns these."""
        number = draw.trial.number
        self._add(draw)
        self._told.add(number)
        found = []
        for place, seed in enumerate(self.race.seeds):
            folder = self._folder(number, seed)
            result = None if (number, seed) in self._elsewhere else folder.sound_result()
            if result is not None:
                if (number, seed) not in self._passes:
                    found.append((number, seed))
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
        self._end_first(number)
        return found

    def _end_first(self, number: int) -> None:
        """Note whether a configuration has ended its first round."""
        if number in self.out or told(self.scores[number], self.race) is not None:
            self._first.pop(number, None)

    def _note(self, number: int, seed: int, result: TrialResult, history: Sequence[Mapping[str, float]]) -> None:
        self._take(number, seed, result, history)
        self._end_first(number)

    def _take(self, number: int, seed: int, result: TrialResult, history: Sequence[Mapping[str, float]]) -> None:
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
