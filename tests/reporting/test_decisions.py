"""Reports of studies whose seeds were added until decided: the sequential interval, and no other."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from hmtl_ablate.reporting.claims import claims_table
from hmtl_ablate.reporting.decisions import STOPPING
from hmtl_ablate.reporting.figures import low_data_figure, low_data_lines
from hmtl_ablate.reporting.formats import TEXT_FORMATS
from hmtl_ablate.reporting.paper_tables import error_table
from hmtl_ablate.reporting.render import build_report, render
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable, study_tables
from hmtl_ablate.tracking.records import Registration, rule_hash
from tests.reporting.example import PUZZLING  # type: ignore[import-not-found]

ARM = "SL + puzzling"
RULE = {"smallest": 0.5, "seeds": 12, "alpha": 0.05}
# Differences in thousandths, by hand in tests/reporting/test_sequential.py: with one comparison at 0.05, mean 50 and
# half 24.174; with two at 0.025 the boundary after four seeds is 7.5377, and the half 30.77.
CLEAR = (40, 50, 60, 50)
SAME = (1, -1, 1, -1)
WIDE = (0, 50, 100, 50)


def fill(
    records: Any,
    differences: Mapping[str, tuple[int | None, ...]],
    *,
    comparisons: list[list[str]] | None = None,
    smallest: float = 1.0,
    **study: Any,
) -> Results:
    """A study at one seed after the other; differences: variant → thousandths over SL's 0.5, None for a failed trial,
    missing ones were not asked for."""
    names = ["SL", *differences]
    longest = max(map(len, differences.values()))
    parent = records.study(
        {name: f"key {name}" for name in names},
        list(range(12)),
        asked={"SL": list(range(longest)), **{name: list(range(len(own))) for name, own in differences.items()}},
        decide={**RULE, "smallest": smallest, "comparisons": comparisons or [[name, "SL"] for name in differences]},
        **study,
    )
    for seed in range(longest):
        records.trial(parent, "SL", "key SL", seed, 0.5)
    for name, own in differences.items():
        for seed, value in enumerate(own):
            score = None if value is None else 0.5 + value / 1000
            status = "failed" if value is None else "finished"
            records.trial(parent, name, f"key {name}", seed, score, status=status)
    return records.results()  # type: ignore[no-any-return]


def states(results: Results) -> dict[str, str]:
    frame = results.decisions()
    return {f"{row['minuend']} − {row['subtrahend']}": row["status"] for row in frame.to_dict("records")}


def test_every_state(records: Any) -> None:
    less = tuple(-value for value in CLEAR)
    used = (*WIDE, *4 * (100, 0))
    found = fill(records, {"a": CLEAR, "b": less, "c": SAME, "d": WIDE, "e": used})
    assert states(found) == {
        "a − SL": "better",  # five comparisons at 0.01: the boundary is 10.3, the half 42
        "b − SL": "worse",
        "c − SL": "no difference that matters",
        "d − SL": "open",
        "e − SL": "undecided",
    }


def test_better_and_worse_with_one_comparison(records: Any) -> None:
    assert states(fill(records, {"HMTL": CLEAR})) == {"HMTL − SL": "better"}


def test_an_error_that_falls_is_better(records: Any) -> None:
    parent = records.study(
        {"SL": "a", "HMTL": "b"},
        list(range(12)),
        metric="test/mae",
        asked={"SL": [0, 1, 2, 3], "HMTL": [0, 1, 2, 3]},
        decide={**RULE, "comparisons": [["HMTL", "SL"]]},
    )
    for seed, value in enumerate(CLEAR):
        records.trial(parent, "SL", "a", seed, 5.0, metric="test/mae")
        records.trial(parent, "HMTL", "b", seed, 5.0 - value / 100, metric="test/mae")
    assert states(records.results()) == {"HMTL − SL": "better"}


def test_the_order_of_arms_does_not_matter(records: Any) -> None:
    both = {"a": CLEAR, "b": (*WIDE, 40, 60)}
    one = states(fill(records, both, name="one"))
    two = states(fill(records, dict(reversed(both.items())), name="two"))
    assert {key: two[key] for key in one} == one


def test_a_closed_comparison_keeps_its_interval_when_shared_trials_go_on(records: Any) -> None:
    found = fill(records, {"HMTL": (*CLEAR, -900, -900)})
    [row] = found.decisions().to_dict("records")
    assert (row["status"], row["n_seeds"], row["difference"]) == ("better", 4, pytest.approx(0.05))
    assert (row["sequential_low"], row["sequential_high"]) == (
        pytest.approx(0.05 - 0.024174, abs=1e-5),
        pytest.approx(0.05 + 0.024174, abs=1e-5),
    )
    assert (row["level"], row["smallest"], row["missing"]) == (95, 0.01, [])


def test_a_failed_trial_is_a_missing_pair_and_is_said(records: Any) -> None:
    found = fill(records, {"HMTL": (40, None, 50, 60, 50)})
    assert states(found) == {"HMTL − SL": "better"}
    text = render(build_report(found), "markdown")
    assert "HMTL − SL: no pair of seed 1: that look was not taken" in text


def test_a_trial_that_is_not_over_ends_the_looks(records: Any) -> None:
    """Seed 1 still runs: seeds 2 to 4 wait for it, as they do while the study runs."""
    results = fill(records, {"HMTL": (40, 50, 50, 60, 50)})
    results.trials.loc[(results.trials["variant"] == "HMTL") & (results.trials["seed"] == 1), "status"] = "running"
    assert states(results) == {"HMTL − SL": "open"}
    assert results.decisions()["n_seeds"].tolist() == [1]


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_text_shows_the_sequential_interval_and_no_other(records: Any, name: str) -> None:
    text = re.sub(r"\s+", " ", render(build_report(fill(records, {"HMTL": CLEAR, "other": WIDE})), name))
    plain = text.translate({ord(c): None for c in "\\{}$"}).replace("-", "−")
    assert "[95 %]" not in text.partition("decide")[2] or "sequential 97.5 %" in plain
    assert plain.count("sequential 97.5 %") >= 2
    # by t, half of HMTL's would be 3.1824 · 0.8165 / 2 = 1.30: the interval from 3.70 to 6.30
    assert "3.70" not in plain
    assert "[+1.92, +8.08]" in plain
    assert STOPPING.split(":")[0] in text
    assert "p =" not in text
    assert "p <" not in text


def test_programs_get_the_sequential_interval_under_its_own_name(records: Any) -> None:
    report = build_report(fill(records, {"HMTL": CLEAR}))
    [study] = json.loads(render(report, "json"))["studies"]
    sl, hmtl = study["rows"]
    assert (hmtl["ci95_low"], hmtl["ci95_high"], hmtl["mean_ci95_low"], sl["mean_ci95_high"]) == (None,) * 4
    assert hmtl["sequential_low"] == pytest.approx(0.05 - 0.024174, abs=1e-5)
    decisions = study["decisions"]
    assert decisions["rule"] == {**RULE, "smallest": 1.0}
    assert decisions["alpha_each"] == 0.05
    assert decisions["comparisons"][0]["status"] == "better"
    assert decisions["comparisons"][0]["values"]["1"] == pytest.approx(0.05)
    rows = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    [own] = [row for row in rows if row["table"] == "decisions"]
    assert (own["minuend"], own["subtrahend"], own["status"], own["ci95_low"]) == ("HMTL", "SL", "better", "")
    assert float(own["sequential_low"]) == pytest.approx(0.05 - 0.024174, abs=1e-5)


def test_a_study_of_fixed_seeds_has_no_decisions(records: Any) -> None:
    parent = records.study({"SL": "a", "HMTL": "b"}, [0, 1])
    for seed in (0, 1):
        records.trial(parent, "SL", "a", seed, 0.5)
        records.trial(parent, "HMTL", "b", seed, 0.5 + seed / 100)
    results = records.results()
    assert results.decisions().empty
    [study] = json.loads(render(build_report(results), "json"))["studies"]
    assert study["decisions"] is None
    assert study["rows"][1]["ci95_low"] is not None
    assert study["rows"][1]["sequential_low"] is None
    assert "Decisions" not in render(build_report(results), "terminal")


def test_the_rule_the_registration_and_its_changes_are_said(records: Any) -> None:
    before = {**RULE, "smallest": 1.0, "comparisons": [["HMTL", "SL"], ["gone", "SL"]]}
    registered = Registration(
        study="",
        verdict=rule_hash({}),
        metric="test/accuracy",
        seeds=tuple(range(12)),
        time="2026-11-26T00:30:00+00:00",
        decide=before,
    )
    text = render(build_report(fill(records, {"HMTL": CLEAR}, registered=registered)), "markdown")
    assert "a look after each pair from 4 to 12, alpha 0.05 over 1 comparison, so 95 % each" in text
    assert "within ±1 points" in text
    assert "Registered on 2026-11-26 00:30:00 UTC, before the first trial" in text
    assert (
        "seeds 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, decide: smallest 1, seeds 12, alpha 0.05, 2 comparisons." in text
    )
    assert "Changed after the first trial: comparisons: registered HMTL − SL; gone − SL" in text
    assert "Changed after the first trial: decide:" not in text


def test_the_title_fits_a_narrow_terminal(records: Any) -> None:
    text = render(build_report(fill(records, {"HMTL": CLEAR, "other": WIDE})), "terminal", 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "+5.00 [+1.92, +8.08]" in text


def test_claims_figures_and_errors_have_no_t_interval(records: Any) -> None:
    results = fill(records, {"HMTL": CLEAR}, name="low_data")
    [table] = study_tables(results)
    reduction = next(column for column in error_table(table).columns if column.key == "reduction")
    assert "[" not in reduction.cell(table.rows[1])
    [run] = results.studies["run_id"]
    assert all(score.low is None for line in low_data_lines(results, run, "test/accuracy") for _, score in line.points)
    title = low_data_figure(results).axes[0].get_title()
    assert "no intervals: seeds were added until decided" in title


CLAIMED: dict[str, Any] = {
    "data": "affectnet",
    "images": 287_651,
    "passes": 287_651.0 * 100,
    "params": {
        "model.backbone": "efficientnet_b0",
        "model.weights": "None",
        "training.epochs": "100",
        "data.size": "112",
        "data.face_crop": "none",
    },
}


def test_a_claim_from_added_seeds_is_partial_without_an_interval(records: Any) -> None:
    def status() -> tuple[str, Any]:
        [row] = [one for one in claims_table(records.results()) if one.model == "SL (B0)"]
        return row.status, row.low

    parent = records.study(
        {"SL": "a", "HMTL": "b"}, list(range(12)), data="affectnet", decide={**RULE, "comparisons": [["HMTL", "SL"]]}
    )
    for seed, value in enumerate((0.603, 0.604, 0.605)):
        records.trial(parent, "SL", "a", seed, value, trial_id=f"t{seed}", **CLAIMED)
    assert status() == ("Partial", None)
    fixed = records.study({"SL": "a"}, [0, 1, 2], name="fixed", data="affectnet")
    for seed, value in enumerate((0.603, 0.604, 0.605)):
        records.trial(fixed, "SL", "a", seed, value, trial_id=f"t{seed}", **CLAIMED)
    assert status()[0] == "Reproduced"


def controlled(records: Any, **offsets: tuple[int, ...]) -> StudyTable:
    """An arm with controls, all of them at four or more seeds; offsets: kind of control → thousandths."""
    arm: dict[str, str] = {name: str(PUZZLING[name]) for name in ("views", "epochs", "distortion", "random_answers")}
    differences: dict[str, tuple[int | None, ...]] = {
        ARM: (90, 100, 110, 100),
        **{arm[key]: values for key, values in offsets.items()},
    }
    found = fill(
        records,
        differences,
        comparisons=[[ARM, "SL"], *([ARM, name] for name in arm.values())],
        controls={ARM: {**PUZZLING, "supervision_off": ""}},
    )
    [table] = study_tables(found)
    return table


def test_verdicts_come_from_the_states(records: Any) -> None:
    low, lower = (0, 10, 5, 2), (-3, 4, 0, 8)
    table = controlled(records, views=low, epochs=lower, distortion=low, random_answers=lower)
    assert table.controls is not None
    [arm] = table.controls.arms
    assert arm.states == dict.fromkeys(
        ("over whole views", "over more epochs", "over distortion", "over random answers"), "better"
    )
    assert arm.finding.kind == "helps because of the task"
    assert arm.finding.p == {}
    text = render(build_report_of(table), "terminal", 80)
    assert "helps because of the task" in text
    assert "Holm" not in text
    assert "over random answers" in text


def build_report_of(table: StudyTable) -> Any:
    from hmtl_ablate.reporting.render import Report

    return Report((), (table,), False)


def test_the_parts_of_the_sum_are_points_that_add_up_over_common_seeds(records: Any) -> None:
    low, lower = (0, 10, 5, 2), (-3, 4, 0, 8)
    more = (0, 10, 5, 2, 900)  # one seed more than the other arms
    table = controlled(records, views=low, epochs=lower, distortion=more, random_answers=lower)
    assert table.controls is not None
    [arm] = table.controls.arms
    total, *parts = arm.parts[:5]
    assert total.estimate.n == 4
    assert total.estimate.mean == pytest.approx(sum(part.estimate.mean or 0 for part in parts))
    assert all(part.estimate.low is None for part in arm.parts[:5])
    assert [part.name for part in arm.parts if part.estimate.low is not None] == list(arm.states)
    [study] = json.loads(render(build_report_of(table), "json"))["studies"]
    rows = study["controls"]["arms"][0]["differences"]
    assert [row["part"] for row in rows if row["sequential_low"] is not None] == list(arm.states)
    assert all(row["ci95_low"] is None for row in rows)


def test_a_control_that_is_the_same_as_the_arm_makes_it_augmentation(records: Any) -> None:
    low, lower = (0, 10, 5, 2), (-3, 4, 0, 8)
    alike = (91, 99, 111, 99)
    table = controlled(records, views=low, epochs=lower, distortion=alike, random_answers=lower)
    assert table.controls is not None
    assert table.controls.arms[0].finding.kind == "helps as augmentation"
