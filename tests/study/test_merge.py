"""The merging rules of study files."""

from __future__ import annotations

from typing import Any

import pytest

from hmtl_ablate.study.merge import merge, override
from hmtl_ablate.study.source import StudyFault, parse


def merged(base: str, *changes: str) -> tuple[Any, list[StudyFault]]:
    faults: list[StudyFault] = []
    config = parse(base, "f")
    for change in changes:
        config = override(config, parse(change, "f"), faults)
    return config.plain(), faults


@pytest.mark.parametrize(
    ("base", "change", "result"),
    [
        ("{data: {size: 48, views: 1}}", "{data: {views: 2}}", {"data": {"size": 48, "views": 2}}),
        ("{data: {size: 48}}", "{data.views: 2}", {"data": {"size": 48, "views": 2}}),
        ("{}", "{data.views: 2}", {"data": {"views": 2}}),
        ("{task: emotion}", "{task: gender}", {"task": "gender"}),
        ("{a: [1, 2, 3]}", "{a: [4]}", {"a": [4]}),
        ("{pretext: {puzzling: {grid: 3}}}", "{pretext: {inpainting: {}}}", {"pretext": {"inpainting": {}}}),
        (
            "{pretext: {puzzling: {grid: 3}}}",
            "{pretext: {puzzling: {weight: 2}}}",
            {"pretext": {"puzzling": {"weight": 2}}},
        ),
        ("{pretext: {puzzling: {grid: 3}}}", "{pretext: {}}", {"pretext": {}}),
        (
            "{pretext: {puzzling: {grid: 3, weight: 1}}}",
            "{pretext.puzzling.weight: 2}",
            {"pretext": {"puzzling": {"grid": 3, "weight": 2}}},
        ),
        (
            "{pretext: {puzzling: {grid: 3}}}",
            "{pretext.inpainting: {}}",
            {"pretext": {"puzzling": {"grid": 3}, "inpainting": {}}},
        ),
        (
            "{}",
            "{pretext.puzzling.grid: 3, pretext: {puzzling: {grid: 2, weight: 2}}}",
            {"pretext": {"puzzling": {"grid": 3, "weight": 2}}},
        ),
    ],
)
def test_merging(base: str, change: str, result: dict[str, Any]) -> None:
    assert merged(base, change) == (result, [])


def test_a_dotted_key_adds_no_pretext_task() -> None:
    config, faults = merged("{pretext: {}}", "{pretext.puzzling.grid: 3}")
    assert config == {"pretext": {}}
    assert "there is no pretext task 'puzzling' here to change" in faults[0].what


def test_the_base_stays_as_it_was() -> None:
    base = parse("{data: {size: 48}, pretext: {puzzling: {grid: 2}}}", "f")
    before = base.plain()
    override(base, parse("{data.size: 32, pretext.puzzling.grid: 3, data: {views: 2}}", "f"), [])
    assert base.plain() == before


def test_every_value_knows_who_wrote_it() -> None:
    config = override(parse("data: {size: 48}\n", "base"), parse("data: {views: 2}\n", "change"), [])
    assert {key: str(node.place) for key, node in config.entries["data"].entries.items()} == {
        "size": "base:1:14",
        "views": "change:1:15",
    }


def test_some_maps_of_a_search_are_replaced() -> None:
    result = merge(
        parse("{space: {a: {choice: [1]}, b: {choice: [1]}}, trials: 3}", "f"),
        parse("{space: {a: {int: [1, 2]}}}", "f"),
        {("space", "*")},
    )
    assert result.plain() == {"space": {"a": {"int": [1, 2]}, "b": {"choice": [1]}}, "trials": 3}
