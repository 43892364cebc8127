"""Constraints between options."""

from __future__ import annotations

import pytest

from hmtl_ablate.errors import ConfigError, StudyError
from hmtl_ablate.study import load_study
from hmtl_ablate.study.constraints import parse_constraint

OPTIONS = {"training": {"epochs": 10, "warmup_epochs": 3, "lr": 0.1}, "pretext": {"puzzling": {"weight": 2.0}}}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("training.warmup_epochs < 0.5 * training.epochs", True),
        ("training.warmup_epochs * 4 <= training.epochs", False),
        ("1 < training.warmup_epochs < training.epochs - 7", False),
        ("-training.lr > -0.2", True),
        ("pretext.puzzling.weight / (training.lr - 0.1) > 0", False),  # a division by 0
        ("pretext.rotation.weight < 0", True),  # this trial has no rotation
    ],
)
def test_by_hand(text: str, holds: bool) -> None:
    assert parse_constraint(text).holds(OPTIONS) is holds


def test_names() -> None:
    assert parse_constraint("training.lr < 0.1 * model.dropout + training.lr").names == ("model.dropout", "training.lr")


@pytest.mark.parametrize(
    "text",
    [
        "training.lr",
        "training.lr == 1",
        "__import__('os').system('x') < 1",
        "training.lr ** 9 < 1",
        "(training.lr < 1) < 2",
        "'a' < 1",
        "True < training.lr",
        "training['lr'] < 1",
        "x := 3",
        "1 <",
        "(" * 200 + "1" + ")" * 200 + " < 1 and",
        "a < " + "1 + " * 200 + "1",
    ],
)
def test_nothing_else_is_taken(text: str) -> None:
    with pytest.raises(ValueError, match=r"comparison|sign|something else|characters"):
        parse_constraint(text)


def test_a_draw_that_breaks_one_is_impossible() -> None:
    section = {
        "space": {"training.epochs": {"int": [2, 9]}, "training.warmup_epochs": {"int": [0, 9]}},
        "constraints": ["training.warmup_epochs < 0.5 * training.epochs"],
        "trials": 3,
    }
    [search] = load_study({"name": "a", "search": section}).searches
    assert search.resolve({"training.epochs": 8, "training.warmup_epochs": 3}, 0).training.warmup_epochs == 3
    with pytest.raises(ConfigError, match="breaks the constraint"):
        search.resolve({"training.epochs": 8, "training.warmup_epochs": 4}, 0)


def test_faults_have_their_places() -> None:
    section = {"space": {"training.lr": {"uniform": [0.1, 0.2]}}, "trials": 3}
    with pytest.raises(StudyError, match="no comparison") as caught:
        load_study({"name": "a", "search": {**section, "constraints": ["training.lr", "training.rl < 1", 3]}})
    text = str(caught.value)
    assert "search.constraints.0" in text
    assert "there is no option 'rl'" in text
    assert "search.constraints.2" in text
