"""What a study was before its first trial, and what of it has changed since (pre-registration)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hmtl_ablate.tracking.records import rule_hash


def changes(study: Mapping[Any, Any]) -> dict[str, tuple[str, str]]:
    """What of a study is not as it was registered → (then, now)."""
    registered = study["registered"]
    if not registered:
        return {}
    texts, now = _deciding(registered.get("decide") or {}), _deciding(study.get("decide") or {})
    pairs = {
        "study file": (registered["study"], study["file"]),
        "verdict rule": (registered["verdict"], rule_hash(study["verdict"])),
        "metric": (registered["metric"], study["metric"]),
        "seeds": (_listed(registered["seeds"]), _listed(study["seeds"])),
        **{key: (texts[key], now[key]) for key in now},
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _deciding(decide: Mapping[str, Any]) -> dict[str, str]:
    """How seeds were added, and to which comparisons, as texts."""
    rule = {key: value for key, value in decide.items() if key != "comparisons"}
    pairs = [" − ".join(pair) for pair in decide.get("comparisons", ())]
    return {
        "decide": ", ".join(f"{key} {value:g}" for key, value in rule.items()) or "none",
        "comparisons": "; ".join(pairs) or "none",
    }


def registration_notes(then: Mapping[str, Any], changed: Mapping[str, tuple[str, str]]) -> list[str]:
    """What was registered before the first trial, and what has changed since, a line each.

    then: `tracking.records.Registration` as plain data, empty where there is none; changed: of `changes`.
    """
    if not then:
        return ["Not registered before the first trial: the study's run is of an earlier version."]
    date = then["time"].replace("T", " ").replace("+00:00", " UTC")
    when = f"with {then['trained']} of its trials complete already" if then["trained"] else "before the first trial"
    seeds = ", ".join(map(str, then["seeds"]))
    lines = [
        f"Registered on {date}, {when}: study file {_short(then['study'])}, verdict rule {_short(then['verdict'])}, "
        f"{then['metric']}, seeds {seeds}{_decides(then)}."
    ]
    return lines + [
        f"Changed after the first trial: {name}: registered {_short(old)} on {date}, now {_short(new)}."
        for name, (old, new) in changed.items()
    ]


def _decides(then: Mapping[str, Any]) -> str:
    """What was registered of how seeds are added, or ""."""
    if not then.get("decide"):
        return ""
    count = len(then["decide"].get("comparisons", ()))
    return f", decide: {_deciding(then['decide'])['decide']}, {count} comparison{'s' * (count != 1)}"


def _short(text: str) -> str:
    """The first 12 digits of a SHA-256; any other text as it is."""
    return text[:12] if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
