"""The rule of the verdict, by hand and by properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_ablate.reporting.statistics import estimate
from hmtl_ablate.reporting.verdict import KINDS, Differences, Finding, findings
from hmtl_ablate.study import Verdict

GAIN = (0.04, 0.03, 0.05)
"""p = 0.020204, see test_statistics."""
NONE = (0.01, 0.0, -0.01)
LOSS = (-0.04, -0.03, -0.05)
RULE = Verdict()
MARGIN = 0.05


@st.composite
def arms(draw: Any) -> Differences:
    n = draw(st.integers(0, 6))
    own = st.lists(st.floats(-0.1, 0.1), min_size=n, max_size=n).map(tuple)
    return Differences(draw(own), draw(own), draw(own), draw(own))


def one(
    views: Any = GAIN, epochs: Any = GAIN, distortion: Any = GAIN, random: Any = GAIN, margin: float | None = MARGIN
) -> Finding:
    [found] = findings([Differences(views, epochs, distortion, random)], RULE, margin)
    return found


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "helps because of the task"),
        ({"views": NONE}, "undecided"),
        ({"epochs": NONE}, "undecided"),
        ({"views": LOSS}, "hurts"),
        ({"epochs": LOSS}, "undecided"),
        ({"random": NONE}, "helps, cause undecided"),
        ({"distortion": NONE}, "helps as augmentation"),
        ({"distortion": NONE, "margin": 0.02}, "helps, cause undecided"),  # [-0.025, 0.025] is not within ±0.02
        ({"distortion": NONE, "margin": None}, "helps, cause undecided"),
        ({"distortion": LOSS}, "helps, cause undecided"),
        ({"views": GAIN[:2], "epochs": GAIN[:2], "distortion": GAIN[:2], "random": GAIN[:2]}, "undecided"),
    ],
)
def test_each_verdict(changes: dict[str, Any], kind: str) -> None:
    assert one(**changes).kind == kind


def test_p_of_each_claim_is_the_largest_of_its_tests() -> None:
    # views 0.020204; distortion NONE: above 0 p = 1; within ±0.05 p = 0.013072
    found = one(distortion=NONE)
    assert found.p == {
        "helps": pytest.approx(0.020204, abs=1e-6),
        "task": 1.0,
        "augmentation": pytest.approx(0.020204, abs=1e-6),
        "hurts": 1.0,
    }
    assert one(views=LOSS).p["hurts"] == pytest.approx(0.020204, abs=1e-6)


def test_holm_counts_every_arm_also_those_that_cannot_be_judged() -> None:
    # 0.020204 · 2 = 0.040408 ≤ 0.05, but · 3 = 0.060612 is not
    good = Differences(GAIN, GAIN, GAIN, GAIN)
    assert [found.kind for found in findings([good, None], RULE, MARGIN)] == ["helps because of the task", "undecided"]
    three = findings([good, None, None], RULE, MARGIN)
    assert [found.kind for found in three] == ["undecided"] * 3
    assert three[0].p["helps"] == pytest.approx(0.060612, abs=1e-6)
    assert three[1].p == {}
    assert findings([], RULE, MARGIN) == []


def test_alpha_is_the_rule_s() -> None:
    good = Differences(GAIN, GAIN, GAIN, GAIN)
    assert findings([good], Verdict(alpha=0.021), MARGIN)[0].kind == "helps because of the task"
    assert findings([good], Verdict(alpha=0.02), MARGIN)[0].kind == "undecided"


@settings(max_examples=100, deadline=None)
@given(st.lists(arms() | st.none(), max_size=4), st.floats(0.001, 0.5), st.none() | st.floats(0.001, 0.2))
def test_verdicts_are_exclusive(own: list[Differences | None], alpha: float, margin: float | None) -> None:
    """No arm both helps and hurts, and a cause is only said of an arm that helps."""
    found = findings(own, Verdict(alpha=alpha), margin)
    assert len(found) == len(own)
    for finding, arm in zip(found, own, strict=True):
        assert finding.kind in KINDS
        p = {claim: value <= alpha for claim, value in finding.p.items()}
        assert (not p) == (arm is None)
        assert not (p.get("helps") and p.get("hurts"))
        assert not (p.get("task") and not p["helps"])
        assert not (p.get("augmentation") and not p["helps"])
        assert finding.kind.startswith("helps") == bool(p.get("helps"))
        assert (finding.kind == "hurts") == bool(p.get("hurts"))


@settings(max_examples=100, deadline=None)
@given(arms())
def test_a_lone_arm_helps_exactly_when_both_printed_intervals_are_above_0(arm: Differences) -> None:
    views, epochs = estimate(arm.views), estimate(arm.epochs)
    expected = all(one.n >= 3 and (one.sd or 0) > 1e-6 and (one.low or 0) > 0 for one in (views, epochs))
    near = any(abs(one.low or 0) < 1e-9 for one in (views, epochs))  # where rounding decides
    degenerate = any(one.n >= 3 and (one.sd or 0) <= 1e-6 for one in (views, epochs))
    [found] = findings([arm], RULE, MARGIN)
    assert near or degenerate or found.kind.startswith("helps") == expected
