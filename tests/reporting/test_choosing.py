"""Chosen columns, further metrics, recall per class, and other names of arms, by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.errors import HmtlError, StoreError
from hmtl_ablate.reporting.choosing import ReportOptions
from hmtl_ablate.reporting.formats import format_names
from hmtl_ablate.reporting.render import build_report, render
from hmtl_ablate.reporting.results import Results, require_runs
from hmtl_ablate.tracking.records import Registration, rule_hash


def filled(records: Any) -> Results:
    """SL 0.5 and 0.6, HMTL 0.7 and 0.6; macro F1 0.1 and 0.3; recall of fear 0.2 and 0.4."""
    parent = records.study({"SL": "a", "HMTL": "b"}, [0, 1])
    for variant, key, values in (("SL", "a", (0.5, 0.6)), ("HMTL", "b", (0.7, 0.6))):
        for seed, value in enumerate(values):
            more = {"test/macro_f1": (0.1, 0.3)[seed], "test/recall/fear": (0.2, 0.4)[seed], "test/recall/10": 0.5}
            records.trial(parent, variant, key, seed, value, more=more | {"test/recall/9": 1.0})
    found: Results = records.results()
    return found


def text_of(results: Results, format: str = "markdown", **options: Any) -> str:
    return render(build_report(results, options=ReportOptions(**options)), format)


def test_chosen_columns_in_their_order(records: Any) -> None:
    results = filled(records)
    text = text_of(results, columns=("seconds", "variant", "sd"))
    assert "| Seconds | Variant | SD |" in text
    assert "| 30.0 | SL | 7.07 |" in text  # sd of 0.5 and 0.6
    everything = json.loads(text_of(results, "json", columns=("variant",)))["studies"][0]["rows"][0]
    assert everything == json.loads(text_of(results, "json"))["studies"][0]["rows"][0]
    with pytest.raises(HmtlError, match=r"--columns: there is no column 'secnds'; did you mean 'seconds'\?"):
        text_of(results, columns=("secnds",))


def test_a_further_metric_is_one_more_column(records: Any) -> None:
    results = filled(records)
    text = text_of(results, metrics=("test/macro_f1",), columns=("variant", "test/macro_f1"))
    assert "| SL | 20.00 ± 14.14 |" in text
    row = json.loads(text_of(results, "json", metrics=("test/macro_f1",)))["studies"][0]["rows"][1]
    assert (row["test/macro_f1"], row["test/macro_f1 sd"]) == pytest.approx((0.2, 0.02**0.5))
    assert "test/macro_f1" in text_of(results, "csv", metrics=("test/macro_f1",)).splitlines()[0]
    with pytest.raises(HmtlError, match=r"no trial in this store has 'test/macro_f2'; did you mean 'test/macro_f1'\?"):
        text_of(results, metrics=("test/macro_f2",))


def test_recall_of_each_class(records: Any) -> None:
    """Three classes of two variants go down the page; two classes of two do not."""
    results = filled(records)
    text = text_of(results, recall=True)
    assert "| Class | SL | HMTL |" in text
    assert [line.split(" |")[0] for line in text.splitlines() if "14.14 | 30" in line or "100.00 ±" in line] == [
        "| 9",
        "| fear",
    ]
    few = replace(results, trials=results.trials.drop(columns="metrics.test/recall/9"))
    text = text_of(few, recall=True)
    assert "| Variant | 10 | fear |" in text
    assert "| SL | 50.00 ± 0.00 | 30.00 ± 14.14 |" in text


def test_the_best_variant_of_each_class_is_bold(records: Any) -> None:
    parent = records.study({"SL": "a", "HMTL": "b"}, [0])
    for variant, key, recalls in (("SL", "a", (0.9, 0.2, 0.5)), ("HMTL", "b", (0.3, 0.4, 0.5))):
        more = {f"test/recall/{name}": value for name, value in zip("xyz", recalls, strict=True)}
        records.trial(parent, variant, key, 0, 0.5, more=more)
    text = text_of(records.results(), "latex", recall=True)
    bold = r"{\boldmath\textbf{%s}}"
    assert f"x & {bold % '90.00'} & 30.00" in text
    assert f"y & 20.00 & {bold % '40.00'}" in text
    assert f"z & {bold % '50.00'} & {bold % '50.00'}" in text


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_hundred_classes_with_long_names_are_a_grid_at_every_width(records: Any, width: int) -> None:
    parent = records.study({"SL": "a", "SL + puzzling": "b"}, [0, 1])
    for variant, key in (("SL", "a"), ("SL + puzzling", "b")):
        for seed in (0, 1):
            more = {f"test/recall/expression of the face number {n:03d}": 0.5 for n in range(100)}
            records.trial(parent, variant, key, seed, 0.5, more=more)
    report = build_report(records.results(), options=ReportOptions(recall=True))
    lines = render(report, "terminal", width).splitlines()
    rows = [line for line in lines if line.startswith("expression of the face number ")]
    assert len(rows) == 100
    assert all(line.count(" 50.00 ± 0.00") == 2 and len(line) <= width for line in rows)
    floats = render(report, "latex")
    assert floats.count("(continued)") == 2  # 100 rows in floats of 34, 34 and 32
    assert r"\label{tab:hmtl-puzzling-quick-recall-part-3}" in floats


@pytest.mark.parametrize("format", format_names())
def test_arms_are_renamed_in_every_format(records: Any, format: str) -> None:
    text = text_of(filled(records), format, rename={"HMTL": "Ours"})
    assert "Ours" in text
    assert "HMTL" not in text


def controlled(records: Any) -> Results:
    """Three seeds of an arm, its added controls, and an arm whose name begins as theirs do."""
    arm, grid = "SL + puzzling", "SL + puzzling: grid 3"
    kinds = {"views": "whole views", "distortion": "distortion", "random_answers": "random answers"}
    controls = {"sl": "SL", "arm": arm, **{kind: f"{arm}: {name}" for kind, name in kinds.items()}}
    names = ["SL", arm, grid, *(name for kind, name in controls.items() if kind not in ("sl", "arm"))]
    parent = records.study({name: name for name in names}, [0, 1, 2], controls={arm: controls})
    for place, name in enumerate(names):
        for seed in range(3):
            records.trial(parent, name, name, seed, 0.6 + place / 100 + (seed * place) / 1000)
    found: Results = records.results()
    return found


def compared(text: str) -> dict[str, float]:
    rows = json.loads(text)["studies"][0]["comparisons"]
    return {row["variant"]: row["p"] for row in rows}


def test_an_arm_named_as_a_control_is_compared(records: Any) -> None:
    assert list(compared(text_of(controlled(records), "json"))) == ["SL + puzzling", "SL + puzzling: grid 3"]


@pytest.mark.parametrize("new", [{"SL + puzzling": "Ours"}, {"SL + puzzling: distortion": "X"}])
def test_other_names_change_no_p_value(records: Any, new: dict[str, str]) -> None:
    results = controlled(records)
    before, after = (compared(text_of(results, "json", rename=names)) for names in ({}, new))
    assert list(after.values()) == list(before.values())
    assert list(after) == [new.get(name, name) for name in before]


def test_the_added_controls_of_a_renamed_arm_follow_it(records: Any) -> None:
    rows = json.loads(text_of(controlled(records), "json", rename={"SL + puzzling": "Ours"}))["studies"][0]["rows"]
    assert [row["variant"] for row in rows][1:4] == ["Ours", "SL + puzzling: grid 3", "Ours: whole views"]


def test_other_names_are_no_change_after_the_registration(records: Any) -> None:
    decide = {"smallest": 0.5, "seeds": 12, "alpha": 0.05, "comparisons": [["HMTL", "SL"]]}
    seeds = [0, 1, 2, 3]
    registered = Registration(
        study="",
        verdict=rule_hash({}),
        metric="test/accuracy",
        seeds=tuple(seeds),
        time="2026-11-27T00:00:00+00:00",
        decide=decide,
    )
    parent = records.study({"SL": "a", "HMTL": "b"}, seeds, decide=decide, registered=registered)
    for seed in seeds:
        records.trial(parent, "SL", "a", seed, 0.5)
        records.trial(parent, "HMTL", "b", seed, 0.6 + seed / 100)
    text = text_of(records.results(), rename={"HMTL": "Ours"})
    assert "Registered on 2026-11-27" in text
    assert "Changed after the first trial" not in text


def test_a_name_that_does_not_fit_is_refused(records: Any) -> None:
    results = filled(records)
    with pytest.raises(HmtlError, match=r"no study in this store has an arm 'HMLT'; did you mean 'HMTL'\?"):
        text_of(results, rename={"HMLT": "Ours"})
    with pytest.raises(HmtlError, match="study 'puzzling' has two arms named 'SL' then"):
        text_of(results, rename={"HMTL": "SL"})
    with pytest.raises(HmtlError, match="the arm 'HMTL' needs a name"):
        text_of(results, rename={"HMTL": " "})


def test_arms_may_exchange_their_names(records: Any) -> None:
    results = filled(records)
    rows = json.loads(text_of(results, "json", rename={"HMTL": "SL", "SL": "HMTL"}))["studies"][0]["rows"]
    assert [(row["variant"], round(row["mean"], 9)) for row in rows] == [("HMTL", 0.55), ("SL", 0.65)]


def test_a_folder_without_a_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no store in .*\nname the --runs folder that a run has written"):
        require_runs(None, tmp_path)
    with pytest.raises(StoreError, match=r"there is no folder .*missing"):
        require_runs(None, tmp_path / "missing")
    (tmp_path / "mlflow.db").touch()
    require_runs(None, tmp_path)
