"""The effects of a study's ablation designs as tables: for people one of each design; for programs one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hmtl_ablate.reporting.columns import EffectRow, effect_columns
from hmtl_ablate.reporting.document import Table
from hmtl_ablate.reporting.effects import DesignEffects
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import label, lower_is_better
from hmtl_ablate.study import selection_metric

LEADS = {
    "leave_one_out": "The full model minus the full model without the component.",
    "add_one_in": "The baseline with the component minus the baseline.",
    "one_factor_at_a_time": "The baseline with the component, or with the level of the factor, minus the baseline.",
    "pairwise": "Interactions: the baseline with both components, minus it with either, plus the baseline. 0: "
    "their gains add up.",
    "full_factorial": "Main effects: with the component minus without it, averaged over all combinations of the "
    "others. Interactions A × B: with both, minus with either, plus with neither, averaged likewise.",
    "path": "From the baseline to the full model, in each round the component that gains most. Gains are estimated "
    "with seeds that the path was not chosen with.",
}


def effect_tables(table: StudyTable) -> tuple[Table[EffectRow], ...]:
    """For people: a table of each design."""
    return tuple(
        Table(
            title=f"Design: {one.design} ({one.kind}) · {table.name} ({table.profile}), "
            f"data: {table.data or 'none yet'}",
            lead=f"{label(one.metric)}. {LEADS[one.kind]}",
            columns=effect_columns(one.metric, path=one.kind == "path"),
            rows=_rows(one),
            notes=_notes(one),
        )
        for one in table.designs
    )


def effect_data(table: StudyTable, csv: Mapping[str, Any]) -> Table[EffectRow] | None:
    """For programs: the effects of every design. csv: the cells that the study's rows share in CSV."""
    rows = tuple(row for one in table.designs for row in _rows(one))
    if not rows:
        return None
    return Table("", "", effect_columns(table.metric), rows, csv={**csv, "table": "effects"})


def effect_json(table: StudyTable) -> list[dict[str, Any]]:
    """For JSON: each design with its effects."""
    return [
        {
            "design": one.design,
            "kind": one.kind,
            "unfinished": one.unfinished,
            "effects": [_record(row, one.metric) for row in _rows(one)],
        }
        for one in table.designs
    ]


def effect_records(table: StudyTable) -> list[dict[str, Any]]:
    """One record per effect, in the metric's own unit (accuracy from 0 to 1)."""
    study = {"study": table.name, "profile": table.profile, "data": table.data, "metric": table.metric}
    return [
        {**study, "design": one.design, "kind": one.kind, **_record(row, one.metric)}
        for one in table.designs
        for row in _rows(one)
    ]


def _rows(one: DesignEffects) -> tuple[EffectRow, ...]:
    return tuple(EffectRow(one.design, one.kind, effect) for effect in one.effects)


def _record(row: EffectRow, metric: str) -> dict[str, Any]:
    cells = {column.json_name: column.value(row) for column in effect_columns(metric)}
    return {
        **{key: value for key, value in cells.items() if key not in ("design", "kind")},
        "arms": dict(row.effect.weights),
        "values": {str(seed): value for seed, value in row.effect.values.items()},
    }


def _notes(one: DesignEffects) -> tuple[str, ...]:
    number = sum(effect.p is not None for effect in one.effects)
    adjusted = f"adjusted for {number} effects by Holm's method" if number > 1 else "of one effect"
    test = f"p: two-sided paired t test, {adjusted}; intervals are not adjusted." if number else ""
    path = one.kind == "path"
    lines = (
        f"{one.unfinished[:1].upper()}{one.unfinished[1:]}." if one.unfinished else "",
        "Lower is better: a negative effect is a gain." if lower_is_better(one.metric) else "",
        test or ("Fewer than 3 seeds in common: nothing is tested." if one.effects else ""),
        f"When chosen: the gain in {label(selection_metric(one.metric))}, with the seeds of the choice; it is the "
        "largest of its round, so it is too high."
        if path and one.effects
        else "",
    )
    return tuple(line for line in lines if line)
