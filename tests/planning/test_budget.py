"""Which trial is started in what is left of a budget, case by case."""

import pytest

from hmtl_ablate.errors import HmtlError
from hmtl_ablate.planning.budget import Waiting, choose, parse_budget


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("8h", 28800), ("1.5h", 5400), ("2d", 172800), (" 90 m ", 5400)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "8", "8 hours", "h", "-1h", "0m", "1h30m", "8H", "nan h", "1e3h", "9" * 400 + "d"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(HmtlError, match="is no time: write a number above 0 and m"):
        parse_budget(text)


def trial(arm: str, seed: int, seconds: float | None = 10.0, **more: object) -> Waiting:
    return Waiting((arm,), seed, seconds, **more)  # type: ignore[arg-type]


def started(waiting: list[Waiting], left: float, **options: object) -> list[str]:
    """Names in the order in which trials start, one after the other, until none fits."""
    found = []
    while (number := choose(waiting, left, baseline="SL", **options)) is not None:  # type: ignore[arg-type]
        one = waiting.pop(number)
        waiting[:] = [
            Waiting(o.arms, o.seed, o.seconds, True, tuple(s - (s > number) for s in o.sources if s != number))
            for o in waiting
        ]
        left -= one.seconds or 0.0
        found.append(f"{one.arms[0]} {one.seed}")
    return found


def study(seeds: int = 2) -> list[Waiting]:
    return [trial(arm, seed) for seed in range(seeds) for arm in ("SL", "a", "b", "c")]


def test_seed_by_seed_while_all_of_a_seed_fits() -> None:
    assert started(study(), 80) == ["SL 0", "a 0", "b 0", "c 0", "SL 1", "a 1", "b 1", "c 1"]


def test_a_stop_leaves_whole_pairs() -> None:
    """After the first seed 15 s are left: a baseline would fit, but not with an arm to compare it with."""
    assert started(study(), 55) == ["SL 0", "a 0", "b 0", "c 0"]
    assert started(study(), 60) == ["SL 0", "a 0", "b 0", "c 0", "SL 1", "a 1"]


def test_the_widest_interval_first_where_only_some_arms_fit() -> None:
    """Relative widths: c is the least certain. An arm of which nothing is known yet comes before all."""
    assert started(study(), 70, widths={"a": 1.0, "b": 2.0, "c": 3.0})[4:] == ["SL 1", "c 1", "b 1"]
    assert started(study(), 70, widths={"a": 1.0, "c": 3.0})[4:] == ["SL 1", "b 1", "c 1"]


def test_an_arm_that_is_too_long_leaves_room_for_a_shorter_one() -> None:
    waiting = [trial("SL", 0), trial("a", 0, 100), trial("b", 0, 20)]
    assert started(waiting, 40, widths={"a": 9.0, "b": 1.0}) == ["SL 0", "b 0"]


def test_a_later_seed_is_looked_at_where_nothing_of_this_one_fits() -> None:
    waiting = [trial("a", 0, 100), trial("SL", 1), trial("b", 1)]
    assert started(waiting, 30) == ["SL 1", "b 1"]


def test_an_arm_needs_the_stage_that_it_starts_from() -> None:
    """The stage alone would fit, and is no use without its arm."""
    waiting = [
        trial("SL", 0),
        trial("stage", 0, 30),
        trial("tuned", 0, 30, ready=False, sources=(1,)),
        trial("b", 0, 30),
    ]
    assert started(list(waiting), 69) == ["SL 0", "b 0"]
    assert started(list(waiting), 100) == ["SL 0", "stage 0", "tuned 0", "b 0"]
    assert started(list(waiting), 75) == ["stage 0", "SL 0", "tuned 0"]


def test_a_trial_of_unknown_length_starts_while_time_is_left() -> None:
    waiting = [trial("SL", 0, None), trial("a", 0, None)]
    assert choose(waiting, 0.5, baseline="SL") == 0
    assert choose(waiting, 0.0, baseline="SL") is None


def test_two_places_take_a_pair_at_once() -> None:
    """20 s of work fit into 10 s on two places, and not on one."""
    assert choose([trial("SL", 0), trial("a", 0)], 10, baseline="SL", free=2) == 0
    assert choose([trial("SL", 0), trial("a", 0)], 10, baseline="SL", free=1) is None


def test_nothing_is_started_that_waits_for_another_trial() -> None:
    assert choose([trial("tuned", 0, ready=False)], 100, baseline="SL") is None
