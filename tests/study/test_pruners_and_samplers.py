"""Every sampler with every pruner, through OptunaSearch: a conformance suite, and a pruner that a user adds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import optuna
import pytest
from optuna.trial import TrialState
from pydantic import Field

from hmtl_ablate.config import TrialConfig, trial_id
from hmtl_ablate.errors import ConfigError, SearchError, StudyError
from hmtl_ablate.running.optuna_search import Draw, OptunaSearch
from hmtl_ablate.study import PRUNERS, SAMPLERS, Pruner, Search, load_study, register_pruner, study_schema
from hmtl_ablate.study.pruners import Hyperband, Median, NoPruner, Patient, SuccessiveHalving, parse_pruner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

EPOCHS = 9
TRIALS = 8
SPACE = {
    "training.batch_size": {"int": [8, 512]},
    "training.weight_decay": {"int": [0, 1]},
}
"""Takes every sampler: whole numbers, no conditions."""
PRUNING: dict[str, Any] = {
    "none": "none",
    "successive_halving": "successive_halving",
    "hyperband": {"name": "hyperband", "grace_epochs": 3},
    "median": {"name": "median", "startup_trials": 2},
    "patient": {"name": "patient", "patience": 1, "wraps": {"name": "median", "startup_trials": 1}},
}


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def storage() -> optuna.storages.BaseStorage:
    return optuna.storages.InMemoryStorage()


SEVERAL = {"val/accuracy": "max", "cost/image_passes": "min"}


def declared(sampler: str = "random", pruner: Any = "none", **more: Any) -> Search:
    section = {"space": SPACE, "sampler": sampler, "trials": TRIALS, "pruner": pruner, "racing": None, **more}
    search = load_study({"name": "s", "base": {"training.epochs": EPOCHS}, "search": section}).search
    assert search is not None
    return search


def started(search: Search, storage: optuna.storages.BaseStorage, seed: int = 0) -> OptunaSearch:
    return OptunaSearch(search, "s@quick#data", (seed,), storage, lambda config: trial_id(config, "data"))


def curve(level: float) -> list[float]:
    """A validation accuracy by epoch: higher levels are better at each epoch."""
    return [level * (1 - 0.5**epoch) for epoch in range(1, EPOCHS + 1)]


def train(search: OptunaSearch, draw: Draw, values: list[float]) -> int:
    """Reports a curve until the pruner stops it, and tells the end; the number of epochs."""
    for epoch, value in enumerate(values, 1):
        if search.report(draw, epoch, value) and epoch < len(values):
            search.tell(draw, TrialState.PRUNED)
            return epoch
    cost = float(draw.config.training.batch_size)
    search.tell(draw, TrialState.COMPLETE, [values[-1], *(cost for _ in search.search.others)])
    return len(values)


def level(config: TrialConfig) -> float:
    return 0.2 + 0.7 * config.training.batch_size / 512


def finish(search: OptunaSearch) -> list[str]:
    ended = []
    while (draw := search.next()) is not None:
        train(search, draw, curve(level(draw.config)))
        ended.append(draw.trial_id)
    return ended


def test_the_suite_has_every_pruner() -> None:
    assert PRUNING.keys() == PRUNERS.keys()


@pytest.mark.parametrize("pruner", PRUNING)
@pytest.mark.parametrize("sampler", SAMPLERS)
class TestEverySamplerWithEveryPruner:
    @pytest.mark.slow
    def test_reaches_its_total_exactly_and_never_repeats(
        self, sampler: str, pruner: str, storage: optuna.storages.BaseStorage
    ) -> None:
        search = started(declared(sampler, PRUNING[pruner]), storage)
        ended = finish(search)
        assert len(ended) == len(set(ended)) == search.counted() == TRIALS
        assert finish(started(declared(sampler, PRUNING[pruner]), storage)) == []

    @pytest.mark.slow
    def test_adopts_a_running_trial_after_a_restart(
        self, sampler: str, pruner: str, storage: optuna.storages.BaseStorage
    ) -> None:
        dead = started(declared(sampler, PRUNING[pruner]), storage)
        left = dead.next()
        assert left is not None
        dead.report(left, 1, 0.5)
        alive = started(declared(sampler, PRUNING[pruner]), storage)
        [adopted] = alive.adopt()
        assert (adopted.trial_id, adopted.trial.number) == (left.trial_id, left.trial.number)
        train(alive, adopted, curve(0.5))
        assert alive.study.trials[0].intermediate_values[1] == 0.5, "what was reported before the restart stays"
        ended = [adopted.trial_id, *finish(alive)]
        assert len(ended) == len(set(ended)) == TRIALS

    @pytest.mark.slow
    def test_draws_the_same_with_the_same_seed(self, sampler: str, pruner: str) -> None:
        drawn = []
        for seed in (0, 0, 1):
            search = started(declared(sampler, PRUNING[pruner]), optuna.storages.InMemoryStorage(), seed)
            finish(search)
            drawn.append([trial.params for trial in search.study.trials])
        assert drawn[0] == drawn[1]
        assert (drawn[0] == drawn[2]) == (sampler == "grid"), "a grid has one order; other draws depend on the seed"


@pytest.mark.parametrize("pruner", PRUNING)
@pytest.mark.parametrize("sampler", [name for name, known in SAMPLERS.items() if known.several])
class TestSeveralObjectives:
    @pytest.mark.slow
    def test_reaches_its_total_after_a_restart_and_never_repeats(
        self, sampler: str, pruner: str, storage: optuna.storages.BaseStorage
    ) -> None:
        search = started(declared(sampler, PRUNING[pruner], objective=SEVERAL), storage)
        first = search.next()
        assert first is not None
        train(search, first, curve(0.9))
        dead = search.next()
        assert dead is not None
        search.report(dead, 1, 0.5)
        alive = started(declared(sampler, PRUNING[pruner], objective=SEVERAL), storage)
        [adopted] = alive.adopt()
        train(alive, adopted, curve(0.5))
        ended = [first.trial_id, adopted.trial_id, *finish(alive)]
        assert len(ended) == len(set(ended)) == alive.counted() == TRIALS
        complete = [values for _, state, values in alive.configurations() if state == TrialState.COMPLETE]
        assert all(values is not None and len(values) == 2 for values in complete)


def test_a_sampler_that_starts_from_stopped_trials_of_several_objectives(storage: optuna.storages.BaseStorage) -> None:
    """Optuna has no values of a stopped trial: it must draw on all the same."""
    search = started(declared("tpe", trials=30, objective=SEVERAL), storage)
    for number in range(14):
        draw = search.next()
        assert draw is not None
        search.tell(
            draw, TrialState.PRUNED if number != 3 else TrialState.COMPLETE, [0.5, 1.0] if number == 3 else None
        )
    assert len(finish(search)) == 16


@pytest.mark.parametrize("objective", [{"val/accuracy": "max"}, SEVERAL])
@pytest.mark.parametrize("pruner", sorted(PRUNERS.keys() - {"none", "patient", "hyperband"}))
def test_a_bad_trial_is_stopped_and_a_good_one_is_not(
    pruner: str, objective: dict[str, str], storage: optuna.storages.BaseStorage
) -> None:
    search = started(declared(pruner=PRUNING[pruner], objective=objective), storage)
    epochs = []
    for one in (0.5, 0.6, 0.9, 0.1):
        draw = search.next()
        assert draw is not None
        epochs.append(train(search, draw, curve(one)))
    assert epochs == [EPOCHS, EPOCHS, EPOCHS, 1]


def test_hyperband_stops_a_bad_trial_of_each_bracket_at_its_first_rung(storage: optuna.storages.BaseStorage) -> None:
    """9 epochs of which 3 are grace: two brackets, with decisions at epochs 3 and 9, and at epoch 9."""
    search = started(declared(pruner=PRUNING["hyperband"], trials=30), storage)
    for _ in range(8):
        draw = search.next()
        assert draw is not None
        assert train(search, draw, curve(0.9)) == EPOCHS
    ended = set()
    for _ in range(12):
        draw = search.next()
        assert draw is not None
        ended.add(train(search, draw, curve(0.1)))
    assert ended == {3, EPOCHS}


def test_patience_stops_a_trial_that_no_longer_improves(storage: optuna.storages.BaseStorage) -> None:
    """The best is epoch 2; the last 3 + 1 epochs are worse than it after epoch 6."""
    search = started(declared(pruner="patient"), storage)
    falling, rising = search.next(), search.next()
    assert falling is not None
    assert rising is not None
    assert train(search, falling, [0.3, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]) == 6
    assert train(search, rising, curve(0.2)) == EPOCHS


def test_patience_around_a_pruner_spares_bad_trials_that_improve(storage: optuna.storages.BaseStorage) -> None:
    search = started(declared(pruner=PRUNING["patient"]), storage)
    epochs = []
    for values in (curve(0.9), curve(0.1), [0.2, 0.1, *[0.05] * 7]):
        draw = search.next()
        assert draw is not None
        epochs.append(train(search, draw, values))
    assert epochs == [EPOCHS, EPOCHS, 3], "the second is bad but improves; the third is bad and does not"


@pytest.mark.parametrize("pruner", sorted(PRUNERS.keys() - {"none", "patient"}))
def test_no_trial_is_stopped_before_its_grace_epochs(pruner: str, storage: optuna.storages.BaseStorage) -> None:
    search = started(declared(pruner={"name": pruner, "grace_epochs": 4}, trials=20), storage)
    for number in range(16):
        draw = search.next()
        assert draw is not None
        assert train(search, draw, curve(0.9 if number < 8 else 0.1)) >= 4


@pytest.mark.parametrize("pruner", PRUNING)
def test_the_space_hash_and_so_optunas_study_do_not_depend_on_the_pruner(pruner: str) -> None:
    assert declared(pruner=PRUNING[pruner]).space_hash == declared().space_hash


def test_a_grace_as_long_as_a_trial_stops_none() -> None:
    assert isinstance(Hyperband(grace_epochs=EPOCHS).build(EPOCHS), optuna.pruners.NopPruner)
    assert isinstance(Hyperband(grace_epochs=EPOCHS - 1).build(EPOCHS), optuna.pruners.HyperbandPruner)


def test_the_epochs_of_a_search_are_the_most_that_a_trial_can_have() -> None:
    assert declared().epochs == EPOCHS
    assert declared(space={"training.lr": {"uniform": [0.1, 0.2]}}, base={"training": {"epochs": 30}}).epochs == 30
    assert declared(space={"training.epochs": {"int": [4, 11], "step": 3}}).epochs == 10
    assert declared(space={"training.epochs": {"choice": [12, 5]}}).epochs == 12


def test_parse_pruner() -> None:
    assert parse_pruner(None) == parse_pruner("none") == NoPruner()
    assert parse_pruner("median") == Median(grace_epochs=1, startup_trials=5)
    assert parse_pruner({"name": "successive_halving", "grace_epochs": 3}) == SuccessiveHalving(grace_epochs=3)
    nested = parse_pruner({"name": "patient", "wraps": {"name": "patient", "patience": 7, "wraps": "hyperband"}})
    assert nested == Patient(wraps=Patient(patience=7, wraps=Hyperband()))
    assert parse_pruner({"name": "patient", "wraps": None}) == Patient()


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        ("medain", "name: there is no pruner 'medain'; did you mean 'median'?"),
        (7, "name: there is no pruner 7; valid: "),
        ([1], r"name: there is no pruner \[1\]"),
        ({"grace_epochs": 2}, "the pruner has no name; write e.g. {name: median}"),
        ({"name": "none", "grace_epochs": 2}, "grace_epochs: there is no option 'grace_epochs'; valid: name"),
        ({"name": "median", "grace_epochs": 0}, "grace_epochs: input should be greater than or equal to 1, not 0"),
        ({"name": "patient", "wraps": "medain"}, "wraps.name: there is no pruner 'medain'"),
        ({"name": "patient", "wraps": {"name": "median", "grace": 1}}, "wraps.grace: there is no option 'grace'"),
    ],
)
def test_faults_of_a_pruner(raw: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=f"^{fault}"):
        parse_pruner(raw)


def test_all_faults_of_a_nested_pruner_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pruner({"name": "patient", "patience": -1, "wraps": {"name": "median", "startup_trials": 0}})
    assert [fault.path for fault in caught.value.faults] == [("patience",), ("wraps", "startup_trials")]


def test_a_nested_fault_has_its_place_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nsearch:\n  trials: 2\n  space: {training.lr: {uniform: [0.1, 0.2]}}\n"
        "  pruner:\n    name: patient\n    wraps: {name: median, startup_trials: 0}\n"
    )
    with pytest.raises(StudyError, match=r":7:43: search\.pruner\.wraps\.startup_trials: input should be greater"):
        load_study(path)


@pytest.fixture
def threshold() -> Iterator[type[Pruner]]:
    @register_pruner
    class Threshold(Pruner):
        """Stops a trial whose objective is below a limit."""

        name: Literal["threshold"] = "threshold"
        lower: Annotated[float, Field(ge=0, le=1)] = 0.2
        """Smallest value of the objective that a trial may have."""

        def build(self, epochs: int) -> BasePruner:
            return optuna.pruners.ThresholdPruner(lower=self.lower)

    yield Threshold
    del PRUNERS["threshold"]


def test_a_registered_pruner_runs_from_a_study_file(
    tmp_path: Path, threshold: type[Pruner], storage: optuna.storages.BaseStorage
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nsearch:\n  trials: 2\n  base: {training.epochs: 9}\n  space: {training.lr: {uniform: [0.1, 0.2]}}\n"
        "  pruner: {name: threshold, lower: 0.4}\n"
    )
    declared_search = load_study(path).search
    assert declared_search is not None
    search = started(declared_search, storage)
    bad, good = search.next(), search.next()
    assert bad is not None
    assert good is not None
    assert train(search, bad, [0.9, 0.3, 0.9]) == 2
    assert train(search, good, [0.5, 0.6]) == 2

    definition = study_schema()["$defs"]["pruner.threshold"]
    assert definition["properties"]["lower"]["description"] == "Smallest value of the objective that a trial may have."
    path.write_text(path.read_text().replace("lower: 0.4", "lower: 4"))
    with pytest.raises(
        StudyError, match=r":6:36: search\.pruner\.lower: input should be less than or equal to 1, not 4"
    ):
        load_study(path)


def test_a_name_is_registered_once(threshold: type[Pruner]) -> None:
    assert register_pruner(threshold) is threshold
    with pytest.raises(SearchError, match="pruner 'median' is registered already"):

        @register_pruner
        class Other(Pruner):
            name: Literal["median"] = "median"

    with pytest.raises(SearchError, match="the pruner Nameless has no name"):

        @register_pruner
        class Nameless(Pruner):
            pass
