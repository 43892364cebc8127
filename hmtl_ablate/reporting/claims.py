"""Claims of papers (claims.yaml; docs/claims.md) and the rule that gives each its status."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.claim_files import Claim, Paper, own_paper
from hmtl_ablate.reporting.results import Results, pretext_tasks
from hmtl_ablate.reporting.statistics import Estimate, estimate, finite, without_interval
from hmtl_ablate.reporting.tables import finished
from hmtl_ablate.reporting.wording import lower_is_better

Status = Literal["Reproduced", "Not reproduced", "Partial", "Unverified"]

TOLERANCE = 0.5
"""Points by which the upper end of the 95 % interval may miss a claim.

An assumption: the claims are published without seeds, spread or interval, and one number on 4,000 test images has a
sampling sd of about 0.77 points (√(0.6 · 0.4 / 4000)); 0.5 is below that sd, and below the differences of about 1 point
that the claims are about."""

HALF_WIDTH = 1.0
"""Largest half-width of the 95 % interval, in points or degrees, at which a claim counts as reproduced."""

MIN_SEEDS = 3

RULE = (
    f"Reproduced: at least {MIN_SEEDS} seeds at {{schedule}}, the upper end of the 95 % interval reaches claim − "
    f"{{tolerance:g}}, and its half-width is at most {HALF_WIDTH:g} point. Not reproduced: the upper end is below "
    "that. Partial: fewer seeds or a wider interval. Unverified: no such run."
)
RULE_OF_ERRORS = (
    f"Reproduced, where lower is better: at least {MIN_SEEDS} seeds at {{schedule}}, the lower end of the 95 % "
    f"interval is at most claim + {{tolerance:g}}, and its half-width is at most {HALF_WIDTH:g}. Not reproduced: the "
    "lower end is above that. Partial and Unverified: fewer seeds or a wider interval, and no such run."
)
"""Printed below a table with such claims; `format` fills in `schedule` and `tolerance`."""


@dataclass(frozen=True)
class ClaimRow:
    """A claim and what the store's runs say about it; in percent or degrees, as published."""

    dataset: str
    model: str
    metric: str
    claimed: float
    verified: float | None
    """Mean over `n_seeds` trials; None without any."""
    sd: float | None
    low: float | None
    high: float | None
    """Ends of the 95 % interval of the mean."""
    n_seeds: int
    status: Status
    protocol: str | None
    """How the weights were selected; None when unverified."""
    paper: str
    """Its title."""
    unit: Literal["percent", "degrees"] = "percent"
    lower: bool = False
    """Whether lower is better."""


def claims_table(
    results: Results, tolerance: float = TOLERANCE, papers: Sequence[Paper] | None = None
) -> list[ClaimRow]:
    """The claims of papers in their order, each with its status; None: the nine of `own_paper`. tolerance: in points or
    degrees."""
    declared = results.declared()
    by_id = {row["trial_id"]: row for row in results.trials.to_dict("records") if row["status"] == "finished"}
    claims = [(paper.paper, claim) for paper in papers or (own_paper(),) for claim in paper.full()]
    scored = {score: finished(declared, score) for score in {claim.score for _, claim in claims}}
    return [
        _row(
            claim,
            title,
            [trial for trial in scored[claim.score] if matches(claim, trial, by_id)],
            results.fixed,
            tolerance,
        )
        for title, claim in claims
    ]


def matches(claim: Claim, trial: Mapping[Hashable, Any], by_id: Mapping[str, Mapping[Hashable, Any]]) -> bool:
    """Whether a trial (a row of `Results.trials`) is a run of the claim's model on its data at its paper's schedule.

    by_id: finished trials by trial id, among which the trial that an evaluation starts from is looked up.
    """
    if trial["evaluation"] != claim.evaluation or trial["data"] != claim.data:
        return False
    if claim.classes is not None and trial["classes"] != claim.classes:
        return False
    if claim.probed is None:
        return _trained_as(claim, trial, claim.images)
    probed = by_id.get(str(trial["options"].get("model.weights")).removeprefix("trial:"))
    return (
        probed is not None
        and probed["data"] == claim.probed.data
        and trial.get("metrics.images", 0) >= claim.images
        and _trained_as(claim, probed, claim.probed.images)
    )


def _trained_as(claim: Claim, trial: Mapping[Hashable, Any], images: int) -> bool:
    """Whether a trial is of the claim's model at its schedule, on at least `images` images at fraction 1."""
    options = trial["options"]
    share = options.get("data.fraction", 1.0)
    return (
        trial["task"] == claim.task
        and trial["evaluation"] == ""
        and pretext_tasks(options) == frozenset(claim.pretext)
        and all(options.get(f"pretext.{task}.answers", "own") == "own" for task in claim.pretext)  # no control of it
        and {"model.weights": None, **claim.options}.items() <= {"model.weights": None, **options}.items()
        and all(options.get(key) is not None for key in claim.set)
        and all((finite(options.get(key)) or 0) >= least for key, least in claim.at_least.items())
        and trial.get("metrics.image_passes", 0) >= options.get("training.epochs", 0) * images * share
    )


def status_of(score: Estimate, claimed: float, tolerance: float, *, lower: bool = False) -> Status:
    """The rule in `RULE`, or with `lower`, where lower is better, in `RULE_OF_ERRORS`; score and claim in percent or
    degrees, tolerance in points or degrees."""
    if score.n == 0:
        return "Unverified"
    if score.n < MIN_SEEDS or score.low is None or score.high is None:
        return "Partial"
    if (score.low > claimed + tolerance) if lower else (score.high < claimed - tolerance):
        return "Not reproduced"
    return "Reproduced" if (score.high - score.low) / 2 <= HALF_WIDTH else "Partial"


def _row(
    claim: Claim, title: str, trials: list[dict[Hashable, Any]], fixed: frozenset[str], tolerance: float
) -> ClaimRow:
    """fixed: ids of the trials of studies with fixed seeds; with others among them the mean has no interval, and the
    claim is partial at best."""
    chosen = _one_configuration(trials)
    percent, lower = in_percent(claim.score), lower_is_better(claim.score)
    score = estimate([(100 if percent else 1) * trial[f"metrics.{claim.score}"] for trial in chosen])
    if any(trial["trial_id"] not in fixed for trial in chosen):
        score = without_interval(score)
    return ClaimRow(
        claim.dataset,
        claim.model,
        claim.metric,
        claim.claimed,
        score.mean,
        score.sd,
        score.low,
        score.high,
        score.n,
        status_of(score, claim.claimed, tolerance, lower=lower),
        chosen[0]["protocol"] if chosen else None,
        title,
        "percent" if percent else "degrees",
        lower,
    )


def _one_configuration(trials: list[dict[Hashable, Any]]) -> list[dict[Hashable, Any]]:
    """The trials of one configuration and numerics version, when several match a claim.

    They are not pooled, and the best is not picked, which would select on the test split. The one with the most seeds
    counts; among equals, one with the published protocol, then the newest. A trial that two studies share counts once.
    """
    groups: dict[tuple[Any, ...], dict[int, dict[Hashable, Any]]] = defaultdict(dict)
    for trial in sorted(trials, key=lambda trial: trial["started"]):
        groups[trial["variant_key"], trial["fingerprint"], trial["numerics"]][trial["seed"]] = trial
    if not groups:
        return []
    best = max(
        groups.values(),
        key=lambda seeds: (
            len(seeds),
            all(trial["protocol"] == "paper" for trial in seeds.values()),
            max(trial["started"] for trial in seeds.values()),
        ),
    )
    return [best[seed] for seed in sorted(best)]
