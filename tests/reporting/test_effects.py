"""Effects of ablation designs: hand-worked cases, and the tables in every format."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import asdict, replace
from typing import Any

import pytest

from hmtl_ablate.reporting.effect_tables import effect_tables
from hmtl_ablate.reporting.effects import DesignEffects, Effect, contrasts, design_of, study_effects
from hmtl_ablate.reporting.formats import TEXT_FORMATS
from hmtl_ablate.reporting.render import Report, build_report, render
from hmtl_ablate.reporting.statistics import holm, p_different
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.study import Design, load_study
from tests.reporting.example import study as table_of  # type: ignore[import-not-found]

A, B, C = {"training.clip": 1.0}, {"data.views": 2}, {"training.lr": 0.01}
METRIC, CHOSEN_BY = "test/accuracy", "best/val/accuracy"


def design(kind: str, components: dict[str, Any] | None = None) -> Design:
    parts = {"a": A, "b": B} if components is None else components
    return load_study({"name": "d", "designs": {"d": {"kind": kind, "components": parts}}}).designs["d"]


def trial(variant: str, seed: int, status: str = "finished", **metrics: float) -> dict[str, Any]:
    named = {"test": METRIC, "val": CHOSEN_BY}
    return {"variant": variant, "seed": seed, "status": status} | {
        f"metrics.{named[name]}": value for name, value in metrics.items()
    }


def effects(own: Design, scores: dict[str, list[float]], seeds: int = 3) -> dict[str, Effect]:
    """Of a study with these scores: variant → the values at seeds 0, 1, …"""
    trials = [trial(name, seed, test=value) for name, values in scores.items() for seed, value in enumerate(values)]
    return {effect.name: effect for effect in found(own, trials, seeds).effects}


def found(own: Design, trials: list[dict[str, Any]], seeds: int = 3) -> DesignEffects:
    row = {"metric": METRIC, "designs": {"d": asdict(own)}, "seeds": list(range(seeds))}
    over = {(trial["variant"], trial["seed"]) for trial in trials if trial["status"] != "running"}
    (one,) = study_effects(row, trials, over)
    return one


def values(effect: Effect) -> list[Any]:
    return [pytest.approx(value) for value in effect.values.values()]


SCORES = {
    "base": [0.10, 0.12, 0.11],
    "base + a": [0.15, 0.16, 0.17],
    "base + b": [0.20, 0.21, 0.19],
    "base + a + b": [0.30, 0.29, 0.31],
}


def test_a_design_reads_back_from_plain_data() -> None:
    for kind in ("leave_one_out", "full_factorial", "path"):
        own = design(kind)
        assert design_of(json.loads(json.dumps(asdict(own)))) == own


def test_leave_one_out_is_the_full_model_minus_the_one_without() -> None:
    scores = {"base": SCORES["base"], "full": SCORES["base + a + b"]}
    got = effects(design("leave_one_out"), scores | {"full − a": SCORES["base + b"], "full − b": SCORES["base + a"]})
    assert list(got) == ["a", "b", "in all"]
    assert values(got["a"]) == [0.10, 0.08, 0.12]
    assert values(got["b"]) == [0.15, 0.13, 0.14]
    assert values(got["in all"]) == [0.20, 0.17, 0.20]
    assert got["a"].weights == {"full": 1, "full − a": -1}
    assert got["a"].estimate.mean == pytest.approx(0.10)
    assert got["a"].estimate.sd == pytest.approx(0.02)
    half = 4.302652729911275 * 0.02 / 3**0.5
    assert got["a"].estimate.low == pytest.approx(0.10 - half)
    assert got["a"].estimate.high == pytest.approx(0.10 + half)


def test_p_values_are_two_sided_and_adjusted_for_the_tested_effects_alone() -> None:
    """a: t = 0.10 / (0.02 / √3) = 8.66 with 2 degrees of freedom, p = 1 − √(t² / (t² + 2)) = 1 − √(75 / 77); b: 0.14 /
    (0.01 / √3) = 24.2, t² = 588. Holm of two: the smaller one twice, the larger one once."""
    scores = {"base": SCORES["base"], "full": SCORES["base + a + b"]}
    got = effects(design("leave_one_out"), scores | {"full − a": SCORES["base + b"], "full − b": SCORES["base + a"]})
    first, second = 1 - (75 / 77) ** 0.5, 1 - (588 / 590) ** 0.5
    assert got["a"].p == pytest.approx(first)
    assert got["b"].p == pytest.approx(2 * second)
    assert got["in all"].p is None
    assert p_different([-0.10, -0.08, -0.12]) == pytest.approx(first)


def test_add_one_in_is_the_baseline_with_the_component_minus_the_baseline() -> None:
    got = effects(design("add_one_in"), SCORES)
    assert values(got["a"]) == [0.05, 0.04, 0.06]
    assert values(got["b"]) == [0.10, 0.09, 0.08]


def test_one_factor_at_a_time_compares_each_level_with_the_baseline_s() -> None:
    levels = {"views": {"levels": {"one": {"data.views": 1}, "two": B, "three": {"data.views": 3}}}, "a": A}
    own = design("one_factor_at_a_time", levels)
    got = effects(own, {"base": [0.1, 0.1], "base + views=two": [0.2, 0.3], "base + views=three": [0.1, 0.0]})
    assert list(got) == ["views=two", "views=three", "a"]
    assert values(got["views=two"]) == [0.1, 0.2]
    assert values(got["views=three"]) == [0.0, -0.1]
    assert (got["a"].estimate.n, got["a"].estimate.mean, got["a"].p) == (0, None, None)


def test_pairwise_is_the_interaction_of_each_pair() -> None:
    """ab − a − b + base, seed by seed."""
    got = effects(design("pairwise"), SCORES)
    assert list(got) == ["a × b"]
    assert values(got["a × b"]) == [0.30 - 0.15 - 0.20 + 0.10, 0.29 - 0.16 - 0.21 + 0.12, 0.31 - 0.17 - 0.19 + 0.11]
    three = [one.name for one in contrasts(design("pairwise", {"a": A, "b": B, "c": C}))]
    assert three == ["a × b", "a × c", "b × c"]


def test_a_full_factorial_averages_over_the_others() -> None:
    """a: ((a − base) + (ab − b)) / 2; b likewise; a × b as for pairwise."""
    got = effects(design("full_factorial"), SCORES)
    assert list(got) == ["a", "b", "a × b"]
    assert values(got["a"]) == [(0.05 + 0.10) / 2, (0.04 + 0.08) / 2, (0.06 + 0.12) / 2]
    assert values(got["b"]) == [(0.10 + 0.15) / 2, (0.09 + 0.13) / 2, (0.08 + 0.14) / 2]
    assert values(got["a × b"]) == [0.05, 0.04, 0.06]
    assert got["a"].weights == {"base + a": 0.5, "base": -0.5, "base + a + b": 0.5, "base + b": -0.5}


def test_a_full_factorial_of_three_has_all_orders_and_of_four_pairs() -> None:
    three = {one.name: one.weights for one in contrasts(design("full_factorial", {"a": A, "b": B, "c": C}))}
    assert list(three) == ["a", "b", "c", "a × b", "a × c", "b × c", "a × b × c"]
    assert three["a × b × c"] == {
        **{"full": 1, "base": -1, "base + a": 1, "base + b": 1, "base + c": 1},
        **{"full − a": -1, "full − b": -1, "full − c": -1},
    }
    assert three["a × b"] == {
        **{"full": 0.5, "full − a": -0.5, "full − b": -0.5, "base + c": 0.5},
        **{"full − c": 0.5, "base + a": -0.5, "base + b": -0.5, "base": 0.5},
    }
    four = contrasts(design("full_factorial", {"a": A, "b": B, "c": C, "d": {"training.epochs": 3}}))
    assert len(four) == 4 + 6


def test_a_factorial_with_levels_takes_each_level_against_the_baseline_s() -> None:
    """v has levels (baseline), two, three; its main effect of two averages over a; that of a over all three of v."""
    own = design("full_factorial", {"v": {"levels": {"two": B, "three": {"data.views": 3}}}, "a": A})
    got = {one.name: one.weights for one in contrasts(own)}
    assert list(got) == ["v=two", "v=three", "a", "v=two × a", "v=three × a"]
    assert got["v=two"] == {"base + v=two": 0.5, "base": -0.5, "base + v=two + a": 0.5, "base + a": -0.5}
    assert {name: round(weight, 9) for name, weight in got["a"].items()} == {
        **{"base + a": 0.333333333, "base + v=two + a": 0.333333333, "base + v=three + a": 0.333333333},
        **{"base": -0.333333333, "base + v=two": -0.333333333, "base + v=three": -0.333333333},
    }
    assert got["v=two × a"] == {"base + v=two + a": 1, "base + v=two": -1, "base + a": -1, "base": 1}


def test_only_seeds_that_all_arms_have_are_used_and_few_seeds_are_not_tested() -> None:
    got = effects(design("full_factorial"), {**SCORES, "base + b": [0.2, 0.21]})
    assert list(got["a × b"].values) == [0, 1]
    assert {effect.p for effect in got.values()} == {None}


def test_a_component_that_changes_nothing_is_the_same_arm() -> None:
    own = design("add_one_in", {"a": {"data.views": 1}, "b": B})
    got = effects(own, {"base": SCORES["base"], "base + b": [0.2] * 3})
    assert (got["a"].weights, got["a"].estimate.n, got["a"].p) == ({}, 0, None)
    assert got["b"].p == pytest.approx(p_different([0.1, 0.08, 0.09])), "adjusted for itself alone"


# a path --------------------------------------------------------------------------------------------------------------

WAY = design("path", {"a": A, "b": B, "c": C})
VAL = {"base": 0.1, "base + a": 0.2, "base + b": 0.4, "base + c": 0.3, "full − c": 0.5, "full − a": 0.7, "full": 0.6}
UNSEEN = {
    "base": [0.10, 0.12, 0.11],
    "base + b": [0.20, 0.21, 0.19],
    "full − a": [0.30, 0.29, 0.31],
    "full": [0.30, 0.30, 0.33],
}


def path_trials() -> list[dict[str, Any]]:
    """Chosen with seed 0, where its test scores are absurd; estimated with seeds 1 to 3."""
    first = [trial(name, 0, test=9.0 * value, val=value) for name, value in VAL.items()]
    rest = [trial(name, 1 + n, test=score, val=0.0) for name, own in UNSEEN.items() for n, score in enumerate(own)]
    return [*first, *rest]


def test_a_path_s_steps_are_estimated_with_unseen_seeds_alone() -> None:
    one = found(WAY, path_trials(), 4)
    got = {effect.name: effect for effect in one.effects}
    assert (list(got), one.unfinished) == (["1. b", "2. c", "3. a", "in all"], "")
    assert list(got["1. b"].values) == [1, 2, 3]
    assert values(got["1. b"]) == [0.10, 0.09, 0.08]
    assert values(got["2. c"]) == [0.10, 0.08, 0.12]
    assert values(got["3. a"]) == [0.00, 0.01, 0.02]
    assert values(got["in all"]) == [0.20, 0.18, 0.22]
    assert [effect.picked for effect in got.values()] == [pytest.approx(0.3), pytest.approx(0.3), None, None]
    raw = [p_different(list(got[name].values.values())) for name in ("1. b", "2. c", "3. a")]
    assert [got[name].p for name in ("1. b", "2. c", "3. a")] == [pytest.approx(p) for p in holm(raw)]


def test_a_path_that_is_not_whole_says_how_far_it_is() -> None:
    trials = [row for row in path_trials() if not row["variant"].startswith("full −")]
    one = found(WAY, trials, 4)
    assert [effect.name for effect in one.effects] == ["1. b"]
    assert one.unfinished == "the path is not whole: 1 of 2 rounds are decided"
    assert found(WAY, [], 4).effects == ()


def test_a_trial_that_failed_is_not_picked_and_one_that_runs_is_waited_for() -> None:
    others = [row for row in path_trials() if (row["variant"], row["seed"]) != ("base + b", 0)]
    failed = found(WAY, [*others, trial("base + b", 0, "failed")], 4)
    assert failed.effects[0].name == "1. c"
    running = found(WAY, [*others, trial("base + b", 0, "running")], 4)
    assert running.effects == ()


# the report ----------------------------------------------------------------------------------------------------------


BY_SEED = {name: dict(enumerate(own)) for name, own in SCORES.items()}


def designed() -> StudyTable:
    shown: StudyTable = table_of(BY_SEED, name="designs")
    factorial = replace(found(design("full_factorial"), score_trials()), design="crossed")
    return replace(shown, designs=(factorial, replace(found(WAY, path_trials(), 4), design="way")))


def score_trials() -> list[dict[str, Any]]:
    return [trial(name, seed, test=value) for name, own in SCORES.items() for seed, value in enumerate(own)]


def test_tables_for_people() -> None:
    """Of a 7.5, 6, 9: sd 1.5, t² = 75; of b 12.5, 11, 11: sd √3 / 2, t² = 529; of a × b 5, 4, 6: t² = 75. With p = 1 −
    √(t² / (t² + 2)), Holm of three: 3 × 0.0019, 2 × 0.0131, and that again."""
    crossed, way = effect_tables(designed())
    assert crossed.title == "Design: crossed (full_factorial) · designs (quick), data: rendered"
    assert crossed.cells() == [
        ["a", "3", "+7.50 [+3.77, +11.23]", "1.50", "0.026"],
        ["b", "3", "+11.50 [+9.35, +13.65]", "0.87", "0.006"],
        ["a × b", "3", "+5.00 [+2.52, +7.48]", "1.00", "0.026"],
    ]
    assert crossed.notes == (
        "p: two-sided paired t test, adjusted for 3 effects by Holm's method; intervals are not adjusted.",
    )
    assert [column.title for column in way.shown] == [
        *("Step", "Seeds", "Gain [95 %], points", "SD", "p (Holm)", "When chosen"),
    ]
    assert [row[0] for row in way.cells()] == ["1. b", "2. c", "3. a", "in all"]
    assert [row[-2:] for row in way.cells()] == [
        [way.cells()[0][-2], "+30.00"],
        [way.cells()[1][-2], "+30.00"],
        [way.cells()[2][-2], "—"],
        ["—", "—"],
    ]
    assert "so it is too high" in way.notes[-1]


@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_every_format_has_the_effects(name: str) -> None:
    text = re.sub(r"\s+", " ", render(Report((), (designed(),), False), name))
    assert "Main effects: with the component minus without it" in text
    for words in ("Design: crossed", "Design: way", "+11.50", "0.006", "a × b" if name != "latex" else r"a $\times$ b"):
        assert words in text


@pytest.mark.parametrize("width", [60, 80])
def test_the_terminal_s_tables_fit_and_keep_their_numbers_whole(width: int) -> None:
    text = render(Report((), (designed(),), False), "terminal", width)
    assert max(map(len, text.splitlines())) <= width
    own = text.partition("Design: crossed")[2]
    assert "+7.50" in own
    assert "[+9.35, +13.65]" in own


def test_json_and_csv() -> None:
    [own] = json.loads(render(Report((), (designed(),), False), "json"))["studies"]
    crossed, way = own["designs"]
    assert (crossed["design"], crossed["kind"], crossed["unfinished"]) == ("crossed", "full_factorial", "")
    assert crossed["effects"][2]["arms"] == {"base + a + b": 1, "base + a": -1, "base + b": -1, "base": 1}
    assert list(crossed["effects"][2]["values"].values()) == [pytest.approx(value) for value in (0.05, 0.04, 0.06)]
    assert way["effects"][0]["picked"] == pytest.approx(0.3)
    rows = list(csv.DictReader(io.StringIO(render(Report((), (designed(),), False), "csv"))))
    effects = [row for row in rows if row["table"] == "effects"]
    assert [(row["variant"], row["part"], row["status"]) for row in effects][:3] == [
        ("crossed", "a", "full_factorial"),
        ("crossed", "b", "full_factorial"),
        ("crossed", "a × b", "full_factorial"),
    ]
    assert float(effects[2]["difference"]) == pytest.approx(0.05)
    assert float(effects[2]["p"]) == pytest.approx(2 * (1 - (75 / 77) ** 0.5))
    plain = json.loads(render(Report((), (table_of(BY_SEED),), False), "json"))["studies"][0]
    assert plain["designs"] == []


def test_errors_say_that_lower_is_better() -> None:
    shown = replace(designed(), metric="test/mae", designs=(DesignEffects("d", "pairwise", "test/mae", ()),))
    assert effect_tables(shown)[0].notes == ("Lower is better: a negative effect is a gain.",)


def test_results_have_the_effects_and_hide_a_path_s_own_arms(records: Any) -> None:
    """From the records of a store: the arms that only the path trains are no rows of the study's table."""
    keys = {name: f"k{number}" for number, name in enumerate(VAL)}
    asked = {name: [0, 1, 2, 3] if name in UNSEEN else [0] for name in VAL}
    parent = records.study(keys, [0, 1, 2, 3], designs={"way": asdict(WAY)}, asked=asked)
    for row in path_trials():
        metrics = {name.removeprefix("metrics."): value for name, value in row.items() if name.startswith("metrics.")}
        records.trial(parent, row["variant"], keys[row["variant"]], row["seed"], metrics[METRIC], more=metrics)
    results = records.results()
    frame = results.effects()
    assert list(frame["effect"]) == ["1. b", "2. c", "3. a", "in all"]
    assert list(frame.columns)[:6] == ["study", "profile", "data", "metric", "design", "kind"]
    assert frame["difference"].tolist() == pytest.approx([0.09, 0.10, 0.01, 0.20])
    (table,) = build_report(results).tables
    assert [row.variant for row in table.rows] == ["base", "full"]
    assert table.notes == ("5 arms that only a path trains: see its steps", "p: paired t test")
