"""Where a controlled arm's gain comes from: A4 - A0 as four differences that add up, each paired by seed.

A0 is SL with one view, A1 SL with the arm's number of whole views, A2 the arm without its pretext loss, A3 the arm with
answers drawn at random, A4 the arm (docs/methods.md, Controls and the verdict).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from hmtl_ablate.config import metric_info
from hmtl_ablate.reporting.decisions import StudyDecisions
from hmtl_ablate.reporting.registered import changes
from hmtl_ablate.reporting.sequential import Course, State
from hmtl_ablate.reporting.statistics import SEEDS_TO_TEST, Estimate, estimate, without_interval
from hmtl_ablate.reporting.verdict import Differences, Finding, by_states, findings, margin_of
from hmtl_ablate.study import Verdict

Scores = Mapping[str, Mapping[int, float]]
"""Variant → seed → value of the study's metric."""


class Step(NamedTuple):
    """A difference between two of the controls, by their keys in `study.controls.Controls`."""

    name: str
    of: str
    minus: str


OVER_VIEWS, OVER_EPOCHS, OVER_DISTORTION = "over whole views", "over more epochs", "over distortion"
OVER_RANDOM = "over random answers"
LEVELS = {"sl": "A0", "views": "A1", "distortion": "A2", "random_answers": "A3", "arm": "A4"}
TOTAL = Step("in all", "arm", "sl")
PARTS = (
    Step("views", "views", "sl"),
    Step("distortion", "distortion", "views"),
    Step("random auxiliary gradient", "random_answers", "distortion"),
    Step("information in the task", "arm", "random_answers"),
)
"""The sum, in its fixed order."""
BESIDES = (
    Step(OVER_VIEWS, "arm", "views"),
    Step(OVER_DISTORTION, "arm", "distortion"),
    Step(OVER_EPOCHS, "arm", "epochs"),
    Step("over supervision off", "arm", "supervision_off"),
)
"""Outside the sum."""
DECIDED = (
    Step(OVER_VIEWS, "arm", "views"),
    Step(OVER_EPOCHS, "arm", "epochs"),
    Step(OVER_DISTORTION, "arm", "distortion"),
    Step(OVER_RANDOM, "arm", "random_answers"),
)
"""What is decided of an arm where seeds were added until decided (`study.deciding.comparisons`)."""


@dataclass(frozen=True)
class Part:
    """One difference, in the metric's own unit: the values of `variant` minus those of `minus`."""

    name: str
    levels: str
    """E.g. A4 − A3; "" where a control is not one of the five."""
    variant: str
    minus: str
    values: Mapping[int, float]
    """Seed → difference."""
    estimate: Estimate


@dataclass(frozen=True)
class Decomposition:
    """One controlled arm."""

    arm: str
    parts: tuple[Part, ...]
    """`TOTAL`, then `PARTS`, whose points add up to it, then what is outside the sum; empty when refused."""
    refused: str
    """Why there are no numbers, or ""."""
    unjudged: str
    """Why there are numbers but no test, or ""."""
    finding: Finding
    states: Mapping[str, State] = field(default_factory=dict)
    """Where seeds were added until decided: name of each part with an interval → the state of that comparison."""


@dataclass(frozen=True)
class StudyControls:
    """The controlled arms of one study."""

    metric: str
    rule: Verdict
    margin: float | None
    """`rule.smallest` in the metric's own unit (accuracy from 0 to 1); None where it has no unit and no margin was
    declared."""
    arms: tuple[Decomposition, ...]
    registered: Mapping[str, Any]
    """`tracking.records.Registration` as plain data; empty where there is none."""
    changed: Mapping[str, tuple[str, str]]
    """What is not as it was registered: `study file`, `verdict rule`, `metric`, `seeds`, `decide` or `comparisons` →
    (then, now)."""
    decisions: StudyDecisions | None = None
    """Where seeds were added until decided."""


def study_controls(
    study: Mapping[Any, Any], trials: Sequence[Mapping[Any, Any]], decisions: StudyDecisions | None = None
) -> StudyControls | None:
    """The decompositions and verdicts of a study; None for one without controls.

    study: a row of `Results.studies`; trials: its finished trials with standing `declared`, rows of `Results.trials`
    with a finite value of the study's metric; decisions: where seeds were added until decided.
    """
    if not study["controls"]:
        return None
    if decisions is not None:
        return _decided_controls(study, trials, decisions)
    metric, rule = str(study["metric"]), Verdict.model_validate(study["verdict"])
    scores = _scores(trials, metric)
    declared = {arm: _whole(controls) for arm, controls in study["controls"].items()}
    parts = {arm: decompose(own, scores, _disagreement(own, trials)) for arm, own in declared.items()}
    margin, sign = margin_of(rule, metric), -1 if metric_info(metric).direction == "min" else 1
    judged = {arm: _differences(*parts[arm], own, sign) for arm, own in declared.items()}
    found = findings([differences for differences, _ in judged.values()], rule, margin)
    return StudyControls(
        metric=metric,
        rule=rule,
        margin=margin,
        arms=tuple(
            Decomposition(arm, *parts[arm], unjudged=judged[arm][1], finding=finding)
            for arm, finding in zip(parts, found, strict=True)
        ),
        registered=study["registered"],
        changed=changes(study),
    )


def _decided_controls(
    study: Mapping[Any, Any], trials: Sequence[Mapping[Any, Any]], decisions: StudyDecisions
) -> StudyControls:
    """The same where seeds were added until decided: verdicts from the states of the declared comparisons, which alone
    have an interval."""
    metric, rule = decisions.metric, decisions.rule
    scores = _scores(trials, metric)
    arms = []
    for arm, controls in study["controls"].items():
        own = _whole(controls)
        shared = set.intersection(*(set(scores.get(str(own.get(key, "")), ())) for key in LEVELS))
        common = {name: {seed: values[seed] for seed in shared & values.keys()} for name, values in scores.items()}
        parts, refused = decompose(own, common, _disagreement(own, trials) or _unshared(own, shared))
        courses = _courses(own, decisions)
        points = tuple(
            replace(part, estimate=without_interval(part.estimate)) for part in parts if part.name not in courses
        )
        found = tuple(
            Part(step.name, _levels(step), arm, str(own[step.minus]), course.values, course.estimate)
            for step in DECIDED
            if (course := courses.get(step.name)) is not None
        )
        states = {name: course.state for name, course in courses.items()}
        unjudged = "" if OVER_EPOCHS in states else "it has no control for more epochs"
        kind = "undecided" if refused or unjudged else by_states(*(states[step.name] for step in DECIDED))
        arms.append(
            Decomposition(arm, () if refused else (*points, *found), refused, unjudged, Finding(kind, {}), states)
        )
    return StudyControls(
        metric=metric,
        rule=Verdict(smallest=rule.smallest, alpha=rule.alpha),
        margin=decisions.bound.margin,
        arms=tuple(arms),
        registered=study["registered"],
        changed=changes(study),
        decisions=decisions,
    )


def _courses(controls: Mapping[str, Any], decisions: StudyDecisions) -> dict[str, Course]:
    """Name of a comparison in `DECIDED` → its course, of those that the study declared."""
    pairs = {step.name: (str(controls["arm"]), str(controls.get(step.minus, ""))) for step in DECIDED}
    return {name: decisions.courses[pair] for name, pair in pairs.items() if pair in decisions.courses}


def _unshared(controls: Mapping[str, Any], shared: set[int]) -> str:
    return "" if shared else "no seed is finished in all five of " + ", ".join(str(controls.get(key)) for key in LEVELS)


def _scores(trials: Sequence[Mapping[Any, Any]], metric: str) -> dict[str, dict[int, float]]:
    scores: dict[str, dict[int, float]] = {}
    for trial in trials:
        scores.setdefault(trial["variant"], {})[trial["seed"]] = float(trial[f"metrics.{metric}"])
    return scores


def decompose(controls: Mapping[str, Any], scores: Scores, refused: str = "") -> tuple[tuple[Part, ...], str]:
    """The differences of one arm, and why there are none.

    controls: `study.controls.Controls` as plain data. refused: a reason that is known already. Outside the sum, a
    difference whose control has other seeds than the arm is left out.
    """
    names = {key: str(controls.get(key, "")) for key in LEVELS}
    refused = refused or _missing(names, scores)
    if refused:
        return (), refused
    tasks = {f"information in {task}": str(pair[1]) for task, pair in controls.get("tasks", {}).items()}
    found = (
        *(_part(step, controls, scores) for step in (TOTAL, *PARTS)),
        *(_difference(name, "", names["arm"], control, scores) for name, control in tasks.items()),
        *(_part(step, controls, scores) for step in BESIDES),
    )
    return tuple(part for part in found if part is not None), ""


def _part(step: Step, controls: Mapping[str, Any], scores: Scores) -> Part | None:
    return _difference(step.name, _levels(step), str(controls[step.of]), str(controls.get(step.minus, "")), scores)


def _levels(step: Step) -> str:
    return f"{LEVELS[step.of]} − {LEVELS[step.minus]}" if step.minus in LEVELS else ""


def _difference(name: str, levels: str, variant: str, minus: str, scores: Scores) -> Part | None:
    """Paired by seed; None unless both have the same seeds."""
    ours, theirs = scores.get(variant, {}), scores.get(minus, {})
    if not ours or ours.keys() != theirs.keys():
        return None
    values = {seed: ours[seed] - theirs[seed] for seed in sorted(ours)}
    return Part(name, levels, variant, minus, values, estimate(list(values.values())))


def _whole(controls: Mapping[str, Any]) -> Mapping[str, Any]:
    """An arm of one view has no more epochs than SL at equal image passes: SL is that control."""
    one_view = bool(controls.get("sl")) and controls.get("views") == controls.get("sl")
    return {**controls, "epochs": controls["sl"]} if one_view and not controls.get("epochs") else controls


def _differences(
    parts: Sequence[Part], refused: str, controls: Mapping[str, Any], sign: int
) -> tuple[Differences | None, str]:
    """What an arm is judged by, or why it can't be."""
    if refused:
        return None, refused
    found = {part.name: [sign * value for value in part.values.values()] for part in parts}
    views = found[OVER_VIEWS]
    if len(views) < SEEDS_TO_TEST:
        return None, f"needs at least {SEEDS_TO_TEST} seeds"
    if not controls.get("epochs"):
        return None, "it has no control for more epochs"
    if OVER_EPOCHS not in found:
        return None, f"the finished seeds of {controls['epochs']!r} are not those of the arm"
    return Differences(views, found[OVER_EPOCHS], found[OVER_DISTORTION], found[PARTS[-1].name]), ""


def _missing(names: Mapping[str, str], scores: Scores) -> str:
    """Why the five arms can't be compared seed by seed, or ""."""
    absent = [LEVELS[key] for key, name in names.items() if not name]
    if absent:
        return f"it has no control {', '.join(absent)}"
    seeds = {name: _listed(sorted(scores.get(name, ()))) for name in names.values()}
    if len(set(seeds.values())) == 1 and all(seeds.values()):
        return ""
    listed = "; ".join(f"{name}: {own or 'none'}" for name, own in seeds.items())
    return (
        f"the finished seeds differ or are missing ({listed}); trials of another numerics version, other data or "
        "another share of batch norm don't count"
    )


def _disagreement(controls: Mapping[str, Any], trials: Sequence[Mapping[Any, Any]]) -> str:
    """Why the five arms' trials are not of one kind, or "". Batch norm and older trials: `Results.trials`, standing."""
    names = {value for value in controls.values() if isinstance(value, str)}
    own = [trial for trial in trials if trial["variant"] in names]
    for key, what in (("numerics", "numerics version"), ("fingerprint", "data fingerprint")):
        if len({trial[key] for trial in own}) > 1:
            return f"its trials and those of its controls do not have one {what}"
    return ""


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
