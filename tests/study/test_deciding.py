"""`decide:` of a study file: which seeds, which comparisons, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmtl_ablate.errors import StudyError
from hmtl_ablate.study import Decide, Study, load_study, planned
from hmtl_ablate.study.deciding import all_seeds

FILE: dict[str, Any] = {
    "name": "a",
    "decide": {"seeds": 6},
    "variants": {"SL": {}, "SL, 2 views": {"data.views": 2}, "HMTL": {"pretext": {"puzzling": {}}}},
    "seeds": [7, 3],
}


def read(**changes: Any) -> Study:
    return load_study({**FILE, **changes})


def refused(**changes: Any) -> str:
    with pytest.raises(StudyError) as error:
        read(**changes)
    return str(error.value)


def test_without_decide_nothing_changes() -> None:
    study = load_study({key: value for key, value in FILE.items() if key != "decide"})
    assert (study.decide, study.comparisons, study.seeds, study.first_seeds) == (None, (), (7, 3), (7, 3))
    assert read(decide=None).decide is None


def test_the_seeds_listed_come_first_and_the_smallest_above_them_follow() -> None:
    study = read()
    assert study.decide == Decide(smallest=0.5, seeds=6, alpha=0.05)
    assert (study.seeds, study.first_seeds) == ((7, 3, 8, 9, 10, 11), (7, 3, 8, 9))
    assert [(variant.name, seed) for variant, seed, _ in planned(study)][-2:] == [("SL, 2 views", 9), ("HMTL", 9)]
    assert len(planned(study)) == 12
    assert read(decide={}).decide == Decide(smallest=0.5, seeds=12, alpha=0.05)


@given(st.lists(st.integers(0, 1000), unique=True, min_size=1), st.integers(4, 100))
def test_seeds_are_all_different(listed: list[int], count: int) -> None:
    seeds = all_seeds(listed, count)
    assert len(set(seeds)) == len(seeds) == max(count, len(listed))
    assert list(seeds[: len(listed)]) == listed


def test_variants_are_compared_with_the_baseline() -> None:
    assert read().comparisons == (("SL, 2 views", "SL"), ("HMTL", "SL"))


def test_arms_with_controls_are_compared_with_four_of_them_and_each_pair_once() -> None:
    variants = {**FILE["variants"], "HMTL": {"pretext": {"puzzling": {}}, "controls": True}}
    one_view = {"pretext": {"rotation": {"feed": "shared"}}, "controls": []}
    study = read(variants={**variants, "rotated": one_view})
    assert study.comparisons == (
        ("SL, 2 views", "SL"),
        ("HMTL", "SL"),
        ("rotated", "SL"),
        ("HMTL", "SL, 2 views"),
        ("HMTL", "HMTL: more epochs"),
        ("HMTL", "HMTL: distortion"),
        ("HMTL", "HMTL: random answers"),
        ("rotated", "rotated: distortion"),
        ("rotated", "rotated: random answers"),
    )


def test_the_command_s_seeds_come_first_too() -> None:
    assert load_study(FILE, seeds=[1]).seeds == (1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": [1, 2, 3, 4, 5, 6, 7]}, "seeds: 7 seeds are listed, and decide.seeds allows 6"),
        ({"seeds": [2**31 - 3]}, "seeds: there are not 5 more seeds above 2147483645"),
        ({"decide": {"seeds": 3}}, "decide.seeds"),
        ({"decide": {"seeds": 101}}, "decide.seeds"),
        ({"decide": {"smallest": 0}}, "decide.smallest"),
        ({"decide": {"smalest": 1}}, "did you mean 'smallest'?"),
        ({"decide": 12}, "decide: should be a map, not the value 12"),
        ({"verdict": {"alpha": 0.1}}, "verdict: decide has a smallest and an alpha of its own"),
        ({"search": {"trials": 1, "space": {"training.lr": {"choice": [0.1]}}}}, "search: a search has no comparison"),
        ({"evaluations": {"p": {"probe": {"kind": "knn"}}}}, "evaluations: evaluations have no comparison"),
        ({"variants": {"SL": {}}}, "decide: there is nothing to decide between"),
        ({"metric": "test/loss"}, "decide: test/loss has no unit that smallest: 0.5 could be in"),
        ({"profiles": {"quick": {"decide": {}}}}, "there is no key 'decide' in a profile"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], words: str) -> None:
    assert words in refused(**changes)


@pytest.mark.parametrize("seed", [None, "a", 0.5])
def test_a_seed_that_is_no_whole_number_is_a_fault_and_none_follows_it(seed: Any) -> None:
    assert (
        refused(seeds=[7, seed])
        == f"study: seeds.1: should be a whole number, 0 or more, not {seed!r}; use 0 to 2147483647"
    )


def test_a_metric_without_a_unit_takes_a_smallest_of_its_own() -> None:
    assert read(metric="test/loss", decide={"smallest": 0.1}).decide == Decide(smallest=0.1)
