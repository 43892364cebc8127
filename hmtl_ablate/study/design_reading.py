"""The key `designs` of a study file: from its components to variants of the study.

First each design becomes a `Blueprint`, whose arms are configs with the places of their values, so that the reader
checks them as it checks variants; then `place` gives each arm a name, or finds the variant that is trained alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from hmtl_ablate.config import parse_config
from hmtl_ablate.errors import nearest
from hmtl_ablate.study.controls import Raw, identity
from hmtl_ablate.study.declaration import (
    DESIGN_KINDS,
    MAX_NAME,
    ComponentKeys,
    DesignKind,
    DesignSection,
    SelectionSeeds,
    accepts,
    keys,
)
from hmtl_ablate.study.designs import (
    COMBINING,
    MAX_ARMS,
    ON,
    WITH_LEVELS,
    Arm,
    Cell,
    Design,
    cell_text,
    cells,
    is_planned,
    size,
)
from hmtl_ablate.study.merge import override
from hmtl_ablate.study.options import config_faults
from hmtl_ablate.study.source import Node, StudyFault

Steps = list[Node]
"""Configs that build on each other; the last one is the arm's."""
Factors = dict[str, dict[str, list[Node]]]
"""Component → level → its changes: the file's, the profile's on top."""


@dataclass(frozen=True)
class Blueprint:
    """A design whose arms are still configs of nodes."""

    name: str
    node: Node
    """The design, of the profile or else of the file."""
    kind: DesignKind
    factors: Mapping[str, tuple[str, ...]]
    arms: Mapping[Cell, Steps]
    selection: int


class DesignReader:
    """Reads one design of a study at one profile; every fault goes to faults."""

    def __init__(
        self, base: Steps, variants: Mapping[str, Steps], seeds: Sequence[int], faults: list[StudyFault]
    ) -> None:
        self._base, self._variants, self._seeds, self._faults = base, variants, seeds, faults

    def blueprint(self, name: str, own: Node | None, over: Node | None) -> Blueprint | None:
        """The design of this name: the file's, with the profile's keys over it. None when something is wrong."""
        layers = [node for node in (own, over) if node is not None and node.content is not None]
        before, node = len(self._faults), next((one for one in (over, own) if one is not None), self._base[-1])
        for fault in _name_faults(name, "a design"):
            self._add(node, *fault, at_key=True)
        for layer in layers:
            self._check(layer)
        kind = self._kind(layers, node)
        baseline = self._baseline(layers)
        if kind is None or baseline is None or len(self._faults) > before:
            return None
        selection = self._selection(layers, kind, node)
        factors = self._target(layers, baseline[-1], kind) or self._factors(layers)
        self._check_factors(kind, factors, layers, node)
        if not factors or len(self._faults) > before:
            return None
        levels = {component: tuple(found) for component, found in factors.items()}
        arms = {cell: self._steps(baseline, factors, cell) for cell in cells(kind, levels)}
        return Blueprint(name, node, kind, levels, arms, selection)

    def _check(self, layer: Node) -> None:
        if not layer.is_map:
            self._add(layer, f"should be a map, not {layer.plain()!r}", "write e.g. {kind: leave_one_out, …}")
        for key, entry in layer.entries.items():
            if key not in keys(DesignSection):
                hint = nearest(key, keys(DesignSection))
                self._add(entry, f"there is no key {key!r} in a design", hint, at_key=True)

    def _kind(self, layers: Sequence[Node], node: Node) -> DesignKind | None:
        found = _last(layers, "kind")
        if found is None:
            self._add(node, "the design has no kind", f"write kind: and one of {', '.join(DESIGN_KINDS)}", at_key=True)
            return None
        for kind in DESIGN_KINDS:
            if found.content == kind:
                return kind
        self._add(found, f"there is no kind of design {found.plain()!r}", nearest(found.plain(), DESIGN_KINDS))
        return None

    def _baseline(self, layers: Sequence[Node]) -> Steps | None:
        """The steps to the baseline's config: those of a variant, or of the base and its changes."""
        found = [layer.entries["baseline"] for layer in layers if "baseline" in layer.entries]
        if found and isinstance(found[-1].content, str):
            return self._variant(found[-1])
        steps = list(self._base)
        for change in found:
            if change.is_map:
                steps.append(override(steps[-1], change, self._faults))
            elif change.content is not None and not isinstance(change.content, str):
                hint = "write a variant, or a map of options"
                self._add(change, f"should be the name of a variant or a map, not {change.plain()!r}", hint)
                return None
        return steps

    def _variant(self, node: Node) -> Steps | None:
        steps = self._variants.get(node.content)
        if steps is None:
            self._add(node, f"there is no variant {node.content!r}", nearest(node.content, self._variants))
        return steps

    def _selection(self, layers: Sequence[Node], kind: DesignKind, node: Node) -> int:
        found = _last(layers, "selection")
        if kind != "path":
            if found is not None:
                self._add(found, f"only a path has a selection, not {kind}", "remove it", at_key=True)
            return 0
        count = 1 if found is None else found.content
        if not accepts(SelectionSeeds, count):
            self._add(found or node, f"should be a whole number, 1 or more, not {count!r}")
            return 1
        if self._seeds and len(self._seeds) < count + 2:
            what = (
                f"a path that is chosen with {count} seed{'s' * (count > 1)} is estimated with the others, 2 or more, "
                f"and the study has {len(self._seeds)} in all"
            )
            self._add(found or node, what, f"give it {count + 2} seeds or more", at_key=found is None)
        return int(count)

    def _target(self, layers: Sequence[Node], baseline: Node, kind: DesignKind) -> Factors:
        """The components that lead from the baseline to the variant that a path names; {} where it names none."""
        found = _last(layers, "target")
        if found is None or found.content is None:
            return {}
        if kind != "path":
            self._add(found, f"only a path has a target, not {kind}", "remove it, or set kind: path", at_key=True)
        elif (_last(layers, "components") or found).entries:
            self._add(found, "a path has components or a target, not both", "remove one of them", at_key=True)
        elif not isinstance(found.content, str):
            self._add(found, f"should be the name of a variant, not {found.plain()!r}")
        elif (steps := self._variant(found)) is not None:
            return self._differences(baseline, steps[-1], found)
        return {}

    def _differences(self, baseline: Node, target: Node, named: Node) -> Factors:
        """Each option that differs, and each pretext task that is added, as a component of that name."""
        if config_faults(baseline.plain()) or config_faults(target.plain()):
            return {}  # a fault of a variant, which the reader finds there
        ours, theirs = (parse_config(one.plain()).model_dump(mode="json") for one in (baseline, target))
        for task in ours["pretext"].keys() - theirs["pretext"].keys():
            self._add(named, f"the baseline has the pretext task {task!r} and {named.content!r} has not")
        added = theirs["pretext"].keys() - ours["pretext"].keys()
        changes = {f"pretext.{task}": target.entries["pretext"].entries[task].plain() or {} for task in added}
        known = _flat(ours)
        changes |= {key: value for key, value in _flat(theirs).items() if key in known and known[key] != value}
        return {key: {ON: [_noded({key: value}, named)]} for key, value in sorted(changes.items())}

    def _factors(self, layers: Sequence[Node]) -> Factors:
        components = self._merged([layer.entries["components"] for layer in layers if "components" in layer.entries])
        factors: Factors = {}
        for name, changes in components.items():
            for fault in _name_faults(name, "a component"):
                self._add(changes[-1], *fault, at_key=True)
            levelled = [change for change in changes if "levels" in change.entries]
            if not levelled:
                factors[name] = {ON: changes}
                if not any(change.entries for change in changes):
                    self._add(changes[-1], "changes nothing", "write options, e.g. {data.views: 2}")
                continue
            for change in changes:
                for key, entry in change.entries.items():
                    if key not in keys(ComponentKeys):
                        what = f"{key!r} can't be next to levels: a component is a change, or a factor with levels"
                        self._add(entry, what, "move it into the levels", at_key=True)
            levels = self._merged([change.entries["levels"] for change in levelled])
            for level, found in levels.items():
                for fault in _name_faults(level, "a level"):
                    self._add(found[-1], *fault, at_key=True)
            if not levels:
                self._add(levelled[-1], "has no levels", "write e.g. levels: {two: {data.views: 2}}", at_key=True)
            factors[name] = levels
        return factors

    def _merged(self, maps: Sequence[Node]) -> dict[str, list[Node]]:
        """Name → its changes, in the order of the maps."""
        found: dict[str, list[Node]] = {}
        for one in maps:
            if not one.is_map and one.content is not None:
                self._add(one, f"should be a map, not {one.plain()!r}", "write e.g. {more views: {data.views: 2}}")
            for name, change in one.entries.items():
                if not change.is_map and change.content is not None:
                    self._add(change, f"should be a map of options, not {change.plain()!r}")
                found.setdefault(name, []).append(change)
        return found

    def _check_factors(self, kind: DesignKind, factors: Factors, layers: Sequence[Node], node: Node) -> None:
        here = _last(layers, "components") or _last(layers, "target") or node
        if kind not in WITH_LEVELS:
            for name, levels in factors.items():
                if list(levels) != [ON] or any("levels" in change.entries for change in levels[ON]):
                    change = next(iter(levels.values()))[-1]
                    what = f"{kind} has no factors with levels, and {name!r} is one"
                    self._add(change, what, f"write its change alone, or use {' or '.join(WITH_LEVELS)}")
        fewest = 2 if kind in ("pairwise", "path") else 1
        if len(factors) < fewest:
            many = f"at least {fewest} component{'s' * (fewest > 1)}"
            self._add(here, f"{kind} needs {many}, and has {len(factors)}", "add components", at_key=True)
        elif (number := size(kind, [len(levels) for levels in factors.values()])) > MAX_ARMS:
            what = {
                "path": f"a path through {len(factors)} components has {number:,} sets of them",
                "full_factorial": f"a full factorial would have {number:,} arms",
            }.get(kind, f"the design would have {number:,} arms")
            hint = f"use at most {MAX_ARMS}, with fewer components or levels"
            self._add(here, what, hint + ("" if kind == "path" else ", or leave_one_out"), at_key=True)
        elif kind in COMBINING:
            for first, second in combinations(factors, 2):
                self._check_pair(kind, (first, factors[first]), (second, factors[second]))

    def _check_pair(
        self, kind: DesignKind, one: tuple[str, dict[str, list[Node]]], other: tuple[str, dict[str, list[Node]]]
    ) -> None:
        """Refuse two components that set the same option: the later one would undo the earlier one."""
        ours = {key for changes in one[1].values() for change in changes for key in _options(change)}
        for changes in other[1].values():
            for change in changes:
                for key, node in _options(change).items():
                    if any(_overlap(key, known) for known in ours):
                        what = f"sets {'.'.join(key)}, as the component {one[0]!r} does, and {kind} combines them"
                        hint = "make them one component, or levels of one factor"
                        self._add(node, what, hint, at_key=True)

    def _steps(self, baseline: Steps, factors: Factors, cell: Cell) -> Steps:
        steps = list(baseline)
        for component, level in cell:
            for change in factors[component][level]:
                steps.append(override(steps[-1], _adding(change), self._faults))
        return steps

    def _add(self, node: Node, what: str, hint: str = "", at_key: bool = False) -> None:
        self._faults.append(StudyFault(node.key if at_key else node.place, node.path, what, hint))


def place(
    blueprints: Sequence[Blueprint],
    raws: Mapping[str, Mapping[Cell, Raw]],
    variants: Mapping[str, Raw],
    taken: Collection[str],
    faults: list[StudyFault],
) -> tuple[dict[str, Raw], dict[str, Raw], dict[str, Design]]:
    """The arms that a study lacks, by name; those that a path may come by; and the designs.

    raws: design → cell → data, all valid; variants: the study's own; taken: names of everything in the study. An arm
    that is trained as another variant is that variant. What is wrong goes to faults.
    """
    known = {identity(raw): name for name, raw in reversed(list(variants.items()))}
    named: dict[str, Raw] = {}
    planned: set[str] = set()
    found: list[tuple[Blueprint, dict[Cell, str]]] = []
    for one in blueprints:
        names = _arm_names(one, raws[one.name], known, {*taken, *named}, taken, faults)
        for cell, name in names.items():
            known.setdefault(identity(raws[one.name][cell]), name)
            if name not in variants:
                named.setdefault(name, raws[one.name][cell])
                if is_planned(one.kind, cell, len(one.factors)):
                    planned.add(name)
        found.append((one, names))
    added = {name: raw for name, raw in named.items() if name in planned}
    possible = {name: raw for name, raw in named.items() if name not in planned}
    return added, possible, {one.name: _design(one, names, possible) for one, names in found}


def _arm_names(
    one: Blueprint,
    raws: Mapping[Cell, Raw],
    known: Mapping[str, str],
    used: Collection[str],
    taken: Collection[str],
    faults: list[StudyFault],
) -> dict[Cell, str]:
    """The variant of each cell. Where a name is that of another design's arm, the design's own name comes first."""
    baseline = known.get(identity(raws[()]), "base")
    own: dict[str, str] = {}
    names: dict[Cell, str] = {}
    for prefix in ("", f"{one.name}: "):
        own, names = dict(known), {}
        start = own.setdefault(identity(raws[()]), f"{prefix}{baseline}")
        for cell in one.arms:
            label = cell_text(one.kind, cell, one.factors, start)
            label = label if not cell or label.startswith(prefix) else f"{prefix}{label}"
            names[cell] = own.setdefault(identity(raws[cell]), label)
        new = {name for key, name in own.items() if key not in known}
        if not new & (set(used) - set(taken)):
            break
    for name in sorted(new):
        if name in used:
            what = f"its arm would be named {name!r}, as another one is"
            faults.append(StudyFault(one.node.key, one.node.path, what, "rename that one, or a component"))
        elif len(name) > MAX_NAME:
            what = f"its arm {name!r} would have a name of {len(name)} characters"
            faults.append(StudyFault(one.node.key, one.node.path, what, "shorten the components' names"))
    return names


def _design(one: Blueprint, names: Mapping[Cell, str], possible: Collection[str]) -> Design:
    """Levels of a factor that are trained as the baseline are the baseline's own, and no others."""
    same = {
        (component, level)
        for component, levels in one.factors.items()
        for level in levels
        if len(levels) > 1 and names[((component, level),)] == names[()]
    }
    return Design(
        one.kind,
        {name: tuple(level for level in levels if (name, level) not in same) for name, levels in one.factors.items()},
        tuple(Arm(name, dict(cell)) for cell, name in names.items() if not same & set(cell)),
        one.selection,
        tuple(dict.fromkeys(name for name in names.values() if name in possible)),
    )


def _last(layers: Iterable[Node], key: str) -> Node | None:
    return next((layer.entries[key] for layer in reversed(list(layers)) if key in layer.entries), None)


def _adding(change: Node) -> Node:
    """A change whose nested pretext adds its tasks, where a variant's would replace all of them."""
    pretext = change.entries.get("pretext")
    if pretext is None or not pretext.entries:
        return change
    rest = {key: node for key, node in change.entries.items() if key != "pretext"}
    return replace(change, content={**{f"pretext.{task}": node for task, node in pretext.entries.items()}, **rest})


def _options(change: Node) -> dict[tuple[str, ...], Node]:
    """What a component's change sets: path → node; a pretext task that it adds is one."""
    found: dict[tuple[str, ...], Node] = {}
    for key, node in _adding(change).entries.items():
        path = tuple(key.split("."))
        if path[0] == "pretext" or not node.entries:
            found[path] = node
        else:
            found |= {(*path, *map(str, below)): leaf for below, leaf in node.walk() if not leaf.is_map}
    return found


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    return all(first == second for first, second in zip(one, other, strict=False))


def _name_faults(name: str, what: str) -> list[tuple[str, str]]:
    if not name.strip():
        return [(f"{what} needs a name", "write e.g. crop")]
    if len(name) > MAX_NAME:
        return [(f"a name of {len(name)} characters is too long for a table", f"use at most {MAX_NAME}")]
    return [] if name.isprintable() else [(f"{name!r} has characters that can't be printed", "use one line of text")]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options by dotted key: those of sections and of pretext tasks, whose values stay whole."""
    found: dict[str, Any] = {}
    for section, value in config.items():
        if section == "pretext":
            found |= {f"pretext.{task}.{key}": own for task, one in value.items() for key, own in one.items()}
        elif isinstance(value, Mapping):
            found |= {f"{section}.{key}": own for key, own in value.items()}
        elif section != "seed":
            found[section] = value
    return found


def _noded(value: Any, at: Node) -> Node:
    """Plain data as nodes with the place of one."""
    if isinstance(value, Mapping):
        return replace(at, content={key: _noded(one, at) for key, one in value.items()})
    if isinstance(value, list | tuple):
        return replace(at, content=[_noded(one, at) for one in value])
    return replace(at, content=value)
