"""The sentences that answer a study's question, against hand-worked cases."""

from dataclasses import replace
from typing import Any

from hmtl_ablate.reporting.answer import answers
from hmtl_ablate.reporting.comparison import Arm, comparisons
from hmtl_ablate.reporting.tables import StudyTable, study_tables
from tests.reporting import example  # type: ignore[import-not-found]

SL = {0: 0.60, 1: 0.60, 2: 0.60}
BETTER = {0: 0.64, 1: 0.63, 2: 0.65}
"""Above SL by 0.04, sd 0.01, half-width 4.302653 · 0.01 / √3 = 0.024841, p = 1 − √(48/50) = 0.0202."""
WORSE = {seed: 1.2 - value for seed, value in BETTER.items()}


def table(scores: dict[str, dict[int, float]], metric: str = "test/accuracy", **more: Any) -> StudyTable:
    found: StudyTable = example.study(scores, metric=metric)
    return replace(found, **more)


def test_beats_is_worse_and_is_not_shown_to_differ() -> None:
    assert answers(table({"SL": SL, "A": BETTER})) == (
        "A beats SL by 4.00 points [1.52, 6.48], 3 seeds, p = 0.020 after Holm.",
    )
    assert answers(table({"SL": SL, "A": WORSE})) == (
        "A is worse than SL by 4.00 points [1.52, 6.48], 3 seeds, p = 0.020 after Holm.",
    )
    assert answers(table({"SL": SL, "A": {0: 0.61, 1: 0.59, 2: 0.60}})) == (
        "A is not shown to differ from SL: +0.00 points [−2.48, +2.48], 3 seeds, p = 1.000 after Holm.",
    )


def test_a_p_that_only_holm_lifts_is_shown_both_ways() -> None:
    """Its own interval leaves 0 out: without the p alone, the sentence would seem to contradict itself."""
    assert answers(table({"SL": SL, "A": BETTER, "B": BETTER, "C": BETTER}))[0] == (
        "A is not shown to differ from SL: +4.00 points [+1.52, +6.48], 3 seeds, p = 0.020 alone, 0.061 after Holm."
    )


def test_fewer_than_three_seeds_are_not_tested() -> None:
    assert answers(table({"SL": SL, "A": {0: 0.65}, "B": {}})) == (
        "A is not tested against SL: fewer than 3 seeds (+5.00 points, 1 seed).",
    )


def test_of_an_error_less_is_better() -> None:
    errors = {"SL": {0: 6.0, 1: 6.0, 2: 6.0}, "A": {0: 5.6, 1: 5.7, 2: 5.5}}
    assert answers(table(errors, "test/mae")) == (
        "A beats SL by 0.400° [0.152, 0.648], 3 seeds, p = 0.020 after Holm.",
    )
    more = {"SL": errors["A"], "A": errors["SL"]}
    assert answers(table(more, "test/mae")) == (
        "A is worse than SL by 0.400° [0.152, 0.648], 3 seeds, p = 0.020 after Holm.",
    )


def test_the_arm_of_equal_passes_comes_first() -> None:
    """Holm over three: SL, 2 views − SL 0.06 (sd 0.01: t² = 108, p = 0.0092 · 3), A − SL and A − SL, 2 views."""
    scores = {"SL": SL, "SL, 2 views": {0: 0.66, 1: 0.65, 2: 0.67}, "A": {0: 0.61, 1: 0.60, 2: 0.63}}
    options = {"training.epochs": 8}
    arms = {
        "SL": Arm(100, options),
        "SL, 2 views": Arm(200, options | {"data.views": 2}),
        "A": Arm(200, options | {"pretext.puzzling.grid": 2}),
    }
    rows = table(scores, comparisons=comparisons(scores, "test/accuracy", arms))
    found = answers(replace(rows, rows=tuple(replace(row, image_passes=arms[row.variant].passes) for row in rows.rows)))
    assert found[1] == (
        "A is worse than SL, 2 views (equal image passes) by 4.67 points [3.23, 6.10], 3 seeds, p = 0.015 after Holm; "
        "it is not shown to differ from SL (fewer image passes): +1.33 points [−2.46, +5.13], 3 seeds, "
        "p = 0.270 after Holm."
    )


def test_image_passes_are_called_what_they_are() -> None:
    """Baseline with a pretext task and as many passes as the arm; and a baseline with more."""
    options, views = {"training.epochs": 8}, {"data.views": 2}
    scores = {"A": SL, "SL": SL, "B": BETTER}
    for baseline, own, word in ((200, 200, "equal"), (202, 200, "equal"), (300, 200, "more"), (100, 200, "fewer")):
        passes = {"A": baseline, "SL": own, "B": own}
        arms = {
            "A": Arm(baseline, options | {"pretext.puzzling.grid": 2}),
            "SL": Arm(own, options | views),
            "B": Arm(own, options | {"pretext.rotation.grid": 1}),
        }
        found = table(scores, comparisons=comparisons(scores, "test/accuracy", arms))
        rows = tuple(replace(row, image_passes=passes[row.variant]) for row in found.rows)
        sentence = answers(replace(found, rows=rows))[1]
        assert sentence.startswith("B is not shown to differ from SL (equal image passes): ")
        assert f"; it is not shown to differ from A ({word} image passes): " in sentence


def test_a_controlled_arm_says_where_its_gain_comes_from() -> None:
    found = answers(example.controlled())
    assert found[-2] == (
        "SL + puzzling helps, cause undecided: of 6.43 points over SL, 4.10 is the task, 0.00 is a random gradient, "
        "1.00 is distortion and 1.33 is views (point estimates, 3 seeds)."
    )
    assert found[-1].startswith("The verdict on SL + rotation is undecided: the finished seeds differ")


def test_a_study_that_adds_seeds_answers_with_states_alone(records: Any) -> None:
    decide = {"smallest": 0.5, "seeds": 12, "alpha": 0.05, "comparisons": [["A", "SL"], ["B", "SL"]]}
    parent = records.study(
        {"SL": "a", "A": "b", "B": "c"},
        [0, 1, 2, 3],
        decide=decide,
        asked={name: [0, 1, 2, 3] for name in ("SL", "A", "B")},
    )
    for seed in range(4):
        records.trial(parent, "SL", "a", seed, 0.5)
        records.trial(parent, "A", "b", seed, 0.6 + seed / 1000)
        records.trial(parent, "B", "c", seed, 0.5 + (-1) ** seed / 10)
    (found,) = study_tables(records.results())
    first, second = answers(found)
    assert first.startswith("A is better than SL by 10.15 points [")
    assert first.endswith("4 pairs, sequential interval.")
    assert second.startswith("B against SL: open: ")
    assert not any("p =" in sentence for sentence in (first, second))
