"""What the test images say in a study's table, from the predictions in trials' folders."""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hmtl_ablate.reporting.render import Report, build_report, render
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable, study_tables
from hmtl_ablate.training.folder import TrialFolder

LABELS = (0, 0, 0, 1)
RIGHT = {"SL": {0: "1100", 1: "1000", 2: "1010"}, "A": {0: "1111", 1: "1101", 2: "1110"}}
"""Variant → seed → which of four images are right. A − SL: 0011, 0101, 0100, means 0.5, 0.5, 0.25; images' means 0,
2/3, 1/3, 2/3."""

Make = Callable[..., Results]


@pytest.fixture
def make(records: Any, tmp_path: Path) -> Make:
    """A study whose trials have predictions."""

    def made(
        right: Mapping[str, Mapping[int, str]] = RIGHT,
        metric: str = "test/accuracy",
        labels: Callable[[str], tuple[int, ...]] = lambda variant: LABELS,
        score: Callable[[str], float] = lambda right: right.count("1") / len(right),
        without: tuple[tuple[str, int], ...] = (),
        **study: Any,
    ) -> Results:
        parent = records.study({name: name for name in right}, [0, 1, 2], metric=metric, **study)
        for name, seeds in right.items():
            for seed, answers in seeds.items():
                trial_id = f"{name}{seed}"
                records.trial(parent, name, name, seed, score(answers), trial_id=trial_id, metric=metric)
                if (name, seed) not in without:
                    own = np.array(labels(name))
                    given = np.where(np.array(list(answers)) == "1", own, 1 - own)
                    folder = TrialFolder(tmp_path / "trials" / trial_id)
                    folder.path.mkdir(parents=True)
                    folder.write_predictions(
                        {"test_index": np.arange(4), "test_label": own, "test_probability": np.eye(2)[given]}
                    )
        return replace(records.results(), store=tmp_path)

    return made


def table(results: Results) -> StudyTable:
    (found,) = study_tables(results)
    return found


def notes(results: Results, *words: str) -> list[str]:
    return [note for note in table(results).notes if any(word in note for word in words)]


def test_a_comparison_has_both_errors_by_hand(make: Make) -> None:
    """Over images: sd of 0, 2/3, 1/3, 2/3 is √(0.305556 / 3) = 0.319142, standard error 0.159571, t(0.975, 3) 3.18245:
    ±0.507826. Over seeds: sd of 0.5, 0.5, 0.25 is 0.144338, t(0.975, 2) = 4.30265: ±0.358558. Both: ±0.621659."""
    results = make()
    (one,) = table(results).comparisons
    assert one.images is not None
    assert one.images.mean == pytest.approx(one.estimate.mean) == pytest.approx(5 / 12)
    assert one.images.over_images == pytest.approx(0.507826, rel=1e-4)
    assert one.images.over_seeds == pytest.approx(0.358558, rel=1e-4)
    assert one.images.over_both == pytest.approx(0.621659, rel=1e-4)
    assert one.mcnemar == {0: 0.5, 1: 0.5, 2: 1.0}  # two, two and one images that A alone gets right: 2/2², 2/2², 1
    assert notes(results, "95 %") == [
        "A − SL: 95 % interval over seeds ±35.86, over 4 test images ±50.78, over both ±62.17 points; McNemar's p "
        "< 0.05 with 0 of 3 seeds"
    ]
    (record,) = results.comparisons().to_dict("records")
    assert record["n_images"] == 4
    assert record["images_se"] == pytest.approx(0.159571, rel=1e-4)
    assert record["both_ci95_high"] == pytest.approx(5 / 12 + 0.621659, rel=1e-4)
    assert record["mcnemar"] == {"0": 0.5, "1": 0.5, "2": 1.0}


def test_csv_and_chosen_columns_have_them(make: Make) -> None:
    results = make()
    report = build_report(results)
    (row,) = (row for row in csv.DictReader(io.StringIO(render(report, "csv"))) if row["variant"] == "A")
    assert float(row["images_ci95_low"]) == pytest.approx(5 / 12 - 0.507826, rel=1e-3)
    assert (row["n_images"], row["mcnemar"], row["fair_minus"]) == ("4", "0 of 3", "")
    chosen = replace(report.options, columns=("variant", "images_se", "images_ci95", "both_ci95", "mcnemar"))
    text = render(Report(report.claims, report.tables, False, options=chosen), "markdown")
    assert "| A | 15.96 | \\[−9.12, +92.45\\] | \\[−20.50, +103.83\\] | 0 of 3 |" in text


def test_arms_near_the_majority_class_are_named(make: Make) -> None:
    """Three of four images are of class 0. SL is right about 5 of 12, A about 10 of 12, with 75 % in the interval."""
    (note,) = notes(make(), "Majority")
    assert note.startswith(
        "Majority class: 75.00 % of the 4 test images. Accuracy within noise of it or below: SL 41.67 %"
    )
    assert "; A 83.33 % [" in note


def test_an_arm_above_the_majority_class_is_not_named(make: Make) -> None:
    """A perfect arm of each seed has no spread; with one seed alone the images' interval is taken."""
    found = make({"SL": dict.fromkeys(range(3), "1111"), "A": {0: "0000"}})
    assert notes(found, "Majority") == [
        "Majority class: 75.00 % of the 4 test images. Accuracy within noise of it or below: A 0.00 % [0.00, 0.00]"
    ]


def test_other_test_images_are_named(make: Make) -> None:
    found = make(labels=lambda variant: LABELS if variant == "SL" else (1, 0, 0, 1))
    assert table(found).comparisons[0].images is None
    assert notes(found, "unknown", "McNemar") == [
        "Sampling error of the test images unknown: the arms were not tested on the same images with the same labels "
        "(A − SL)"
    ]


def test_missing_predictions_are_named_unless_all_are_missing(make: Make) -> None:
    right = {**RIGHT, "B": RIGHT["A"]}
    found = make(right, without=(("B", 1),))
    assert notes(found, "unknown") == [
        "Sampling error of the test images unknown: a trial has no predictions on this machine (B − SL)"
    ]
    assert [one.images is not None for one in table(found).comparisons] == [True, False]
    assert notes(replace(found, store=None), "unknown", "95 %", "Majority") == []


def test_predictions_of_another_score_are_named(make: Make) -> None:
    found = make(score=lambda right: 3.0)
    assert notes(found, "unknown", "McNemar") == [
        "Sampling error of the test images unknown: the predictions kept do not give the recorded score (A − SL)"
    ]


def test_a_metric_that_is_no_mean_is_named(make: Make) -> None:
    found = make(metric="test/recall/joy")
    assert notes(found, "unknown", "McNemar") == [
        "A − SL: McNemar's p < 0.05 with 0 of 3 seeds",
        "Sampling error of the test images unknown: test recall joy is no mean over images, nor one of the metrics "
        "whose influences are known (A − SL)",
    ]


def test_many_comparisons_have_one_line(make: Make) -> None:
    found = make({**RIGHT, **dict.fromkeys("BCDE", RIGHT["A"])})
    assert notes(found, "95 %") == [
        "5 differences: 95 % interval over seeds ±35.86, over 4 test images ±50.78, over both ±62.17 points; McNemar's "
        "p < 0.05 with 0 of 15 pairs of trials"
    ]


def test_where_seeds_were_added_only_the_rate_is_shown(make: Make) -> None:
    decide = {"smallest": 0.5, "seeds": 12, "alpha": 0.05, "comparisons": [["A", "SL"]]}
    found = make(decide=decide, asked={"SL": [0, 1, 2], "A": [0, 1, 2]})
    assert notes(found, "95 %", "McNemar", "Majority") == ["Majority class: 75.00 % of the 4 test images"]
