"""The controls as people and programs read them."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from hmtl_ablate.reporting.controls import control_tables, sentence
from hmtl_ablate.reporting.formats import TEXT_FORMATS
from hmtl_ablate.reporting.render import Report, build_document, render
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.tracking.records import rule_hash
from tests.reporting.example import (  # type: ignore[import-not-found]
    BY_HAND,
    PUZZLING,
    controlled,
    example,
    judged,
    study,
)

ARM = "SL + puzzling"
REGISTERED: dict[str, Any] = {
    "study": "a" * 64,
    "verdict": rule_hash({}),
    "metric": "test/accuracy",
    "seeds": [0, 1, 2],
    "time": "2026-11-26T00:30:00+00:00",
    "trained": 0,
}


def table(scores: Any = BY_HAND, controls: Any = None, metric: str = "test/accuracy", **columns: Any) -> StudyTable:
    own = judged(scores, controls or {ARM: PUZZLING}, metric, **columns)
    found: StudyTable = replace(study(scores, name="controls", metric=metric), controls=own)
    return found


def said(shown: StudyTable) -> list[str]:
    assert shown.controls is not None
    return [sentence(arm, shown.controls) for arm in shown.controls.arms]


def notes(shown: StudyTable) -> str:
    return "\n".join(control_tables(shown)[-1].notes)


def test_the_sentence_of_each_verdict() -> None:
    helps = "test accuracy, %: +5.00 [+2.52, +7.48] over whole views, +4.67 [+3.23, +6.10] over more epochs"
    assert said(table()) == [
        f"{ARM}: helps, cause undecided ({helps}; p = 0.013; because of the task: p = 1.000; as augmentation: "
        "p = 1.000)."
    ]
    better = {**BY_HAND, f"{ARM}: distortion": {0: 0.62, 1: 0.64, 2: 0.63}}
    # over distortion 0.04, 0.04, 0.05: t = 13; over random answers 0.04, 0.03, 0.05: p = 1 - √(48/50) = 0.020
    assert said(table(better)) == [
        f"{ARM}: helps because of the task ({helps}; better than whole views, more epochs, distortion and random "
        "answers, p = 0.020)."
    ]
    same = {**BY_HAND, f"{ARM}: distortion": {0: 0.66, 1: 0.68, 2: 0.681}}
    # A4 - A2 0, 0, -0.001: mean -1/3, sd 1/√3 in thousandths; to -5: t = 14/3 · 3 = 14, p = 1 - √(196/198) = 0.005
    assert said(table(same)) == [
        f"{ARM}: helps as augmentation ({helps}; p = 0.013; the same without the task's loss, within ±0.5 points, "
        "p = 0.013)."
    ]
    worse = {**BY_HAND, f"{ARM}: whole views": {0: 0.71, 1: 0.72, 2: 0.74}}
    assert said(table(worse)) == [
        f"{ARM}: hurts (test accuracy, %: −5.00 [−7.48, −2.52] over whole views, +4.67 [+3.23, +6.10] over more "
        "epochs; worse than whole views, p = 0.013)."
    ]
    alike = {**BY_HAND, f"{ARM}: whole views": {0: 0.65, 1: 0.68, 2: 0.69}}
    assert said(table(alike)) == [
        f"{ARM}: undecided (test accuracy, %: +0.00 [−2.48, +2.48] over whole views, +4.67 [+3.23, +6.10] over more "
        "epochs; helps: p = 1.000; hurts: p = 1.000)."
    ]


def test_the_sentence_where_nothing_was_tested() -> None:
    two = {name: {seed: values[seed] for seed in (0, 1)} for name, values in BY_HAND.items()}
    assert said(table(two)) == [f"{ARM}: undecided: needs at least 3 seeds."]
    assert said(table({**BY_HAND, ARM: {}}))[0].startswith(
        f"{ARM}: undecided: the finished seeds differ or are missing"
    )


def test_an_arm_of_one_view_is_compared_with_sl_once() -> None:
    shown = table(controls={ARM: {**PUZZLING, "views": "SL", "epochs": "SL"}})
    [words] = said(shown)
    assert "(test accuracy, %: +6.33 [+4.90, +7.77] over SL; " in words
    cells = [row[0] for row in control_tables(shown)[0].cells()]
    assert cells == [
        "A4 − A0: in all",
        "A1 − A0: views",
        "A2 − A1: distortion",
        "A3 − A2: random auxiliary gradient",
        "A4 − A3: information in the task",
        "A4 − A2: over distortion",
        "over supervision off",
    ]
    assert control_tables(shown)[0].cells()[1][2] == "0 (the same arm)"


def test_the_order_the_rule_and_the_registration_are_said() -> None:
    text = notes(table(registered=REGISTERED, file="a" * 64))
    assert "A4 − A0 = (A1 − A0) + (A2 − A1) + (A3 − A2) + (A4 − A3), always in this order" in text
    assert "p ≤ 0.05 after Holm's adjustment for 1 controlled arm, at least 3 seeds" in text
    assert "A4 − A2 is within ±0.5 points" in text
    assert (
        f"Registered on 2026-11-26 00:30:00 UTC, before the first trial: study file {'a' * 12}, verdict rule "
        f"{rule_hash({})[:12]}, test/accuracy, seeds 0, 1, 2."
    ) in text
    assert "Changed" not in text
    assert "Lower" not in text


def test_a_change_after_the_first_trial_is_said() -> None:
    text = notes(table(registered=REGISTERED, file="c" * 64, seeds=[0, 1, 2, 3]))
    assert (
        "Changed after the first trial: study file: registered aaaaaaaaaaaa on 2026-11-26 00:30:00 UTC, now "
        "cccccccccccc." in text
    )
    assert "seeds: registered 0, 1, 2 on 2026-11-26 00:30:00 UTC, now 0, 1, 2, 3." in text
    assert text.count("Changed") == 2


def test_a_study_that_was_registered_late_or_not_at_all() -> None:
    assert "with 4 of its trials complete already" in notes(table(registered={**REGISTERED, "trained": 4}))
    assert "Not registered before the first trial" in notes(table())


def test_errors_and_metrics_without_a_unit() -> None:
    text = notes(table(metric="test/mae"))
    assert "Lower is better: a negative difference is a gain." in text
    assert "within ±0.5°" in text
    assert "never called equivalent (the metric has no unit: set verdict.smallest)" in notes(table(metric="test/ccc"))


def test_a_study_s_controls_follow_its_table() -> None:
    sections = build_document(Report((), (study(BY_HAND), controlled(), study(BY_HAND, name="last")), False)).sections
    assert [shown.title.partition(" (")[0] for shown in sections[0].tables] == [
        "puzzling",
        "controls",
        "Controls: SL + puzzling · controls",
        "Controls: SL + rotation · controls",
        "last",
    ]


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_every_format_says_every_verdict(name: str) -> None:
    text = re.sub(r"\s+", " ", render(example(), name))
    assert "SL + puzzling: helps, cause undecided (test accuracy, " in text
    assert "SL + rotation: undecided: the finished seeds differ or are missing" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_s_tables_fit_and_keep_their_numbers_whole(width: int) -> None:
    text = render(Report((), (controlled(),), False), "terminal", width)
    assert max(map(len, text.splitlines())) <= width
    own = text.partition("Controls: SL + puzzling")[2]
    assert "+6.43 [+4.57, +8.30]" in own
    assert "+4.10 [+3.67, +4.53]" in own


def test_json() -> None:
    [own] = json.loads(render(Report((), (controlled(),), False), "json"))["studies"]
    controls = own["controls"]
    assert list(controls) == ["rule", "registered", "changed", "arms"]
    assert controls["rule"] == {"smallest": 0.5, "alpha": 0.05}
    assert controls["registered"]["seeds"] == [0, 1, 2]
    assert controls["changed"] == {"study file": {"registered": "a" * 64, "now": "c" * 64}}
    first, second = controls["arms"]
    assert (first["arm"], first["verdict"]) == (ARM, "helps, cause undecided")
    assert set(first["p"]) == {"helps", "task", "augmentation", "hurts"}
    whole, *parts = first["differences"][:5]
    assert whole["difference"] == pytest.approx(sum(part["difference"] for part in parts))
    assert parts[3]["values"] == {"0": pytest.approx(0.04), "1": pytest.approx(0.03), "2": pytest.approx(0.053)}
    assert (second["verdict"], second["p"], second["differences"]) == ("undecided", {}, [])
    assert json.loads(render(Report((), (study(BY_HAND),), False), "json"))["studies"][0]["controls"] is None


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(render(Report((), (controlled(),), False), "csv"))))
    own = [row for row in rows if row["table"] == "controls"]
    verdicts = {row["variant"]: row["status"] for row in own if row["part"] == "verdict"}
    assert verdicts == {ARM: "helps, cause undecided", "SL + rotation": "undecided"}
    [information] = [row for row in own if row["part"] == "information in the task"]
    assert float(information["difference"]) == pytest.approx((0.04 + 0.03 + 0.053) / 3)
    assert (information["minuend"], information["subtrahend"]) == (ARM, f"{ARM}: random answers")
    assert (information["study"], information["unit"], information["n_seeds"]) == ("controls", "fraction", "3")
    assert {row["part"] for row in rows if row["table"] == "study"} == {""}
