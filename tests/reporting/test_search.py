"""What a search promised and what unseen seeds gave, from records written by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hmtl_ablate.config import parse_config
from hmtl_ablate.errors import ConfigError
from hmtl_ablate.reporting.figures import pareto
from hmtl_ablate.reporting.render import build_report, render
from hmtl_ablate.reporting.results import Results, results_of
from hmtl_ablate.reporting.search_tables import search_tables
from hmtl_ablate.reporting.tables import study_tables
from hmtl_ablate.reporting.winner import variant_options
from hmtl_ablate.study import load_study
from hmtl_ablate.tracking import StudyRecord, TrialRecord

ABOUT = {"objective": "val/accuracy", "direction": "max", "racing": 6, "keys": ["training.lr"], "confirm": 2}
SEEDS = [0, 3, 4, 5, 6, 7]
"""Of the search; the study has 0, 1 and 2."""


def trial(number: int, variant: str, lr: float, seed: int, score: float | None, **more: Any) -> TrialRecord:
    metrics = {"image_passes": 100.0} if score is None else {"search/score": score, "image_passes": 100.0}
    tested = {} if variant == "search" or score is None else {"test/accuracy": score - 0.1}
    return TrialRecord(
        parent="p",
        trial_id=f"{number:016x}",
        variant=variant,
        variant_key="" if variant == "search" else f"key of {variant}",
        seed=seed,
        config={"seed": seed, "training": {"lr": lr}},
        status=more.pop("status", "finished"),
        metrics={**metrics, **tested},
        run_id=str(number),
        started=number,
        **more,
    )


def results(lucky: float = 0.4) -> Results:
    """Arm A: 0.01 races to six seeds, 0.02 has four, 0.03 two, 0.04 diverged; arm B: one of two seeds. lucky: score of
    0.03 with its second seed."""
    winners = ["best of search, A", "best of search, A, rank 2", "best of search, B"]
    study = StudyRecord(
        name="tuned",
        profile="quick",
        metric="test/accuracy",
        variants={name: f"key of {name}" for name in winners},
        seeds=(0, 1, 2),
        search={"A": ABOUT, "B": ABOUT},
        run_id="p",
    )
    scores = {0.01: [0.8, 0.9, 0.8, 0.9, 0.8, 0.9], 0.02: [0.7, 0.7, 0.7, 0.7], 0.03: [0.9, lucky]}
    rows = [("A", lr, SEEDS[n], score) for lr, own in scores.items() for n, score in enumerate(own)]
    rows += [("B", 0.01, 0, 0.6), ("B", 0.01, 3, 0.8)]
    trials = [
        trial(n, "search", lr, seed, score, arm=arm, draw="random" if lr < 0.03 else "sampler")
        for n, (arm, lr, seed, score) in enumerate(rows)
    ]
    trials.append(trial(90, "search", 0.04, 0, None, arm="A", draw="sampler", status="failed", ending="diverged"))
    for n, (variant, lr, found) in enumerate(
        [(winners[0], 0.01, [0.7, 0.8]), (winners[1], 0.02, [0.7, 0.7]), (winners[2], 0.01, [0.65])]
    ):
        trials += [trial(100 + 10 * n + i, variant, lr, i + 1, score) for i, score in enumerate(found)]
    return results_of([study], trials)


@pytest.mark.parametrize(
    ("declared", "own", "standing"),
    [
        ({"A": {"hash": "new"}}, {"space": "new"}, "search"),
        ({"A": {"hash": "new"}}, {"space": "old"}, "superseded"),  # another base, space or objective
        ({"A": {"hash": "new"}}, {"space": ""}, "search"),  # of a version that did not record it
        ({"A": {}}, {"space": "new"}, "search"),
        ({"B": {"hash": "new"}}, {"space": "new"}, "superseded"),  # an arm that is no longer searched
        ({}, {"space": "new"}, "search"),
        ({"A": {"hash": "new"}}, {"space": "new", "numerics": 1}, "superseded"),
        ({"A": {"hash": "new"}}, {"space": "new", "fingerprint": "old"}, "older data"),
    ],
)
def test_configurations_of_another_search_or_of_older_numerics_are_not_of_this_one(
    declared: dict[str, Any], own: dict[str, Any], standing: str
) -> None:
    searches = {arm: {**ABOUT, **about} for arm, about in declared.items()}
    study = StudyRecord(
        name="s", profile="q", metric="test/accuracy", variants={}, seeds=(0,), search=searches, run_id="p"
    )
    kind = {"numerics": 2, "fingerprint": "f", "arm": "A"}
    trials = [trial(1, "search", 0.1, 0, 0.9, **{**kind, **own}), trial(2, "search", 0.2, 0, 0.5, space="new", **kind)]
    assert results_of([study], trials).trials["standing"].tolist()[0] == standing


def test_promised_and_found_by_hand() -> None:
    [table] = study_tables(results())
    assert table.search is not None
    first, second, third, other = table.search.found
    assert (first.arm, first.rank, dict(first.changes)) == ("A", 1, {"training.lr": 0.01})
    assert (first.promised.n, first.confirmed.n) == (6, 2)
    assert (first.promised.mean, first.confirmed.mean) == pytest.approx((0.85, 0.75))
    assert first.optimism == pytest.approx(0.1)
    assert first.test.mean == pytest.approx(0.65)
    assert (second.variant, second.changes["training.lr"]) == ("best of search, A, rank 2", 0.02)
    assert second.optimism == pytest.approx(0)
    assert (third.changes["training.lr"], third.confirmed.n, third.optimism) == (0.03, 0, None)
    assert (other.arm, other.confirmed.sd) == ("B", None)
    assert other.promised.mean == pytest.approx(0.7)


def test_what_an_arm_has_cost() -> None:
    [table] = study_tables(results())
    assert table.search is not None
    own, other = table.search.arms
    assert (own.configurations, own.runs, own.image_passes) == (4, 13, 1300)
    assert dict(own.draws) == {"random": 2, "sampler": 2}
    assert (other.configurations, other.runs) == (1, 2)


def test_every_format_has_it() -> None:
    report = build_report(results())
    for form in ("terminal", "markdown", "latex"):
        text = render(report, form, width=80)
        assert "as a variant" in text
        assert "85.00" in text  # promised, in percent
        assert "+10.00" in text
    assert max(len(line) for line in render(report, "terminal", width=80).splitlines()) <= 80
    [study] = json.loads(render(report, "json"))["studies"]
    assert [one["found"] for one in study["search"]["best"]] == [pytest.approx(0.75), pytest.approx(0.7), None, 0.65]
    assert study["search"]["arms"][0]["draws"] == {"random": 2, "sampler": 2}
    rows = [row for row in csv.DictReader(io.StringIO(render(report, "csv"))) if row["table"] == "search"]
    assert [(row["variant"], row["part"], row["n_seeds"]) for row in rows[:2]] == [
        ("best of search, A", "promised by the search", "6"),
        ("best of search, A", "found with unseen seeds", "2"),
    ]
    assert [bool(row["mean_ci95_low"]) for row in rows[:2]] == [False, True]  # what was selected has no interval


def test_tuning_curves_are_of_random_draws_with_the_first_seed() -> None:
    """Arm A: 0.8 and 0.7 at random; the expected best of two is 0.7 / 4 + 3 · 0.8 / 4. Of B there is one, 0.6."""
    [table] = study_tables(results())
    assert table.search is not None
    own, other = (arm.curve for arm in table.search.arms)
    assert [point.expected for point in own] == pytest.approx([0.75, 0.775])
    assert [point.passes for point in own] == [100.0, 200.0]
    assert [point.expected for point in other] == [0.6]
    frame = results().tuning_curves()
    assert list(zip(frame["arm"], frame["n"], strict=True)) == [("A", 1), ("A", 2), ("B", 1)]
    text = render(build_report(results()), "markdown")
    assert "77.50" in text
    assert "A: 2 random draws are too few for a band." in text


def test_a_draw_that_diverged_is_the_worst_and_a_pruned_one_leaves_no_curve() -> None:
    study = StudyRecord(
        name="a", profile="q", metric="test/accuracy", variants={}, seeds=(0,), search={"": ABOUT}, run_id="p"
    )
    own = [trial(n, "search", 0.01 * n, 0, 0.1 * n, draw="random") for n in (5, 7)]
    lost = trial(8, "search", 0.5, 0, None, draw="random", status="failed", ending="diverged")
    cut = trial(9, "search", 0.6, 0, None, draw="random", status="pruned", ending="stopped early")
    curve = results_of([study], [*own, lost]).tuning_curves()
    assert curve["expected"][0] == pytest.approx((0.5 + 0.5 + 0.7) / 3)
    crashed = trial(8, "search", 0.5, 0, None, draw="random", status="failed", ending="crashed")
    curve = results_of([study], [*own, crashed]).tuning_curves()
    assert curve["expected"][0] == pytest.approx((0.5 + 0.7) / 2)  # a machine's fault is no score
    assert results_of([study], [*own, cut]).tuning_curves().empty


def test_from_python() -> None:
    frame = results().searches()
    assert list(frame["rank"]) == [1, 2, 3, 1]
    assert list(frame["variant"][:2]) == ["best of search, A", "best of search, A, rank 2"]
    assert list(frame["unseen_seeds"]) == [2, 2, 0, 1]


def test_a_study_without_a_search_has_none() -> None:
    study = StudyRecord(name="a", profile="quick", metric="test/accuracy", variants={"SL": "k"}, seeds=(0,), run_id="p")
    found = results_of([study], [])
    assert study_tables(found)[0].search is None
    assert found.searches().empty
    assert "search" not in json.loads(render(build_report(found), "json"))["studies"][0]


def test_the_pareto_front_of_two_objectives_by_hand() -> None:
    """0.01 is the best, 0.02 the cheapest; 0.03 is worse than 0.02 and costs more; 0.04 was stopped."""
    about = {**ABOUT, "racing": 1, "confirm": 1, "others": {"cost/image_passes": "min"}}
    study = StudyRecord(
        name="two", profile="q", metric="test/accuracy", variants={}, seeds=(0,), search={"": about}, run_id="p"
    )
    trials = [trial(n, "search", lr, 0, score) for n, (lr, score) in enumerate([(0.01, 0.9), (0.02, 0.5), (0.03, 0.4)])]
    for one, passes in zip(trials, (300.0, 100.0, 200.0), strict=True):
        one.metrics["image_passes"] = passes  # type: ignore[index]
    trials.append(trial(9, "search", 0.04, 0, None, status="pruned"))
    results = results_of([study], trials)
    [table] = study_tables(results)
    assert table.search is not None
    found = [(one.changes["training.lr"], one.others["cost/image_passes"], one.on_front) for one in table.search.found]
    assert found == [(0.01, 300.0, True), (0.02, 100.0, True), (0.03, 200.0, False)]
    [front] = [one for one in search_tables(table) if one.title.startswith("Pareto front")]
    assert front.cells() == [
        ["best of search", "90.00 (n = 1)", "300", "training.lr 0.01"],
        ["rank 2", "50.00 (n = 1)", "100", "training.lr 0.02"],
    ]
    assert list(results.searches()["on_front"]) == [True, True, False]
    drawing = pareto.draw(table, results)
    assert drawing is not None
    dominated, best = drawing.figure.axes[0].lines
    points = {name: np.asarray(line.get_xydata()).tolist() for name, line in (("off", dominated), ("on", best))}
    assert points["off"] == [pytest.approx([200, 40])]
    assert points["on"] == [pytest.approx([100, 50]), pytest.approx([300, 90])]
    assert "90.00 at image passes 300; 50.00 at image passes 100" in drawing.alt


def many() -> Results:
    """Seven configurations of two options, of which the rate decides; the first three were tried with two seeds."""
    ends = {"low": 0.001, "high": 0.1, "choices": []}
    space = {
        "training.lr": {"kind": "loguniform", **ends},
        "data.views": {"kind": "choice", **ends, "choices": [1, 2]},
    }
    about = {**ABOUT, "keys": list(space), "confirm": 0, "space": space, "base": ["data.size", "training.epochs"]}
    study = StudyRecord(
        name="m", profile="q", metric="test/accuracy", variants={}, seeds=(0,), search={"": about}, run_id="p"
    )
    trials = [
        replace(one, config={**one.config, "data": {"views": 1 + n % 2, "size": 32}})
        for n in range(7)
        for seed in ((0, 1) if n < 3 else (0,))
        for one in [trial(10 * n + seed, "search", 0.01 * (n + 1), seed, 0.9 - 0.1 * n + 0.02 * seed)]
    ]
    return results_of([study], trials)


def test_people_see_the_best_five_and_programs_all() -> None:
    results = many()
    [table] = study_tables(results)
    best, *_ = search_tables(table)
    assert [cells[:2] for cells in best.cells()] == [
        ["best of search", "91.00 ± 1.41 (n = 2)"],
        ["rank 2", "81.00 ± 1.41 (n = 2)"],
        ["rank 3", "71.00 ± 1.41 (n = 2)"],
        ["rank 4", "60.00 (n = 1)"],
        ["rank 5", "50.00 (n = 1)"],
    ]
    [study] = json.loads(render(build_report(results), "json"))["studies"]
    assert len(study["search"]["best"]) == 7
    rows = list(csv.DictReader(io.StringIO(render(build_report(results), "csv"))))
    assert sum(row["part"] == "promised by the search" for row in rows) == 7


def test_importances_are_in_every_format() -> None:
    results = many()
    [table] = study_tables(results)
    assert table.search is not None
    shares = table.search.importances
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["training.lr"] > shares["data.views"]
    shown = f"{100 * shares['training.lr']:.1f}"
    report = build_report(results)
    for form in ("terminal", "markdown", "latex"):
        text = render(report, form, width=60)
        assert "PED-ANOVA" in text
        assert shown in text
    [study] = json.loads(render(report, "json"))["studies"]
    assert study["search"]["importances"] == pytest.approx(shares)
    rows = {row["part"]: row for row in csv.DictReader(io.StringIO(render(report, "csv")))}
    assert float(rows["importance of training.lr"]["mean"]) == pytest.approx(shares["training.lr"])


def test_the_winner_is_yaml_that_a_study_file_takes(tmp_path: Path) -> None:
    """views 1 and size 32: written although one has its default and the other is the base's."""
    [study] = json.loads(render(build_report(many()), "json"))["studies"]
    pasted = study["search"]["winner"]
    file = tmp_path / "study.yaml"
    file.write_text(
        f"name: m\nbase: {{data: {{views: 2, size: 64}}, training: {{epochs: 3}}}}\nvariants:\n  SL: {{}}\n{pasted}"
    )
    tuned = load_study(file).variants[-1]
    config = parse_config({**tuned.raw, "seed": 0})
    assert tuned.name == "tuned"
    assert (config.training.lr, config.data.views, config.data.size) == (0.01, 1, 32)
    assert config.training.epochs == parse_config({}).training.epochs  # the search's base, not this file's
    for form in ("terminal", "markdown", "latex", "html"):
        assert all(line in render(build_report(many()), form) for line in pasted.splitlines())


def test_task_and_data_of_a_pasted_winner_are_the_studys() -> None:
    options = {"data.name": "rendered", "data.images": 96, "training.lr": 0.5, "pretext.puzzling.weight": 2.0}
    assert variant_options(options, ("training.lr",)) == {
        "training": {"lr": 0.5},
        "pretext": {"puzzling": {"weight": 2.0}},
    }
    with pytest.raises(ConfigError, match="gone"):
        variant_options({"training.gone": 1, "training.lr": 0.5}, ("training.lr",))
