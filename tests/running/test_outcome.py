"""What a run says at its end, and writes on the study's page."""

import re
from pathlib import Path

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


def test_only_drawn_faces_are_said_to_be_drawn() -> None:
    assert "docs/results.md" not in found("ferplus").page
    assert "puzzling gave +1.63 points" in found("rendered").sentences[-1]
    assert "in-painting" not in found("rendered").page


def test_what_real_faces_gave_is_what_the_documentation_says() -> None:
    """Of each pretext task the difference of `best of search` in its study's table, from the last arm that has none."""
    text = (Path(__file__).parents[2] / "docs/results.md").read_text("utf-8")
    for task, sentence in ON_REAL_FACES.items():
        section = text.partition(f"\n## ferplus_{task}\n")[2].partition("\n## ")[0]
        (row,) = re.findall(r"^\| best of search \|.*$", section, re.MULTILINE)
        differences = re.findall(r"[+−][\d.]+ \[[^\]]+\]", row)
        found = re.search(r"gave ([+−][\d.]+) points (\[[^\]]+\])", sentence)
        assert found is not None
        assert f"{found[1]} {found[2]}" == differences[-1]
        assert f"\n| best of search{', SL with 2 views' if '2 views' in sentence else ', SL alone'} |" in section
        assert re.search(r"^\| best of search \| 5 \|", row)
