"""A search's winner as YAML: an entry of `variants` in a study file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from hmtl_ablate.config import parse_config
from hmtl_ablate.study.mapping import node_of, yaml_of
from hmtl_ablate.study.searching import FIXED
from hmtl_ablate.tracking.records import nested

if TYPE_CHECKING:
    from hmtl_ablate.reporting.search import Found

NAME = "tuned"
"""Of the variant; a study's variants may not have the name that the search's own winner has."""


def variant_options(options: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """What a variant declares to get a configuration in a study of the same task and data, nested.

    options: all of the configuration, {dotted key: value}. keys: those that the study's base or the search sets; they
    are written even where they have their defaults. Options that fix the task and the data are the study's.

    Raises ConfigError for a configuration that this version does not accept.
    """
    config = parse_config({**nested(options), "seed": 0})
    found = config.declared()
    every = config.model_dump(mode="json")
    for key in keys:
        _copy(every, found, key.split("."))
    for key in ("seed", *FIXED):
        _drop(found, key.split("."))
    return found


def variants_text(found: Collection[Found]) -> str:
    """The best configuration of each arm as YAML, indented by two; "" without one."""
    named = {f"{NAME}, {one.arm}" if one.arm else NAME: dict(one.options) for one in found if one.options}
    return "".join(f"  {line}\n" for line in yaml_of(node_of(named)).splitlines()) if named else ""


def _copy(source: Any, target: dict[str, Any], path: list[str]) -> None:
    """The value at a path, where there is one."""
    first, *rest = path
    if not isinstance(source, Mapping) or source.get(first) is None:
        return
    if not rest:
        target[first] = source[first]
    elif isinstance(source[first], Mapping):
        _copy(source[first], target.setdefault(first, {}), rest)


def _drop(target: dict[str, Any], path: list[str]) -> None:
    """Without the value at a path, nor a section that was left empty by it."""
    first, *rest = path
    if not rest:
        target.pop(first, None)
    elif isinstance(target.get(first), dict):
        _drop(target[first], rest)
        if not target[first]:
            del target[first]
