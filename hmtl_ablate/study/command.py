"""What the command line changes in a study: `--set`, `--data`, `--trials` and `--seeds` as nodes."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hmtl_ablate.errors import StudyError, nearest
from hmtl_ablate.study.declaration import Resources, SearchSection, Settable, StudyFile, keys, marked
from hmtl_ablate.study.options import SECTIONS, option_fields
from hmtl_ablate.study.source import Node, Place, StudyFault, parse


class Command:
    """What the command line changes: options of configs, keys of the study, and the place of datasets."""

    def __init__(
        self,
        sets: Sequence[str],
        datasets: Sequence[str],
        trials: int | None,
        seeds: Sequence[int] | None,
        faults: list[StudyFault],
    ) -> None:
        self.options: list[tuple[str, Node]] = []
        self.keys: list[tuple[str, Node]] = []
        self.datasets: dict[str, Path | None] = {}
        for text in sets:
            self._set(text, faults)
        for text in datasets:
            self._dataset(text, faults)
        if trials is not None:
            self.keys.append(("search.trials", command_node(f"--trials {trials}", trials, ("search", "trials"))))
        if seeds is not None:
            source = f"--seeds {','.join(map(str, seeds))}"
            content = [command_node(source, seed, ("seeds", number)) for number, seed in enumerate(seeds)]
            self.keys.append(("seeds", command_node(source, content, ("seeds",))))

    def _set(self, text: str, faults: list[StudyFault]) -> None:
        key, equals, value = text.partition("=")
        key, place = key.strip(), Place(f"--set {text}")
        first = key.partition(".")[0]
        if not equals or not key:
            faults.append(StudyFault(place, (), "is not key=value", "write e.g. --set training.epochs=2"))
            return
        settable = (*SECTIONS, *marked(StudyFile, Settable()))
        if first not in settable:
            faults.append(StudyFault(place, (key,), f"there is no option {first!r} to set", _set_hint(key, settable)))
            return
        try:
            node = parse(value, "", place=place, path=tuple(key.split(".")))
        except StudyError as error:
            first = str(error).splitlines()[0].removeprefix(f"{place}: ")
            faults.append(StudyFault(place, (), first, "the value is YAML"))
            return
        (self.options if first in SECTIONS else self.keys).append((key, node))

    def _dataset(self, text: str, faults: list[StudyFault]) -> None:
        name, equals, path = text.partition("=")
        place = Place(f"--data {text}")
        if not equals and _is_path(text):
            faults.append(
                StudyFault(place, (), "is a path without the name of its dataset", f"write e.g. --data ferplus={text}")
            )
        elif not name.strip() or (equals and not path):
            faults.append(StudyFault(place, (), "is not name=path", "write e.g. --data affectnet=/data/AffectNet"))
        elif name == "rendered" and path:
            faults.append(
                StudyFault(place, (), "the rendered faces are generated and have no path", "write --data rendered")
            )
        elif name in self.datasets:
            faults.append(StudyFault(place, (), f"the dataset {name!r} is given twice", "keep one"))
        else:
            self.datasets[name] = Path(path).expanduser() if path else None


def _set_hint(key: str, settable: Sequence[str]) -> str:
    """What to write in place of a key that can't be set: the whole key of an option whose last part it is."""
    first, _, inner = key.partition(".")
    if first == "base" and inner:
        return f"write --set {inner}=…"
    known = {
        **{f"search.{name}": name for name in keys(SearchSection)},
        **{f"resources.{name}": name for name in keys(Resources)},
        **{name: name for name in option_fields()},
    }
    for word in (key, *get_close_matches(key, {name.rpartition(".")[2] for name in known}, 1, 0.8)):
        meant = sorted(name for name in known if name.endswith(f".{word}"))
        if meant:
            return "write " + " or ".join(f"--set {name}=…" for name in meant)
    return nearest(first, settable)


def _is_path(text: str) -> bool:
    """Whether a --data value without a name is a path, and not the name of a dataset."""
    return "/" in text or text.startswith(("~", "."))


def command_node(source: str, content: Any, path: tuple[str | int, ...]) -> Node:
    """A value of the command line; `source` is the option that gives it."""
    place = Place(source)
    return Node(content, place, place, path)
