"""YAML to nodes: values as YAML 1.2 has them, places as an editor shows them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ruamel.yaml import YAML

from hmtl_ablate.study.source import parse


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "-1",
        "+3",
        "0",
        "1.5",
        "1e-3",
        "4.0e-3",
        ".5",
        "1.",
        "true",
        "False",
        "null",
        "~",
        "",
        "no",
        "yes",
        "on",
        "text",
        "'1'",
        '"a\\nb"',
        "1.2.3",
        "-",
        "[1, 'a', {b: ~}]",
        "{a: {b: [x, 2.5]}}",
        ".inf",
        "-.inf",
        "a: |\n  text\n",
        "2:3",
    ],
)
def test_scalars_are_what_the_safe_loader_makes_of_them(text: str) -> None:
    if text == "-":
        assert parse(text, "f").plain() == [None]
        return
    value, expected = parse(text, "f").plain(), YAML(typ="safe", pure=True).load(text)
    assert value == expected
    assert type(value) is type(expected)


def test_nan() -> None:
    assert math.isnan(parse(".nan", "f").content)


def test_places_and_paths() -> None:
    root = parse("a: 1\nb:\n  c: [x, {d: 2}]\n", "file.yaml")
    places: dict[tuple[Any, ...], tuple[str, str]] = {path: (str(n.key), str(n.place)) for path, n in root.walk()}
    assert places[("b", "c")] == ("file.yaml:3:3", "file.yaml:3:6")
    assert places[("b", "c", 1, "d")] == ("file.yaml:3:11", "file.yaml:3:14")
    assert all(node.path == path for path, node in root.walk())
