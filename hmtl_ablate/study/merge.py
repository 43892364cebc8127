"""Merging: maps merge, lists and scalars replace, a nested `pretext:` replaces the whole of it, a dotted key changes
one value.

All on `Node`s, so that every value of the result still knows who wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hmtl_ablate.study.source import Node, StudyFault

REPLACED = {("pretext",)}
"""Paths in a TrialConfig whose map replaces instead of merging."""


def merge(under: Node, over: Node, replaced: Iterable[tuple[str, ...]] = (), path: tuple[str, ...] = ()) -> Node:
    """`over` on top of `under`: maps merge, all else replaces.

    replaced: paths, from here, of maps that replace as well; "*" in a path is any key.
    """
    whole = any(
        len(one) == len(path) and all(a in (b, "*") for a, b in zip(one, path, strict=True)) for one in replaced
    )
    if whole or not (under.is_map and over.is_map):
        return over
    entries = dict(under.entries)
    for key, node in over.entries.items():
        entries[key] = merge(entries[key], node, replaced, (*path, key)) if key in entries else node
    return replace(over, content=entries)


def override(config: Node, changes: Node, faults: list[StudyFault], *, only_present: bool = False) -> Node:
    """Changes of a variant, a profile or `--set` on top of a TrialConfig's data.

    Nested maps come first, whatever the order in the file, then dotted keys. A dotted key reaches into a pretext task
    only where that task is present: it changes a value, it does not add a task. Elsewhere it is a fault, appended to
    faults, or left out with `only_present`.
    """
    nested = {key: node for key, node in changes.entries.items() if "." not in key}
    result = merge(config, replace(changes, content=nested), REPLACED)
    for key, node in changes.entries.items():
        if "." in key:
            result = _dotted(result, key, node, faults, only_present)
    return result


def _dotted(config: Node, key: str, node: Node, faults: list[StudyFault], only_present: bool) -> Node:
    keys = key.split(".")
    if keys[0] == "pretext" and (only_present or len(keys) > 2) and keys[1] not in tasks(config):
        if not only_present:
            task, option = keys[1], ".".join(keys[2:])
            faults.append(
                StudyFault(
                    node.key,
                    node.path,
                    f"there is no pretext task {task!r} here to change",
                    f"write pretext: {{{task}: {{{option}: …}}}}",
                )
            )
        return config
    return put(config, keys, node, faults)


def put(tree: Node, keys: list[str], node: Node, faults: list[StudyFault]) -> Node:
    """The tree with one value changed; maps on the way are made as needed."""
    if not keys:
        return node
    if not tree.is_map and tree.content is not None:
        faults.append(
            StudyFault(
                node.key,
                node.path,
                f"{'.'.join(map(str, tree.path))} is {tree.plain()!r}, not a map, so it has no {keys[0]!r}",
            )
        )
        return tree
    below = tree.entries.get(keys[0]) or replace(node, content={})
    return replace(tree, content={**tree.entries, keys[0]: put(below, keys[1:], node, faults)})


def tasks(config: Node) -> Mapping[str, Node]:
    """Pretext tasks of a TrialConfig's data."""
    pretext = config.entries.get("pretext")
    return pretext.entries if pretext else {}
