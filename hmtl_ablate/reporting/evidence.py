"""Every paired difference of one pretext task in a store, and what they say together.

One effect per study, dataset and backbone enters the mean, and no trial twice: differences that share a baseline are
correlated. Which one is kept does not depend on its value.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hmtl_ablate.config import PRETEXT_OPTIONS
from hmtl_ablate.errors import HmtlError, nearest_registered
from hmtl_ablate.reporting.comparison import same_options, same_passes
from hmtl_ablate.reporting.effects import path_only
from hmtl_ablate.reporting.evidence_pooling import Pooled, pooled
from hmtl_ablate.reporting.results import Results, arm_of_trial, by_arm, pretext_tasks
from hmtl_ablate.reporting.statistics import SEEDS_TO_TEST, Estimate, estimate
from hmtl_ablate.reporting.tables import StudyTable, finished
from hmtl_ablate.reporting.wording import lower_is_better, plural

ADAPTIVE = "seeds added until decided, so that mean and spread depend on when that stopped"
FEW = f"fewer than {SEEDS_TO_TEST} pairs, too few for a standard error"
EQUAL = "equal differences, which have no standard error"


@dataclass(frozen=True)
class EvidenceRow:
    """One arm with the pretext task minus the arm without it, paired by seed."""

    study: str
    profile: str
    data: str
    backbone: str
    fraction: float
    """Share of the training split."""
    feed: str
    variant: str
    minus: str
    equal_passes: bool
    """Whether both arms have as many image passes."""
    gain: Estimate
    """In the metric's own unit, above 0 where the task is better; with `sequential`, the sequential interval."""
    sequential: bool
    trials: frozenset[str]
    """Ids of the trials of both arms."""
    left_out: str = ""
    """Why it is not part of the mean; "" where it is."""

    @property
    def se(self) -> float | None:
        """Standard error of the mean gain over the seeds; None with `sequential`, and with one pair."""
        if self.sequential or self.gain.sd is None:
            return None
        return float(self.gain.sd / self.gain.n**0.5)


@dataclass(frozen=True)
class Evidence:
    """What a store says about a pretext task in one metric."""

    task: str
    metric: str
    rows: tuple[EvidenceRow, ...]
    """Those of the mean first; each group in the order in which the studies were run."""
    pooled: Pooled | None
    """None with fewer than two effects."""
    notes: tuple[str, ...] = ()
    """Arms without a counterpart."""

    @property
    def kept(self) -> tuple[EvidenceRow, ...]:
        """The effects of the mean."""
        return tuple(row for row in self.rows if not row.left_out)


def evidence(results: Results, tables: Sequence[StudyTable], task: str) -> tuple[Evidence, ...]:
    """The differences of a pretext task in these studies (`tables.study_tables`), one `Evidence` per metric.

    Evaluations and controls with answers that are not the task's own are no such difference. Raises HmtlError where no
    pretext task has that name.
    """
    if task not in PRETEXT_OPTIONS:
        raise HmtlError(f"--evidence: there is no pretext task {task!r}; {nearest_registered(task, PRETEXT_OPTIONS)}")
    found: dict[str, list[EvidenceRow]] = {}
    alone: dict[str, list[str]] = {}
    studies = {row["run_id"]: row for row in results.studies.to_dict("records")}
    sources = arm_of_trial(results)
    for table in tables:
        if table.evaluation or table.run_id not in studies:
            continue
        rows, without = _differences(table, studies[table.run_id], results, sources, task)
        if rows or without:
            found.setdefault(table.metric, []).extend(rows)
            alone.setdefault(table.metric, []).extend(without)
    return tuple(_together(task, metric, rows, alone[metric]) for metric, rows in found.items())


def _together(task: str, metric: str, rows: list[EvidenceRow], alone: Sequence[str]) -> Evidence:
    marked = _one_each(rows)
    kept = [row for row in marked if not row.left_out]
    notes = [f"No difference of {name}: no arm without {task} is alike in data, network and epochs" for name in alone]
    return Evidence(
        task,
        metric,
        (*kept, *(row for row in marked if row.left_out)),
        pooled([(row.gain.mean or 0.0, row.se or 0.0) for row in kept]) if len(kept) > 1 else None,
        tuple(notes),
    )


def _one_each(rows: Sequence[EvidenceRow]) -> list[EvidenceRow]:
    """The rows, with a reason at each that the mean leaves out.

    Of one study, dataset and backbone the difference at equal image passes is kept, then the one with the most pairs,
    then the first declared. Of differences that share trials the same order decides, whatever their studies.
    """
    reasons: dict[int, str] = {}
    taken: list[EvidenceRow] = []
    for place in sorted(range(len(rows)), key=lambda place: (not rows[place].equal_passes, -rows[place].gain.n, place)):
        row = rows[place]
        reasons[place] = _unusable(row) or next((why for other in taken if (why := _shared(row, other))), "")
        if not reasons[place]:
            taken.append(row)
    return [replace(row, left_out=reasons[place]) for place, row in enumerate(rows)]


def _unusable(row: EvidenceRow) -> str:
    if row.sequential:
        return ADAPTIVE
    if row.gain.n < SEEDS_TO_TEST:
        return FEW
    assert row.se is not None
    return EQUAL if row.se < 1e-12 else ""


def _shared(row: EvidenceRow, other: EvidenceRow) -> str:
    if (row.study, row.data, row.backbone) == (other.study, other.data, other.backbone):
        return f"one effect per study, dataset and backbone ({other.variant} is kept)"
    common = len(row.trials & other.trials)
    return f"{plural(common, 'trial')} shared with {other.variant} of {other.study}, which is kept" if common else ""


def _differences(
    table: StudyTable, study: Mapping[Hashable, Any], results: Results, sources: Mapping[str, str], task: str
) -> tuple[list[EvidenceRow], list[str]]:
    """The differences of a study, and the arms that have no counterpart. sources: of `arm_of_trial`."""
    arms: dict[str, list[dict[Hashable, Any]]] = {name: [] for name in study["variants"]}
    hidden = path_only(study)
    for trial in finished(results.declared(table.run_id), table.metric):
        if trial["variant"] in arms and trial["variant"] not in hidden and not trial["evaluation"]:
            arms[trial["variant"]].append({**trial, "options": by_arm(trial["options"], sources)})
    rows, alone = [], []
    for name, trials in arms.items():
        if not trials or not _trains(trials[-1]["options"], task):
            continue
        minus = _counterpart(trials, arms, task)
        if minus is None:
            alone.append(f"{name} ({table.name})")
        else:
            rows.append(_row(table, task, (name, trials), (minus, arms[minus])))
    return rows, alone


def _trains(options: Mapping[str, Any], task: str) -> bool:
    return task in pretext_tasks(options) and options.get(f"pretext.{task}.answers", "own") == "own"


def _counterpart(
    trials: list[dict[Hashable, Any]], arms: Mapping[str, list[dict[Hashable, Any]]], task: str
) -> str | None:
    """The arm without the task that is compared: its other pretext tasks, data, network and epochs are the same; at
    equal image passes where there is one, then the one whose options are nearest, then the first declared."""
    own = trials[-1]["options"]
    found: list[tuple[bool, int, int, str]] = []
    for name, others in arms.items():
        theirs = others[-1]["options"] if others else {}
        if others and pretext_tasks(theirs) == pretext_tasks(own) - {task} and _alike(trials[-1], others[-1]):
            keys = own.keys() | theirs.keys()
            apart = sum(own.get(key) != theirs.get(key) for key in keys if not key.startswith(f"pretext.{task}."))
            found.append((not _equal_passes(trials, others), apart, len(found), name))
    return min(found)[-1] if found else None


def _alike(trial: Mapping[Hashable, Any], other: Mapping[Hashable, Any]) -> bool:
    same = (trial["task"], trial["fingerprint"]) == (other["task"], other["fingerprint"])
    return same and same_options(trial["options"], other["options"])


def _equal_passes(trials: list[dict[Hashable, Any]], others: list[dict[Hashable, Any]]) -> bool:
    ours, theirs = (
        estimate([float(trial["metrics.image_passes"]) for trial in side if trial.get("metrics.image_passes", 0) > 0])
        for side in (trials, others)
    )
    if ours.mean is None or theirs.mean is None:
        return False
    return same_passes(ours.mean, theirs.mean)


def _row(
    table: StudyTable,
    task: str,
    arm: tuple[str, list[dict[Hashable, Any]]],
    other: tuple[str, list[dict[Hashable, Any]]],
) -> EvidenceRow:
    (name, trials), (minus, others) = arm, other
    options = trials[-1]["options"]
    return EvidenceRow(
        table.name,
        table.profile,
        str(trials[-1]["data"]),
        str(options.get("model.backbone", "")),
        float(options.get("data.fraction", 1.0)),
        str(options.get(f"pretext.{task}.feed", "")),
        name,
        minus,
        _equal_passes(trials, others),
        _gain(table, arm, other),
        table.decisions is not None,
        frozenset(str(trial["trial_id"]) for trial in (*trials, *others)),
    )


def _gain(
    table: StudyTable,
    arm: tuple[str, list[dict[Hashable, Any]]],
    other: tuple[str, list[dict[Hashable, Any]]],
) -> Estimate:
    """Above 0 where the task is better. Where seeds were added until decided, as the look that decided it found it;
    without an interval where it was no declared comparison."""
    sign = -1.0 if lower_is_better(table.metric) else 1.0
    ours, theirs = (
        {int(trial["seed"]): float(trial[f"metrics.{table.metric}"]) for trial in side[1]} for side in (arm, other)
    )
    found = estimate([sign * (ours[seed] - theirs[seed]) for seed in sorted(ours) if seed in theirs])
    if table.decisions is None:
        return found
    course = table.decisions.courses.get((arm[0], other[0]))
    if course is None or course.estimate.mean is None:
        return Estimate(found.n, found.mean)
    looked = course.estimate
    ends = [None if end is None else sign * end for end in (looked.low, looked.high)]
    low, high = ends if sign > 0 else ends[::-1]
    return Estimate(looked.n, sign * (looked.mean or 0.0), None, low, high)
