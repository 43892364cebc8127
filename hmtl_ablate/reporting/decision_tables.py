"""The decisions of a study whose seeds were added until decided, as a table and as records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hmtl_ablate.reporting.columns import decision_columns, of_level
from hmtl_ablate.reporting.decisions import STOPPING, Decision, StudyDecisions
from hmtl_ablate.reporting.document import Table, Value
from hmtl_ablate.reporting.registered import registration_notes
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import lower_is_better, plural, smallest_text
from hmtl_ablate.study.declaration import FIRST_LOOK


def decision_table(table: StudyTable, csv: Mapping[str, Value]) -> tuple[Table[Decision], ...]:
    """The table of a study's comparisons, for people and programs; none where seeds are fixed. csv: the cells that the
    study's rows share in CSV."""
    decisions = table.decisions
    if decisions is None:
        return ()
    return (
        Table(
            title=f"Decisions: {table.name} ({table.profile}), data: {table.data or 'none yet'}",
            lead=_summary(decisions),
            columns=of_level(decision_columns(decisions.metric), decisions.level),
            rows=decisions.comparisons,
            notes=_notes(decisions, table),
            csv={**csv, "table": "decisions"},
        ),
    )


def decision_json(table: StudyTable) -> dict[str, Any] | None:
    """For JSON: the rule, the level of each comparison's interval, and the comparisons."""
    decisions = table.decisions
    if decisions is None:
        return None
    return {
        "rule": decisions.rule.model_dump(),
        "alpha_each": decisions.bound.alpha,
        "comparisons": [_record(one, decisions.metric) for one in decisions.comparisons],
    }


def decision_records(table: StudyTable) -> list[dict[str, Any]]:
    """One record per comparison, in the metric's own unit (accuracy from 0 to 1)."""
    decisions = table.decisions
    if decisions is None:
        return []
    own = {"study": table.name, "profile": table.profile, "data": table.data, "metric": table.metric}
    return [
        {**own, **_record(one, table.metric), "level": decisions.level, "smallest": decisions.bound.margin}
        for one in decisions.comparisons
    ]


def _record(one: Decision, metric: str) -> dict[str, Any]:
    cells = {column.json_name: column.value(one) for column in decision_columns(metric) if column.json_name}
    values = {str(seed): value for seed, value in one.course.values.items()}
    return {**cells, "missing": list(one.course.missing), "values": values}


def _summary(decisions: StudyDecisions) -> str:
    states = [one.course.state for one in decisions.comparisons]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) + "."


def _notes(decisions: StudyDecisions, table: StudyTable) -> tuple[str, ...]:
    rule, count = decisions.rule, len(decisions.comparisons)
    better = "Lower is better: a negative difference is a gain." if lower_is_better(decisions.metric) else ""
    how = (
        f"Rule: group-sequential repeated t-intervals, a look after each pair from {FIRST_LOOK} to {rule.seeds}, alpha "
        f"{rule.alpha:g} over {plural(count, 'comparison')}, so {decisions.level:.4g} % each over all of its looks. "
        "Better or worse: the interval leaves out 0. No difference that matters: it is within "
        f"±{smallest_text(rule.smallest, decisions.metric)}. A comparison keeps the interval of the look that decided "
        "it (docs/methods.md, Seeds until decided)."
    )
    missing = [
        f"{one.variant} − {one.minus}: no pair of seed {', '.join(map(str, one.course.missing))}: that look was not "
        "taken, and the boundary is that of the number of pairs."
        for one in decisions.comparisons
        if one.course.missing
    ]
    still = (
        "Open: run the study again to add seeds."
        if any(one.course.state == "open" for one in decisions.comparisons)
        else ""
    )
    own = registration_notes(decisions.registered, decisions.changed) if table.controls is None else []
    return tuple(line for line in (better, STOPPING, how, still, *missing, *own) if line)
