"""Where a gain comes from: hand-worked differences, what refuses them, and the verdict from a store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmtl_ablate.reporting.decomposition import PARTS, TOTAL, Part, decompose
from hmtl_ablate.reporting.registered import changes
from hmtl_ablate.reporting.results import load_results
from hmtl_ablate.reporting.tables import study_tables
from hmtl_ablate.reporting.verdict import margin_of
from hmtl_ablate.study import Verdict
from hmtl_ablate.tracking import Registration
from hmtl_ablate.tracking.records import rule_hash
from tests.reporting.example import BY_HAND, PUZZLING, judged  # type: ignore[import-not-found]

ARM = "SL + puzzling"
FIVE = ["SL", f"{ARM}: whole views", f"{ARM}: distortion", f"{ARM}: random answers", ARM]


def by_name(parts: tuple[Part, ...]) -> dict[str, Part]:
    return {part.name: part for part in parts}


def without(variant: str, seed: int) -> dict[str, dict[int, float]]:
    return {
        name: {key: value for key, value in values.items() if (name, key) != (variant, seed)}
        for name, values in BY_HAND.items()
    }


def fill(records: Any, parent: str, scores: Mapping[str, Mapping[int, float]], **options: Any) -> None:
    for variant, values in scores.items():
        for seed, value in values.items():
            records.trial(parent, variant, variant, seed, value, **options)


def controlled(records: Any, **options: Any) -> str:
    parent: str = records.study({name: name for name in BY_HAND}, [0, 1, 2], controls={ARM: PUZZLING}, **options)
    return parent


def test_the_four_parts_by_hand() -> None:
    parts, refused = decompose(PUZZLING, BY_HAND)
    assert refused == ""
    found = by_name(parts)
    means = {name: part.estimate.mean for name, part in found.items()}
    assert means == {
        "in all": pytest.approx(0.19 / 3),
        "views": pytest.approx(0.04 / 3),
        "distortion": pytest.approx(0.01),
        "random auxiliary gradient": pytest.approx(0.0),
        "information in the task": pytest.approx(0.04),
        "over whole views": pytest.approx(0.05),
        "over distortion": pytest.approx(0.04),
        "over more epochs": pytest.approx(0.14 / 3),
        "over supervision off": pytest.approx(0.04 / 3),
    }
    assert list(means)[:5] == ["in all", *(step.name for step in PARTS)]  # the order is fixed
    information = found["information in the task"]
    assert information.values == {0: pytest.approx(0.04), 1: pytest.approx(0.03), 2: pytest.approx(0.05)}
    # sd 0.01, t(0.975, 2) = 4.302653: half 0.0248414
    assert information.estimate.n == 3
    assert information.estimate.sd == pytest.approx(0.01)
    assert information.estimate.low == pytest.approx(0.04 - 0.0248414, abs=1e-6)
    assert information.estimate.high == pytest.approx(0.04 + 0.0248414, abs=1e-6)
    assert (information.variant, information.minus, information.levels) == (ARM, f"{ARM}: random answers", "A4 − A3")
    assert (found["over more epochs"].minus, found["over more epochs"].levels) == (f"{ARM}: more epochs", "")


@given(
    st.integers(1, 8).flatmap(
        lambda n: st.lists(st.lists(st.floats(0, 100), min_size=n, max_size=n), min_size=5, max_size=5)
    )
)
def test_the_points_add_up(columns: list[list[float]]) -> None:
    scores = {name: dict(enumerate(values)) for name, values in zip(FIVE, columns, strict=True)}
    found = by_name(decompose(PUZZLING, scores)[0])
    for seed in range(len(columns[0])):
        whole = found[TOTAL.name].values[seed]
        assert math.isclose(sum(found[step.name].values[seed] for step in PARTS), whole, abs_tol=1e-11)
    means = [found[step.name].estimate.mean for step in (TOTAL, *PARTS)]
    assert math.isclose(sum(mean or 0.0 for mean in means[1:]), means[0] or 0.0, abs_tol=1e-11)


def test_the_intervals_do_not_add_up() -> None:
    found = by_name(decompose(PUZZLING, BY_HAND)[0])
    halves = [(found[step.name].estimate.high or 0) - (found[step.name].estimate.mean or 0) for step in (TOTAL, *PARTS)]
    assert sum(halves[1:]) > 2 * halves[0]


@pytest.mark.parametrize("variant", FIVE)
def test_seeds_that_differ_in_any_of_the_five_arms_are_refused(variant: str) -> None:
    parts, refused = decompose(PUZZLING, without(variant, 1))
    assert parts == ()
    assert f"{variant}: 0, 2" in refused
    gone = {name: values for name, values in BY_HAND.items() if name != variant}
    assert f"{variant}: none" in decompose(PUZZLING, gone)[1]


def test_what_has_no_control_is_refused() -> None:
    parts, refused = decompose({**PUZZLING, "distortion": "", "random_answers": ""}, BY_HAND)
    assert (parts, refused) == ((), "it has no control A2, A3")


def test_outside_the_sum_other_seeds_leave_a_row_out() -> None:
    names = by_name(decompose(PUZZLING, without(f"{ARM}: supervision off", 2))[0])
    assert "over supervision off" not in names
    assert "over more epochs" in names


def test_where_the_views_are_the_baseline_s_their_part_is_0() -> None:
    found = by_name(decompose({**PUZZLING, "views": "SL"}, BY_HAND)[0])
    assert set(found["views"].values.values()) == {0.0}
    assert found["distortion"].estimate.mean == pytest.approx((0.02 + 0.02 + 0.03) / 3)


def test_each_of_several_tasks_has_its_own_information() -> None:
    tasks = {"puzzling": ("p: ignored", "p: random"), "rotation": ("r: ignored", "r: random")}
    scores = {
        **BY_HAND,
        "p: random": {0: 0.65, 1: 0.65, 2: 0.65},
        "r: random": {0: 0.66, 1: 0.69, 2: 0.68},
        "r: ignored": {0: 0.5, 1: 0.5, 2: 0.5},
    }
    found = by_name(decompose({**PUZZLING, "tasks": tasks}, scores)[0])
    assert found["information in puzzling"].estimate.mean == pytest.approx((0.01 + 0.03 + 0.03) / 3)
    assert found["information in rotation"].estimate.mean == pytest.approx(-0.01 / 3)
    assert found["information in rotation"].minus == "r: random"
    kept = by_name(decompose({**PUZZLING, "tasks": tasks}, {**scores, "p: random": {0: 0.65}})[0])
    assert "information in puzzling" not in kept  # its seeds differ


def test_the_verdict_by_hand() -> None:
    # over whole views 0.05, 0.04, 0.06: t² = 75, p = 1 - √(75/77) = 0.013072; over more epochs 0.04, 0.05, 0.05: mean
    # 0.14/3, sd 0.01/√3, t = 14, p = 1 - √(196/198) = 0.005063; over distortion three equal ones: not tested, p = 1
    controls = judged(BY_HAND, {ARM: PUZZLING})
    [arm] = controls.arms
    assert arm.finding.kind == "helps, cause undecided"
    assert arm.finding.p["helps"] == pytest.approx(1 - math.sqrt(75 / 77))
    assert arm.finding.p["task"] == 1.0
    nearly = {**BY_HAND, ARM: {0: 0.66, 1: 0.68, 2: 0.683}}
    assert judged(nearly, {ARM: PUZZLING}).arms[0].finding.kind == "helps because of the task"


def test_an_error_is_a_gain_where_it_falls() -> None:
    degrees = {name: {seed: 10 - 10 * value for seed, value in values.items()} for name, values in BY_HAND.items()}
    [arm] = judged(degrees, {ARM: PUZZLING}, "test/mae").arms
    assert by_name(arm.parts)["in all"].estimate.mean == pytest.approx(-1.9 / 3)  # as in the study's table
    assert arm.finding.kind == "helps, cause undecided"
    assert arm.finding.p["helps"] == pytest.approx(1 - math.sqrt(75 / 77))
    assert judged(BY_HAND, {ARM: PUZZLING}, "test/mae").arms[0].finding.kind == "hurts"


def test_two_seeds_have_numbers_and_no_test() -> None:
    scores = {name: {seed: values[seed] for seed in (0, 1)} for name, values in BY_HAND.items()}
    [arm] = judged(scores, {ARM: PUZZLING}).arms
    assert by_name(arm.parts)["in all"].estimate.mean == pytest.approx(0.06)
    assert (arm.finding.kind, arm.unjudged, arm.finding.p) == ("undecided", "needs at least 3 seeds", {})


def test_without_the_seeds_of_more_epochs_nothing_is_judged() -> None:
    [arm] = judged(without(f"{ARM}: more epochs", 0), {ARM: PUZZLING}).arms
    assert len(by_name(arm.parts)["in all"].values) == 3
    assert arm.unjudged == f"the finished seeds of '{ARM}: more epochs' are not those of the arm"
    [arm] = judged(BY_HAND, {ARM: {**PUZZLING, "epochs": ""}}).arms
    assert arm.unjudged == "it has no control for more epochs"


def test_an_arm_of_one_view_has_sl_in_place_of_more_epochs() -> None:
    [arm] = judged(BY_HAND, {ARM: {**PUZZLING, "views": "SL", "epochs": ""}}).arms
    found = by_name(arm.parts)
    assert found["over more epochs"].values == found["over whole views"].values == found["in all"].values
    assert arm.unjudged == ""


@pytest.mark.parametrize(
    ("metric", "rule", "margin"),
    [
        ("test/accuracy", Verdict(), 0.005),
        ("test/ece", Verdict(smallest=2), 0.02),
        ("test/mae", Verdict(), 0.5),
        ("test/ccc", Verdict(), None),
        ("test/ccc", Verdict(smallest=0.02), 0.02),
    ],
)
def test_the_margin_is_in_the_metric_s_unit(metric: str, rule: Verdict, margin: float | None) -> None:
    assert margin_of(rule, metric) == (None if margin is None else pytest.approx(margin))


def test_changes_since_the_registration() -> None:
    rule = {"smallest": 0.5, "alpha": 0.05}
    study: dict[Any, Any] = {
        "registered": {"study": "a", "verdict": rule_hash(rule), "metric": "test/accuracy", "seeds": (0, 1)},
        "file": "a",
        "verdict": rule,
        "metric": "test/accuracy",
        "seeds": [0, 1],
    }
    assert changes(study) == {}
    later = {**study, "file": "b", "verdict": {**rule, "alpha": 0.1}, "metric": "test/loss", "seeds": [0, 1, 2]}
    assert changes(later) == {
        "study file": ("a", "b"),
        "verdict rule": (rule_hash(rule), rule_hash({"smallest": 0.5, "alpha": 0.1})),
        "metric": ("test/accuracy", "test/loss"),
        "seeds": ("0, 1", "0, 1, 2"),
    }
    assert changes({**later, "registered": {}}) == {}


def test_from_a_store(records: Any) -> None:
    registered = Registration(study="a", verdict="b", metric="test/accuracy", seeds=(0, 1, 2), time="2026-11-26")
    fill(records, controlled(records, verdict={"alpha": 0.01}, registered=registered, file="c"), BY_HAND)
    fill(records, records.study({"SL": "SL"}, [0], name="plain"), {"SL": {0: 0.7}})
    results = records.results()
    first, second = study_tables(results)
    assert second.controls is None
    assert first.controls is not None
    assert first.controls.rule == Verdict(alpha=0.01)
    assert first.controls.registered["time"] == "2026-11-26"
    assert list(first.controls.changed) == ["study file", "verdict rule"]
    [arm] = first.controls.arms
    assert by_name(arm.parts)["in all"].estimate.mean == pytest.approx(0.19 / 3)
    assert arm.finding.kind == "undecided"  # p = 0.013 > 0.01


def test_frames(records: Any, tmp_path: Path) -> None:
    fill(records, controlled(records), BY_HAND)
    results = records.results()
    frame = results.controls().set_index("part")
    assert list(frame.index[:5]) == ["in all", *(step.name for step in PARTS)]
    assert frame.loc["information in the task", "difference"] == pytest.approx(0.04)
    assert frame.loc[[step.name for step in PARTS], "difference"].sum() == pytest.approx(
        frame.loc["in all", "difference"]
    )
    assert set(frame["study"]) == {"puzzling"}
    [verdict] = results.verdicts().to_dict("records")
    assert (verdict["arm"], verdict["verdict"]) == (ARM, "helps, cause undecided")
    assert verdict["p_helps"] == pytest.approx(1 - math.sqrt(75 / 77))
    assert verdict["sentence"].startswith(f"{ARM}: helps, cause undecided (test accuracy, %: +5.00 [")
    empty = load_results(None, tmp_path)
    assert empty.controls().empty
    assert empty.verdicts().empty


@pytest.mark.parametrize("what", ["numerics", "fingerprint", "batch norm", "failed", "running", "value"])
def test_trials_of_another_kind_are_refused(records: Any, what: str) -> None:
    """One seed of one control is of another numerics version, data, batch norm, or is not finished."""
    parent, odd = controlled(records), f"{ARM}: distortion"
    kinds: dict[str, dict[str, Any]] = {
        "numerics": {"numerics": 1},
        "fingerprint": {"fingerprint": "older"},
        "batch norm": {"environment": {"batch_norm": "1/2 of a batch"}},
        "failed": {"status": "failed"},
        "running": {"status": "running"},
        "value": {"metric": "test/macro_f1"},
    }
    records.trial(parent, odd, odd, 1, 0.64, **{"numerics": 2, **kinds[what]})
    fill(records, parent, without(odd, 1), numerics=2, environment={"batch_norm": "batch"})
    [table] = study_tables(records.results())
    assert table.controls is not None
    [arm] = table.controls.arms
    assert (arm.parts, arm.finding.kind) == ((), "undecided")
    assert f"{odd}: 0, 2" in arm.refused


def test_data_that_differ_in_one_control_are_refused(records: Any) -> None:
    """It asks for other data than the arm, so that its fingerprint is no older version of the same."""
    parent, odd = controlled(records), f"{ARM}: more epochs"
    fill(records, parent, {odd: BY_HAND[odd]}, fingerprint="f1", params={"data.images": "64"})
    fill(records, parent, {name: values for name, values in BY_HAND.items() if name != odd})
    [table] = study_tables(records.results())
    assert table.controls is not None
    assert table.controls.arms[0].refused == "its trials and those of its controls do not have one data fingerprint"


def test_evaluations_have_no_controls_of_their_own(records: Any) -> None:
    variants = {**{name: name for name in BY_HAND}, f"{ARM} → probe": "probed"}
    parent = records.study(variants, [0], controls={ARM: PUZZLING}, evaluations={f"{ARM} → probe": "probe"})
    records.trial(parent, f"{ARM} → probe", "probed", 0, 0.5)
    own, probed = study_tables(records.results())
    assert own.controls is not None
    assert probed.controls is None
