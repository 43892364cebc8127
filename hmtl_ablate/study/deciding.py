"""Seeds until decided: which comparisons a study declares, and which seeds they may use (docs/methods.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hmtl_ablate.study.controls import Controls

Comparison = tuple[str, str]
"""(variant, the one that it is compared with): names of two variants."""


def comparisons(own: Sequence[str], controls: Mapping[str, Controls]) -> tuple[Comparison, ...]:
    """What a study decides, each pair once: its own variants against the first of them, the baseline, and each arm with
    controls against whole views, more epochs, distortion and random answers.

    own: the variants of the file, without controls that are added.
    """
    found: list[Comparison] = [(name, own[0]) for name in own[1:]]
    for one in controls.values():
        found += [(one.arm, minus) for minus in (one.views, one.epochs, one.distortion, one.random_answers) if minus]
    return tuple(dict.fromkeys(found))


def all_seeds(listed: Iterable[int], count: int) -> tuple[int, ...]:
    """The seeds listed, followed by the smallest whole numbers above the largest of them, `count` in all."""
    first = tuple(listed)
    start = max(first, default=-1) + 1
    return (*first, *range(start, start + max(count - len(first), 0)))
