"""What a run says at its end, and writes on the study's page."""

import json
from pathlib import Path

from hmtl_ablate.reporting.columns import difference_text
from hmtl_ablate.reporting.statistics import Estimate
from hmtl_ablate.running.outcome import ON_REAL_FACES, Outcome, outcome_of
from hmtl_ablate.tracking import StudyRecord, TrialRecord


def found(data: str) -> Outcome:
    study = StudyRecord(
        name="s",
        profile="quick",
        metric="test/accuracy",
        data=data,
        question="Does it help?",
        variants={"SL": "a", "SL + puzzling": "b"},
        seeds=(0, 1),
        asked={"SL": [0, 1], "SL + puzzling": [0, 1]},
        run_id="p",
    )
    scores = {("SL", "a"): (0.60, 0.62), ("SL + puzzling", "b"): (0.50, 0.54)}
    trials = [
        TrialRecord(
            parent="p",
            trial_id=f"{key}{seed}",
            variant=name,
            variant_key=key,
            seed=seed,
            data=data,
            config={"pretext": {"puzzling": {"weight": 1.0}}} if key == "b" else {"task": "emotion"},
            status="finished",
            metrics={"test/accuracy": value},
        )
        for (name, key), values in scores.items()
        for seed, value in enumerate(values)
    ]
    return outcome_of(study, trials)


def test_the_answer_comes_first_and_the_best_arm_is_the_score() -> None:
    outcome = found("ferplus")
    assert outcome.scores == {"test/accuracy": 0.61}
    assert len(outcome.sentences) == 1
    assert "SL + puzzling" in outcome.sentences[0]
    assert outcome.page.startswith(f"Does it help?\n\n- {outcome.sentences[0]}\n")
    assert "52.00" in outcome.table_text(80)
    assert "52.00" in outcome.report


def test_the_score_of_a_search_is_that_of_its_best_arm() -> None:
    about = {"objective": "val/accuracy", "direction": "max", "racing": 1, "keys": ["training.lr"], "confirm": 1}
    study = StudyRecord(
        name="s",
        profile="q",
        metric="test/accuracy",
        variants={},
        seeds=(0,),
        search={"A": about, "B": about},
        run_id="p",
    )
    trials = [
        TrialRecord(
            parent="p",
            trial_id=arm,
            variant="search",
            variant_key="",
            seed=0,
            config={"training": {"lr": score}},
            status="finished",
            metrics={"search/score": score},
            arm=arm,
        )
        for arm, score in (("A", 0.6), ("B", 0.8))
    ]
    assert outcome_of(study, trials).scores == {"search/val/accuracy": 0.8}


def test_only_drawn_faces_are_said_to_be_drawn() -> None:
    assert "docs/results.md" not in found("ferplus").page
    assert f"{ON_REAL_FACES['puzzling']}: docs/results.md" in found("rendered").sentences[-1]
    assert "in-painting" not in found("rendered").page


def test_what_real_faces_gave_is_what_the_report_says() -> None:
    report = json.loads((Path(__file__).parents[2] / "docs/results/ferplus_attribution.json").read_text("utf-8"))
    (study,) = report["studies"]
    given = {
        one["subtrahend"].rpartition(": ")[2]: difference_text(
            Estimate(one["n_seeds"], one["difference"], None, one["sequential_low"], one["sequential_high"]), True
        )
        for one in study["decisions"]["comparisons"]
    }
    views, distortion = given["whole views"].replace(" [", " points ["), given["distortion"]
    assert set(ON_REAL_FACES) == {"puzzling"}
    assert ON_REAL_FACES["puzzling"] == (
        f"puzzling gave {views} over SL with 2 views, and {distortion} over the same distorted faces without its loss"
    )
