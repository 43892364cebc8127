"""The `search` section from nodes to a Search, without a file around it."""

from __future__ import annotations

from typing import Any

import pytest

from hmtl_ablate.study.mapping import node_of
from hmtl_ablate.study.pruners import Hyperband, NoPruner
from hmtl_ablate.study.searching import FIXED, impossible, read_search, searchable
from hmtl_ablate.study.source import StudyFault
from hmtl_ablate.study.space import Parameter, Search

LR = {"training.lr": {"loguniform": [1e-4, 1e-2]}}


def read(section: dict[str, Any], base: dict[str, Any] | None = None) -> tuple[Search | None, list[str]]:
    found: list[StudyFault] = []
    search, _ = read_search(node_of(section), node_of(base or {}), found)
    return search, [f"{'.'.join(map(str, fault.path))}: {fault.what}" for fault in found]


def impossible_values(section: dict[str, Any], base: dict[str, Any]) -> list[str]:
    found: list[StudyFault] = []
    search, check_values = read_search(node_of(section), node_of(base), found)
    assert search is not None
    check_values(set(search.keys))
    return [f"{'.'.join(map(str, fault.path))}: {fault.what}" for fault in found]


def test_defaults() -> None:
    search, faults = read({"space": LR, "trials": 3})
    assert faults == []
    assert search == Search(
        base={},
        parameters=(Parameter("training.lr", "loguniform", low=1e-4, high=1e-2),),
        sampler="tpe",
        pruner=NoPruner(),
        trials=3,
        metric="val/accuracy",
        direction="max",
        racing=6,
    )


def test_every_key_is_read() -> None:
    section = {
        "space": {"data.size": {"int": [32, 64], "step": 16}},
        "sampler": "grid",
        "pruner": {"name": "hyperband", "grace_epochs": 2},
        "trials": 3,
        "objective": {"val/loss": "min"},
        "confirm": True,
    }
    search, faults = read(section, {"training": {"epochs": 8}})
    assert faults == []
    assert search is not None
    assert search.base == {"training": {"epochs": 8}}
    assert search.parameters == (Parameter("data.size", "int", low=32, high=64, step=16),)
    assert (search.sampler, search.pruner, search.metric, search.direction, search.confirm) == (
        "grid",
        Hyperband(grace_epochs=2),
        "val/loss",
        "min",
        True,
    )


@pytest.mark.parametrize(
    ("task", "objective"),
    [("gender", ("val/accuracy", "max")), ("pose", ("val/mae", "min")), (["pose", "gender"], ("val/pose/mae", "min"))],
)
def test_the_objective_is_what_selects_the_weights_of_the_task(task: Any, objective: tuple[str, str]) -> None:
    search, _ = read({"space": LR, "trials": 3}, {"task": task})
    assert search is not None
    assert (search.metric, search.direction) == objective


def test_several_objectives_and_their_proxy() -> None:
    several = {"val/accuracy": "max", "cost/image_passes": "min", "val/loss": "min"}
    search, faults = read({"space": LR, "trials": 3, "objective": several})
    assert faults == []
    assert search is not None
    assert (search.metric, search.direction, search.racing) == ("val/accuracy", "max", 1)
    assert search.objectives == several
    other, _ = read({"space": LR, "trials": 3, "objective": several, "proxy": "val/loss"})
    assert other is not None
    assert next(iter(other.objectives.items())) == ("val/loss", "min")
    assert other.objectives == several
    alone, _ = read({"space": LR, "trials": 3, "racing": None})
    assert alone is not None
    assert len({search.space_hash, other.space_hash, alone.space_hash}) == 3


def test_several_objectives_need_a_sampler_that_takes_them_and_no_race() -> None:
    several = {"val/accuracy": "max", "cost/image_passes": "min"}
    _, faults = read({"space": LR, "trials": 3, "objective": several, "sampler": "cmaes", "racing": {"seeds": 3}})
    race, sampler = faults
    assert "a race ranks configurations by one objective" in race
    assert "the cmaes sampler takes one objective" in sampler


def test_totals_racing_and_confirmation() -> None:
    search, faults = read({"space": LR, "budget": 4e6, "racing": {"seeds": 3}, "confirm": 3})
    assert faults == []
    assert search is not None
    assert (search.trials, search.budget, search.racing, search.confirm) == (None, 4e6, 3, 3)
    search, _ = read({"space": LR, "trials": 3, "racing": None, "confirm": True})
    assert search is not None
    assert (search.racing, search.confirm) == (1, 1)
    _, faults = read({"space": LR, "budget": 0, "racing": {"seeds": 1, "seds": 2}, "confirm": 200})
    assert sorted(fault.split(";")[0][:40] for fault in faults) == [
        "budget: should be a number of image pass",
        "confirm: should be true, false or the nu",
        "racing.seds: there is no option 'seds'",
        "racing.seeds: input should be greater th",
    ]


def test_starting_points_are_checked_against_the_space() -> None:
    space = {
        **LR,
        "pretext.puzzling.feed": {"choice": ["shared", "mixed"]},
        "pretext.puzzling.share": {"uniform": [0.1, 0.5], "when": {"pretext.puzzling.feed": "mixed"}},
    }
    base: dict[str, Any] = {"pretext": {"puzzling": {}}}
    good = {"training.lr": 1e-3, "pretext.puzzling.feed": "shared"}
    search, faults = read({"space": space, "trials": 3, "start": [good], "from": "other@quick"}, base)
    assert faults == []
    assert search is not None
    assert (search.start, search.source) == ((good,), "other@quick")
    bad = [{"training.lr": 1.0, "pretext.puzzling.grid": 2}, {"pretext.puzzling.feed": "mixed", "training.lr": 1e-3}, 3]
    _, faults = read({"space": space, "trials": 3, "start": bad, "from": 3}, base)
    assert faults == [
        "from: should be the name of a study, not 3",
        "start.0.training.lr: 1.0 is not among the values of training.lr",
        "start.0.pretext.puzzling.grid: 'pretext.puzzling.grid' is not searched",
        "start.1: is no whole configuration",
        "start.2: should be a map of searched options, not 3",
    ]


def test_all_faults_come_at_once_and_there_is_no_search() -> None:
    search, faults = read(
        {"space": {"data.sise": {"int": [2, 4]}}, "sampler": 3, "pruner": 4, "confirm": 0, "extra": 0}
    )
    assert search is None
    assert sorted(faults) == [
        ": trials is missing",
        "confirm: should be true, false or the number of the best, not 0",
        "extra: there is no key 'extra' in search",
        "pruner: there is no pruner 4",
        "sampler: there is no sampler 3",
        "space.data.sise: there is no option 'sise'",
    ]


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({}, "has no values to search"),
        ([1, 2], "has no values to search"),
        ({"step": 2}, "has no values to search"),
        ({"int": [2, 4], "choice": [2]}, "has choice and int"),
        ({"int": [2, 2.5]}, "should be a whole number, not 2.5"),
        ({"int": [2]}, "int should be [low, high], not [2]"),
        ({"uniform": [2, 4], "step": 1}, "only int has a step, not uniform"),
        ({"int": [2, 4], "step": 3}, "should be a whole number above 0, not 3"),
        ({"choice": [[2]]}, "a choice is a single value, not a list or map"),
        ({"choice": [2, 2]}, "2 appears twice in the choices"),
        ({"int": [2, 4], "when": 3}, "should be a map of another parameter to its value, not 3"),
        ({"int": [2, 4], "when": {"training.lr": []}}, "should be a value or a list of values, not []"),
    ],
)
def test_faults_of_a_range(entry: Any, fault: str) -> None:
    _, faults = read({"space": {"pretext.puzzling.grid": entry} | LR, "trials": 2}, {"pretext": {"puzzling": {}}})
    assert fault in [line.partition(": ")[2] for line in faults]


def test_conditions_put_a_parameter_behind_those_that_it_depends_on() -> None:
    search, _ = read(
        {
            "space": {
                "training.lr": {"uniform": [0.1, 0.2], "when": {"training.batch_size": [32, 64]}},
                "training.batch_size": {"choice": [16, 32], "when": {"data.size": 48}},
                "data.size": {"choice": [32, 48]},
            },
            "trials": 2,
        }
    )
    # 64 is no batch size of the space, so the condition on it can never hold.
    assert search is None
    search, _ = read(
        {
            "space": {
                "training.lr": {"uniform": [0.1, 0.2], "when": {"training.batch_size": 32}},
                "training.batch_size": {"choice": [16, 32], "when": {"data.size": 48}},
                "data.size": {"choice": [32, 48]},
            },
            "trials": 2,
        }
    )
    assert search is not None
    assert search.keys == ("data.size", "training.batch_size", "training.lr")
    assert search.parameters[2].when == {"training.batch_size": (32,)}


def test_a_value_that_no_combination_makes_possible() -> None:
    """A 12 × 12 grid needs 48 px, a 13 × 13 grid 52 px."""
    section: dict[str, Any] = {"space": {"pretext.puzzling.grid": {"choice": [2, 12, 13]}}, "trials": 2}
    base = {"pretext": {"puzzling": {}}, "data": {"size": 48}}
    (fault,) = impossible_values(section, base)
    assert fault.startswith("space.pretext.puzzling.grid.choice.2: no trial can have pretext.puzzling.grid 13: ")
    section["space"]["data.size"] = {"choice": [48, 52]}
    assert impossible_values(section, base) == []


def test_a_search_without_any_possible_combination() -> None:
    search, _ = read({"space": {"training.warmup_epochs": {"choice": [30, 40]}}, "trials": 2})
    assert search is not None
    (fault,) = impossible(search)
    assert fault.path == ("training", "warmup_epochs")
    search, _ = read({"space": {"training.warmup_epochs": {"choice": [30, 4]}}, "trials": 2})
    assert search is not None
    assert impossible(search) == []


EPOCHS = {"training.epochs": {"choice": [15, 30]}}


@pytest.mark.parametrize(
    "pruner", ["successive_halving", "hyperband", "median", {"name": "patient", "wraps": "median"}], ids=str
)
def test_a_pruner_never_cuts_a_cosine_that_others_finish(pruner: Any) -> None:
    """Fault A6: at epoch 15 a trial of 15 epochs has finished its cosine, one of 30 is at half its rate."""
    name = pruner if isinstance(pruner, str) else pruner["name"]
    _, faults = read({"space": EPOCHS, "pruner": pruner, "trials": 2})
    assert faults == [
        f"space.training.epochs: can't be searched with pruner {name}: it compares trials at the same epoch, where a "
        "short one has finished its cosine and a long one has not"
    ]


@pytest.mark.parametrize("pruner", [None, "none", "patient"])
def test_epochs_are_searched_with_what_compares_no_trials(pruner: str | None) -> None:
    search, faults = read({"space": EPOCHS, "trials": 2} | ({"pruner": pruner} if pruner else {}))
    assert faults == []
    assert search is not None
    assert search.epochs == 30


def test_a_grid_is_refused_when_it_is_too_large() -> None:
    sizes = {"training.batch_size": {"int": [2, 200]}, "data.size": {"int": [16, 100]}}
    _, faults = read({"space": sizes, "sampler": "grid", "trials": 2})
    assert faults == ["space: the grid has more than 10000 combinations"]  # 199 × 85


def test_what_defines_the_measurement_is_not_searched() -> None:
    assert not set(FIXED) & set(searchable())
    assert {"data.size", "training.lr", "pretext.puzzling.grid"} <= set(searchable())
    _, faults = read({"space": {key: {"choice": [1]} for key in FIXED}, "trials": 2})
    assert len(faults) == len(FIXED)
    assert all("can't be searched" in fault for fault in faults)
