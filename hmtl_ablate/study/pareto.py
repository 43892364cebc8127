"""The Pareto front of several objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal


def front(values: Mapping[int, Sequence[float]], directions: Sequence[Literal["max", "min"]]) -> set[int]:
    """The configurations that no other one dominates: none is at least as good in every objective, and better in one.

    values: number of a configuration → its value of each objective, in the order of `directions`. Of equal ones all
    are on the front.
    """
    signs = [-1.0 if way == "max" else 1.0 for way in directions]
    costs = {
        number: tuple(sign * value for sign, value in zip(signs, own, strict=True)) for number, own in values.items()
    }
    best: list[tuple[float, ...]] = []
    for own in sorted(set(costs.values())):  # one that dominates another comes before it
        if not any(_dominates(other, own) for other in best):
            best.append(own)
    kept = set(best)
    return {number for number, own in costs.items() if own in kept}


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)
