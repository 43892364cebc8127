"""One table per study: each variant's mean over the seeds, and its difference from the baseline, paired by seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from hmtl_ablate.errors import StudyError, nearest
from hmtl_ablate.reporting.comparison import Arm, Comparison, comparisons
from hmtl_ablate.reporting.decisions import STOPPING, StudyDecisions, study_decisions
from hmtl_ablate.reporting.decomposition import StudyControls, study_controls
from hmtl_ablate.reporting.document import DASH
from hmtl_ablate.reporting.effects import DesignEffects, path_only, study_effects
from hmtl_ablate.reporting.results import Results, arm_of_trial, by_arm
from hmtl_ablate.reporting.search import StudySearch, study_search
from hmtl_ablate.reporting.statistics import (
    SEEDS_TO_TEST,
    Estimate,
    estimate,
    finite,
    paired_difference,
    without_interval,
)
from hmtl_ablate.reporting.study_images import StudyImages, majority_notes, sampled
from hmtl_ablate.reporting.wording import bound_text, clock_text, count_text, plural
from hmtl_ablate.study import WINNER


@dataclass(frozen=True)
class StudyRow:
    """One variant; scores are in the metric's own unit (accuracy from 0 to 1)."""

    variant: str
    score: Estimate
    difference: Estimate | None
    """From the baseline, over the seeds that both have (n = 0 where they share none); None for the baseline itself."""
    image_passes: float | None
    """Mean per trial; None without a finished trial."""
    seconds: float | None
    """Mean per trial; None without a finished trial."""
    values: Mapping[int, float]
    """Seed → score."""
    failed: Mapping[str, int] = field(default_factory=dict)
    """Class of failure, as docs/failures.md lists them, or unknown in older stores → number of trials."""
    sequential: bool = False
    """Whether seeds were added until decided: `score` has no interval then, and that of `difference` is the sequential
    one, of declared comparisons alone."""
    more: Mapping[str, Estimate] = field(default_factory=dict)
    """Further metrics that were asked for, over the seeds of `score`."""
    comparison: Comparison | None = None
    """With the baseline; None for the baseline, for controls that were added, whose tests are the verdict's, and where
    seeds were added until decided."""
    fair: Comparison | None = None
    """With SL at equal image passes, where the baseline has others and the table has such an arm."""


@dataclass(frozen=True)
class StudyTable:
    """One study at one profile on one dataset, or one of its evaluations."""

    name: str
    profile: str
    question: str
    data: str
    metric: str
    protocol: str
    """How the weights were selected, as tagged; several are joined by commas."""
    rows: tuple[StudyRow, ...]
    """The first one is the baseline."""
    notes: tuple[str, ...]
    """What is missing or left out, and the weights that trials started from."""
    evaluation: str
    """Name of the evaluation, "" for the trained models themselves."""
    made: Mapping[str, str | float]
    """`commit`, `device` and `torch` of the finished trials, and their `seconds` in total."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """What the last run was going to train, and what it did (`tracking.StudyRecord.plan`); {} where it is not known,
    and for an evaluation."""
    controls: StudyControls | None = None
    """Where the gains of its arms with controls come from, and the verdicts; None without controls."""
    decisions: StudyDecisions | None = None
    """What its comparisons decided, where seeds were added until decided."""
    designs: tuple[DesignEffects, ...] = ()
    """The effects of its ablation designs."""
    comparisons: tuple[Comparison, ...] = ()
    """With the baseline, then with SL at equal image passes; none where seeds were added until decided."""
    search: StudySearch | None = None
    """What its search promised, and what unseen seeds gave; None without a search."""
    run_id: str = ""
    """The study's run in the tracking store; "" for a table that was made without one."""


def study_tables(results: Results, study: str | None = None, more: Sequence[str] = ()) -> list[StudyTable]:
    """The tables of all studies, or of the one named, oldest first. more: further metrics of each row.

    Raises StudyError when there are studies, but none of that name.
    """
    studies = results.studies
    if study is not None and not results.empty:
        names = set(studies["study"])
        if study not in names:
            raise StudyError(f"no study named {study!r} was run in this store; {nearest(study, names)}")
        studies = studies[studies["study"] == study]
    return [
        _table(row, results, evaluation, more)
        for row in studies.to_dict("records")
        for evaluation in dict.fromkeys(["", *row["evaluations"].values()])
        if not row["variants"] or any(row["evaluations"].get(name, "") == evaluation for name in row["variants"])
    ]


def finished(trials: pd.DataFrame, metric: str) -> list[dict[Hashable, Any]]:
    """The finished trials that have a finite value of the metric."""
    rows = trials[trials["status"] == "finished"].to_dict("records")
    return [row for row in rows if finite(row.get(f"metrics.{metric}")) is not None]


def _table(study: dict[Hashable, Any], results: Results, evaluation: str, more: Sequence[str]) -> StudyTable:
    declared = results.declared(study["run_id"])
    metric = str(study["metric"])
    names = [name for name in study["variants"] if study["evaluations"].get(name, "") == evaluation]
    declared = declared[declared["variant"].isin(names)]
    done = finished(declared, metric)
    hidden = path_only(study)
    scores: dict[str, dict[int, float]] = {name: {} for name in names if name not in hidden}
    for trial in done:
        if trial["variant"] in hidden:
            continue
        scores[trial["variant"]][trial["seed"]] = float(trial[f"metrics.{metric}"])
    baseline = next(iter(scores), None)
    over = _over(study, results)
    decisions = study_decisions(study, scores, over)
    failed = declared[declared["status"] == "failed"].to_dict("records")
    images = StudyImages(results, done, metric)
    arms = _arms(scores, declared.to_dict("records"), done, results)
    of_images = sampled(
        comparisons(scores, metric, arms, lambda name: name not in study["added"]) if decisions is None else (),
        metric,
        images,
    )
    compared = of_images.comparisons
    by_name = {one.variant: one for one in compared if not one.equal_passes}
    fair = {one.variant: one for one in compared if one.equal_passes}
    rows = tuple(
        StudyRow(
            variant=name,
            score=_score(values, decisions),
            difference=None if name == baseline else _apart(name, str(baseline), scores, decisions),
            image_passes=_mean(done, name, "image_passes"),
            seconds=_mean(done, name, "seconds"),
            values=values,
            failed=Counter(trial["ending"] or "unknown" for trial in failed if trial["variant"] == name),
            sequential=decisions is not None,
            more={one: _score(_values(done, name, one), decisions) for one in more},
            comparison=by_name.get(name),
            fair=fair.get(name),
        )
        for name, values in scores.items()
    )
    return StudyTable(
        name=study["study"],
        profile=study["profile"],
        question=study["question"],
        data=_joined(declared["data"]) or study["data"],
        metric=metric,
        protocol=_joined(trial["protocol"] for trial in done),
        rows=rows,
        notes=(
            *_gaps(_expected(names, study["seeds"], study["asked"]), declared, len(done), metric),
            *(_left_out(study, results) if not evaluation else ()),
            *_path_arms(hidden & set(names)),
            *_pairing(rows),
            *([] if decisions is None else [STOPPING]),
            *tested_notes(compared),
            *of_images.notes,
            *majority_notes(
                scores, () if decisions else (name for name in scores if name in {baseline, *by_name}), images
            ),
            *unequal(done, list(scores)),
            *_weights(done),
            *([] if evaluation else planned_notes(study["plan"])),
        ),
        evaluation=evaluation,
        made={
            **{key: _joined(trial[key] for trial in done) for key in ("commit", "device", "torch")},
            "seconds": sum(finite(trial.get("metrics.seconds")) or 0.0 for trial in done),
        },
        plan={} if evaluation else study["plan"],
        controls=None if evaluation else study_controls(study, done, decisions),
        decisions=decisions,
        comparisons=compared,
        designs=() if evaluation or not study["designs"] else study_effects(study, declared.to_dict("records"), over),
        search=None if evaluation else study_search(study, results.trials[results.trials["parent"] == study["run_id"]]),
        run_id=study["run_id"],
    )


def _arms(
    names: Collection[str], declared: list[dict[Hashable, Any]], done: list[dict[Hashable, Any]], results: Results
) -> dict[str, Arm]:
    """What decides with which arms each is compared: options also of those that are not finished."""
    sources = arm_of_trial(results)
    options = {str(trial["variant"]): by_arm(trial["options"], sources) for trial in declared}
    return {name: Arm(_mean(done, name, "image_passes"), options.get(name, {})) for name in names}


def tested_notes(compared: tuple[Comparison, ...]) -> list[str]:
    """How the p values of a table came about, and which comparisons have none."""
    few = [one for one in compared if one.estimate.n and one.p is None]
    notes = []
    if any(one.p is not None for one in compared):
        number = compared[0].family
        notes.append(
            f"p: paired t test, Holm's method over {plural(number, 'comparison')}; intervals are not adjusted"
            if number > 1
            else "p: paired t test"
        )
    if few:
        named = ", ".join(dict.fromkeys(one.variant for one in few))
        notes.append(f"No test of {named}: fewer than {SEEDS_TO_TEST} seeds in common")
    return notes


def unequal(done: list[dict[Hashable, Any]], names: list[str]) -> list[str]:
    """What, apart from the method, differs between arms and the baseline: epochs, data, protocol, image passes."""
    facts = {name: _facts([trial for trial in done if trial["variant"] == name]) for name in names}
    found: dict[str, list[str]] = {}
    for name in names[1:]:
        ours, theirs = facts[name], facts[names[0]]
        if ours and theirs:
            parts = [f"{fact} {ours[fact]}, not {theirs[fact]}" for fact in ours if ours[fact] != theirs[fact]]
            found.setdefault("; ".join(parts), []).append(name)
    return [f"Unequal to {names[0]}: {', '.join(arms)}: {what}" for what, arms in found.items() if what]


def _facts(trials: list[dict[Hashable, Any]]) -> dict[str, str]:
    """What is to be equal in a fair comparison, as text; {} without a trial."""
    if not trials:
        return {}
    options = trials[-1]["options"]
    passes = [value for trial in trials if (value := finite(trial.get("metrics.image_passes"))) is not None]
    data = {key: options[key] for key in ("data.name", "data.size", "data.fraction", "data.images") if key in options}
    return {
        "epochs": str(options.get("training.epochs", DASH)),
        "data": ", ".join(f"{key.removeprefix('data.')} {value}" for key, value in data.items()),
        "content of the data": _joined(sorted({trial["fingerprint"] for trial in trials})),
        "protocol": _joined(sorted({trial["protocol"] for trial in trials})),
        "image passes": count_text(estimate(passes).mean),
    }


def _over(study: Mapping[Hashable, Any], results: Results) -> set[tuple[str, int]]:
    """(variant, seed) of the study's trials that ended, those whose batch norm does not count among them."""
    own = results.trials[results.trials["parent"] == study["run_id"]]
    ended = own[own["standing"].isin(("declared", "other batch norm")) & own["status"].isin(("finished", "failed"))]
    return set(zip(ended["variant"], ended["seed"], strict=True))


def _score(values: Mapping[int, float], decisions: StudyDecisions | None) -> Estimate:
    found = estimate([values[seed] for seed in sorted(values)])
    return found if decisions is None else without_interval(found)


def _apart(
    variant: str, baseline: str, scores: Mapping[str, Mapping[int, float]], decisions: StudyDecisions | None
) -> Estimate:
    """A variant's difference from the baseline: where seeds were added until decided, as the look that decided it found
    it; a point without an interval where it was no declared comparison."""
    course = None if decisions is None else decisions.courses.get((variant, baseline))
    if course is not None:
        return course.estimate
    found = paired_difference(scores[variant], scores[baseline])
    return found if decisions is None else without_interval(found)


def _values(done: list[dict[Hashable, Any]], variant: str, metric: str) -> dict[int, float]:
    """Seed → a metric's value, where it is finite."""
    found = {trial["seed"]: finite(trial.get(f"metrics.{metric}")) for trial in done if trial["variant"] == variant}
    return {seed: value for seed, value in found.items() if value is not None}


def _mean(done: list[dict[Hashable, Any]], variant: str, metric: str) -> float | None:
    values = [finite(trial.get(f"metrics.{metric}")) for trial in done if trial["variant"] == variant]
    return estimate([value for value in values if value is not None]).mean


def _joined(words: Any) -> str:
    return ", ".join(dict.fromkeys(str(word) for word in words if word))


def _expected(names: list[str], seeds: list[int], asked: Mapping[str, list[int]]) -> int:
    """Number of trials that the rows should have: those that were asked for. Stores from before that was recorded: a
    search's winner gets the seeds that the search has not used."""
    if asked:
        return sum(len(asked.get(name, ())) for name in names)
    winners = sum(name.partition(",")[0] == WINNER for name in names)
    return (len(names) - winners) * len(seeds) + winners * max(len(seeds) - 1, 1)


def _gaps(expected: int, declared: pd.DataFrame, done: int, metric: str) -> list[str]:
    failed = declared[declared["status"] == "failed"].to_dict("records")
    notes = []
    if failed:
        named = "; ".join(_failure(trial) for trial in failed[:3])
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        notes.append(f"{len(failed)} of {expected} trials failed: {named}{more}")
    ended = int((declared["status"] == "finished").sum())
    if ended > done:
        notes.append(f"{ended - done} of {expected} trials finished without a value for {metric}")
    missing = expected - ended - len(failed)
    if missing > 0:
        notes.append(f"{missing} of {expected} trials not finished yet")
    return notes


def planned_notes(plan: Mapping[str, Any]) -> list[str]:
    """What the last run was expected to cost, against what it did; nothing before it has ended."""
    actual = plan.get("actual")
    if not isinstance(actual, Mapping) or not actual.get("trials"):
        return []
    most = bound_text(bool(plan.get("at_least")), bool(plan.get("at_most")))
    seconds = "time unknown" if plan.get("seconds") is None else clock_text(plan["seconds"])
    return [
        f"Last run, planned: {most}{plural(plan['trials'], 'trial')}, {count_text(plan['image_passes'])} image passes, "
        f"{seconds}; actual: {plural(actual['trials'], 'trial')}, {count_text(actual['image_passes'])} image passes, "
        f"{clock_text(actual['seconds'])}",
        *(f"Last run: {sentence}" for sentence in plan.get("left_out", ())),
    ]


def _failure(trial: dict[Hashable, Any]) -> str:
    why = ": ".join(word for word in (trial["ending"], trial["reason"]) if word)
    return f"{trial['variant']}, seed {trial['seed']}" + (f" ({why})" if why else "")


def _left_out(study: dict[Hashable, Any], results: Results) -> list[str]:
    trials = results.trials[results.trials["parent"] == study["run_id"]]
    standings = trials[trials["status"] == "finished"]["standing"].value_counts()
    superseded, older = int(standings.get("superseded", 0)), int(standings.get("older data", 0))
    batches = int(standings.get("other batch norm", 0))
    search = int((trials["standing"] == "search").sum())
    notes = []
    if superseded:
        notes.append(f"{plural(superseded, 'trial')} left out: the study or the numerics version has changed since")
    if older:
        notes.append(f"{plural(older, 'trial')} left out: the data has changed since")
    if batches:
        notes.append(
            f"{plural(batches, 'trial')} left out: batch norm saw another share of a batch (other resources.workers, "
            "or a GPU whose memory ran out)"
        )
    if search:
        notes.append(f"{plural(search, 'search trial')} left out: a search never sees the test split")
    return notes


def _path_arms(hidden: set[str]) -> list[str]:
    """Rows that a table has not: arms of a path, whose first seeds chose it."""
    return [f"{plural(len(hidden), 'arm')} that only a path trains: see its steps"] if hidden else []


def _pairing(rows: tuple[StudyRow, ...]) -> list[str]:
    """Rows whose difference rests on fewer seeds than their mean."""
    fewer: dict[int, list[str]] = {}
    for row in rows:
        if row.difference is not None and row.difference.n < row.score.n:
            fewer.setdefault(row.difference.n, []).append(row.variant)
    return [f"Difference over {plural(n, 'pair')} with the baseline: {', '.join(own)}" for n, own in fewer.items()]


def _weights(done: list[dict[Hashable, Any]]) -> list[str]:
    """Initial weights that were not random, and the perceptual networks: both are needed to reproduce a table."""
    found: dict[str, list[str]] = {}
    for trial in done:
        parts, options = [], trial["options"]
        source = options.get("model.weights")
        if source and not source.startswith("trial:"):
            parts.append(f"starts from {source} weights")
        network = options.get("pretext.inpainting.perceptual")
        if network:
            weights = options.get("pretext.inpainting.perceptual_weights") or "random"
            layers = options.get("pretext.inpainting.perceptual_layers")
            shown = ", ".join(layers) if layers else "its first three stages"
            parts.append(f"perceptual network {network}, weights {weights}, {shown}")
        if parts:
            found.setdefault("; ".join(parts), []).append(trial["variant"])
    return [f"{', '.join(dict.fromkeys(variants))}: {what}" for what, variants in found.items()]
