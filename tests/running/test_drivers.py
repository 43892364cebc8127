"""Several drivers of one study: who lives, what each has in hand, and two conductors that share a search."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import StoreError
from hmtl_ablate.running import conductor as conductor_module
from hmtl_ablate.running.conductor import Conductor
from hmtl_ablate.running.drivers import Drivers, taking_part
from hmtl_ablate.running.job import Job
from hmtl_ablate.running.options import RunOptions
from hmtl_ablate.running.run import run_study
from hmtl_ablate.study import Study
from hmtl_ablate.tracking import open_tracking
from tests.running.conftest import (  # type: ignore[import-not-found]
    StubTrainer,
    packs_of,
    read_study,
    trial_runs,
)
from tests.running.test_conductor import (  # type: ignore[import-not-found]
    CODE,
    PLAIN,
    Bench,
    bench,
    searched,
    shared,
    take,
    train,
)
from tests.running.test_racing import RACE, noisy  # type: ignore[import-not-found]

__all__ = ["bench", "shared"]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(tmp_path, PLAIN)


@contextmanager
def two(made: Bench) -> Iterator[tuple[Drivers, Drivers]]:
    """Two drivers of a bench's study."""
    with (
        taking_part(made.study, made.store, join=False) as first,
        taking_part(made.study, made.store, join=True) as second,
    ):
        yield first, second


def files(folder: Path) -> list[str]:
    """Files of drivers, without the locks that all of them share."""
    return sorted(path.name for path in folder.glob("*@*.drivers/*") if path.suffix != ".lock")


def test_where_there_is_no_flock_nothing_is_shared(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmtl_ablate.running.drivers.has_flock", lambda folder: False)
    with taking_part(study, tmp_path, join=False) as alone:
        assert not alone.met
    assert list(tmp_path.glob(".*.drivers")) == []  # `clean` would lock the files of a folder of drivers
    with pytest.raises(StoreError, match="has no file locks"), taking_part(study, tmp_path, join=True):
        pass


def test_a_second_driver_is_refused_unless_it_joins(study: Study, tmp_path: Path) -> None:
    with taking_part(study, tmp_path, join=False) as first:
        assert (first.met, first.offset) == (False, 0)
        with pytest.raises(StoreError, match=r"plain .quick. is already running in .*--join"):  # noqa: SIM117
            with taking_part(study, tmp_path, join=False):
                pass
        with taking_part(study, tmp_path, join=True) as second:
            assert second.met
            assert second.offset > 0
            assert second.others() == [first.id]
            with first.turn():
                assert first.met
            assert not second.leave()
            assert first.leave()
        assert first.others() == []
    assert files(tmp_path) == []


def test_one_that_joins_nobody_draws_as_one_alone(study: Study, tmp_path: Path) -> None:
    with taking_part(study, tmp_path, join=True) as alone:
        assert (alone.met, alone.offset) == (False, 0)
        with pytest.raises(StoreError, match="already running"), taking_part(study, tmp_path, join=False):
            pass


def test_what_a_dead_driver_had_in_hand_is_free_and_its_files_are_removed(study: Study, tmp_path: Path) -> None:
    with taking_part(study, tmp_path, join=False) as driver:
        driver.hold("search/0/0")
        folder = next(tmp_path.glob(".*.drivers"))
        content = json.loads((folder / f"{driver.id}.json").read_text())
        assert content["runs"] == ["search/0/0"]
        with taking_part(study, tmp_path, join=True) as other:
            assert other.elsewhere() == {"search/0/0"}
            driver.drop("search/0/0")
            assert other.elsewhere() == set()
    for name in ("dead.alive", "dead.json", "dead.stop"):  # killed: nobody holds its lock
        (folder / name).write_text(json.dumps(content))
    with taking_part(study, tmp_path, join=False) as driver:
        assert not driver.met
        assert driver.elsewhere() == set()
        assert not list(folder.glob("dead.*"))


def test_drivers_on_two_machines_share_no_sqlite(
    study: Study, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = open_tracking(None, tmp_path)
    with taking_part(study, tmp_path, join=False) as driver:
        monkeypatch.setattr(socket, "gethostname", lambda: "node-7")
        driver.hold("search/0/0")
        monkeypatch.undo()
        options = RunOptions("local", join=True)
        with pytest.raises(StoreError, match=r"node-7 trains the same study.*PostgreSQL for --storage and --tracking"):
            run_study(study, packs=packs_of(study, pack), store=tmp_path, tracking=tracking, options=options)


def test_drivers_of_one_search_draw_different_configurations(bench) -> None:
    """Random draws of two drivers that begin with an empty search each, in the same moment."""
    space = "{pretext.puzzling.weight: {loguniform: [0.1, 10.0]}}"
    text = (
        searched().replace("{pretext.puzzling.weight: {choice: [2.0, 3.0, 4.0]}}", space).replace("grid\n", "random\n")
    )
    made = bench(text.replace("trials: 3", "trials: 6"))
    with two(made) as drivers:
        conductors = [made.conductor(drivers=one) for one in drivers]
        jobs = [take(conductor) for _ in range(3) for conductor in conductors]
        assert [conductor.next() for conductor in conductors] == [None, None]
    assert len({job.trial_id for job in jobs}) == 6
    by = [trial.user_attrs["driver"] for trial in made.optuna_trials()]
    assert Counter(by) == {drivers[0].id: 3, drivers[1].id: 3}


def test_two_drivers_end_a_search_at_its_total(bench) -> None:
    """Each takes what the other has ended from the store, and the last one alone ends the study's run."""
    made = bench(searched())
    with two(made) as drivers:
        first, second = (made.conductor(drivers=one) for one in drivers)
        one, two_, three = take(first), take(second), take(first)
        assert len({one.trial_id, two_.trial_id, three.trial_id}) == 3
        assert (first.next(), second.next()) == (None, None)
        for conductor, job in ((first, one), (first, three), (second, two_)):
            train(conductor, job)
        assert not second.await_others(lambda: False)
        assert not first.await_others(lambda: False)
        assert (second.summary.done, second.summary.skipped) == (1, 2)
        assert (first.summary.done, first.summary.skipped) == (2, 1)
        rankings = [list(c.searches[""].ranking()) for c in (first, second)]
        assert rankings[0] == rankings[1]
        assert len(rankings[0]) == 3
        first.finish_study()
        second.finish_study()
    assert [trial.state for trial in made.optuna_trials()] == [TrialState.COMPLETE] * 3
    logged = [run.data.tags["hmtl.trial_id"] for run in trial_runs(made.store, made.study.name)]
    assert len(logged) == len(set(logged)) == 3


def test_a_dead_driver_s_trial_is_adopted_by_the_other_in_the_same_run(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(searched())
    with ExitStack() as death, taking_part(made.study, made.store, join=True) as alive:
        dead = death.enter_context(taking_part(made.study, made.store, join=True))
        doomed, conductor = made.conductor(drivers=dead), made.conductor(drivers=alive)
        lost = take(doomed)
        for _ in range(2):
            train(conductor, take(conductor))
        assert conductor.next() is None

        def die(_: float) -> None:
            death.close()

        monkeypatch.setattr(conductor_module, "sleep", die)
        assert conductor.await_others(lambda: False)
        assert [line for line in conductor.progress.said if "nothing left to draw: waiting for 1 trial of the" in line]
        adopted = take(conductor)
        assert adopted.trial_id == lost.trial_id
        train(conductor, adopted)
        assert not conductor.await_others(lambda: False)
    assert [trial.state for trial in made.optuna_trials()] == [TrialState.COMPLETE] * 3


def test_a_driver_that_waits_can_be_stopped(bench) -> None:
    made = bench(searched().replace("trials: 3", "trials: 1"))
    with two(made) as drivers:
        first, second = (made.conductor(drivers=one) for one in drivers)
        take(first)
        assert second.next() is None
        assert not second.await_others(lambda: True)


def test_what_one_driver_could_not_train_the_other_tries_once(bench) -> None:
    made = bench(searched().replace("trials: 3", "trials: 1"))
    with two(made) as drivers:
        first, second = (made.conductor(drivers=one) for one in drivers)
        failed = take(first)
        assert (first.next(), second.next()) == (None, None)
        first.end(failed, CODE)
        assert second.await_others(lambda: False)
        again = take(second)
        assert again.trial_id == failed.trial_id
        second.end(again, CODE)
        assert not second.await_others(lambda: False)
        assert not first.await_others(lambda: False)
    assert [trial.state for trial in made.optuna_trials()] == [TrialState.RUNNING]


def test_a_driver_trains_a_variant_that_no_other_trains(bench) -> None:
    made = bench(PLAIN)
    with two(made) as drivers:
        first, second = (made.conductor(drivers=one) for one in drivers)
        job = take(first)
        with job.folder.lock():
            assert take(second).trial_id != job.trial_id
            others = [take(second) for _ in range(2)]
            waited = take(second)  # nothing else is left
        assert waited.trial_id == job.trial_id
        assert job.trial_id not in {other.trial_id for other in others}
    assert f"{job.name}: another run trains the same trial; its result is waited for" in second.progress.said


def _turns(conductors: list[Conductor], trainer: StubTrainer) -> list[tuple[str, int]]:
    """Two jobs under way at any time, one of each driver; what was trained, as trial id and seed."""
    trained: list[tuple[str, int]] = []
    running: list[Job | None] = [None for _ in conductors]
    idle = 0
    while idle < 2 * len(conductors):
        for place, conductor in enumerate(conductors):
            job, running[place] = running[place], None
            if job is not None:
                train(conductor, job, trainer)
                trained.append((job.trial_id, job.config.seed))
            for search in conductor.searches.values():
                search.ready()
            running[place] = conductor.next()
            idle = 0 if running[place] is not None or job is not None else idle + 1
    return trained


@pytest.mark.slow
def test_a_race_of_two_drivers_trains_each_run_once_and_both_rank_alike(bench) -> None:
    made = bench(RACE)
    with two(made) as drivers:
        conductors = [made.conductor(drivers=one) for one in drivers]
        trained = _turns(conductors, StubTrainer(noisy))
        rankings = [list(one.searches[""].ranking()) for one in conductors]
    assert len(trained) == len(set(trained))
    assert rankings[0] == rankings[1]
    assert len(rankings[0]) == 6
    assert {one.summary.done > 3 for one in conductors} == {True}
    assert [trial.state for trial in made.optuna_trials()] == [TrialState.COMPLETE] * 6
    last = made.conductor()
    assert (last.next(), last.more()) == (None, False)
    assert list(last.searches[""].ranking()) == rankings[0]
    logged = [run.data.tags["hmtl.trial_id"] for run in trial_runs(made.store, made.study.name)]
    assert Counter(logged) == Counter(trial for trial, _ in trained)


def test_a_budget_of_image_passes_is_shared(bench) -> None:
    made = bench(RACE.replace("trials: 6", "trials: 6\n  budget: 2000"))
    with two(made) as drivers:
        trained = _turns([made.conductor(drivers=one) for one in drivers], StubTrainer(noisy))
    assert len(trained) in (4, 5)  # 500 passes each; the last one may start before the cost of one is known
