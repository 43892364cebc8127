"""The replay of searches on a table: what it spends, picks and drops. `python -m benchmarks tuning`."""

import pytest

from benchmarks.tuning import STRATEGIES, TABLE, Draws, Entry, Table, raced, read_table, single_seed
from benchmarks.tuning_table import EPOCHS, drawn, table_search

COUNT = 12


@pytest.fixture(scope="module")
def table() -> Table:
    """Configuration n has n · 5 % on val with every seed, from the first epoch, and a truth of n."""
    values = drawn(table_search(), COUNT)
    curve = {n: dict.fromkeys(range(5), (5.0 * n,) * EPOCHS) for n in range(COUNT)}
    return [Entry(values[n], 100, curve[n], float(n)) for n in range(COUNT)]


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_every_configuration_is_drawn_once(table: Table, sampler: str) -> None:
    draws = Draws(table, sampler, "none", 3)
    found = []
    for _ in range(COUNT):
        number, trial = draws.next()
        assert trial.params == table[number].values
        draws.study.tell(trial, float(number))
        found.append(number)
    assert sorted(found) == list(range(COUNT))


def test_one_seed_spends_whole_runs_and_picks_the_best_score(table: Table) -> None:
    found = single_seed(table, [2, 0, 1, 3, 4], "random", "none", 0, 600.0)
    assert [spent for spent, _ in found.trace] == pytest.approx([100, 200, 300, 400, 500, 600])
    assert (found.pick, found.promised, found.seen) == (max(found.drawn), 5.0 * max(found.drawn), (2,))
    assert (len(found.drawn), found.dropped) == (6, set())


def test_a_pruner_spends_less_on_what_it_stops(table: Table) -> None:
    found = single_seed(table, [0, 1, 2, 3, 4], "random", "successive_halving", 0, 1e9)
    assert len(found.drawn) == COUNT
    assert found.dropped
    assert found.pick == COUNT - 1
    assert found.trace[-1][0] < 100 * COUNT


def test_a_race_spends_a_run_for_each_seed_and_tells_the_sampler_the_mean_of_two(table: Table) -> None:
    found = raced(table, [4, 3, 2, 1, 0], "random", "none", 0, 2000.0)
    assert [spent for spent, _ in found.trace] == pytest.approx([100.0 * n for n in range(1, 21)])
    assert found.pick == max(found.drawn)
    assert found.promised == 5.0 * found.pick
    assert set(found.seen) <= set(range(5))


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_repeats_itself(table: Table, name: str) -> None:
    how, sampler, pruner = STRATEGIES[name]
    one, again = (how(table, [0, 1, 2, 3, 4], sampler, pruner, 7, 500.0) for _ in range(2))
    assert one == again


def test_the_committed_table_is_whole() -> None:
    table, values = read_table(TABLE), drawn(table_search(), 150)
    assert [dict(entry.values) for entry in table] == values
    assert all(sorted(entry.curves) == [0, 1, 2, 3, 4] for entry in table)
    assert {entry.passes for entry in table} == {9600}
    assert all(0 <= value <= 100 for entry in table for curve in entry.curves.values() for value in curve)
