"""JSON Schema of a study file, for editors: every option with its description, dotted keys among them."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from hmtl_ablate.config import PRETEXT_OPTIONS, TrialConfig
from hmtl_ablate.study.options import SECTIONS, option_fields
from hmtl_ablate.study.searching import MAX_TRIALS, SAMPLERS, objectives, searchable
from hmtl_ablate.study.space import Pruner
from hmtl_ablate.study.spec import RESERVED, Resources, table_metrics

Schema = dict[str, Any]


def study_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a study file, with the options of every registered pretext task."""
    shared: Schema = {
        "base": {
            "$ref": "#/$defs/config",
            "description": "A TrialConfig, defaults left out; variants and search build on it.",
        },
        "variants": {
            "type": ["object", "null"],
            "description": "An ablation: named arms, each a change of the base; the first is the baseline.",
            "propertyNames": {"minLength": 1, "maxLength": 80, "not": {"enum": list(RESERVED)}},
            "additionalProperties": {"anyOf": [{"$ref": "#/$defs/config"}, {"type": "null"}]},
        },
        "stages": {
            "type": ["object", "null"],
            "description": "Trials that run first and stand in no table; others start from them: "
            "model.weights: trial:NAME.",
            "propertyNames": {"minLength": 1, "maxLength": 80, "not": {"enum": list(RESERVED)}},
            "additionalProperties": {"anyOf": [{"$ref": "#/$defs/config"}, {"type": "null"}]},
        },
        "evaluations": {
            "type": ["object", "null"],
            "description": "What is asked of each trained variant: a probe of its frozen backbone, or fine-tuning, on "
            "this dataset or another. Each a change of the base; the weights are the variant's.",
            "propertyNames": {"minLength": 1, "maxLength": 80, "not": {"enum": list(RESERVED)}},
            "additionalProperties": {"anyOf": [{"$ref": "#/$defs/evaluation"}, {"type": "null"}]},
        },
        "seeds": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
            "minItems": 1,
            "uniqueItems": True,
            "default": [0, 1, 2],
            "description": "Seeds of the trials; variants are compared seed by seed.",
        },
        "search": {"anyOf": [{"$ref": "#/$defs/search"}, {"type": "null"}]},
        "resources": {"$ref": "#/$defs/resources"},
    }
    profile: Schema = {"type": ["object", "null"], "properties": shared, "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study file of hmtl-ablate",
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": {
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
                "description": "Name of the study: letters, digits, - and _.",
            },
            "question": {"type": "string", "description": "What the study asks."},
            "metric": {
                "enum": list(table_metrics()),
                "description": "What its table compares; when left out, what selects the weights, on test.",
            },
            **shared,
            "profiles": {
                "type": "object",
                "additionalProperties": profile,
                "description": "Named scales of the study, merged over the file; quick is the default.",
            },
        },
        "$defs": {
            "config": _config(),
            "evaluation": _evaluation(),
            "search": _search(),
            "parameter": _parameter(),
            "resources": _model(Resources, "What one trial is given."),
        },
    }


def schema_text() -> str:
    """`study_schema()` as text, as it stands in search_spaces/schema.json."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"


def _option(field: FieldInfo) -> Schema:
    schema: Schema = TypeAdapter[Any](field.annotation or Any).json_schema()
    for limit in field.metadata:
        for key, name in (
            ("ge", "minimum"),
            ("gt", "exclusiveMinimum"),
            ("le", "maximum"),
            ("lt", "exclusiveMaximum"),
            ("min_length", "minItems"),
            ("max_length", "maxItems"),
        ):
            if getattr(limit, key, None) is not None:
                schema[name] = getattr(limit, key)
    if field.description:
        schema["description"] = field.description
    schema["default"] = TypeAdapter(Any).dump_python(field.default, mode="json")
    return schema


def _model(model: type[Resources] | type[Pruner], description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "additionalProperties": False,
        "properties": {name: _option(field) for name, field in model.model_fields.items()},
    }


def _config() -> Schema:
    options = option_fields()
    properties: Schema = {}
    for name in SECTIONS:
        inner = {
            key.removeprefix(f"{name}."): _option(field) for key, field in options.items() if key.startswith(f"{name}.")
        }
        if name == "pretext":
            tasks = {
                task: {
                    "type": "object",
                    "description": (kind.__doc__ or "").strip(),
                    "additionalProperties": False,
                    "properties": {key: _option(field) for key, field in kind.model_fields.items()},
                }
                for task, kind in PRETEXT_OPTIONS.items()
            }
            properties[name] = {
                "type": "object",
                "additionalProperties": False,
                "properties": tasks,
                "description": TrialConfig.model_fields[name].description,
            }
            properties |= {f"pretext.{task}": schema for task, schema in tasks.items()}
        elif inner:
            properties[name] = {"type": "object", "properties": inner, "additionalProperties": False}
        else:
            properties[name] = _option(options[name])
    properties |= {key: _option(field) for key, field in options.items() if "." in key}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "description": "Options by section, or one by its dotted key. Maps merge, lists and scalars replace, a "
        "nested pretext replaces the whole of it.",
    }


def _evaluation() -> Schema:
    config = _config()
    of = {
        "type": "array",
        "items": {"type": "string"},
        "minItems": 1,
        "description": "Variants and stages that are evaluated; all variants when left out.",
    }
    return {**config, "properties": {"of": of, **config["properties"]}}


def _search() -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "description": "A search for the best options.",
        "properties": {
            "base": {"$ref": "#/$defs/config"},
            "space": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": False,
                "properties": {key: {"$ref": "#/$defs/parameter"} for key in searchable()},
            },
            "sampler": {"enum": list(SAMPLERS), "default": "tpe"},
            "pruner": {
                "anyOf": [
                    _model(Pruner, "What stops a trial early."),
                    {"enum": ["none", "successive_halving"]},
                    {"type": "null"},
                ]
            },
            "trials": {
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_TRIALS,
                "description": "How many trials in all, also after a restart.",
            },
            "objective": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "additionalProperties": False,
                "properties": {metric: {"enum": ["max", "min"]} for metric in objectives()},
                "default": {"val/accuracy": "max"},
            },
            "confirm": {
                "type": "boolean",
                "default": False,
                "description": "Train the best configuration again with all the study's seeds.",
            },
        },
    }


def _parameter() -> Schema:
    ends: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    return {
        "type": "object",
        "additionalProperties": False,
        "description": "The values of a searched option: one of choice, uniform, loguniform, int.",
        "oneOf": [{"required": [kind]} for kind in ("choice", "uniform", "loguniform", "int")],
        "properties": {
            "choice": {"type": "array", "minItems": 1, "description": "One of these values."},
            "uniform": {**ends, "description": "[low, high], evenly."},
            "loguniform": {**ends, "description": "[low, high], evenly on a logarithmic scale; low is above 0."},
            "int": {**ends, "items": {"type": "integer"}, "description": "[low, high], whole numbers, both included."},
            "step": {"type": "integer", "minimum": 1, "description": "int: distance between values."},
            "when": {
                "type": "object",
                "minProperties": 1,
                "description": "Another searched option → the value, or values, with which this one exists.",
            },
        },
    }
