"""The Pareto front, by hand."""

from __future__ import annotations

from hmtl_ablate.study.pareto import front


def test_by_hand() -> None:
    """1 is the most accurate, 2 the cheapest; 3 is as accurate as 2 and costs more; 4 and 5 are equal, between both."""
    values = {1: (0.9, 100.0), 2: (0.5, 10.0), 3: (0.5, 20.0), 4: (0.7, 50.0), 5: (0.7, 50.0), 6: (0.6, 60.0)}
    assert front(values, ["max", "min"]) == {1, 2, 4, 5}


def test_one_objective_keeps_the_best() -> None:
    assert front({1: (0.3,), 2: (0.1,), 3: (0.1,)}, ["min"]) == {2, 3}
    assert front({}, ["max"]) == set()
