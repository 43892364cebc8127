"""Comparisons of a study's table, against hand-worked cases."""

import math
from typing import Any

import pytest
from scipy import stats

from hmtl_ablate.reporting.comparison import Arm, comparisons
from hmtl_ablate.reporting.statistics import estimate, seeds_for
from hmtl_ablate.reporting.tables import study_tables

SL = {0: 0.60, 1: 0.60, 2: 0.60}
BETTER = {0: 0.64, 1: 0.63, 2: 0.65}
"""0.04, 0.03, 0.05 above SL: mean 0.04, sd 0.01, t² = 48, two-sided p = 1 − √(48/50) = 0.020204."""


def test_one_comparison_by_hand() -> None:
    (one,) = comparisons({"SL": SL, "A": BETTER}, "test/accuracy", {})
    assert one.p == pytest.approx(1 - math.sqrt(48 / 50))
    assert one.p_holm == one.p
    assert one.d_z == pytest.approx(4.0)  # 0.04 / 0.01
    assert (one.low, one.high) == pytest.approx((one.estimate.low, one.estimate.high))
    assert one.wilcoxon is None  # three pairs
    # half-width 0.005 = t · 0.01 / √n: n = 17 gives 2.1199 · 0.01 / 4.1231 = 0.005142, n = 18 gives 2.1098 / 4.2426
    assert one.seeds_needed == 18


def test_two_comparisons_share_the_level() -> None:
    """Holm: the smaller p times 2, the larger at least that. Bonferroni: t(0.9875, 2) = 6.2053 in place of 4.3027."""
    first, second = comparisons({"SL": SL, "A": BETTER, "B": {0: 0.6, 1: 0.61, 2: 0.59}}, "test/accuracy", {})
    assert first.p_holm == pytest.approx(2 * (1 - math.sqrt(48 / 50)))
    assert second.p == pytest.approx(1.0)
    assert (first.low, first.high) == pytest.approx(
        (0.04 - 6.2053 * 0.01 / math.sqrt(3), 0.04 + 6.2053 * 0.01 / math.sqrt(3)), abs=1e-6
    )


def test_a_comparison_without_seeds_enough_counts_in_the_family() -> None:
    first, second = comparisons({"SL": SL, "A": BETTER, "B": {0: 0.7, 1: 0.8}}, "test/accuracy", {})
    assert first.p_holm == pytest.approx(2 * (1 - math.sqrt(48 / 50)))
    assert (second.p, second.p_holm, second.d_z, second.low, second.seeds_needed) == (None, None, None, None, None)
    assert second.estimate.mean == pytest.approx(0.15)


def test_the_signed_rank_test_of_six_pairs_by_hand() -> None:
    """All six positive: one of 2⁶ signs is as extreme, in each direction: p = 2/64."""
    zero = dict.fromkeys(range(6), 0.0)
    (one,) = comparisons({"SL": zero, "A": {seed: (seed + 1) / 100 for seed in range(6)}}, "test/accuracy", {})
    assert one.wilcoxon == pytest.approx(2 / 64)
    (five,) = comparisons({"SL": zero, "A": {seed: (seed + 1) / 100 for seed in range(5)}}, "test/accuracy", {})
    assert five.wilcoxon is None


def test_equal_differences_are_no_certainty() -> None:
    (one,) = comparisons({"SL": SL, "A": {seed: value + 0.01 for seed, value in SL.items()}}, "test/accuracy", {})
    assert (one.p, one.d_z) == (1.0, None)


def test_scipy_agrees() -> None:
    ours, theirs = [0.72, 0.74, 0.73, 0.71], [0.70, 0.73, 0.72, 0.72]
    (one,) = comparisons({"SL": dict(enumerate(theirs)), "A": dict(enumerate(ours))}, "test/accuracy", {})
    assert one.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)


def test_seeds_for_a_width() -> None:
    for sd, half, by_hand in ((0.0, 0.005, 2), (0.01, 0.005, 18), (1.0, 0.5, 18)):
        assert seeds_for(sd, half) == by_hand
    wide = estimate([-1.0, 0.0, 1.0])  # t(0.975, 2) / √3 = 2.4841
    assert wide.high == pytest.approx(2.4841, abs=1e-4)
    assert seeds_for(1.0, 2.5) == 3
    assert seeds_for(1.0, 2.4) == 4


def arm(passes: float | None, **options: Any) -> Arm:
    plain = {"training.epochs": 8, "data.views": 1}
    return Arm(passes, plain | {key.replace("__", "."): value for key, value in options.items()})


def test_a_pretext_arm_has_sl_at_equal_passes_for_a_second_baseline() -> None:
    scores = {"SL": SL, "SL, 2 views": SL, "more epochs": SL, "A": BETTER}
    arms = {
        "SL": arm(100),
        "SL, 2 views": arm(200, data__views=2),
        "more epochs": arm(200, training__epochs=16),
        "A": arm(200, pretext__puzzling__grid=2),
    }
    found = [(one.variant, one.minus) for one in comparisons(scores, "test/accuracy", arms) if one.equal_passes]
    assert found == [("A", "SL, 2 views")]
    first = {name: arms[name] for name in ("SL, 2 views", "SL", "A")}
    ordered = {name: scores[name] for name in first}
    assert not any(one.equal_passes for one in comparisons(ordered, "test/accuracy", first))


@pytest.mark.parametrize("key", ["model__backbone", "data__fraction", "data__size", "model__weights"])
def test_sl_of_another_network_or_on_other_data_is_no_counterpart(key: str) -> None:
    """Nor is a baseline that is unlike the arm: the comparison at equal passes is made with another one."""
    other = {key: "another"}
    arms = {
        "SL": arm(200, **other),
        "SL, 2 views": arm(200, data__views=2),
        "A": arm(200, pretext__puzzling__grid=2),
        "B": arm(200, pretext__rotation__grid=1, **other),
    }
    found = comparisons(dict.fromkeys(arms, SL), "test/accuracy", arms)
    assert [(one.variant, one.minus) for one in found if one.equal_passes] == [("A", "SL, 2 views")]


def test_a_comparison_that_may_still_come_counts_in_the_family() -> None:
    """m is 3 from the start: two arms with the baseline, and A with SL at equal passes, finished or not."""
    arms = {"SL": arm(100), "SL, 2 views": arm(None, data__views=2), "A": arm(200, pretext__puzzling__grid=2)}
    scores = {"SL": SL, "SL, 2 views": {}, "A": BETTER}
    before = comparisons(scores, "test/accuracy", arms)
    after = comparisons(
        {**scores, "SL, 2 views": SL}, "test/accuracy", {**arms, "SL, 2 views": arm(200, data__views=2)}
    )
    ours, later = (next(one for one in found if one.variant == "A") for found in (before, after))
    assert (len(before), len(after), ours.family, later.family) == (2, 3, 3, 3)
    assert ours.p_holm == pytest.approx(3 * (1 - math.sqrt(48 / 50)))
    assert ours.p_holm == later.p_holm
    assert (ours.low, ours.high) == (later.low, later.high)
    not_begun = {**arms, "A": Arm(None, {})}
    assert comparisons({**scores, "A": {}}, "test/accuracy", not_begun)[0].family == 3


def test_nothing_may_come_where_the_baseline_has_the_passes() -> None:
    arms = {"SL, 2 views": arm(200, data__views=2), "SL": arm(None), "A": arm(200, pretext__puzzling__grid=2)}
    found = comparisons({"SL, 2 views": SL, "SL": {}, "A": BETTER}, "test/accuracy", arms)
    assert [one.family for one in found] == [2, 2]


def test_what_is_unequal_is_named(records: Any) -> None:
    parent = records.study({"SL": "a", "A": "b", "B": "c"}, [0])
    records.trial(parent, "SL", "a", 0, 0.5, passes=1000)
    records.trial(parent, "A", "b", 0, 0.5, passes=2000, params={"training.epochs": "16", "data.fraction": "0.5"})
    records.trial(parent, "B", "c", 0, 0.5, passes=1000)
    (table,) = study_tables(records.results())
    (note,) = (note for note in table.notes if note.startswith("Unequal"))
    assert note == (
        "Unequal to SL: A: epochs 16, not 8; data name rendered, size 48, fraction 0.5, not name rendered, size 48, "
        "fraction 1.0; image passes 2,000, not 1,000"
    )


def test_a_study_that_adds_seeds_has_no_comparison(records: Any) -> None:
    decide = {"smallest": 0.5, "seeds": 12, "alpha": 0.05, "comparisons": [["A", "SL"]]}
    parent = records.study(
        {"SL": "a", "A": "b"}, [0, 1, 2, 3], decide=decide, asked={"SL": [0, 1, 2, 3], "A": [0, 1, 2, 3]}
    )
    for seed in range(4):
        records.trial(parent, "SL", "a", seed, 0.5)
        records.trial(parent, "A", "b", seed, 0.6 + seed / 1000)
    results = records.results()
    (table,) = study_tables(results)
    assert table.comparisons == ()
    assert [row.comparison for row in table.rows] == [None, None]
    assert results.comparisons().empty


def test_comparisons_as_a_frame(records: Any) -> None:
    parent = records.study({"SL": "a", "A": "b"}, [0, 1, 2])
    for seed in range(3):
        records.trial(parent, "SL", "a", seed, SL[seed])
        records.trial(parent, "A", "b", seed, BETTER[seed])
    (row,) = records.results().comparisons().to_dict("records")
    assert (row["study"], row["variant"], row["minus"], row["n_seeds"], row["seeds_needed"]) == (
        "puzzling",
        "A",
        "SL",
        3,
        18,
    )
    assert row["p"] == pytest.approx(1 - math.sqrt(48 / 50))
