"""Optuna's part: which configuration is tried next, which trial is stopped early.

All of its state is in Optuna's storage, so it survives the driver: a trial that a dead driver left RUNNING is adopted.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.errors import ConfigError, SearchError
from hmtl_ablate.running.search_cache import DriverCache
from hmtl_ablate.study import SAMPLERS, Parameter, Search
from hmtl_ablate.study.racing import FIRST
from hmtl_ablate.tracking.address import hidden, shown
from hmtl_ablate.tracking.opening import one_at_a_time

MAX_FRUITLESS = 50
"""Draws in a row that are repeats or impossible, after which the space counts as exhausted."""

GIVEN = "given"
"""User attribute of a trial whose values were not drawn: where they come from, or how they were drawn there."""

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


def connect(url: str | None, store: Path, shared: Callable[[], bool] = lambda: False) -> optuna.storages.BaseStorage:
    """Optuna's storage; SQLite in the store by default. Raises SearchError when it can't be used.

    shared: whether other drivers write to the same searches.
    """
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
            return DriverCache(optuna.storages.RDBStorage(url, engine_kwargs=options), shared)
    except Exception as error:  # SQLAlchemy's, the driver's, or an ImportError of the driver
        raise SearchError(
            f"--storage {shown(url)}: can't be used ({hidden(_first_line(error), url)}); start the database, or leave "
            "--storage out for SQLite in the store"
        ) from error


class OptunaSearch:
    """Asks Optuna for configurations until the search's total is reached."""

    def __init__(
        self,
        search: Search,
        prefix: str,
        seeds: tuple[int, ...],
        storage: optuna.storages.BaseStorage,
        identify: Identify,
        about: Mapping[str, str] = {},
        driver: str = "",
        offset: int = 0,
    ) -> None:
        """seeds: those of the search; a configuration's values are drawn once, for all of them. about: what Optuna's
        own tools show with the study, e.g. its question. driver: id of this driver, stored with what it draws. offset:
        added to the sampler's seed, another one for each driver of the same search."""
        self.search, self.identify, self.seeds, self.seed = search, identify, seeds, seeds[0]
        seed = self.seed
        self._sampler = SAMPLERS[search.sampler]
        name = f"{prefix}#{search.space_hash}"
        if search.racing > 1:  # what the sampler learns depends on them
            name += "".join(f"-{one}" for one in seeds[:FIRST])
        known = {summary.study_name for summary in optuna.get_all_study_summaries(storage)}
        if search.arm and name not in known:  # older versions did not name the arm
            name = f"{name} {search.arm[:100]}"
        directions = ["maximize" if way == "max" else "minimize" for way in search.objectives.values()]
        pruner = search.pruner.build(search.epochs)
        # The seed moves on with the number of trials: a restarted sampler would repeat its first draws.
        self.study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=directions,
            load_if_exists=True,
            pruner=pruner,
        )
        self._stopping = Stopping(self.study)
        if search.others:  # Optuna stops no trial of several objectives: a study of the proxy alone has them too
            proxy = optuna.create_study(
                storage=storage,
                study_name=f"proxy of {name}",
                direction=directions[0],
                load_if_exists=True,
                pruner=pruner,
            )
            _describe(proxy, [search.metric], about)
            self._stopping = Stopping(proxy, separate=True)
        _describe(self.study, list(search.objectives), about)
        if name not in known:
            self.study.set_user_attr("arm", search.arm)
            self.study.set_user_attr("race", self._race)
            for other in sorted(known):
                if other.startswith(f"{prefix}#"):
                    self._take_over(optuna.load_study(study_name=other, storage=storage))
        self._driver = driver
        self._random = optuna.samplers.RandomSampler(seed + offset + len(self.study.trials))
        self._informed = self._sampler.build(seed + offset + len(self.study.trials))

    @property
    def _race(self) -> list[int]:
        """The seeds over which the values that Optuna has are means; [] where they are best epochs."""
        return list(self.seeds[:FIRST]) if self.search.racing > 1 else []

    def counted(self) -> int:
        """Trials that count towards the total: ended ones, repeats and impossible draws left out."""
        return sum(_counts(trial) for trial in self._trials())

    def adopt(self, known: Container[int] = ()) -> list[Draw]:
        """The draws that are running, without the known ones: those of a dead driver, or of another one that lives.

        A trial that was killed before its configuration was stored becomes FAIL; drivers must take turns.
        """
        adopted = []
        for frozen in self._trials():
            if frozen.state != TrialState.RUNNING or frozen.number in known:
                continue
            if not _is_drawn(frozen):
                self.study.tell(optuna.Trial(self.study, frozen._trial_id), state=TrialState.FAIL)
            else:
                adopted.append(self._drawn(frozen))
        return adopted

    def next(self) -> Draw | None:
        """A draw to train, or None when the total is reached, running draws included, or the space is exhausted."""
        for _ in range(MAX_FRUITLESS):
            trials = self._trials()
            if self.search.trials is not None and self._taken(trials) >= self.search.trials:
                return None
            asked = self._ask(trials)
            if asked is not None:
                return asked
            if self._sampler.exhaustive and not self._grid_left():
                return None
        return None

    def report(self, draw: Draw, epoch: int, value: float) -> bool:
        """Store an epoch's value; True when the pruner would stop the trial here."""
        return self._stopping.report(draw.trial, epoch, value)

    def tell(self, draw: Draw, state: TrialState, values: Sequence[float] | None = None) -> None:
        """Store a trial's end; a second end changes nothing. FAIL means that the trial diverged: it counts towards the
        total. values: of every objective, in the order of `Search.objectives`."""
        if state == TrialState.FAIL:
            with suppress(optuna.exceptions.UpdateFinishedTrialError):
                draw.trial.set_user_attr("diverged", True)
        self._stopping.end(draw.trial, state, values)
        self.study.tell(draw.trial, values, state=state, skip_if_finished=True)

    def configurations(self, known: Container[int] = ()) -> list[tuple[Draw, TrialState, list[float] | None]]:
        """The configurations that count towards the total, as they ended, with the values that Optuna was told; without
        the known ones."""
        found = []
        for frozen in self._trials():
            if frozen.number not in known and _counts(frozen) and "values" in frozen.user_attrs:
                with suppress(ConfigError):  # of an earlier version
                    found.append((self._drawn(frozen), frozen.state, frozen.values))
        return found

    # ----------------------------------------------------------------------------------------------------------

    def _taken(self, trials: Sequence[optuna.trial.FrozenTrial]) -> int:
        """Places of the total that are taken: trials that count, and those that run, of every driver."""
        return sum(_counts(t) or (t.state == TrialState.RUNNING and _is_drawn(t)) for t in trials)

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _drawn(self, frozen: optuna.trial.FrozenTrial) -> Draw:
        config = self.search.resolve(self._values(frozen), self.seed)
        return self._draw(optuna.Trial(self.study, frozen._trial_id), config, frozen.user_attrs.get("draw", ""))

    def _draw(self, trial: optuna.Trial, config: TrialConfig, kind: str) -> Draw:
        return Draw(trial, config, self.identify(config), kind, self.search.arm)

    def _ask(self, trials: Sequence[optuna.trial.FrozenTrial]) -> Draw | None:
        """Draw a configuration; None for a repeat or an impossible one. trials: all that there are."""
        if self._sampler.exhaustive:
            left = self._grid_left()
            if not left:
                return None
            self.study.enqueue_trial({key: _encoded(value) for key, value in left[0].items()})
        before = [t for t in trials if t.state != TrialState.WAITING and GIVEN not in t.user_attrs]
        kind: str = self._sampler.drawn(len(before))
        self.study.sampler = self._informed if kind == "sampler" else self._random
        trial = self.study.ask()
        if self._driver:
            trial.set_user_attr("driver", self._driver)
        kind = trial.user_attrs.get(GIVEN, kind)
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
        known = [t for t in trials if "values" in t.user_attrs]  # without those killed while they were stored
        twin = next((t for t in known if t.user_attrs.get("trial_id") == identity), None)
        if twin is not None:  # first, so that it never counts, whenever this process is killed
            trial.set_user_attr("repeats", twin.number)
        trial.set_user_attr("trial_id", identity)
        trial.set_user_attr("draw", kind)
        trial.set_user_attr("values", json.dumps(values))
        if twin is None:
            return self._draw(trial, config, kind)
        if twin.state == TrialState.COMPLETE:  # what is known already informs the sampler, and costs nothing
            self.study.tell(trial, twin.values)
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

    def _values(self, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
        return json.loads(trial.user_attrs["values"])  # type: ignore[no-any-return]

    def _take_over(self, other: optuna.Study) -> None:
        """Take over the trials of an older space that would be the very same training runs in this one. Where its
        values are other means than this one's, the configurations are drawn again: their runs are in the store."""
        if other.user_attrs.get("arm", "") != self.search.arm:
            return
        for trial in other.get_trials(deepcopy=False):
            if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED) or "values" not in trial.user_attrs:
                continue
            values = self._values(trial)
            try:
                same = self.identify(self.search.resolve(values, self.seed)) == trial.user_attrs["trial_id"]
            except ConfigError:
                continue
            if not same or not self.search.fits(values):
                continue
            if other.user_attrs.get("race", []) == self._race and len(other.directions) == len(self.study.directions):
                known = {parameter.key: _distribution(parameter) for parameter in self.search.parameters}
                self.study.add_trial(
                    optuna.trial.create_trial(
                        state=trial.state,
                        values=trial.values,
                        params={key: _encoded(value) for key, value in values.items()},
                        distributions={key: known[key] for key in values},
                        user_attrs=trial.user_attrs,
                        intermediate_values=trial.intermediate_values,
                    )
                )
            elif trial.state == TrialState.COMPLETE and not self._sampler.exhaustive:
                self.give(values, trial.user_attrs.get("draw", ""))

    def give(self, values: Mapping[str, Any], kind: str) -> None:
        """Have a configuration drawn before the sampler's own, unless it was given before. kind: its source."""
        encoded = {key: _encoded(value) for key, value in values.items()}
        given = [t.system_attrs.get("fixed_params") for t in self._trials() if GIVEN in t.user_attrs]
        if encoded not in given:
            self.study.enqueue_trial(encoded, user_attrs={GIVEN: kind})


class Stopping:
    """What a search's pruner looks at: the values of the proxy after each epoch, in trials of one objective.

    separate: they are in a study of their own, with a trial for each draw.
    """

    def __init__(self, study: optuna.Study, *, separate: bool = False) -> None:
        self._study, self._separate = study, separate
        self._trials = {
            trial.user_attrs["of"]: optuna.Trial(study, trial._trial_id)
            for trial in (study.get_trials(deepcopy=False) if separate else ())
            if "of" in trial.user_attrs
        }

    def report(self, drawn: optuna.Trial, epoch: int, value: float) -> bool:
        """Store an epoch's value; True when the pruner would stop the trial here."""
        trial = self._trial(drawn)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an epoch that was reported before a crash
            try:
                trial.report(value, epoch)
            except optuna.exceptions.UpdateFinishedTrialError:  # ended already, by a call whose answer was lost
                return False
        return trial.should_prune()

    def end(self, drawn: optuna.Trial, state: TrialState, values: Sequence[float] | None) -> None:
        """Store the end of a trial that is separate from its draw's."""
        if self._separate:
            self._study.tell(self._trial(drawn), values and values[0], state=state, skip_if_finished=True)

    def _trial(self, drawn: optuna.Trial) -> optuna.Trial:
        if not self._separate:
            return drawn
        if drawn.number not in self._trials:
            for known in self._study.get_trials(deepcopy=False):  # of another driver, which has died
                if "of" in known.user_attrs:
                    self._trials[known.user_attrs["of"]] = optuna.Trial(self._study, known._trial_id)
        if drawn.number not in self._trials:
            trial = self._study.ask()
            trial.set_user_attr("of", drawn.number)
            self._trials[drawn.number] = trial
        return self._trials[drawn.number]


def _describe(study: optuna.Study, objectives: Sequence[str], about: Mapping[str, str]) -> None:
    """Have optuna-dashboard show what the values are, and what the study is about."""
    if study.metric_names != list(objectives):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(objectives))
    for key, text in about.items():
        if study.user_attrs.get(key) != text:
            study.set_user_attr(key, text)


def best_of(storage: optuna.storages.BaseStorage, prefix: str) -> list[dict[str, Any]] | None:
    """The configurations of the searches whose names begin so, the best of each first; None without such a search."""
    names = [one.study_name for one in optuna.get_all_study_summaries(storage) if one.study_name.startswith(prefix)]
    ranked: list[tuple[int, dict[str, Any]]] = []
    for name in names:
        study = optuna.load_study(study_name=name, storage=storage)
        sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
        done = [
            t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if "repeats" not in t.user_attrs
        ]
        done.sort(key=lambda t: (sign * t.values[0], t.number))
        ranked += [
            (rank, json.loads(t.user_attrs["values"])) for rank, t in enumerate(done) if "values" in t.user_attrs
        ]
    return [values for _, values in sorted(ranked, key=lambda one: one[0])] if names else None


def _is_drawn(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a running trial is one to train: its driver was not killed while it stored it."""
    return "values" in trial.user_attrs and "repeats" not in trial.user_attrs


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
