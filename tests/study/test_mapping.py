"""A study as a Python mapping: the same study as its file, and faults by key path."""

from __future__ import annotations

import tempfile
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hmtl_ablate.errors import StudyError
from hmtl_ablate.study import Study, load_study

FILES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
STUDY: dict[str, Any] = {
    "name": "faces",
    "base": {"data": {"size": 48}, "training": {"epochs": 8}},
    "variants": {"SL": {}, "SL + puzzling": {"pretext": {"puzzling": {"grid": 2}}}},
    "seeds": [0, 1],
}


def faults(study: Any, **options: Any) -> list[str]:
    with pytest.raises(StudyError) as caught:
        load_study(study, **options)
    return str(caught.value).split("\n")


def from_text(text: str) -> Study:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "study.yaml")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return load_study(path)


def test_a_mapping_is_a_study() -> None:
    study = load_study(STUDY)
    assert (study.name, study.profile, study.seeds) == ("faces", "quick", (0, 1))
    assert [variant.name for variant in study.variants] == ["SL", "SL + puzzling"]
    assert study.variants[1].config(3).pretext["puzzling"].model_dump()["grid"] == 2
    assert study.text.startswith("name: faces\nbase:\n  data:\n    size: 48\n")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_and_its_mapping_and_the_mappings_text_are_equal(path: Path) -> None:
    raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    study = load_study(raw)
    assert from_text(study.text) == study
    file = load_study(path)
    assert (file.variants, file.search, file.seeds) == (study.variants, study.search, study.seeds)


def test_faults_are_named_by_key_path_all_at_once_in_order() -> None:
    study = {
        **STUDY,
        "variants": {"SL": {"data": {"size": 4}}, "two": {"training.epoch": 2}},
        "seeds": [1, 1],
        "resources": {"workers": 0},
    }
    assert faults(study) == [
        "study: variants.SL.data.size: input should be greater than or equal to 16, not 4",
        "study: variants.two.training.epoch: there is no option 'epoch'; did you mean 'epochs'?",
        "study: seeds.1: the seed 1 appears twice; each seed is one repetition",
        "study: resources.workers: input should be greater than or equal to 1, not 0",
    ]


def test_a_fault_of_the_command_line_keeps_its_own_name() -> None:
    assert faults(STUDY, sets=["data.size=4"])[0].startswith("--set data.size=4: data.size: input should be greater")
    assert faults(STUDY, profile="paper") == ["--profile paper: the study has no profile 'paper'; valid: quick"]


def test_the_name_is_required() -> None:
    assert faults({"variants": {"SL": {}}}) == ["study: the study has no name; write e.g. name: puzzling"]
    assert "study: there is nothing to run; add variants, designs or a search" in faults({})


class Backbone(StrEnum):
    SMALL = "test_resnet"


def test_tuples_enums_and_other_mappings_are_read_as_what_they_hold() -> None:
    study = load_study(
        MappingProxyType({"name": "a", "variants": {"SL": {"model.backbone": Backbone.SMALL}}, "seeds": (4, 5)})
    )
    assert study.seeds == (4, 5)
    assert type(study.variants[0].raw["model"]["backbone"]) is str
    assert from_text(study.text) == study


def test_an_object_used_twice_is_written_out_twice() -> None:
    shared = {"training": {"epochs": 4}}
    study = load_study({"name": "a", "variants": {"one": shared, "two": shared}})
    assert "&" not in study.text
    assert from_text(study.text) == study


def test_what_yaml_can_not_hold_is_a_fault() -> None:
    found = faults({"name": "a", "variants": {"SL": {"data.size": object(), 7: 1}}, "seeds": [10**18], "base": {1, 2}})
    assert found == [
        "study: variants.SL.data.size: a value of type object can't be written in a study; "
        "use text, a number, True, False, None, a list or a dict",
        "study: variants.SL.7: a key is text, not 7; put it in quotes",
        "study: seeds.0: the number is too large",
        "study: base: a value of type set can't be written in a study; "
        "use text, a number, True, False, None, a list or a dict",
    ]


def test_a_list_that_contains_itself_ends() -> None:
    endless: list[Any] = []
    endless += [endless, endless]
    assert "more than 20 levels deep" in faults({"name": endless})[0]


TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "1",
        "1e-3",
        "0x10",
        "~",
        "no",
        "",
        "a: b",
        "- x",
        "#",
        "é",
        "\n",
        " a ",
        "*a",
        "&a",
        "!x",
        "x\ny",
        "'",
        "\ud800",
        "\x85",
        ".nan",
    ]
)
NAMES = TEXTS.filter(lambda name: name.isprintable() and name.strip() not in ("", "last") and "search" not in name)


@settings(max_examples=60)
@given(
    question=TEXTS,
    names=st.lists(NAMES, min_size=1, max_size=3, unique=True),
    dropout=st.floats(0, 0.99),
    seeds=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3, unique=True),
    weight=st.floats(1e-300, 1000),
)
def test_a_mapping_and_its_text_give_equal_studies(
    question: str, names: list[str], dropout: float, seeds: list[int], weight: float
) -> None:
    raw = {
        "name": "s",
        "question": question,
        "base": {"model": {"dropout": dropout}, "data.leave_out": [question]},
        "variants": {name: {"pretext": {"puzzling": {"weight": weight}}} for name in names} | {"last": None},
        "seeds": seeds,
    }
    study = load_study(raw)
    assert study.question == question
    assert from_text(study.text) == study
