"""A synthetic report in plain records, without any store: what the snapshots and the tests of the formats render."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hmtl_ablate.reporting.claim_files import own_paper
from hmtl_ablate.reporting.claims import ClaimRow
from hmtl_ablate.reporting.comparison import comparisons
from hmtl_ablate.reporting.decomposition import StudyControls, study_controls
from hmtl_ablate.reporting.render import Report
from hmtl_ablate.reporting.statistics import estimate, paired_difference
from hmtl_ablate.reporting.tables import StudyRow, StudyTable
from hmtl_ablate.tracking.records import rule_hash

PAPER = own_paper().paper
NASTY = r"a|b & c_d 50% $x$ #1 {e} ~ ^ \n [red]bold[/] *i* <b>"
"""What Markdown, LaTeX and rich would each take for markup."""


def study(
    scores: Mapping[str, Mapping[int, float]],
    *,
    name: str = "puzzling",
    data: str = "rendered",
    metric: str = "test/accuracy",
    protocol: str = "selection",
    question: str = "Does puzzling beat SL alone?",
    notes: tuple[str, ...] = (),
    evaluation: str = "",
    image_passes: float | None = 1_234_567.0,
    seconds: float | None = 12.34,
) -> StudyTable:
    """A table of scores: variant → seed → value in the metric's own unit; the first variant is the baseline."""
    baseline = next(iter(scores.values()), {})
    compared = comparisons(scores, metric, {}, lambda variant: ": " not in variant)  # as of controls that are added
    by_name = {one.variant: one for one in compared}
    return StudyTable(
        name=name,
        profile="quick",
        question=question,
        data=data,
        metric=metric,
        protocol=protocol,
        rows=tuple(
            StudyRow(
                variant=variant,
                score=estimate(list(values.values())),
                difference=None if values is baseline else paired_difference(values, baseline),
                image_passes=image_passes if values else None,
                seconds=seconds if values else None,
                values=values,
                comparison=by_name.get(variant),
            )
            for variant, values in scores.items()
        ),
        notes=notes,
        evaluation=evaluation,
        comparisons=compared,
        made={"commit": "f6480f8", "device": "cpu", "torch": "2.15.0", "seconds": 74.04},
    )


PUZZLING = {
    "sl": "SL",
    "views": "SL + puzzling: whole views",
    "distortion": "SL + puzzling: distortion",
    "random_answers": "SL + puzzling: random answers",
    "arm": "SL + puzzling",
    "epochs": "SL + puzzling: more epochs",
    "supervision_off": "SL + puzzling: supervision off",
    "tasks": {},
}
"""Controls of a siamese arm, as a study records them."""
BY_HAND = {
    "SL": {0: 0.60, 1: 0.62, 2: 0.61},
    "SL + puzzling: whole views": {0: 0.61, 1: 0.64, 2: 0.62},
    "SL + puzzling: distortion": {0: 0.62, 1: 0.64, 2: 0.64},
    "SL + puzzling: random answers": {0: 0.62, 1: 0.65, 2: 0.63},
    "SL + puzzling": {0: 0.66, 1: 0.68, 2: 0.68},
    "SL + puzzling: more epochs": {0: 0.62, 1: 0.63, 2: 0.63},
    "SL + puzzling: supervision off": {0: 0.65, 1: 0.66, 2: 0.67},
}
"""Their scores. Seed by seed: A4 - A0 0.06, 0.06, 0.07; A1 - A0 0.01, 0.02, 0.01; A2 - A1 0.01, 0, 0.02;
A3 - A2 0, 0.01, -0.01; A4 - A3 0.04, 0.03, 0.05; A4 - A1 0.05, 0.04, 0.06; A4 - A2 0.04, 0.04, 0.04; over more epochs
0.04, 0.05, 0.05."""


def judged(
    scores: Mapping[str, Mapping[int, float]],
    controls: Mapping[str, Mapping[str, Any]],
    metric: str = "test/accuracy",
    **study: Any,
) -> StudyControls:
    """The controls of a study whose trials have these scores and are of one kind.

    study: columns of `Results.studies`.
    """
    row: dict[Any, Any] = {"controls": controls, "metric": metric, "verdict": {}, "registered": {}, "file": ""}
    trials = [
        {"variant": variant, "seed": seed, f"metrics.{metric}": value, "numerics": 1, "fingerprint": "f"}
        for variant, values in scores.items()
        for seed, value in values.items()
    ]
    found = study_controls({**row, "seeds": [0, 1, 2], **study}, trials)
    assert found is not None
    return found


def controlled() -> StudyTable:
    """A study whose first arm helps, whose second lacks trials, and whose file has changed since its first trial."""
    rotation = {**PUZZLING, "arm": "SL + rotation", "views": "SL", "epochs": "SL"}
    scores = {
        **{
            name: {seed: value + 0.003 * (seed == 2) * (name == "SL + puzzling") for seed, value in values.items()}
            for name, values in BY_HAND.items()
        },
        "SL + rotation": {0: 0.61, 1: 0.6},
    }
    registered = {"study": "a" * 64, "verdict": rule_hash({}), "metric": "test/accuracy", "seeds": [0, 1, 2]}
    return replace(
        study(scores, name="controls", question="Where does a gain come from?"),
        controls=judged(
            scores,
            {"SL + puzzling": PUZZLING, "SL + rotation": rotation},
            file="c" * 64,
            registered=registered | {"time": "2026-11-26T00:30:00+00:00", "trained": 0},
        ),
    )


def example() -> Report:
    """Every case that a format has to write: percent and degrees, claims' data and other data, gaps, an evaluation, a
    search without variants, controls, and names full of markup."""
    unverified = ClaimRow(
        "CK+", "Probe (B0)", "Accuracy (7 emotion)", 98.23, None, None, None, None, 0, "Unverified", None, PAPER
    )
    verified = ClaimRow(
        "AffectNet",
        "SL (B0)",
        "Accuracy (8 emotion)",
        60.34,
        60.32,
        0.11,
        60.05,
        60.59,
        3,
        "Reproduced",
        "paper",
        PAPER,
    )
    partial = ClaimRow(
        "AffectNet", "SL (B2)", "Accuracy (8 emotion)", 60.35, 59.5, None, None, None, 1, "Partial", "paper", PAPER
    )
    accuracy = {
        "SL": {0: 0.701, 1: 0.722, 2: 0.715},
        "SL, 2 views": {0: 0.711, 1: 0.731, 2: 0.718},
        "SL + puzzling with a name so long that it wraps in a terminal, which keeps the numbers whole": {0: 0.722},
        "SL + rotation": {},
    }
    degrees = {"SL": {0: 4.25, 1: 4.5}, "HMTL": {0: 4.0, 1: 4.125}}
    markup = {"=SUM(A1)": {0: 0.5, 1: 0.6}, NASTY: {0: 0.4, 1: 0.6}, "[x]\nsecond line\x1b[31m": {0: 0.3, 1: 0.5}}
    return Report(
        (verified, partial, unverified),
        (
            study(accuracy, notes=("2 of 12 trials not finished yet", "4 search trials left out")),
            study(
                {"SL": {0: 0.6021, 1: 0.6043, 2: 0.6032}},
                name="paper",
                data="affectnet",
                protocol="paper",
                seconds=86_400.0,
            ),
            study(
                degrees, name="head_pose", data="csv", metric="test/mae_yaw", evaluation="linear probe", seconds=None
            ),
            study({}, name="search", data="", protocol="", question=""),
            controlled(),
            study(markup, name="nasty", question=NASTY, protocol="selection, paper", image_passes=None),
        ),
        empty=False,
    )


def empty() -> Report:
    """The report of a store in which nothing was ever run."""
    return Report(
        (ClaimRow("CK+", "Probe (B0)", "Accuracy", 98.23, None, None, None, None, 0, "Unverified", None, PAPER),),
        (),
        empty=True,
    )
