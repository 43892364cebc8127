"""The policy of racing, on scores written by hand."""

from __future__ import annotations

import random

import optuna
import pytest

from hmtl_ablate.study.racing import (
    Race,
    eliminated,
    p_worse,
    promoted,
    ranking,
    search_seeds,
    told,
    wanted,
)

SEEDS = (0, 10, 11, 12, 13, 14)
RACE = Race(SEEDS)


def row(*values: float) -> dict[int, float]:
    return dict(zip(SEEDS, values, strict=False))


def test_a_search_has_the_first_seed_of_the_study_and_no_other_of_them() -> None:
    assert search_seeds((3, 7, 1), 4) == (3, 8, 9, 10)
    assert search_seeds((0,), 1) == (0,)


def test_the_sampler_learns_the_mean_over_two_seeds() -> None:
    assert told(row(0.5), RACE) is None
    assert told({10: 0.5, 11: 0.9}, RACE) is None
    assert told(row(0.5, 0.7, 0.0), RACE) == pytest.approx(0.6)
    assert told({4: 0.5}, Race((4,))) == 0.5


def test_the_second_seed_waits_for_the_first() -> None:
    assert wanted({0: {}, 1: row(0.5)}, RACE) == [(1, 10), (0, 0)]


def test_the_best_third_gets_four_seeds_as_soon_as_it_is_one() -> None:
    two = {0: row(0.5, 0.5), 1: row(0.6, 0.8)}
    assert promoted(two, RACE) == set()
    assert wanted(two, RACE) == []
    three = two | {2: row(0.6, 0.6)}
    assert promoted(three, RACE) == {1}
    assert wanted(three, RACE) == [(1, 11), (1, 12)]
    assert promoted(three, Race(SEEDS, "min")) == {0}


def test_one_that_diverged_counts_as_ended_and_is_never_promoted() -> None:
    scores = {0: row(0.5, 0.5), 1: row(0.9), 2: row(0.6, 0.6)}
    assert promoted(scores, RACE, out={1}) == {2}
    assert wanted(scores, RACE, out={1}) == [(2, 11), (2, 12)]
    assert promoted(scores, RACE, out={1}, earlier={0, 1}) == {0, 2}


def test_two_are_promoted_when_no_more_come() -> None:
    scores = {0: row(0.5, 0.5), 1: row(0.6, 0.8), 2: row(0.2, 0.2), 3: row(0.3)}
    assert promoted(scores, RACE, closed=True) == {1}  # 3 may be better yet
    scores[3] = row(0.3, 0.3)
    assert promoted(scores, RACE) == {1}
    assert promoted(scores, RACE, closed=True) == {0, 1}
    assert promoted({0: row(0.5, 0.5)}, RACE, closed=True) == set()
    assert promoted({0: row(0.5, 0.5), 1: {}}, RACE, out={1}, closed=True) == set()


def test_one_without_a_rival_gets_no_more_than_four_seeds() -> None:
    scores = {0: row(0.5, 0.5), 1: row(0.6, 0.8, 0.7, 0.7), 2: row(0.2, 0.2)}
    assert wanted(scores, RACE) == []


def test_who_was_promoted_gets_its_four_seeds_also_when_others_pass_it() -> None:
    scores = {0: row(0.5, 0.5, 0.5), 1: row(0.6, 0.6), 2: row(0.7, 0.7)}
    assert wanted(scores, RACE) == [(0, 12), (2, 11), (2, 12)]


def test_no_more_seeds_than_there_are() -> None:
    three = {0: row(0.5, 0.5), 1: row(0.6, 0.8), 2: row(0.6, 0.6)}
    assert wanted(three, Race(SEEDS[:2])) == []
    assert wanted(three, Race(SEEDS[:3])) == [(1, 11)]


def test_from_five_seeds_the_worse_one_is_out() -> None:
    scores = {0: row(0.5, 0.6, 0.7, 0.5, 0.6), 1: row(0.51, 0.62, 0.73, 0.54, 0.65)}
    assert wanted({n: dict(list(own.items())[:4]) for n, own in scores.items()}, RACE) == [(0, 13), (1, 13)]
    assert p_worse((-0.01, -0.02, -0.03, -0.04, -0.05)) == pytest.approx(1 / 32)
    assert eliminated(scores, RACE) == {0: 1}
    assert eliminated(scores, Race(SEEDS, "min")) == {1: 0}
    assert wanted(scores, RACE) == []  # the other one is alone
    scores[0][13] = 0.66  # the smallest difference is for it: p = 2/32
    assert eliminated(scores, RACE) == {0: 1}
    scores[0][13] = 0.70  # the largest one is: (1 + 2 + 3 + 4 - 5) is no sign of anything
    assert eliminated(scores, RACE) == {}
    assert wanted(scores, RACE) == [(0, 14), (1, 14)]


def test_the_statistic_is_that_of_optunas_pruner() -> None:
    draw = random.Random(3)
    for _ in range(30):
        rows = [[draw.gauss(0.1 * n, 0.1) for _ in range(6)] for n in range(2)]
        study = optuna.create_study(
            direction="maximize", pruner=optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=5)
        )
        space = optuna.distributions.FloatDistribution(0, 1)
        leader = optuna.trial.create_trial(
            value=sum(rows[1]) / 6,
            params={"x": 0.5},
            distributions={"x": space},
            intermediate_values=dict(enumerate(rows[1])),
        )
        study.add_trial(leader)
        trial = study.ask()
        for step, value in enumerate(rows[0]):
            trial.report(value, step)
        expected = trial.should_prune()
        assert (eliminated({0: row(*rows[0]), 1: row(*rows[1])}, RACE).get(0) == 1) == expected


def test_the_ranking_puts_who_raced_before_who_was_lucky_twice() -> None:
    scores = {
        0: row(0.9, 0.1),  # 0.5 over two seeds
        1: row(0.7, 0.7, 0.5, 0.5),  # in the race
        2: row(0.6, 0.6, 0.6, 0.6, 0.9),  # in the race; 0.6 over the seeds that both have
        3: row(1.0),
        4: row(0.8, 0.9),
        5: {},
        6: row(0.9, 0.9),
    }
    places = ranking(scores, RACE, out={6})
    assert [place.configuration for place in places] == [1, 2, 4, 0, 3]
    assert [place.seeds for place in places] == [4, 5, 2, 2, 1]
    assert places[1].score == pytest.approx(0.66)


def test_an_eliminated_configuration_is_behind_those_that_race() -> None:
    scores = {0: row(0.5, 0.6, 0.7, 0.5, 0.6), 1: row(0.51, 0.62, 0.73, 0.54, 0.65), 2: row(0.1, 0.1, 0.1, 0.1)}
    assert eliminated(scores, RACE) == {0: 1}
    assert [place.configuration for place in ranking(scores, RACE)] == [1, 2, 0]


def test_the_order_of_the_scores_is_of_no_consequence() -> None:
    draw = random.Random(7)
    for _ in range(20):
        scores = {n: row(*(draw.random() for _ in range(draw.choice([0, 1, 2, 4, 5, 6])))) for n in range(12)}
        keys = list(scores)
        draw.shuffle(keys)
        mixed = {n: dict(sorted(scores[n].items(), reverse=True)) for n in keys}
        assert wanted(mixed, RACE) == wanted(scores, RACE)
        assert ranking(mixed, RACE) == ranking(scores, RACE)
