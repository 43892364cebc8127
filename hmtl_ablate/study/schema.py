"""JSON Schema of a study file, for editors; generated from `declaration`, TrialConfig, the pruners and the samplers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, create_model
from pydantic.json_schema import GenerateJsonSchema

from hmtl_ablate.config import PRETEXT_OPTIONS, TrialConfig
from hmtl_ablate.study.declaration import (
    COSTS,
    ComponentKeys,
    Evaluation,
    Range,
    StudyFile,
    VariantKeys,
    objectives,
    table_metrics,
)
from hmtl_ablate.study.options import SECTIONS, section_model
from hmtl_ablate.study.pruners import PRUNERS
from hmtl_ablate.study.samplers import SAMPLERS
from hmtl_ablate.study.searching import searchable

Schema = dict[str, Any]


def study_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a study file, with every registered pretext task, pruner and sampler."""
    schema = _schema(StudyFile)
    definitions = schema.pop("$defs") | {name: make() for name, make in _DEFINED.items()}
    definitions |= {"Range": _schema(Range)}
    del definitions["DesignSection"]["required"]  # the file may leave to its profiles what every design needs
    definitions |= {f"pruner.{name}": _schema(kind) | {"required": ["name"]} for name, kind in PRUNERS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study file of hmtl-ablate",
        **_linked(schema),
        "$defs": _linked(definitions),
    }


def schema_text() -> str:
    """`study_schema()` as text; search_spaces/schema.json is a copy."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"


class _Untitled(GenerateJsonSchema):
    """Leaves out titles, which only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _schema(model: type[BaseModel]) -> Schema:
    schema = model.model_json_schema(schema_generator=_Untitled)
    for one in (schema, *schema.get("$defs", {}).values()):
        one.pop("title", None)
        if "description" in one:
            one["description"] = " ".join(one["description"].split())
        for field in one.get("properties", {}).values():
            if "description" in field:
                field["description"] = " ".join(field["description"].split())
    return schema


def _linked(schema: Any) -> Any:
    """The schema with a `$ref` in place of each mark of a `Defined` key."""
    if isinstance(schema, dict):
        return {
            "$ref" if key == "defined" else key: f"#/$defs/{value}" if key == "defined" else _linked(value)
            for key, value in schema.items()
        }
    return [_linked(item) for item in schema] if isinstance(schema, list) else schema


def _config() -> Schema:
    """A change of a TrialConfig: sections as maps, and every option by its dotted key."""
    nested: Schema = {}
    dotted: Schema = {}
    for name in SECTIONS:
        field = TrialConfig.model_fields[name]
        if name == "pretext":
            tasks = {task: _schema(options) for task, options in PRETEXT_OPTIONS.items()}
            nested[name] = {
                "type": "object",
                "description": field.description,
                "properties": tasks,
                "additionalProperties": False,
            }
            dotted |= {f"pretext.{task}": schema for task, schema in tasks.items()}
            dotted |= {
                f"pretext.{t}.{key}": one for t, task in tasks.items() for key, one in task["properties"].items()
            }
        elif section := section_model(field):
            nested[name] = _schema(section)
            dotted |= {f"{name}.{key}": one for key, one in nested[name]["properties"].items()}
        else:
            nested |= _schema(create_model(name, **{name: (field.annotation, field)}))["properties"]  # type: ignore[call-overload]
    return {
        "type": "object",
        "description": "Options by section, or one by its dotted key. Maps merge, lists and scalars replace; a nested "
        "pretext replaces all of it.",
        "properties": nested | dotted,
        "additionalProperties": False,
    }


def _variant() -> Schema:
    return _with_keys(VariantKeys)


def _component() -> Schema:
    return _with_keys(ComponentKeys)


def _evaluation() -> Schema:
    return _with_keys(Evaluation)


def _with_keys(model: type[BaseModel]) -> Schema:
    """A change of a TrialConfig, and the keys of a model."""
    own, config = _schema(model), _config()
    return {**config, "description": own["description"], "properties": own["properties"] | config["properties"]}


def _space() -> Schema:
    return {
        "type": "object",
        "minProperties": 1,
        "properties": {key: {"$ref": "#/$defs/Range"} for key in searchable()},
        "additionalProperties": False,
    }


def _sampler() -> Schema:
    return {"oneOf": [{"const": name, "description": sampler.text} for name, sampler in SAMPLERS.items()]}


def _pruner() -> Schema:
    names = [{"const": name, "description": _schema(kind)["description"]} for name, kind in PRUNERS.items()]
    return {"anyOf": [*names, {"type": "null"}, *({"defined": f"pruner.{name}"} for name in PRUNERS)]}


def _objective() -> Schema:
    return {
        "type": "object",
        "minProperties": 1,
        "properties": {metric: {"enum": ["min"] if metric in COSTS else ["max", "min"]} for metric in objectives()},
        "additionalProperties": False,
    }


def _metric() -> Schema:
    return {"enum": [*table_metrics(), None]}


_DEFINED: dict[str, Callable[[], Schema]] = {
    "config": _config,
    "variant": _variant,
    "component": _component,
    "evaluation": _evaluation,
    "space": _space,
    "sampler": _sampler,
    "pruner": _pruner,
    "objective": _objective,
    "metric": _metric,
}
"""Definitions that plug-ins add to, by the name that `Defined` gives."""
