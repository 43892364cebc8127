"""Names of trials: ids, places in a study, and the best of one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.errors import StoreError
from hmtl_ablate.reporting.naming import best_trial, find_folder, find_trial
from hmtl_ablate.reporting.results import Results, results_of
from hmtl_ablate.tracking.records import StudyRecord, TrialRecord


def study(run_id: str, name: str, metric: str = "test/accuracy", profile: str = "quick") -> StudyRecord:
    variants = {"SL": "k", "SL + puzzling": "k", "a/b: grid 2/3": "k"}
    return StudyRecord(
        name=name,
        profile=profile,
        metric=metric,
        data="rendered",
        question="",
        variants=variants,
        seeds=(0, 1),
        run_id=run_id,
    )


def trial(parent: str, variant: str, seed: int, number: str, **values: Any) -> TrialRecord:
    metrics = {"best/val/accuracy": 0.5, "test/accuracy": 0.5} | values.pop("metrics", {})
    record = TrialRecord(
        trial_id=number.ljust(16, "0"),
        config={},
        variant=variant,
        variant_key="k",
        seed=seed,
        status="finished",
        parent=parent,
        run_id=number,
        data="rendered",
        fingerprint="f",
        metrics=metrics,
    )
    return replace(record, **values)


@pytest.fixture
def results() -> Results:
    return results_of(
        [study("p", "puzzling"), study("h", "half/life"), study("p2", "puzzling", profile="full")],
        [
            trial("p", "SL", 0, "abcd1", metrics={"best/val/accuracy": 0.7, "test/accuracy": 0.9}),
            trial("p", "SL", 1, "abcd2", metrics={"best/val/accuracy": 0.8, "test/accuracy": 0.1}),
            trial("p", "SL + puzzling", 0, "eeee1", metrics={"best/val/accuracy": 0.9}, status="failed"),
            trial("p", "search", 0, "ffff1", metrics={"best/val/accuracy": 0.99}),
            trial("h", "a/b: grid 2/3", 0, "12341"),
            trial("p2", "SL", 0, "98761"),
        ],
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("abcd1", "abcd1"),
        ("abcd1".ljust(16, "0"), "abcd1"),
        ("puzzling/SL/1", "abcd2"),
        ("puzzling/SL + puzzling/0", "eeee1"),
        ("puzzling@full/SL/0", "98761"),
        ("half/life/a/b: grid 2/3/0", "12341"),
        ("best:puzzling@quick", "abcd2"),  # not the best of test, a failed one, or the search's
        ("best:half/life", "12341"),
    ],
)
def test_a_name_finds_its_trial(results: Results, name: str, found: str) -> None:
    assert find_trial(name, results) == found.ljust(16, "0")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("abcd", r"2 trials begin so: abcd10+, abcd20+; write more digits"),
        ("puzzling/SL/0", r"more than one trial .* puzzling@quick/SL/0 \(abcd10+\), puzzling@full/SL/0 \(987610+\)"),
        ("puzzling/SL + puzling/0", r"did you mean 'puzzling/SL \+ puzzling/0'\?\n.*hmtl-ablate ui"),
        ("best:puzzling", "name one of best:puzzling@quick, best:puzzling@full"),
        ("best:puzling@quick", r"did you mean 'puzzling@quick'\?"),
        ("zzz", "there are puzzling/SL/0, puzzling/SL/1"),
    ],
)
def test_unknown_and_ambiguous_names_are_refused(results: Results, name: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        find_trial(name, results)


def test_the_best_of_an_error_is_the_least() -> None:
    trials = [
        trial("p", "SL", seed, f"aaa{seed}", metrics={"best/val/mae_yaw": value})
        for seed, value in ((0, 5.0), (1, 4.0))
    ]
    assert best_trial("pose", results_of([study("p", "pose", "test/mae_yaw")], trials))["seed"] == 1


def test_the_best_trial_is_the_best_variants_best_seed_on_validation() -> None:
    """Not the luckiest seed of all, and test has no say."""
    scores = {"SL": (0.9, 0.1, 0.2), "SL + puzzling": (0.5, 0.6, 0.4)}
    trials = [
        trial(
            "p",
            variant,
            seed,
            f"aa{variant[-1]}{seed}",
            metrics={"best/val/accuracy": value, "test/accuracy": 1 - value},
        )
        for variant, values in scores.items()
        for seed, value in enumerate(values)
    ]
    found = best_trial("puzzling", results_of([replace(study("p", "puzzling"), seeds=(0, 1, 2))], trials))
    assert (found["variant"], found["seed"]) == ("SL + puzzling", 1)


def test_a_configuration_of_a_search_that_won_its_race_is_a_variant() -> None:
    """One that was trained with a single seed has lost it."""
    trials = [trial("p", "search", 0, "aaa3", metrics={"best/val/accuracy": 0.99}, config={"lr": 3})] + [
        trial("p", "search", seed, f"aaa{number}{seed}", metrics={"best/val/accuracy": value}, config={"lr": number})
        for number, values in ((1, (0.9, 0.1)), (2, (0.5, 0.6)))
        for seed, value in enumerate(values)
    ]
    assert best_trial("puzzling", results_of([study("p", "puzzling")], trials))["run_id"] == "aaa21"


def test_without_variants_the_best_is_the_searchs() -> None:
    trials = [
        trial("p", "search", 0, f"aaa{number}", metrics={"best/val/accuracy": number / 10}, config={"lr": number})
        for number in (3, 4)
    ]
    assert best_trial("puzzling", results_of([study("p", "puzzling")], trials))["run_id"] == "aaa4"


def test_an_id_needs_no_tracking_store(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "abcd".ljust(16, "0")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert find_folder("abcd", tmp_path).path == folder
    assert find_folder(folder, tmp_path / "elsewhere").path == folder
    with pytest.raises(StoreError, match=r"no such trial in .*--runs"):
        find_folder("abce", tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "trials"]
