"""Races and arms of a search through the conductor, with scripted scores."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.running.job import Job
from hmtl_ablate.running.optuna_search import Draw, OptunaSearch
from tests.running.conftest import StubTrainer, read_study, trial_runs, write_result  # type: ignore[import-not-found]
from tests.running.test_conductor import BASE, CODE, Bench, bench, shared, take, train  # type: ignore[import-not-found]

__all__ = ["bench", "shared"]

RACE = f"""\
name: race
{BASE.replace("epochs: 3", "epochs: 5")}seeds: [0, 4]
search:
  base: {{pretext: {{puzzling: {{feed: shared}}}}}}
  space: {{pretext.puzzling.weight: {{choice: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}}}}
  sampler: grid
  trials: 6
"""
ARMS = f"""\
name: arms
{BASE}seeds: [0, 1]
search:
  space: {{training.lr: {{choice: [0.001, 0.002, 0.003]}}}}
  arms:
    SL: {{}}
    SL + puzzling:
      base: {{pretext: {{puzzling: {{feed: siamese}}}}}}
      space: {{pretext.puzzling.weight: {{choice: [1.0, 2.0]}}}}
  sampler: grid
  trials: 3
  confirm: 2
"""


def weight(config: TrialConfig) -> float:
    return config.pretext["puzzling"].weight


def noisy(config: TrialConfig, epoch: int) -> float:
    """Better with the weight, and with the epoch; by seed up and down by more than one step of the weight."""
    return 0.1 * weight(config) + 0.01 * epoch + 0.15 * ((config.seed * 7) % 3 - 1)


def run(made: Bench, trainer: StubTrainer, *, restarts: bool = False) -> list[Job]:
    """Train until nothing is left; restarts: with a new driver for each trial, the old one killed after training."""
    jobs: list[Job] = []
    conductor = made.conductor()
    while True:
        if (job := conductor.next()) is None:
            if not conductor.more():
                return jobs
            continue
        jobs.append(job)
        if restarts:
            trainer(conductor.task(job, Path("no-stop")), lambda row: None)
            conductor = made.conductor()
        else:
            train(conductor, job, trainer)


def seeds_of(jobs: list[Job]) -> dict[float, list[int]]:
    found: dict[float, list[int]] = {}
    for job in jobs:
        found.setdefault(weight(job.config), []).append(job.config.seed)
    return found


@pytest.mark.slow
def test_the_best_third_races_on_seeds_that_the_study_does_not_use(bench) -> None:
    made = bench(RACE)
    jobs = run(made, StubTrainer(noisy))
    seeds = {w: sorted(found) for w, found in seeds_of(jobs).items()}
    assert {len(seeds[w]) for w in (1.0, 2.0)} == {2}
    assert seeds[6.0][:5] == [0, 5, 6, 7, 8]
    assert 4 not in {seed for found in seeds.values() for seed in found}
    trials = made.optuna_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6
    # the last fifth of five epochs is the last one; seed 0 is 0.15 below, seed 5 (35 % 3 = 2) is as much above
    assert [trial.value for trial in trials] == [pytest.approx(0.1 * w + 0.05) for w in range(1, 7)]
    assert trials[0].intermediate_values.keys() == {1, 2, 3, 4, 5}
    assert made.recorder.expected == made.recorder.skipped + len(jobs)
    tags = [one.data.tags for one in trial_runs(made.store, made.study.name)]
    assert Counter((tag["hmtl.variant"], tag["hmtl.draw"]) for tag in tags) == {("search", "grid"): len(jobs)}


@pytest.mark.slow
def test_a_search_that_is_killed_after_every_run_trains_the_same(bench, tmp_path: Path) -> None:
    whole = bench(RACE)
    expected = seeds_of(run(whole, StubTrainer(noisy)))
    ranking = [(place.configuration, place.score) for place in whole.conductor().searches[""].ranking()]
    again = Bench(whole.study, next(iter(whole.packs._opened.values())), tmp_path / "again", whole.tracking)
    again.store.mkdir()
    assert seeds_of(run(again, StubTrainer(noisy), restarts=True)) == expected
    last = again.conductor()
    assert (last.next(), last.more()) == (None, False)
    assert [(place.configuration, place.score) for place in last.searches[""].ranking()] == ranking
    assert last.searches[""].counted() == 6
    assert last.searches[""].ended_before == again.recorder.expected


def test_a_configuration_that_diverges_costs_one_run_and_counts(bench) -> None:
    made = bench(RACE.replace("trials: 6", "trials: 2"))
    conductor = made.conductor()
    job = take(conductor)
    write_result(conductor.task(job, Path("no-stop")), job.config, "failed", "the loss became NaN")
    conductor.end(job)
    seeds = seeds_of(run(made, StubTrainer(noisy)))
    assert seeds == {2.0: [0, 5]}
    assert [trial.state for trial in made.optuna_trials()] == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_run_that_fails_is_left_to_the_next_driver(bench) -> None:
    made = bench(RACE.replace("trials: 6", "trials: 1"))
    conductor = made.conductor()
    first = take(conductor)
    train(conductor, first)
    second = take(conductor)
    conductor.end(second, CODE)
    assert conductor.next() is None
    assert [trial.state for trial in made.optuna_trials()] == [TrialState.RUNNING]
    assert [job.trial_id for job in run(made, StubTrainer(noisy))] == [second.trial_id]
    assert [trial.state for trial in made.optuna_trials()] == [TrialState.COMPLETE]


@pytest.mark.slow
def test_what_an_older_search_has_trained_is_its_first_seed(bench) -> None:
    made = bench(RACE.replace("  trials: 6", "  trials: 6\n  racing: null").replace("grid", "random"))
    old = run(made, StubTrainer(noisy))
    assert {job.config.seed for job in old} == {0}
    made.study = read_study(
        made.store, made.study.text.replace("  racing: null\n", "").replace("trials: 6", "trials: 7")
    )
    jobs = run(made, StubTrainer(noisy))
    assert not {job.trial_id for job in old} & {job.trial_id for job in jobs}
    assert len({weight(job.config) for job in jobs}) == len(old)


def test_arms_are_tuned_in_turns_and_their_best_confirmed_against_the_first(bench) -> None:
    made = bench(ARMS)
    trainer = StubTrainer(lambda config, epoch: 100 * config.training.lr + 0.1 * bool(config.pretext))
    jobs = run(made, trainer)
    searched = [job for job in jobs if not job.arms]
    arms = ["SL + puzzling" if job.config.pretext else "SL" for job in searched]
    assert arms[:4] == ["SL", "SL + puzzling", "SL", "SL + puzzling"]
    assert all(list(job.searches) == [arm] for job, arm in zip(searched, arms, strict=True))
    confirmed = [job.name for job in jobs if job.arms]
    assert confirmed == [
        "best of search, SL · seed 1",
        "best of search, SL, rank 2 · seed 1",
        "best of search, SL + puzzling · seed 1",
        "best of search, SL + puzzling, rank 2 · seed 1",
    ]
    assert [job.config.training.lr for job in jobs if job.arms][::2] == [0.003, 0.002]
    tags = trial_runs(made.store, made.study.name)
    names = Counter((one.data.tags["hmtl.variant"], one.data.tags["hmtl.arm"]) for one in tags)
    assert names["search", "SL"] == arms.count("SL")
    [study] = [one for one in made.tracking.studies() if one.name == made.study.name]
    assert next(iter(study.variants)) == "best of search, SL"


def test_a_budget_ends_each_arm_alone(bench) -> None:
    """A run of three epochs costs 300 passes here."""
    made = bench(ARMS.replace("  trials: 3\n", "  budget: 1000\n").replace("  confirm: 2\n", ""))
    jobs = run(made, StubTrainer())
    arms = Counter("SL + puzzling" if job.config.pretext else "SL" for job in jobs)
    assert arms == {"SL": 4, "SL + puzzling": 4}  # 900 passes are below the budget, 1,200 are not
    assert run(made, StubTrainer()) == []


def test_each_epoch_is_passed_on_to_optuna_once(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[int] = []
    report = OptunaSearch.report

    def noted(search: OptunaSearch, draw: Draw, epoch: int, value: float) -> bool:
        passed.append(epoch)
        return report(search, draw, epoch, value)

    monkeypatch.setattr(OptunaSearch, "report", noted)
    conductor = bench(RACE).conductor()
    train(conductor, take(conductor), StubTrainer(noisy))
    assert passed == [1, 2, 3, 4, 5]
