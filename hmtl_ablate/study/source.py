"""YAML text → a tree of `Node`s that know their line and column.

ruamel.yaml parses; the tree is built here from its events, so that a duplicate key, an anchor, a tag or a nesting
of a thousand levels is a fault with a place and never an exception of another kind, and no object is ever constructed.
Plain scalars follow the YAML 1.2 core schema, as ruamel.yaml's safe loader does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from hmtl_ablate.errors import StudyError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_INT = 10**18 - 1
"""Largest whole number; larger ones are refused."""

_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], math.nan),
}
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written: a line and column (from 1) of the file; with line 0, an option of the command, or a
    mapping, whose column is the number of the value."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a study file."""

    content: Any
    """dict[str, Node], list[Node], or None, bool, int, float, str."""
    place: Place
    """Place of the value."""
    key: Place
    """Place of the key that holds it."""
    path: tuple[str | int, ...] = ()
    """Keys and list positions from the top of the file."""

    @property
    def is_map(self) -> bool:
        return isinstance(self.content, dict)

    @property
    def entries(self) -> dict[str, Node]:
        """The map's values by key; {} for null and for what is no map."""
        return self.content if isinstance(self.content, dict) else {}

    def plain(self) -> Any:
        """The value as plain Python data."""
        if isinstance(self.content, dict):
            return {key: node.plain() for key, node in self.content.items()}
        if isinstance(self.content, list):
            return [node.plain() for node in self.content]
        return self.content

    def walk(self, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Node]]:
        """This node and all below it, each with its path from here."""
        yield path, self
        children: Any = ()
        if isinstance(self.content, dict):
            children = self.content.items()
        elif isinstance(self.content, list):
            children = enumerate(self.content)
        for key, node in children:
            yield from node.walk((*path, key))


@dataclass(frozen=True, slots=True)
class StudyFault:
    """One line of a `StudyError`: a fault and its place."""

    place: Place
    path: tuple[str | int, ...]
    what: str
    hint: str = ""

    def __str__(self) -> str:
        path = ".".join(_shown(str(key), 80) for key in self.path)
        text = ": ".join(part for part in (_shown(str(self.place), 300), path, _shown(self.what, 300)) if part)
        return f"{text}; {_shown(self.hint, 300)}" if self.hint else text


def _shown(text: str, limit: int) -> str:
    """One printable line of at most `limit` characters."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def refuse(faults: list[StudyFault]) -> StudyError:
    """All faults as one error, in the order of the file, each node's fault once."""
    unique = {(m.place, m.path, m.what): m for m in faults}.values()
    ordered = sorted(unique, key=lambda m: (m.place.line == 0, m.place.line, m.place.column))
    return StudyError("\n".join(str(fault) for fault in ordered))


def read_text(path: Path, shown: str) -> str:
    """The file's text, or `StudyError`."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise StudyError(f"{shown}: there is no such file{_near(path)}") from None
    except IsADirectoryError:
        raise StudyError(f"{shown}: is a folder; name a file in it") from None
    except (OSError, ValueError) as error:
        raise StudyError(f"{shown}: can't be read: {getattr(error, 'strerror', None) or error}") from None
    if len(raw) > MAX_BYTES:
        raise StudyError(f"{shown}: {len(raw)} bytes are too many; use at most {MAX_BYTES}")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        place = _at(raw[: error.start].decode(), shown)
        raise refuse(
            [StudyFault(place, (), f"byte 0x{raw[error.start]:02x} is not UTF-8", "save the file as UTF-8")]
        ) from None
    return text.replace("\r\n", "\n")


def _near(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
    except OSError:
        return ""
    close = get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"; did you mean {path.with_name(close[0])}?" if close else ""


def _at(before: str, source: str) -> Place:
    """The place that follows the text `before`."""
    return Place(source, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def parse(text: str, source: str, *, place: Place | None = None, path: tuple[str | int, ...] = ()) -> Node:
    """Parse one YAML document; raises `StudyError` with all its faults.

    place, path: for a value from the command line, the place of every node and the path of the first.
    """
    found = _UNPRINTABLE.search(text)
    if found:
        raise refuse(
            [
                StudyFault(
                    place or _at(text[: found.start()], source),
                    (),
                    f"character {found.group()!r} is not allowed in YAML",
                    "remove it",
                )
            ]
        )
    builder = _Builder(source, place, path)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = place or Place(source, mark.line + 1, mark.column + 1)
        raise refuse([*builder.faults, _syntax(error, where)]) from None
    except (YAMLError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise refuse([*builder.faults, StudyFault(place or Place(source, 1, 1), (), first or "is not YAML")]) from None
    if builder.faults:
        raise refuse(builder.faults)
    if builder.root is None:
        start = place or Place(source, 1, 1)
        return Node(None, start, start, path)
    return builder.root


def _syntax(error: MarkedYAMLError, where: Place) -> StudyFault:
    problem = str(error.problem or "is not YAML")
    if "'\\t'" in problem:
        return StudyFault(where, (), "a tab; YAML takes spaces only", "use spaces")
    if "'@'" in problem or "'`'" in problem or "'%'" in problem:
        return StudyFault(where, (), problem, "put the text in quotes")
    context = f" {error.context}" if error.context else ""
    hint = "put text that contains ': ' in quotes" if "mapping values" in problem else ""
    return StudyFault(where, (), f"{problem}{context}", hint)


class _Builder:
    """Builds the tree from parser events with a stack of its own, so depth can't exhaust Python's."""

    def __init__(self, source: str, place: Place | None, path: tuple[str | int, ...]) -> None:
        self.source, self.fixed, self.path = source, place, path
        self.root: Node | None = None
        self.faults: list[StudyFault] = []
        self.stack: list[_Open] = []
        self.documents = 0

    def take(self, event: Event) -> None:
        if isinstance(event, DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise refuse(
                    [
                        *self.faults,
                        StudyFault(
                            self._place(event), (), "a second document starts here", "write one document per file"
                        ),
                    ]
                )
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            done = self.stack.pop()
            self._add(done.content, done.place, is_scalar=False)
        elif isinstance(event, NodeEvent):
            self._node(event)

    def _node(self, event: NodeEvent) -> None:
        place = self._place(event)
        if isinstance(event, AliasEvent) or event.anchor is not None:
            self._fault(
                place,
                f"anchors and aliases are not supported ({'&*'[isinstance(event, AliasEvent)]}{event.anchor})",
                "write the value out",
            )
        elif tag := getattr(event, "tag", None):
            self._fault(place, f"tags are not supported ({tag})", "write the plain value")
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            if len(self.stack) >= MAX_DEPTH:
                raise refuse(
                    [
                        *self.faults,
                        StudyFault(place, self._path()[:3], f"more than {MAX_DEPTH} levels deep", "a study has fewer"),
                    ]
                )
            content: Any = {} if isinstance(event, MappingStartEvent) else []
            self.stack.append(_Open(content, place, self._path()))
        else:
            self._add(self._scalar(event, place), place, is_scalar=True)

    def _scalar(self, event: NodeEvent, place: Place) -> Any:
        if not isinstance(event, ScalarEvent):
            return None  # an alias, already a fault
        text = str(event.value)
        if not event.implicit[0]:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            return int(text)
        if infinite := _INFINITE.fullmatch(text):
            return -math.inf if infinite[1] == "-" else math.inf
        if _FLOAT.fullmatch(text):
            if text.lstrip("-+").isdigit():
                self._fault(place, f"{_shown(text, 40)} is too large a number")
            return float(text)
        return text

    def _add(self, content: Any, place: Place, *, is_scalar: bool) -> None:
        if not self.stack:
            self.root = Node(content, place, place, self.path)
            return
        top = self.stack[-1]
        if isinstance(top.content, list):
            top.content.append(Node(content, place, place, (*top.path, len(top.content))))
        elif not top.has_key:
            if not isinstance(content, str):
                shown = str(content) if is_scalar else "a list or map"
                self._fault(place, f"a key is text, not {shown}", "put it in quotes" if is_scalar else "")
            elif content in top.content:
                self._fault(
                    place,
                    f"the key {content!r} appears twice",
                    f"first on line {top.content[content].key.line}" if place.line else "",
                    content,
                )
            top.has_key, top.name, top.key = True, content if isinstance(content, str) else str(content), place
        else:
            top.content.setdefault(top.name, Node(content, place, top.key, self._path()))
            top.has_key = False

    def _path(self) -> tuple[str | int, ...]:
        """Path of the value that comes next."""
        if not self.stack:
            return self.path
        top = self.stack[-1]
        return (*top.path, len(top.content) if isinstance(top.content, list) else top.name)

    def _fault(self, place: Place, what: str, hint: str = "", key: str | None = None) -> None:
        path = (*self.stack[-1].path, key) if key is not None else self._path()
        self.faults.append(StudyFault(place, path, what, hint))

    def _place(self, event: Event) -> Place:
        return self.fixed or Place(self.source, event.start_mark.line + 1, event.start_mark.column + 1)


@dataclass(slots=True)
class _Open:
    """A map or list whose end has not come yet."""

    content: Any
    place: Place
    path: tuple[str | int, ...]
    has_key: bool = False
    name: str = ""
    key: Place = Place("")
