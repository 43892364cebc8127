"""The declaration of the study file: what the reader accepts is what the schema has, with a text for each key."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from hmtl_ablate.cli import app
from hmtl_ablate.errors import StudyError
from hmtl_ablate.study import PRUNERS, SAMPLERS, load_study, schema_text, study_reference, study_schema
from hmtl_ablate.study.declaration import (
    KINDS,
    DesignSection,
    Evaluation,
    Profile,
    Range,
    Replaced,
    Resources,
    SearchSection,
    Seed,
    Settable,
    StudyFile,
    StudyName,
    TrialCount,
    VariantKeys,
    Verdict,
    accepts,
    default,
    keys,
    marked,
    replaced_maps,
)
from hmtl_ablate.study.options import option_fields

ROOT = Path(__file__).parents[2]
GOOD: dict[str, Any] = {
    "name": "faces",
    "question": "Does it help?",
    "metric": "test/accuracy",
    "base": {"data": {"size": 48}},
    "stages": {"first": {"training.supervised": False, "pretext": {"rotation": {"grid": 1}}}},
    "variants": {"SL": {"model": {"weights": "trial:first"}}},
    "designs": {"parts": {"kind": "add_one_in", "baseline": "SL", "components": {"views": {"data.views": 2}}}},
    "evaluations": {"probe": {"of": ["SL"], "probe": {"kind": "linear"}}},
    "seeds": [0, 1],
    "search": {
        "base": {"pretext": {"puzzling": {"weight": 1.0}}},
        "space": {
            "pretext.puzzling.grid": {"int": [2, 6], "step": 2},
            "training.lr": {"loguniform": [1e-4, 1e-2], "when": {"pretext.puzzling.grid": 2}},
        },
        "sampler": "tpe",
        "pruner": {"name": "patient", "wraps": {"name": "median", "grace_epochs": 2}},
        "trials": 4,
        "objective": {"val/accuracy": "max"},
        "confirm": True,
    },
    "profiles": {"quick": {"base": {"training": {"epochs": 5}}}},
    "resources": {"workers": 1, "cpus": 1, "gpus": 0, "keep_last": False},
    "verdict": {"smallest": 0.5, "alpha": 0.05},
}
UNKNOWN = ("there is no key", "there is no option", "there is no kind of range", "here to change")
"""What the reader says of a key that it does not know; the last of an option of a pretext task that is not there."""
MAPS: dict[tuple[str, ...], tuple[str, ...]] = {
    (): keys(StudyFile),
    ("profiles", "quick"): keys(Profile),
    ("search",): keys(SearchSection),
    ("search", "space", "training.lr"): keys(Range),
    ("resources",): keys(Resources),
    ("verdict",): keys(Verdict),
    ("search", "pruner"): tuple(PRUNERS["patient"].model_fields),
    ("search", "pruner", "wraps"): tuple(PRUNERS["median"].model_fields),
    ("evaluations", "probe"): (*keys(Evaluation), *option_fields()),
    ("designs", "parts"): keys(DesignSection),
    ("variants", "SL"): (*keys(VariantKeys), *option_fields()),
    ("base",): tuple(option_fields()),
}
"""Maps of a study → the keys that are declared for them."""


@cache
@cache
def validator() -> Any:
    return jsonschema.Draft202012Validator(study_schema())


def at(study: dict[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        study = study[key]
    return study


def with_key(path: tuple[str, ...], key: str, value: Any) -> dict[str, Any]:
    study = copy.deepcopy(GOOD)
    at(study, path)[key] = value
    return study


def faults(study: dict[str, Any]) -> list[str]:
    try:
        load_study(study)
    except StudyError as error:
        return str(error).split("\n")
    return []


def of_schema(schema: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The schema of the map at a path of GOOD."""
    known = schema["$defs"]

    def resolve(one: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in one or "anyOf" in one:
            one = known[one["$ref"].rpartition("/")[2]] if "$ref" in one else one["anyOf"][0]
        return one

    here = schema
    for number, key in enumerate(path):
        if key in ("pruner", "wraps"):
            here = known[f"pruner.{at(GOOD, path[: number + 1])['name']}"]
            continue
        here = resolve(here)
        here = here["properties"][key] if key in here.get("properties", {}) else here["additionalProperties"]
    return resolve(here)


def test_the_good_study_is_good() -> None:
    assert faults(GOOD) == []
    assert validator().is_valid(GOOD)


@pytest.mark.parametrize("path", MAPS, ids=lambda path: ".".join(path) or "study")
class TestEveryMap:
    def test_the_schema_has_the_declared_keys(self, path: tuple[str, ...]) -> None:
        declared = set(MAPS[path])
        properties = of_schema(study_schema(), path)["properties"]
        extra = {key for key in properties if key not in declared}
        assert declared <= properties.keys()
        assert all(any(key.startswith(f"{name}.") for key in declared) for name in extra), (
            "sections of declared options"
        )

    def test_the_reader_knows_each_key_and_no_other(self, path: tuple[str, ...]) -> None:
        for key in MAPS[path]:
            shown = ".".join((*path, key))
            found = faults(with_key(path, key, "?"))
            assert not [line for line in found if shown in line and any(text in line for text in UNKNOWN[:3])], found
            unknown = with_key(path, f"{key}x", "?")
            assert not validator().is_valid(unknown), key
        assert any(text in line for line in faults(unknown) for text in UNKNOWN), key

    def test_each_key_is_described(self, path: tuple[str, ...]) -> None:
        for key, one in of_schema(study_schema(), path)["properties"].items():
            assert one.get("description") or "const" in one, key


def mutated() -> Iterator[tuple[tuple[str, ...], Any]]:
    for path in (
        (),
        ("search",),
        ("resources",),
        ("verdict",),
        ("search", "pruner"),
        ("search", "space", "training.lr"),
    ):
        for key in at(GOOD, path):
            yield (*path, key), [[]]
    yield ("name",), "../a"
    yield ("seeds",), [-1]
    yield ("seeds",), [1, 1]
    yield ("seeds",), []
    yield ("metric",), "test/acuracy"
    yield ("variants", "search"), {}
    yield ("variants", "x" * 81), {}
    yield ("variants", "SL"), 5
    yield ("variants", "SL"), {"controls": "yes"}
    yield ("variants", "SL"), {"pretext": {"puzzling": {}}, "controls": ["epoch"]}
    yield ("stages", "first"), {"controls": True}
    yield ("evaluations", "probe"), {"controls": True}
    yield ("evaluations", "probe", "of"), []
    yield ("designs", "parts"), 5
    yield ("designs", ""), {"kind": "add_one_in", "components": {"a": {"data.views": 2}}}
    yield ("designs", "x" * 81), {"kind": "add_one_in", "components": {"a": {"data.views": 2}}}
    yield ("designs", "parts", "kind"), "leave_one"
    yield ("designs", "parts", "baseline"), 3
    yield ("designs", "parts", "components"), {"views": 3}
    yield ("designs", "parts", "components", "views"), {"data.sise": 3}
    yield ("designs", "parts", "components", "views"), {"levels": {"two": {"data.sise": 3}}}
    yield ("designs", "parts", "target"), 3
    yield ("designs", "parts", "selection"), 0
    yield ("designs", "parts", "selection"), True
    yield ("base", "data", "size"), 4
    yield ("base", "data.size"), "48"
    yield ("base", "pretext"), {"puzling": {}}
    yield ("search", "trials"), 0
    yield ("search", "trials"), True
    yield ("search", "confirm"), "yes"
    yield ("search", "sampler"), "tpee"
    yield ("search", "pruner"), "medain"
    yield ("search", "pruner"), {"grace_epochs": 2}
    yield ("search", "pruner"), {"name": "none", "grace_epochs": 2}
    yield ("search", "pruner", "patience"), -1
    yield ("search", "pruner", "wraps", "startup_trials"), 0
    yield ("search", "objective"), {"test/accuracy": "max"}
    yield ("search", "objective"), {"val/accuracy": "up"}
    yield ("search", "objective"), {"val/accuracy": "max", "cost/seconds": "max"}
    yield ("search", "space"), {}
    yield ("search", "space", "seed"), {"int": [0, 5]}
    yield ("search", "space", "data.name"), {"choice": ["ferplus"]}
    yield ("search", "space", "training.lr"), {}
    yield ("search", "space", "training.lr"), {"choice": [0.1], "uniform": [0.1, 0.2]}
    yield ("search", "space", "training.lr"), {"uniform": [0.1]}
    yield ("search", "space", "training.lr"), {"choice": []}
    yield ("search", "space", "pretext.puzzling.grid"), {"int": [2, 6], "step": 0}
    yield ("profiles", "quick"), {"name": "a"}
    yield ("resources", "workers"), 0
    yield ("resources", "gpus"), -1
    yield ("verdict", "smallest"), 0
    yield ("verdict", "smallest"), "0.5"
    yield ("verdict", "alpha"), 0.6
    yield ("verdict", "alpha"), True
    yield ("profiles", "quick"), {"verdict": {"alpha": 0.1}}


@pytest.mark.parametrize(("path", "value"), mutated(), ids=lambda part: repr(part)[:60])
def test_the_schema_refuses_what_the_reader_refuses(path: tuple[str, ...], value: Any) -> None:
    study = with_key(path[:-1], path[-1], value)
    assert faults(study)
    assert not validator().is_valid(study)


@pytest.mark.parametrize(
    ("sampler", "pruner"), [*((name, "none") for name in SAMPLERS), *(("tpe", name) for name in PRUNERS)]
)
def test_every_sampler_and_pruner_is_in_the_schema_and_the_reference(sampler: str, pruner: str) -> None:
    for declared in (pruner, {"name": pruner}):
        study = with_key(("search",), "pruner", declared)
        study["search"] |= {"sampler": sampler, "space": {"data.size": {"int": [32, 64]}}}
        assert faults(study) == []
        assert validator().is_valid(study)
    assert f"`{sampler}`" in study_reference()
    assert f"#### `{pruner}`" in study_reference()


def test_confirm_is_described_as_the_conductor_does_it() -> None:
    """It trains on the seeds that the search has not used."""
    text = study_schema()["$defs"]["SearchSection"]["properties"]["confirm"]["description"]
    assert "all but the first, which the search has used" in text


def test_keys_are_those_of_the_file() -> None:
    assert keys(Range) == (*KINDS, "step", "when")
    assert keys(StudyFile)[:3] == ("name", "question", "metric")
    assert keys(Profile) == (*("base", "stages", "variants", "designs", "evaluations", "seeds", "search", "resources"),)
    assert set(keys(StudyFile)) == {"name", "question", "metric", "verdict", "decide", "profiles", *keys(Profile)}


def test_markers() -> None:
    assert marked(StudyFile, Settable()) == ("question", "metric", "seeds", "search", "resources")
    assert marked(SearchSection, Replaced()) == ("pruner", "objective")
    assert replaced_maps() == {("pruner",), ("objective",), ("space", "*"), ("arms", "*", "space", "*")}


def test_defaults() -> None:
    assert default(StudyFile, "seeds") == [0, 1, 2]
    assert (default(SearchSection, "sampler"), default(SearchSection, "confirm")) == ("tpe", False)
    assert load_study({"name": "a", "variants": {"SL": None}}).resources == default(StudyFile, "resources")
    assert default(StudyFile, "verdict") == Verdict(smallest=0.5, alpha=0.05)
    assert load_study({"name": "a", "variants": {"SL": None}}).verdict == Verdict()
    assert load_study({"name": "a", "variants": {"SL": None}, "verdict": None}).verdict == Verdict()
    own = load_study({"name": "a", "variants": {"SL": None}, "verdict": {"alpha": 0.01}}).verdict
    assert (own.smallest, own.alpha) == (0.5, 0.01)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Seed, [0, 2**31 - 1], [-1, 2**31, True, 1.0, "1", None, [1]]),
        (TrialCount, [1, 1_000_000], [0, 1_000_001, True, "4"]),
        (StudyName, ["a", "A-1_b", "x" * 64], ["", "-a", "a b", "a\n", "x" * 65, 7]),
        (bool, [True, False], [0, "true", None]),
    ],
)
def test_accepts_is_strict(kind: Any, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not accepts(kind, value)] == []
    assert [value for value in bad if accepts(kind, value)] == []


def test_the_committed_reference_is_current() -> None:
    assert (ROOT / "docs" / "study-file.md").read_text(encoding="utf-8") == study_reference(), (
        "run: hmtl-ablate schema --markdown > docs/study-file.md"
    )


def test_the_reference_has_name_type_range_default_and_text_of_each_key() -> None:
    lines = study_reference().splitlines()
    assert any(line.startswith("| `size` | whole number, ≥ 16, ≤ 1,024 | `48` | ") for line in lines)
    assert any(line.startswith("| `name` | text | required | Name of the study") for line in lines)
    assert any(line.startswith("| `variants` | map of name to options or null |  | An ablation") for line in lines)
    assert any(line.startswith('| `augment` | `none`, `weak`, `strong` | `"weak"` | ') for line in lines)
    for key in option_fields():
        assert any(line.startswith(f"| `{key.rpartition('.')[2]}` | ") for line in lines), key


def test_the_command_prints_the_schema_or_the_reference() -> None:
    assert CliRunner().invoke(app, ["schema"]).stdout == schema_text()
    assert CliRunner().invoke(app, ["schema", "--markdown"]).stdout == study_reference()
