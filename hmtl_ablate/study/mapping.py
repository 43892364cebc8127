"""A study that is a Python mapping: to the same tree of `Node`s as a file, and to YAML text that reproduces it."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from hmtl_ablate.study.source import MAX_DEPTH, MAX_INT, Node, Place, StudyFault, refuse

_SOURCE = "study"


def node_of(raw: Mapping[str, Any]) -> Node:
    """The tree of a mapping; raises `StudyError` with every value and key that YAML could not hold."""
    builder = _Builder()
    node = builder.node(raw, ())
    if builder.faults:
        raise refuse(builder.faults)
    return node


def yaml_of(node: Node) -> str:
    """YAML text that parses to the same values, in the same order."""
    yaml = YAML(pure=True)
    yaml.representer.ignore_aliases = lambda _: True  # a study file has no anchors
    yaml.default_flow_style = False
    yaml.width = 120
    text = StringIO()
    yaml.dump(_quoted(node.plain()), text)
    return text.getvalue()


def _quoted(value: Any) -> Any:
    """The value with unprintable text in double quotes; elsewhere some line breaks would be read as spaces."""
    if isinstance(value, dict):
        return {_quoted(key): _quoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) and not value.isprintable() else value


class _Builder:
    """Numbers the nodes in the order of the mapping, so that faults come in that order."""

    def __init__(self) -> None:
        self.faults: list[StudyFault] = []
        self.count = 0

    def node(self, raw: Any, path: tuple[str | int, ...]) -> Node:
        self.count += 1
        place = Place(_SOURCE, column=self.count)
        return Node(self._content(raw, place, path), place, place, path)

    def _content(self, raw: Any, place: Place, path: tuple[str | int, ...]) -> Any:
        if not isinstance(raw, Mapping | list | tuple):
            return self._scalar(raw, place, path)
        if len(path) >= MAX_DEPTH:  # raised here, because a list that contains itself has no end
            self._fault(place, path[:3], f"more than {MAX_DEPTH} levels deep", "a study has fewer")
            raise refuse(self.faults)
        if isinstance(raw, Mapping):
            return {_text(key): self._entry(key, value, path) for key, value in raw.items()}
        return [self.node(item, (*path, number)) for number, item in enumerate(raw)]

    def _entry(self, key: Any, value: Any, path: tuple[str | int, ...]) -> Node:
        node = self.node(value, (*path, _text(key)))
        if not isinstance(key, str):
            self._fault(node.key, node.path, f"a key is text, not {key!r}", "put it in quotes")
        return node

    def _scalar(self, raw: Any, place: Place, path: tuple[str | int, ...]) -> Any:
        if raw is None or isinstance(raw, bool):
            return raw
        if isinstance(raw, int):
            if abs(raw) > MAX_INT:
                self._fault(place, path, "the number is too large")
            return int(raw)
        if isinstance(raw, float):
            return float(raw)
        if isinstance(raw, str):
            return _text(raw)
        self._fault(
            place,
            path,
            f"a value of type {type(raw).__name__} can't be written in a study",
            "use text, a number, True, False, None, a list or a dict",
        )
        return None

    def _fault(self, place: Place, path: tuple[str | int, ...], what: str, hint: str = "") -> None:
        self.faults.append(StudyFault(place, path, what, hint))


def _text(value: Any) -> str:
    """A text or key; of an enum of texts the value, not its name."""
    return str.__str__(value) if isinstance(value, str) else str(value)
