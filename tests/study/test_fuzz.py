"""Whatever a study file or an option holds: a Study or a StudyError of one line per fault, nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hmtl_ablate.errors import ConfigError, StudyError
from hmtl_ablate.study import Study, load_study, missing_data, planned

FILES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
TEXTS = [path.read_text(encoding="utf-8") for path in FILES]
WORDS = [
    "{}",
    "[]",
    ": ",
    "- ",
    "\t",
    "\n",
    "&a ",
    "*a",
    "!!int ",
    "null",
    "true",
    "-1",
    "1e999",
    "9" * 400,
    "'",
    '"',
    "pretext",
    "pretext.puzzling.grid",
    "data",
    "feed",
    "mixed",
    "choice",
    "when",
    "seeds",
    "\x00",
    "\ud7ff",
    "? ",
    "|",
    ">",
    "#",
    "%",
    "---",
    "0x10",
    ".nan",
    "\\u0000",
    '"\\uD800"',
    '"\\n"',
    "{choice: [2]}",
    "search:",
    "<<",
]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.sampled_from(WORDS))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def load(text: str | bytes, sets: Sequence[str] = (), datasets: Sequence[str] = ()) -> Study | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "study.yaml")
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        message = ""
        try:
            study = load_study(path, sets=sets, datasets=datasets)
        except StudyError as error:
            message = str(error) or "\n"
    if message:
        assert all(line and line.isprintable() for line in message.split("\n"))
        return None
    assert missing_data(study) is not None
    assert len(planned(study)) == len(study.variants) * len(study.first_seeds)
    if study.search:
        assert study.search.space_hash
        values: dict[str, Any] = {}
        for parameter in study.search.parameters:
            if parameter.active(values):
                values[parameter.key] = parameter.low if parameter.values is None else parameter.values[0]
        with suppress(ConfigError):
            study.search.resolve(values, 0)
    return study


@settings(max_examples=50)
@given(
    st.sampled_from(TEXTS),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(WORDS) | st.text(max_size=4)),
        min_size=1,
        max_size=3,
    ),
)
def test_changed_text(text: str, changes: list[tuple[float, int, str]]) -> None:
    for where, removed, word in changes:
        at = int(where * len(text))
        text = text[:at] + word + text[at + removed :]
    load(text)


@settings(max_examples=60)
@given(st.binary(max_size=60))
def test_any_bytes(raw: bytes) -> None:
    load(raw)


def changed(text: str, data: st.DataObject) -> Any:
    """The study of a file, in which one value anywhere becomes any other value."""
    study = YAML(typ="safe", pure=True).load(text)
    holder, key = study, data.draw(st.sampled_from(sorted(study)))
    while isinstance(holder[key], dict | list) and holder[key] and data.draw(st.booleans()):
        holder = holder[key]
        key = data.draw(st.sampled_from(list(holder) if isinstance(holder, dict) else list(range(len(holder)))))
    holder[key] = data.draw(VALUES)
    return study


@settings(max_examples=50)
@given(st.sampled_from(TEXTS), st.data())
def test_changed_values(text: str, data: st.DataObject) -> None:
    load(_yaml(changed(text, data)))


@pytest.mark.slow
@settings(max_examples=50)
@given(st.sampled_from(TEXTS), st.data())
def test_changed_values_of_a_mapping(text: str, data: st.DataObject) -> None:
    raw = changed(text, data)
    message = ""
    try:
        study = load_study(raw)
    except StudyError as error:
        message = str(error) or "\n"
    if message:
        assert all(line.startswith(("study: ", "--profile")) for line in message.split("\n"))
    else:
        assert load(study.text) == study


@settings(max_examples=50)
@given(
    st.sampled_from(TEXTS),
    st.sampled_from(
        [
            "data.size",
            "training.epochs",
            "pretext",
            "pretext.puzzling",
            "pretext.puzzling.feed",
            "search",
            "search.space",
            "search.trials",
            "search.space.training.lr",
            "search.base",
            "search.base.training",
            "search.pruner.name",
            "search.objective",
            "seeds",
            "resources",
            "resources.gpus",
            "data",
            "metric",
            "metric.x",
            "",
            ".",
            "data.name",
            "search.",
            "pretext.",
            "data..size",
            "question",
        ]
    ),
    VALUES,
)
def test_any_set(text: str, key: str, value: Any) -> None:
    load(text, sets=[f"{key}={_yaml(value)}"], datasets=["ferplus"] if key == "data.name" else [])


def _yaml(value: Any) -> str:
    """Flow YAML, with text in quotes half of the time by what it holds."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml(str(key))}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str):
        return value if value in WORDS else "'" + value.replace("'", "''") + "'"
    return (
        {None: "null", True: "true", False: "false"}.get(value, str(value))
        if not isinstance(value, float | int) or isinstance(value, bool)
        else {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(str(value), str(value))
    )
