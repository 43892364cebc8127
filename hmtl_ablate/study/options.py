"""The options of a TrialConfig by dotted key, those of registered pretext tasks among them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo

from hmtl_ablate.config import PRETEXT_OPTIONS, Frozen, TrialConfig, model_faults, parse_config
from hmtl_ablate.errors import ConfigError, Fault, nearest

SECTIONS = [name for name in TrialConfig.model_fields if name != "seed"]
"""Top-level keys of a TrialConfig in a study file; its seed comes from the study's `seeds`."""


def option_fields() -> dict[str, FieldInfo]:
    """Every option by dotted key, e.g. "task", "data.size", "pretext.puzzling.grid"; without the seed."""
    found: dict[str, FieldInfo] = {}
    for name in SECTIONS:
        field = TrialConfig.model_fields[name]
        if name == "pretext":
            for task, options in PRETEXT_OPTIONS.items():
                found |= {f"pretext.{task}.{key}": inner for key, inner in options.model_fields.items()}
        elif section := section_model(field):
            found |= {f"{name}.{key}": inner for key, inner in section.model_fields.items()}
        else:
            found[name] = field
    return found


def section_model(field: FieldInfo) -> type[BaseModel] | None:
    """The model class of a field that is a section, None for a single option."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def key_fault(key: str) -> tuple[str, str] | None:
    """What is wrong with a dotted key, and a hint; None for an option."""
    options = option_fields()
    if key in options:
        return None
    if any(name.startswith(f"{key}.") for name in options) or key == "pretext":
        below = sorted(name for name in options if name.startswith(f"{key}."))
        return f"{key!r} is a group of options", f"name one of them, e.g. {below[0]}" if below else ""
    group, _, name = key.rpartition(".")
    siblings = {option.removeprefix(f"{group}.") for option in options if option.rpartition(".")[0] == group}
    if group and siblings:
        return f"there is no option {name!r}", nearest(name, siblings)
    return f"there is no option {key!r}", nearest(key, options)


def value_faults(key: str, value: Any) -> list[Fault]:
    """What is wrong with one option's value by itself, whatever the other options are."""
    model = _single(*_owner(key))
    if faults := model_faults(model, {"value": value}):
        return faults
    parsed = getattr(model.model_validate({"value": value}), "value", None)
    return [_drift(("value",), value)] if _drifts(value, parsed) else []


def own_fault(fault: Fault) -> bool:
    """Whether a fault of a TrialConfig is one of the value alone, and not of its combination with others."""
    key = ".".join(map(str, fault.path))
    return key not in option_fields() or bool(value_faults(key, fault.value))


def _owner(key: str) -> tuple[type[BaseModel], str]:
    section, _, name = key.rpartition(".")
    if section.startswith("pretext."):
        return PRETEXT_OPTIONS[section.removeprefix("pretext.")], name
    return (section and section_model(TrialConfig.model_fields[section])) or TrialConfig, name


@lru_cache(maxsize=256)
def _single(owner: type[BaseModel], name: str) -> type[BaseModel]:
    """A model of one option alone."""
    field = owner.model_fields[name]
    return create_model("Single", __base__=Frozen, value=(field.annotation or Any, field))


def config_faults(raw: Mapping[str, Any]) -> list[Fault]:
    """All that is wrong with a TrialConfig's data; a number in quotes or true for 1 is a fault here too."""
    if "seed" in raw:
        rest = {key: value for key, value in raw.items() if key != "seed"}
        return [
            Fault(("seed",), "a study's seeds are a key of their own", raw["seed"], "write seeds: [0, 1, 2] above"),
            *config_faults(rest),
        ]
    try:
        config = parse_config(raw)
    except ConfigError as error:
        return list(error.faults)
    return _drifted(raw, config, ())


def _drifted(raw: Any, parsed: Any, path: tuple[str | int, ...]) -> list[Fault]:
    if isinstance(raw, Mapping):
        return [
            fault
            for key, value in raw.items()
            for fault in _drifted(
                value, parsed.get(key) if isinstance(parsed, Mapping) else getattr(parsed, key, None), (*path, key)
            )
        ]
    if isinstance(raw, list) and isinstance(parsed, list | tuple) and len(raw) == len(parsed):
        return [
            fault
            for number, pair in enumerate(zip(raw, parsed, strict=True))
            for fault in _drifted(*pair, (*path, number))
        ]
    return [_drift(path, raw)] if _drifts(raw, parsed) else []


def _drifts(raw: Any, parsed: Any) -> bool:
    """Whether text, true or false was parsed as a number."""
    return isinstance(parsed, int | float) and not isinstance(parsed, bool) and isinstance(raw, str | bool)


def _drift(path: tuple[str | int, ...], raw: Any) -> Fault:
    if isinstance(raw, bool):
        return Fault(path, f"should be a number, not {str(raw).lower()}", raw)
    return Fault(path, f"should be a number, not the text {raw!r}", raw, "write it without quotes")
