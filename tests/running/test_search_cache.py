"""Optuna's cache for one driver: it says what the database has, and reads no more of it than it must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from hmtl_ablate.running.search_cache import DriverCache


@pytest.fixture
def cache(tmp_path: Path) -> DriverCache:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return DriverCache(RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}"))


@pytest.fixture
def study(cache: DriverCache) -> optuna.Study:
    return optuna.create_study(storage=cache, study_name="s", sampler=optuna.samplers.RandomSampler(0))


def in_the_database(cache: DriverCache, study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return cache._backend.get_all_trials(study._study_id)


def read_by(cache: DriverCache, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Numbers of the trials that each read has taken from the database."""
    found: list[list[int]] = []
    read = cache._backend._get_trials

    def noted(*arguments: Any, **options: Any) -> list[optuna.trial.FrozenTrial]:
        trials = read(*arguments, **options)
        found.append([trial.number for trial in trials])
        return trials

    monkeypatch.setattr(cache._backend, "_get_trials", noted)
    return found


def test_it_has_what_the_database_has(cache: DriverCache, study: optuna.Study) -> None:
    trials = [study.ask() for _ in range(4)]
    for number, trial in enumerate(trials):
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("number", number)
        assert study.get_trials() == in_the_database(cache, study)
    trials[3].report(0.5, 1)
    trials[3].should_prune()
    assert study.get_trials() == in_the_database(cache, study)
    study.tell(trials[2], 1.0)  # not in their order
    study.tell(trials[0], state=TrialState.FAIL)
    study.enqueue_trial({"x": 0.25})
    assert study.get_trials() == in_the_database(cache, study)
    assert study.ask().suggest_float("x", 0, 1) == 0.25
    assert study.get_trials() == in_the_database(cache, study)


def test_a_running_trial_is_read_again_only_when_it_has_changed(
    cache: DriverCache, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [study.ask() for _ in range(5)]
    study.get_trials()
    found = read_by(cache, monkeypatch)
    study.get_trials()
    trials[1].set_user_attr("a", 1)
    study.get_trials()
    study.tell(trials[4], 1.0)
    study.get_trials()
    study.get_trials()
    assert found == [[], [1], [4], []]


def test_trials_of_an_earlier_driver_are_read(cache: DriverCache, study: optuna.Study) -> None:
    earlier = [study.ask() for _ in range(3)]
    study.tell(earlier[1], 1.0)
    later = DriverCache(cache._backend)
    again = optuna.load_study(study_name="s", storage=later)
    again.ask()  # before the first read
    assert [trial.number for trial in again.get_trials()] == [0, 1, 2, 3]
    assert again.get_trials() == in_the_database(cache, study)


def test_what_has_changed_while_the_database_was_away_is_read_later(
    cache: DriverCache, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = study.ask()
    study.get_trials()
    trial.set_user_attr("a", 1)
    with monkeypatch.context() as patch:

        def away(*arguments: Any, **options: Any) -> None:
            raise ConnectionError

        patch.setattr(cache._backend, "_get_trials", away)
        with pytest.raises(ConnectionError):
            study.get_trials()
    assert study.get_trials()[0].user_attrs == {"a": 1}
