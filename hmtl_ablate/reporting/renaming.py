"""Other names for a study's arms, before any table is made: tables, sentences, figures and files then have them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

from hmtl_ablate.errors import HmtlError, nearest
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.study import WINNER


def renamed(results: Results, names: Mapping[str, str]) -> Results:
    """The results with other names of variants. names: variant → its new name; a search's winner of a renamed arm, and
    the controls that were added to it, follow it, unless they are named themselves.

    Raises HmtlError for a variant that no study has, with the nearest one, for an empty name, and for a name that
    another variant of the same study has.
    """
    if not names or results.empty:
        return results
    studies = results.studies.to_dict("records")
    known = {name for row in studies for name in (*row["variants"], *row["search"]) if name}
    for old, new in names.items():
        if old not in known:
            raise HmtlError(f"--rename: no study in this store has an arm {old!r}; {nearest(old, known)}")
        if not new.strip():
            raise HmtlError(f"--rename: the arm {old!r} needs a name")
    frame, trials = results.studies.copy(), results.trials.copy()
    all_names = {row["run_id"]: {**_winners(row, names), **_added(row, names), **names} for row in studies}
    changed = [_row(row, all_names[row["run_id"]]) for row in studies]
    for column in (
        "variants",
        "evaluations",
        "asked",
        "search",
        "controls",
        "added",
        "designs",
        "decide",
        "registered",
    ):
        frame[column] = [row[column] for row in changed]
    for column in ("variant", "arm"):
        pairs = zip(trials["parent"], trials[column], strict=True)
        trials[column] = [all_names.get(parent, names).get(name, name) for parent, name in pairs]
    return replace(results, studies=frame, trials=trials)


def _row(row: Mapping[Hashable, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The columns of a study's row that name variants."""
    variants = _keys(row["variants"], names)
    if len(variants) < len(row["variants"]):
        twice = next(new for old, new in names.items() if old in row["variants"] and _taken(new, old, row, names))
        raise HmtlError(f"--rename: study {row['study']!r} has two arms named {twice!r} then; choose another name")
    return {
        "variants": variants,
        "evaluations": _keys(row["evaluations"], names),
        "asked": _keys(row["asked"], names),
        "search": {
            names.get(arm, arm): {**about, "names": {_follow(old, names): names[old] for old in names}}
            for arm, about in row["search"].items()
        },
        "controls": {names.get(arm, arm): _controls(own, names) for arm, own in row["controls"].items()},
        "added": [names.get(name, name) for name in row["added"]],
        "designs": {design: _design(own, names) for design, own in row["designs"].items()},
        "decide": _decide(row["decide"], names),
        "registered": {
            key: _decide(value, names) if key == "decide" else value for key, value in row["registered"].items()
        },
    }


def _taken(new: str, old: str, row: Mapping[Hashable, Any], names: Mapping[str, str]) -> bool:
    return any(names.get(other, other) == new for other in row["variants"] if other != old)


def _keys(mapping: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in mapping.items()}


def _winners(row: Mapping[Hashable, Any], names: Mapping[str, str]) -> dict[str, str]:
    """Winners of renamed arms of a search → their names."""
    return {
        variant: _follow(variant, names)
        for variant in row["variants"]
        if variant.startswith(f"{WINNER}, ") and _follow(variant, names) != variant
    }


def _added(row: Mapping[Hashable, Any], names: Mapping[str, str]) -> dict[str, str]:
    """Controls that were added to renamed arms → their names."""
    return {
        control: names[arm] + control.removeprefix(arm)
        for arm in row["controls"]
        if arm in names
        for control in row["added"]
        if control.startswith(f"{arm}: ")
    }


def _follow(variant: str, names: Mapping[str, str]) -> str:
    """`best of search, ARM, rank 2` with the arm's new name; any other variant as it is."""
    start, _, rest = variant.partition(", ")
    arm, rank, number = rest.rpartition(", rank ")
    arm, end = (arm, rank + number) if rank else (rest, "")
    return f"{start}, {names[arm]}{end}" if start == WINNER and arm in names else variant


def _controls(own: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {
        key: {task: [names.get(name, name) for name in pair] for task, pair in value.items()}
        if isinstance(value, Mapping)
        else names.get(value, value)
        for key, value in own.items()
    }


def _design(own: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    arms = [{**arm, "variant": names.get(arm["variant"], arm["variant"])} for arm in own.get("arms", ())]
    candidates = [names.get(name, name) for name in own.get("candidates", ())]
    return {**own, "arms": arms, **({"candidates": candidates} if "candidates" in own else {})}


def _decide(own: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    if "comparisons" not in own:
        return dict(own)
    return {**own, "comparisons": [[names.get(name, name) for name in pair] for pair in own["comparisons"]]}
