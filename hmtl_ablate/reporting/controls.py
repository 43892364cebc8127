"""The controls of a study as tables: for people one of each arm, under its verdict; for programs one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.columns import ControlRow, control_columns, difference_text, of_level
from hmtl_ablate.reporting.decisions import STOPPING
from hmtl_ablate.reporting.decomposition import DECIDED, OVER_EPOCHS, OVER_VIEWS, PARTS, Decomposition, StudyControls
from hmtl_ablate.reporting.document import Table
from hmtl_ablate.reporting.registered import registration_notes
from hmtl_ablate.reporting.statistics import SEEDS_TO_TEST
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.verdict import CLAIMS, Claim
from hmtl_ablate.reporting.wording import label, lower_is_better, smallest_text

ORDER = (
    "A4 − A0 = (A1 − A0) + (A2 − A1) + (A3 − A2) + (A4 − A3), always in this order: the points add up (as printed, up "
    "to rounding), the intervals do not. A0: SL, one view. A1: SL, as many whole views. A2: changed images, the task's "
    "loss left out. A3: its answers drawn at random. A4: the arm."
)


DECIDED_RULE = (
    "Rule: helps: better than whole views and than more epochs; because of the task: also better than A2 and A3; "
    "augmentation: helps, and between the arm and A2 there is no difference that matters, ±{margin}; hurts: worse than "
    "whole views. Only the declared comparisons have an interval; the sum is of the seeds that all five arms have."
)
"""Of the verdict, where seeds were added until decided."""


def control_tables(table: StudyTable) -> tuple[Table[ControlRow], ...]:
    """For people: a table of each controlled arm; the last one's notes say how they are read, by which rule the
    verdicts are, and what was registered before the first trial."""
    controls = table.controls
    if controls is None:
        return ()
    last = len(controls.arms) - 1
    return tuple(
        Table(
            title=f"Controls: {arm.arm} · {table.name} ({table.profile}), data: {table.data or 'none yet'}",
            lead=sentence(arm, controls),
            columns=of_level(control_columns(controls.metric), _level(controls)),
            rows=_rows(arm),
            notes=_notes(controls) if number == last else (),
        )
        for number, arm in enumerate(controls.arms)
    )


def control_data(table: StudyTable, csv: Mapping[str, Any]) -> Table[ControlRow] | None:
    """For programs: every arm's verdict and differences. csv: the cells that the study's rows share in CSV."""
    controls = table.controls
    if controls is None:
        return None
    rows = [
        row for arm in controls.arms for row in (ControlRow(arm.arm, "verdict", None, arm.finding.kind), *_rows(arm))
    ]
    return Table("", "", control_columns(controls.metric), tuple(rows), csv={**csv, "table": "controls"})


def control_json(controls: StudyControls | None) -> dict[str, Any] | None:
    """For JSON: rule, registration, and of each arm the verdict with its p values and differences."""
    if controls is None:
        return None
    return {
        "rule": controls.rule.model_dump(),
        "registered": dict(controls.registered) or None,
        "changed": {name: {"registered": then, "now": now} for name, (then, now) in controls.changed.items()},
        "arms": [
            {
                "arm": arm.arm,
                "verdict": arm.finding.kind,
                "sentence": sentence(arm, controls),
                "p": dict(arm.finding.p),
                "differences": [_record(row, controls.metric) for row in _rows(arm)],
            }
            for arm in controls.arms
        ],
    }


def control_records(table: StudyTable) -> list[dict[str, Any]]:
    """One record per difference, in the metric's own unit (accuracy from 0 to 1)."""
    arms = () if table.controls is None else table.controls.arms
    return [{**_study(table), **_record(row, table.metric)} for arm in arms for row in _rows(arm)]


def verdict_records(table: StudyTable) -> list[dict[str, Any]]:
    """One record per controlled arm: its verdict, the p value of each claim, and the sentence."""
    controls = table.controls
    if controls is None:
        return []
    return [
        {
            **_study(table),
            "arm": arm.arm,
            "verdict": arm.finding.kind,
            **{f"p_{claim}": arm.finding.p.get(claim) for claim in CLAIMS},
            "sentence": sentence(arm, controls),
            "registered": controls.registered.get("time", ""),
            "changed": ", ".join(controls.changed),
        }
        for arm in controls.arms
    ]


def sentence(arm: Decomposition, controls: StudyControls) -> str:
    """The verdict on an arm, and what it rests on."""
    kind, p = arm.finding.kind, arm.finding.p
    if arm.refused or arm.unjudged:
        return f"{arm.arm}: {kind}: {arm.refused or arm.unjudged}."
    if arm.states:
        return f"{arm.arm}: {kind} ({label(controls.metric)}: {_decided(arm, controls.metric)})."
    reasons = {
        "helps because of the task": "better than whole views, more epochs, distortion and random answers, "
        f"{_p(p, 'task')}",
        "helps as augmentation": f"{_p(p, 'helps')}; the same without the task's loss, within ±{_margin(controls)}, "
        f"{_p(p, 'augmentation')}",
        "helps, cause undecided": f"{_p(p, 'helps')}; because of the task: {_p(p, 'task')}; as augmentation: "
        f"{_p(p, 'augmentation')}",
        "hurts": f"worse than whole views, {_p(p, 'hurts')}",
        "undecided": f"helps: {_p(p, 'helps')}; hurts: {_p(p, 'hurts')}",
    }
    return f"{arm.arm}: {kind} ({label(controls.metric)}: {_gains(arm, controls.metric)}; {reasons[kind]})."


def _notes(controls: StudyControls) -> tuple[str, ...]:
    better = "Lower is better: a negative difference is a gain." if lower_is_better(controls.metric) else ""
    margin = _margin(controls)
    if controls.decisions is not None:
        rule = DECIDED_RULE.format(margin=margin)
        own = registration_notes(controls.registered, controls.changed)
        return tuple(line for line in (better, ORDER, rule, STOPPING, *own) if line)
    rule = (
        "Rule: helps: better than whole views and than more epochs; because of the task: also better than A2 and A3; "
        "augmentation: helps, and A4 − A2 is "
        + (f"within ±{margin}" if margin else "never called equivalent (the metric has no unit: set verdict.smallest)")
        + f"; hurts: worse than whole views. p ≤ {controls.rule.alpha:g} after Holm's adjustment for "
        f"{len(controls.arms)} controlled arm{'s' * (len(controls.arms) > 1)}, at least {SEEDS_TO_TEST} seeds "
        "(docs/methods.md, Verdict)."
    )
    return tuple(
        line for line in (better, ORDER, rule, *registration_notes(controls.registered, controls.changed)) if line
    )


def _rows(arm: Decomposition) -> tuple[ControlRow, ...]:
    """The differences: the sum whole, and outside it each pair of arms once."""
    seen: set[tuple[str, str, bool]] = set()
    rows = []
    for number, part in enumerate(arm.parts):
        pair = part.variant, part.minus
        decided = part.name in arm.states
        if number <= len(PARTS) or (*pair, decided) not in seen:
            rows.append(ControlRow(arm.arm, part.name, part, arm.finding.kind, decided))
        seen.add((*pair, decided))
    return tuple(rows)


def _record(row: ControlRow, metric: str) -> dict[str, Any]:
    cells = {column.json_name: column.value(row) for column in control_columns(metric)}
    values = {str(seed): value for seed, value in row.part.values.items()} if row.part else {}
    return {key: value for key, value in cells.items() if key != "status"} | {"values": values}


def _study(table: StudyTable) -> dict[str, Any]:
    return {"study": table.name, "profile": table.profile, "data": table.data, "metric": table.metric}


def _gains(arm: Decomposition, metric: str) -> str:
    """The two differences that decide whether a judged arm helps; one where both controls are the same."""
    views, epochs = (next(part for part in arm.parts if part.name == name) for name in (OVER_VIEWS, OVER_EPOCHS))
    first, second = (difference_text(part.estimate, in_percent(metric)) for part in (views, epochs))
    if views.minus == epochs.minus:
        return f"{first} over {views.minus}"
    return f"{first} {views.name}, {second} {epochs.name}"


def _decided(arm: Decomposition, metric: str) -> str:
    """The comparisons that decide the verdict, each with its state; one where two controls are the same."""
    parts = {part.name: part for part in arm.parts if part.name in arm.states}
    shown = {(part.minus, part.variant): name for name, part in reversed(parts.items())}
    return "; ".join(
        f"{difference_text(parts[step.name].estimate, in_percent(metric))} {step.name}, {arm.states[step.name]}"
        for step in DECIDED
        if step.name in shown.values()
    )


def _level(controls: StudyControls) -> float | None:
    """Of the sequential intervals, in percent; None where there are none."""
    return None if controls.decisions is None else controls.decisions.level


def _margin(controls: StudyControls) -> str:
    """The smallest difference that matters with its unit, or ""."""
    return "" if controls.margin is None else smallest_text(controls.rule.smallest, controls.metric)


def _p(p: Mapping[Claim, float], claim: Claim) -> str:
    value = p[claim]
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
