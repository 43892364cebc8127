"""The JSON Schema as an editor uses it: definitions, texts and what plug-ins add."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from hmtl_ablate.config import PRETEXT_OPTIONS, PretextOptions
from hmtl_ablate.study import PRUNERS, Pruner, schema_text, study_schema


def references(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["$ref"]} if "$ref" in schema else set()
        return own.union(*(references(value) for value in schema.values()))
    return set().union(*(references(item) for item in schema)) if isinstance(schema, list) else set()


def keys_of(schema: Any) -> set[str]:
    """Every key of every map in the schema."""
    if isinstance(schema, dict):
        return set(schema).union(*(keys_of(value) for value in schema.values()))
    return set().union(*(keys_of(item) for item in schema)) if isinstance(schema, list) else set()


def test_every_reference_has_its_definition_and_every_definition_is_used() -> None:
    schema = study_schema()
    assert references(schema) == {f"#/$defs/{name}" for name in schema["$defs"]}
    assert "defined" not in keys_of(schema), "a mark of a definition that is made on request"


def test_the_text_is_the_schema_with_its_characters_as_they_are() -> None:
    assert json.loads(schema_text()) == study_schema()
    assert "→" in schema_text()
    assert schema_text().endswith("}\n")


def test_descriptions_are_one_line() -> None:
    def texts(schema: Any) -> list[str]:
        if isinstance(schema, dict):
            own = [schema["description"]] if isinstance(schema.get("description"), str) else []
            return own + [text for value in schema.values() for text in texts(value)]
        return [text for item in schema for text in texts(item)] if isinstance(schema, list) else []

    found = texts(study_schema())
    assert len(found) > 100
    assert all(text == " ".join(text.split()) for text in found)


def test_an_option_has_its_range_default_and_text_under_both_of_its_keys() -> None:
    options = study_schema()["$defs"]["config"]["properties"]
    size = options["data"]["properties"]["size"]
    assert size == options["data.size"]
    assert {key: size[key] for key in ("type", "minimum", "maximum", "default")} == {
        "type": "integer",
        "minimum": 16,
        "maximum": 1024,
        "default": 48,
    }
    images = options["data.images"]["anyOf"]
    assert images == [{"maximum": 1_000_000, "minimum": 64, "type": "integer"}, {"type": "null"}]


def test_the_space_has_the_options_that_can_be_searched() -> None:
    properties = study_schema()["$defs"]["space"]["properties"]
    assert properties["training.lr"] == {"$ref": "#/$defs/Range"}
    assert not {"seed", "task", "data.name", "data.protocol", "probe.kind", "data"} & properties.keys()


def test_a_registered_pretext_task_is_in_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    class ColourOptions(PretextOptions):
        """Colour: the histogram of the image."""

        bins: int = 8
        """Bins of the histogram."""

    monkeypatch.setitem(PRETEXT_OPTIONS, "colour", ColourOptions)
    definitions = study_schema()["$defs"]
    bins = {"type": "integer", "default": 8, "description": "Bins of the histogram."}
    assert definitions["config"]["properties"]["pretext.colour.bins"] == bins
    assert definitions["config"]["properties"]["pretext"]["properties"]["colour"]["properties"]["bins"] == bins
    assert definitions["evaluation"]["properties"]["pretext.colour.bins"] == bins
    assert "pretext.colour.bins" in definitions["space"]["properties"]


def test_a_registered_pruner_is_in_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy(Pruner):
        """Stops nothing."""

        name: Literal["toy"] = "toy"

    monkeypatch.setitem(PRUNERS, "toy", Toy)
    definitions = study_schema()["$defs"]
    assert {"const": "toy", "description": "Stops nothing."} in definitions["pruner"]["anyOf"]
    assert definitions["pruner.toy"]["required"] == ["name"]
