"""Evidence on a pretext task: which differences enter the mean, the mean itself, and the report in every format."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Polygon
from scipy import stats

from hmtl_ablate.errors import HmtlError
from hmtl_ablate.reporting.choosing import ReportOptions
from hmtl_ablate.reporting.evidence import ADAPTIVE, EQUAL, FEW, Evidence, evidence
from hmtl_ablate.reporting.evidence_pooling import pooled, prediction_interval
from hmtl_ablate.reporting.figures.evidence import draw
from hmtl_ablate.reporting.figures.files import write_evidence
from hmtl_ablate.reporting.render import build_report, render
from hmtl_ablate.reporting.tables import study_tables

PUZZLING = {"pretext.puzzling.grid": "2", "pretext.puzzling.feed": "'siamese'"}
SIX = [(0.095, 0.033), (0.277, 0.031), (0.367, 0.050), (0.664, 0.011), (0.462, 0.043), (0.185, 0.023)]
"""Effects and variances, more different than their variances explain."""


def log(
    records: Any,
    gains: list[float],
    name: str = "one",
    *,
    data: str = "rendered",
    passes: float = 48_000,
    decide: dict[str, Any] | None = None,
    metric: str = "test/accuracy",
    feed: str = "siamese",
    params: dict[str, str] | None = None,
    extra: dict[str, dict[str, str]] | None = None,
    trial_ids: str = "",
) -> None:
    """A study of SL, SL with two views (48,000 image passes) and puzzling, whose scores are 0.5 + gain."""
    own = params or {}
    arms = {
        "SL": (own, 24_000.0, 0.0),
        "SL, 2 views": (own | {"data.views": "2"}, 48_000.0, 0.1),
        "SL + puzzling": (own | PUZZLING | {"pretext.puzzling.feed": f"'{feed}'"}, passes, 1.0),
        **{key: (own | value, 48_000.0, 1.0) for key, value in (extra or {}).items()},
    }
    seeds = list(range(len(gains)))
    parent = records.study(
        {arm: f"{name}-{arm}" for arm in arms},
        seeds,
        name=name,
        data=data,
        metric=metric,
        decide=decide,
        asked=dict.fromkeys(arms, seeds),
    )
    for arm, (options, cost, share) in arms.items():
        for seed, gain in enumerate(gains):
            records.trial(
                parent,
                arm,
                f"{name}-{arm}",
                seed,
                0.5 + share * gain,
                data=data,
                passes=cost,
                metric=metric,
                params=options,
                trial_id=f"{trial_ids or name}-{arm}-{data}-{seed}",
            )


def found(records: Any, task: str = "puzzling") -> tuple[Evidence, ...]:
    results = records.results()
    return evidence(results, study_tables(results), task)


def test_the_prediction_interval_of_a_published_example() -> None:
    """The ten studies of Riley, Higgins and Deeks (BMJ 2011, 342:d549), with −0.76 to 0.09. With more digits
    in the manual of the R package pimeta (htsdl, pima_hts): mean −0.3340597, τ² 0.02824971, 95 % interval of t with 9
    degrees of freedom −0.5068 to −0.1613, prediction interval −0.7597777 to 0.09165839."""
    se = (0.5068 - 0.1613) / 2 / 2.262157
    assert prediction_interval(-0.3340597, se, 0.02824971, 10) == pytest.approx((-0.7597777, 0.09165839), abs=5e-5)
    assert prediction_interval(0.3582, 0.1, 0.04, 2) is None


def test_the_mean_by_hand() -> None:
    """Effects 0, 2, 4 with standard error 1: Q = 8, Paule and Mandel's 8 / (1 + τ²) = 2, so τ² = 3; Hartung and Knapp's
    variance is (8 / 4) / (2 · 3 / 4) = 4/3."""
    one = pooled([(0.0, 1.0), (2.0, 1.0), (4.0, 1.0)])
    assert (one.mean, one.q, one.tau2, one.i2) == pytest.approx((2.0, 8.0, 3.0, 0.75), abs=1e-4)
    assert one.p == pytest.approx(np.exp(-4))  # χ² with 2 degrees of freedom
    half = 4.302653 * (4 / 3) ** 0.5
    assert (one.low, one.high) == pytest.approx((2 - half, 2 + half), abs=1e-4)
    ahead = 12.706205 * (3 + 4 / 3) ** 0.5
    assert one.predicted == pytest.approx((2 - ahead, 2 + ahead), abs=1e-3)
    assert one.weights == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_the_mean_solves_its_equations() -> None:
    one = pooled([(value, variance**0.5) for value, variance in SIX])
    y, v = np.array(SIX).T
    weights = 1 / (v + one.tau2)
    mean = float(np.sum(weights * y) / np.sum(weights))
    assert one.mean == pytest.approx(mean)
    assert np.sum(weights * (y - mean) ** 2) == pytest.approx(5, abs=1e-4)  # Paule and Mandel: k − 1
    fixed = float(np.sum(y / v) / np.sum(1 / v))
    assert one.q == pytest.approx(np.sum((y - fixed) ** 2 / v))
    assert one.i2 == pytest.approx(1 - 5 / one.q)
    half = stats.t.ppf(0.975, 5) * np.sqrt(np.sum(weights * (y - mean) ** 2) / 5 / np.sum(weights))
    assert one.high - one.mean == pytest.approx(half)


def test_the_unit_changes_nothing() -> None:
    small, large = (pooled([(u * a, u * b) for a, b in ((1.0, 0.5), (3.0, 0.4), (2.0, 1.0))]) for u in (0.001, 100.0))
    assert (small.mean / 0.001, small.tau2 / 1e-6) == pytest.approx((large.mean / 100, large.tau2 / 1e4))
    assert (small.q, small.i2) == pytest.approx((large.q, large.i2))


def test_equal_effects_have_no_heterogeneity() -> None:
    one = pooled([(1.0, 1.0), (1.0, 1.0)])
    assert (one.tau2, one.i2, one.predicted) == (0.0, 0.0, None)
    assert one.q == pytest.approx(0)


def test_the_arm_at_equal_image_passes_is_compared(records: Any) -> None:
    log(records, [0.01, 0.02, 0.03])
    log(records, [0.01, 0.02, 0.03], "cheap", passes=24_000, feed="shared")
    (one,) = found(records)
    first, second = one.rows
    assert (first.minus, first.equal_passes, first.feed) == ("SL, 2 views", True, "siamese")
    assert first.gain.mean == pytest.approx(0.9 * 0.02)
    assert first.se == pytest.approx(0.9 * 0.01 / 3**0.5)
    assert (second.minus, second.equal_passes, second.feed) == ("SL", True, "shared")


def test_without_one_the_nearest_arm_is_compared(records: Any) -> None:
    log(records, [0.01, 0.02, 0.03], passes=96_000)
    (one,) = found(records)
    assert (one.rows[0].minus, one.rows[0].equal_passes) == ("SL", False)


def test_arms_that_start_from_a_stage_are_compared_whatever_their_last_seeds(records: Any) -> None:
    names = {"SL": {}, "SL + puzzling": PUZZLING}
    parent = records.study({name: name for name in names}, [0, 1, 2, 3])
    for seed in range(4):
        records.trial(parent, "stage", "stage", seed, trial_id=f"stage{seed}", stage=True)
    for name, options in names.items():
        for seed in range(4 if name == "SL" else 3):
            params = {**options, "model.weights": f"'trial:stage{seed}'"}
            records.trial(parent, name, name, seed, 0.5 + bool(options) * (1 + seed) / 100, params=params)
    ((row,),) = [one.rows for one in evidence(records.results(), study_tables(records.results()), "puzzling")]
    assert (row.variant, row.minus, row.gain.n) == ("SL + puzzling", "SL", 3)
    assert row.gain.mean == pytest.approx(0.02)


def test_one_effect_per_study_dataset_and_backbone(records: Any) -> None:
    extra = {"SL + puzzling 3 × 3": PUZZLING | {"pretext.puzzling.grid": "3"}}
    log(records, [0.01, 0.02, 0.03], extra=extra)
    log(records, [0.01, 0.02, 0.04], data="ferplus")  # the same study on other data
    (one,) = found(records)
    assert [(row.variant, row.data, bool(row.left_out)) for row in one.rows] == [
        ("SL + puzzling", "rendered", False),
        ("SL + puzzling", "ferplus", False),
        ("SL + puzzling 3 × 3", "rendered", True),
    ]
    assert one.rows[2].left_out == "one effect per study, dataset and backbone (SL + puzzling is kept)"
    assert one.pooled is not None
    assert one.pooled.k == 2


def test_the_most_pairs_are_kept_then_the_first_declared(records: Any) -> None:
    """Four seeds are kept, though declared second; another profile of a study is the same study."""
    log(records, [0.01, 0.02, 0.03])
    log(records, [0.01, 0.02, 0.03, 0.05], trial_ids="other")
    (one,) = found(records)
    assert [(row.gain.n, bool(row.left_out)) for row in one.rows] == [(4, False), (3, True)]
    assert one.pooled is None


def test_trials_that_two_studies_share_count_once(records: Any) -> None:
    log(records, [0.01, 0.02, 0.03])
    log(records, [0.01, 0.02, 0.03], "two", trial_ids="one")
    (one,) = found(records)
    assert one.rows[1].left_out == "6 trials shared with SL + puzzling of one, which is kept"


def test_few_pairs_and_equal_differences_are_left_out(records: Any) -> None:
    log(records, [0.01, 0.02])
    log(records, [0.0, 0.0, 0.0], "flat")
    (one,) = found(records)
    assert [row.left_out for row in one.rows] == [FEW, EQUAL]


def test_adaptive_seeds_have_their_sequential_interval_and_no_part_in_the_mean(records: Any) -> None:
    rule = {"smallest": 0.5, "seeds": 12, "alpha": 0.05, "comparisons": [["SL + puzzling", "SL, 2 views"]]}
    log(records, [0.01, 0.02, 0.03, 0.02], decide=rule)
    log(records, [0.01, 0.02, 0.03], "fixed")
    (one,) = found(records)
    row = next(row for row in one.rows if row.study == "one")
    assert (row.left_out, row.se, row.gain.sd) == (ADAPTIVE, None, None)
    # The differences have sd 0.9 · 0.0081650; the boundary of 4 pairs of 12 at most is 5.92 (docs/methods.md).
    assert row.gain.low == pytest.approx(0.018 - 5.92 * 0.9 * 0.0081650 / 2, abs=3e-5)
    text = render(build_report(records.results(), options=ReportOptions(evidence="puzzling")), "json")
    (shown,) = [row for row in json.loads(text)["evidence"][0]["rows"] if row["study"] == "one"]
    assert (shown["se"], shown["ci95_low"]) == (None, None)
    assert shown["sequential_low"] == pytest.approx(row.gain.low)


def test_errors_are_turned(records: Any) -> None:
    log(records, [-0.01, -0.02, -0.03], metric="test/mae_yaw")
    log(records, [0.01, 0.02, 0.03], "other")
    by_metric = {one.metric: one for one in found(records)}
    assert by_metric["test/mae_yaw"].rows[0].gain.mean == pytest.approx(0.018)
    assert len(by_metric) == 2  # degrees and accuracy are not pooled


def test_controls_and_arms_without_a_counterpart_are_no_evidence(records: Any) -> None:
    log(
        records,
        [0.01, 0.02, 0.03],
        extra={
            "random": PUZZLING | {"pretext.puzzling.answers": "'random'"},
            "both": PUZZLING | {"pretext.rotation.grid": "1"},
            "longer": PUZZLING | {"training.epochs": "16"},
        },
    )
    (one,) = found(records)
    assert [row.variant for row in one.rows] == ["SL + puzzling"]
    assert [note.split(":")[0] for note in one.notes] == [
        "No difference of both (one)",
        "No difference of longer (one)",
    ]


@pytest.fixture
def three(records: Any) -> Any:
    log(records, [0.01, 0.02, 0.03], extra={"wide grid": PUZZLING | {"pretext.puzzling.grid": "3"}})
    log(records, [0.00, 0.01, -0.01], "two", data="ferplus")
    log(records, [0.02, 0.03, 0.05], "three", params={"model.backbone": "'resnet18'"})
    return records.results()


@pytest.mark.parametrize("format", ["terminal", "markdown", "latex", "html"])
def test_formats_for_people(three: Any, format: str) -> None:
    text = " ".join(render(build_report(three, options=ReportOptions(evidence="puzzling")), format).split())
    assert "Random-effects mean of 3 effects" in text
    assert "prediction interval" in text
    assert "wide grid is kept" not in text
    assert "Not in the mean, one effect per study, dataset and backbone (SL + puzzling is kept): wide grid" in text
    assert "Claims" not in text


def test_formats_for_programs(three: Any) -> None:
    report = build_report(three, options=ReportOptions(evidence="puzzling"))
    (one,) = json.loads(render(report, "json"))["evidence"]
    assert (one["task"], one["metric"], one["pooled"]["k"], len(one["rows"])) == ("puzzling", "test/accuracy", 3, 4)
    assert sum(row["weight"] or 0 for row in one["rows"]) == pytest.approx(1)
    rows = list(csv.DictReader(io.StringIO(render(report, "csv"))))
    assert [(row["table"], row["backbone"]) for row in rows] == [
        ("evidence", "test_resnet"),
        ("evidence", "test_resnet"),
        ("evidence", "resnet18"),
        ("evidence", "test_resnet"),
    ]


def test_the_forest_plot_has_the_numbers_of_the_table(three: Any, tmp_path: Path) -> None:
    (one,) = evidence(three, study_tables(three), "puzzling")
    drawing = draw(one)
    assert drawing is not None
    assert one.pooled is not None
    (axes,) = drawing.figure.axes
    assert len(axes.get_yticklabels()) == 5
    assert np.asarray(axes.lines[1].get_xdata()).tolist() == pytest.approx([1.8])
    (diamond,) = axes.patches
    assert isinstance(diamond, Polygon)
    assert diamond.get_xy()[:, 0].min() == pytest.approx(100 * one.pooled.low)
    assert "Random-effects mean of 3 effects" in drawing.alt
    assert [path.name for path in write_evidence([one], tmp_path)] == [
        "evidence-puzzling-test_accuracy.png",
        "evidence-puzzling-test_accuracy.svg",
    ]


def test_one_effect_has_no_mean_and_says_so(records: Any) -> None:
    log(records, [0.01, 0.02, 0.03])
    text = render(build_report(records.results(), options=ReportOptions(evidence="puzzling")), "markdown")
    assert "No mean: 1 effect can enter it, and it needs two." in text
    none = render(build_report(records.results(), options=ReportOptions(evidence="rotation")), "markdown")
    assert "No arm with rotation has been trained next to one without it." in none


def test_an_unknown_task_has_its_nearest(records: Any) -> None:
    with pytest.raises(HmtlError, match="no pretext task 'puzling'; did you mean 'puzzling'"):
        found(records, "puzling")
