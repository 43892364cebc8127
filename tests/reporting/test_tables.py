import math
from typing import Any

import pytest
from scipy import stats

from hmtl_ablate.errors import StudyError
from hmtl_ablate.reporting.columns import study_columns
from hmtl_ablate.reporting.results import load_results
from hmtl_ablate.reporting.tables import planned_notes, study_tables


def fill(records: Any, parent: str, scores: dict[str, dict[int, float]], **options: Any) -> None:
    for variant, values in scores.items():
        for seed, value in values.items():
            records.trial(parent, variant, variant, seed, value, **options)


def test_a_table(records: Any) -> None:
    parent = records.study({"SL": "SL", "puzzling": "puzzling"}, [0, 1, 2])
    fill(records, parent, {"puzzling": {0: 0.72, 1: 0.74, 2: 0.73}}, passes=48_000, seconds=60)
    fill(records, parent, {"SL": {0: 0.70, 1: 0.73, 2: 0.72}})
    (table,) = study_tables(records.results())
    baseline, other = table.rows
    assert (table.name, table.profile, table.data, table.protocol, table.notes) == (
        "puzzling",
        "quick",
        "rendered",
        "selection",
        ("p: paired t test", "Unequal to SL: puzzling: image passes 48,000, not 24,000"),
    )
    assert (baseline.variant, baseline.difference) == ("SL", None)
    assert other.score.mean == pytest.approx(0.73)
    assert other.score.sd == pytest.approx(0.01)
    assert (other.image_passes, other.seconds) == (48_000, 60)
    expected = stats.ttest_rel([0.72, 0.74, 0.73], [0.70, 0.73, 0.72]).confidence_interval(0.95)
    assert other.difference is not None
    assert (other.difference.low, other.difference.high) == pytest.approx((expected.low, expected.high))


def test_the_notes_say_what_is_missing_or_left_out(records: Any) -> None:
    parent = records.study({"SL": "SL", "puzzling": "puzzling"}, [0, 1, 2])
    fill(records, parent, {"SL": {0: 0.7, 1: 0.6}, "puzzling": {0: 0.8}})
    records.trial(parent, "puzzling", "puzzling", 1, status="failed", reason="the loss became NaN in epoch 3")
    records.trial(parent, "puzzling", "puzzling", 2, math.nan)
    records.trial(parent, "SL", "an older key", 0, 0.1)
    records.trial(parent, "search", "s", 0)
    (table,) = study_tables(records.results())
    assert table.notes == (
        "1 of 6 trials failed: puzzling, seed 1 (the loss became NaN in epoch 3)",
        "1 of 6 trials finished without a value for test/accuracy",
        "1 of 6 trials not finished yet",
        "1 trial left out: the study or the numerics version has changed since",
        "1 search trial left out: a search never sees the test split",
        "No test of puzzling: fewer than 3 seeds in common",
    )
    puzzling = table.rows[1]
    assert (puzzling.score.n, puzzling.score.mean, puzzling.score.sd) == (1, 0.8, None)
    assert puzzling.difference is not None
    assert (puzzling.difference.n, puzzling.difference.low) == (1, None)
    assert puzzling.difference.mean == pytest.approx(0.1)


def test_what_was_asked_for_is_what_is_missing(records: Any) -> None:
    parent = records.study({"SL": "SL", "puzzling": "puzzling"}, [0, 1, 2], asked={"SL": [0, 1], "puzzling": [0]})
    fill(records, parent, {"SL": {0: 0.7}, "puzzling": {0: 0.8}})
    (table,) = study_tables(records.results())
    assert table.notes == (
        "1 of 3 trials not finished yet",
        "No test of puzzling: fewer than 3 seeds in common",
    )


def test_failed_trials_are_counted_by_their_class(records: Any) -> None:
    parent = records.study({"SL": "SL", "puzzling": "puzzling"}, [0, 1, 2, 3])
    fill(records, parent, {"SL": {0: 0.7}})
    for seed, ending in enumerate(("crashed", "node lost", "crashed", "")):
        records.trial(parent, "puzzling", "puzzling", seed, status="failed", reason="why", ending=ending)
    (table,) = study_tables(records.results())
    assert dict(table.rows[0].failed) == {}
    assert dict(table.rows[1].failed) == {"crashed": 2, "node lost": 1, "unknown": 1}
    assert table.notes[0] == (
        "4 of 8 trials failed: puzzling, seed 0 (crashed: why); puzzling, seed 1 (node lost: why); "
        "puzzling, seed 2 (crashed: why); and 1 more"
    )
    column = next(column for column in study_columns("test/accuracy") if column.key == "failed")
    assert [column.value(row) for row in table.rows] == ["", "2 crashed, 1 node lost, 1 unknown"]


def test_a_note_when_there_are_fewer_pairs_than_seeds(records: Any) -> None:
    parent = records.study({"SL": "SL", "puzzling": "puzzling"}, [0, 1, 2])
    fill(records, parent, {"SL": {0: 0.7}, "puzzling": {0: 0.8, 1: 0.9, 2: 0.9}})
    (table,) = study_tables(records.results())
    assert "Difference over 1 pair with the baseline: puzzling" in table.notes


def test_a_variant_without_trials_keeps_its_row(records: Any) -> None:
    parent = records.study({"SL": "SL", "puzzling": "puzzling"}, [0])
    fill(records, parent, {"SL": {0: 0.7}})
    (table,) = study_tables(records.results())
    row = table.rows[1]
    assert (row.score.n, row.score.mean, row.image_passes, row.seconds) == (0, None, None, None)
    assert row.difference is not None
    assert row.difference.mean is None


def test_one_table_per_dataset(records: Any) -> None:
    for data in ("rendered", "ferplus"):
        parent = records.study({"SL": data}, [0], data=data)
        records.trial(parent, "SL", data, 0, 0.7, data=data)
    assert [table.data for table in study_tables(records.results())] == ["rendered", "ferplus"]


def test_a_study_by_name(records: Any) -> None:
    records.study({"SL": "k"}, [0], name="puzzling")
    records.study({"SL": "k"}, [0], name="low_data")
    results = records.results()
    assert [table.name for table in study_tables(results, "low_data")] == ["low_data"]
    with pytest.raises(StudyError, match=r"'puzling'.*did you mean 'puzzling'"):
        study_tables(results, "puzling")


def test_an_empty_store_has_no_tables(tmp_path: Any) -> None:
    assert study_tables(load_results(None, tmp_path), "puzzling") == []


def test_the_notes_name_weights_and_perceptual_networks(records: Any) -> None:
    parent = records.study({"SL": "a", "ImageNet": "b", "pl": "c"}, [0])
    records.trial(parent, "SL", "a", 0, 0.5)
    records.trial(parent, "ImageNet", "b", 0, 0.5, params={"model.weights": "imagenet"})
    records.trial(
        parent,
        "pl",
        "c",
        0,
        0.5,
        params={
            "pretext.inpainting.perceptual": "vgg16",
            "pretext.inpainting.perceptual_weights": "None",
            "pretext.inpainting.perceptual_layers": "['relu2_2']",
        },
    )
    (table,) = study_tables(records.results())
    assert "ImageNet: starts from imagenet weights" in table.notes
    assert "pl: perceptual network vgg16, weights random, relu2_2" in table.notes


def test_what_the_last_run_planned_and_did() -> None:
    plan = {"trials": 12, "image_passes": 134_400, "seconds": 370.4, "at_most": False}
    assert planned_notes(plan) == []  # it has not ended
    actual = {"trials": 12, "image_passes": 134_400, "seconds": 401.0}
    assert planned_notes({**plan, "actual": actual}) == [
        "Last run, planned: 12 trials, 134,400 image passes, 6 min 10 s; actual: 12 trials, 134,400 image passes, "
        "6 min 41 s"
    ]
    (line,) = planned_notes({**plan, "seconds": None, "at_most": True, "actual": {**actual, "trials": 1}})
    assert line.startswith("Last run, planned: at most 12 trials, 134,400 image passes, time unknown; actual: 1 trial,")
    assert planned_notes({**plan, "actual": {**actual, "trials": 0}}) == []
