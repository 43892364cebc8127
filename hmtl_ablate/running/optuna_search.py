"""Optuna's part: which configuration is tried next, which trial is stopped early.

All of its state is in Optuna's storage, so it survives the driver: a trial that a dead driver left RUNNING is adopted.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.errors import ConfigError, SearchError
from hmtl_ablate.study import SAMPLERS, Parameter, Search
from hmtl_ablate.tracking.address import hidden, shown
from hmtl_ablate.tracking.opening import one_at_a_time

MAX_FRUITLESS = 50
"""Draws in a row that are repeats or impossible, after which the space counts as exhausted."""

Identify = Callable[[TrialConfig], str]
"""A config's trial_id."""


@dataclass(frozen=True)
class Draw:
    """A configuration that Optuna asks for."""

    trial: optuna.Trial
    config: TrialConfig
    trial_id: str
    kind: str = ""
    """How it was drawn (`Drawn`); "" in searches of older versions."""
    arm: str = ""
    """Arm of the search."""


def connect(url: str | None, store: Path) -> optuna.storages.BaseStorage:
    """Optuna's storage; SQLite in the store by default. Raises SearchError when it can't be used."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    url = url or f"sqlite:///{store / 'optuna.db'}"
    # SQLite waits while another program holds the file, e.g. a backup; Optuna can't do without it
    options: dict[str, Any] = {"connect_args": {"timeout": 60}}
    if url.startswith("postgresql"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        options["connect_args"] = {"connect_timeout": 10, "tcp_user_timeout": 10_000}
        options["pool_pre_ping"] = True  # after a restart of the database its old connections are of no use
    elif not url.startswith("sqlite:///"):
        raise SearchError(
            f"--storage {shown(url) if '@' in url else url}: Optuna keeps its trials in a database; "
            "use sqlite:///FILE or postgresql://USER@HOST/NAME"
        )
    try:
        with one_at_a_time(url):
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except Exception as error:  # SQLAlchemy's, the driver's, or an ImportError of the driver
        raise SearchError(
            f"--storage {shown(url)}: can't be used ({hidden(_first_line(error), url)}); start the database, or leave "
            "--storage out for SQLite in the store"
        ) from error


class OptunaSearch:
    """Asks Optuna for configurations until the search's total is reached."""

    def __init__(
        self, search: Search, prefix: str, seed: int, storage: optuna.storages.BaseStorage, identify: Identify
    ) -> None:
        self.search, self.identify, self.seed = search, identify, seed
        name = f"{prefix}#{search.space_hash}"
        known = {summary.study_name for summary in optuna.get_all_study_summaries(storage)}
        direction = "maximize" if search.direction == "max" else "minimize"
        # The seed moves on with the number of trials: a restarted sampler would repeat its first draws.
        self.study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=direction,
            load_if_exists=True,
            pruner=search.pruner.build(search.epochs),
        )
        if name not in known:
            for other in sorted(known):
                if other.startswith(f"{prefix}#"):
                    self._copy(optuna.load_study(study_name=other, storage=storage))
        self._sampler = SAMPLERS[search.sampler]
        self._random = optuna.samplers.RandomSampler(seed + len(self.study.trials))
        self._informed = self._sampler.build(seed + len(self.study.trials))
        self._adopted = self._orphans()
        self._mine: set[int] = set()

    def counted(self) -> int:
        """Trials that count towards the total: ended ones, repeats and impossible draws left out."""
        return sum(_counts(trial) for trial in self._trials())

    def next(self) -> Draw | None:
        """A draw to train, or None when the total is reached, running draws included, or the space is exhausted."""
        if self._adopted:
            draw = self._adopted.pop(0)
            self._mine.add(draw.trial.number)
            return draw
        for _ in range(MAX_FRUITLESS):
            if self.counted() + len(self._mine) >= self.search.trials:
                return None
            asked = self._ask()
            if asked is not None:
                self._mine.add(asked.trial.number)
                return asked
            if self._sampler.exhaustive and not self._grid_left():
                return None
        return None

    def report(self, draw: Draw, epoch: int, value: float) -> bool:
        """Store an epoch's value; True when the pruner would stop the trial here."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an epoch that was reported before a crash
            try:
                draw.trial.report(value, epoch)
            except optuna.exceptions.UpdateFinishedTrialError:  # ended already, by a call whose answer was lost
                return False
        return draw.trial.should_prune()

    def tell(self, draw: Draw, state: TrialState, value: float | None = None) -> None:
        """Store a trial's end. FAIL means that the trial diverged: it counts towards the total."""
        if state == TrialState.FAIL:
            draw.trial.set_user_attr("diverged", True)
        self.study.tell(draw.trial, value, state=state, skip_if_finished=True)
        self._mine.discard(draw.trial.number)

    def leave(self, draw: Draw) -> None:
        """Leave a trial RUNNING, for the next run to adopt; it takes up its place in the total until then."""

    def ended(self) -> list[tuple[TrialConfig, str, str]]:
        """The configurations that were trained, whatever came of it, each with its arm and how it was drawn; repeats
        and impossible draws left out."""
        found = []
        for trial in self._trials():
            if _counts(trial) and "values" in trial.user_attrs:
                with suppress(ConfigError):  # of an earlier version
                    config = self.search.resolve(self._values(trial), self.seed)
                    found.append((config, self.search.arm, trial.user_attrs.get("draw", "")))
        return found

    def best(self) -> Draw | None:
        """The best finished configuration, or None without one."""
        done = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        if not done:
            return None
        sign = -1 if self.search.direction == "max" else 1
        trial = min(done, key=lambda t: (sign * (t.value or 0.0), t.number))
        config = self.search.resolve(self._values(trial), self.seed)
        return self._draw(optuna.Trial(self.study, trial._trial_id), config, trial.user_attrs.get("draw", ""))

    # ----------------------------------------------------------------------------------------------------------

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _draw(self, trial: optuna.Trial, config: TrialConfig, kind: str) -> Draw:
        return Draw(trial, config, self.identify(config), kind, self.search.arm)

    def _ask(self) -> Draw | None:
        if self._sampler.exhaustive:
            left = self._grid_left()
            if not left:
                return None
            self.study.enqueue_trial({key: _encoded(value) for key, value in left[0].items()})
        kind = self._sampler.drawn(len(self._trials()))
        self.study.sampler = self._informed if kind == "sampler" else self._random
        trial = self.study.ask()
        values: dict[str, Any] = {}
        for parameter in self.search.parameters:
            if parameter.active(values):
                values[parameter.key] = _suggest(trial, parameter)
        try:
            config = self.search.resolve(values, self.seed)
        except ConfigError as error:
            trial.set_user_attr("impossible", str(error))
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        identity = self.identify(config)
        twin = next((t for t in self._trials() if t.user_attrs.get("trial_id") == identity), None)
        trial.set_user_attr("trial_id", identity)
        trial.set_user_attr("draw", kind)
        trial.set_user_attr("values", json.dumps(values))
        if twin is None:
            return self._draw(trial, config, kind)
        trial.set_user_attr("repeats", twin.number)
        if twin.state == TrialState.COMPLETE:  # what is known already informs the sampler, and costs nothing
            self.study.tell(trial, twin.value)
        else:
            self.study.tell(trial, state=TrialState.FAIL)
        return None

    def _grid_left(self) -> list[dict[str, Any]]:
        seen = {trial.user_attrs.get("values") for trial in self._trials()}
        return [values for values in self._possible_grid() if json.dumps(values) not in seen]

    def _possible_grid(self) -> list[dict[str, Any]]:
        possible = []
        for values in self.search.grid():
            try:
                self.search.resolve(values, self.seed)
            except ConfigError:
                continue
            possible.append(values)
        return possible

    def _orphans(self) -> list[Draw]:
        """Trials a dead driver left RUNNING. One killed before its configuration was stored becomes FAIL."""
        adopted = []
        for frozen in self._trials():
            if frozen.state == TrialState.WAITING:
                continue
            if frozen.state == TrialState.RUNNING:
                trial = optuna.Trial(self.study, frozen._trial_id)
                if "values" not in frozen.user_attrs:
                    self.study.tell(trial, state=TrialState.FAIL)
                    continue
                config = self.search.resolve(self._values(frozen), self.seed)
                adopted.append(self._draw(trial, config, frozen.user_attrs.get("draw", "")))
        return adopted

    def _values(self, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        return json.loads(trial.user_attrs["values"])  # type: ignore[no-any-return]

    def _copy(self, other: optuna.Study) -> None:
        """Take over the trials of an older space that would be the very same training runs in this one."""
        for trial in other.get_trials(deepcopy=False):
            if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) or "values" not in trial.user_attrs:
                continue
            values = self._values(trial)
            chosen: dict[str, Any] = {}
            for parameter in self.search.parameters:
                if parameter.active(chosen) and parameter.key in values:
                    chosen[parameter.key] = values[parameter.key]
            try:
                same = (
                    chosen == values
                    and self.identify(self.search.resolve(values, self.seed)) == trial.user_attrs["trial_id"]
                )
                known = {p.key: p for p in self.search.parameters}
                distributions = {key: _distribution(known[key]) for key in values}
                encoded = {key: _encoded(value) for key, value in values.items()}
                if same and all(
                    distributions[key]._contains(distributions[key].to_internal_repr(value))
                    for key, value in encoded.items()
                ):
                    self.study.add_trial(
                        optuna.trial.create_trial(
                            state=trial.state,
                            value=trial.value,
                            params=encoded,
                            distributions=distributions,
                            user_attrs=trial.user_attrs,
                            intermediate_values=trial.intermediate_values,
                        )
                    )
            except (ConfigError, KeyError, ValueError):
                continue  # it does not fit the new space


def _counts(trial: optuna.trial.FrozenTrial) -> bool:
    if "repeats" in trial.user_attrs:
        return False
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or (
        trial.state == TrialState.FAIL and "diverged" in trial.user_attrs
    )


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    if parameter.kind == "choice":
        return optuna.distributions.CategoricalDistribution([_encoded(value) for value in parameter.choices])
    if parameter.kind == "int":
        return optuna.distributions.IntDistribution(int(parameter.low), int(parameter.high), step=parameter.step)
    return optuna.distributions.FloatDistribution(parameter.low, parameter.high, log=parameter.kind == "loguniform")


def _suggest(trial: optuna.Trial, parameter: Parameter) -> Any:
    if parameter.kind == "int":
        return trial.suggest_int(parameter.key, int(parameter.low), int(parameter.high), step=parameter.step)
    if parameter.kind != "choice":
        return trial.suggest_float(parameter.key, parameter.low, parameter.high, log=parameter.kind == "loguniform")
    encoded = [_encoded(value) for value in parameter.choices]
    drawn = trial.suggest_categorical(parameter.key, encoded)
    return next(
        value
        for value, code in zip(parameter.choices, encoded, strict=True)
        if code == drawn and type(code) is type(drawn)
    )


def _encoded(value: Any) -> Any:
    """Optuna's choices are scalars; a list or map is stored as JSON text."""
    return value if isinstance(value, str | int | float | bool | None) else json.dumps(value)


def _first_line(error: Exception) -> str:
    text = str(error.__cause__ or error).strip() or type(error).__name__
    return text.splitlines()[0]
