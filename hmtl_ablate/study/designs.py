"""Ablation designs: which arms a set of components gives, and how a path finds its way through them.

Pure combinatorics. A cell is the components that an arm has, as (component, level) pairs in the order in which they are
declared; the empty cell is the baseline. `design_reading` makes the arms of a study file's `designs` from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from hmtl_ablate.study.declaration import DesignKind

ON = "on"
"""The level of a component that is a change of the baseline, not a factor with named levels."""
MAX_ARMS = 256
"""Most arms of a design; of a path, most sets of components."""
COMBINING = ("leave_one_out", "pairwise", "full_factorial", "path")
"""Kinds with arms that have several components at once."""
WITH_LEVELS = ("one_factor_at_a_time", "full_factorial")
"""Kinds whose components may be factors with named levels."""

Cell = tuple[tuple[str, str], ...]
"""(component, level) of each component that is not as in the baseline."""
Levels = Mapping[str, Sequence[str]]
"""Component → its levels apart from the baseline's."""


@dataclass(frozen=True)
class Arm:
    """One arm of a design."""

    variant: str
    """The variant that is trained for it."""
    levels: Mapping[str, str]
    """Component → level, of those that are not as in the baseline."""


@dataclass(frozen=True)
class Design:
    """A design of a study."""

    kind: DesignKind
    factors: Mapping[str, tuple[str, ...]]
    """Component → its levels apart from the baseline's; (ON,) for a change of the baseline."""
    arms: tuple[Arm, ...]
    """The baseline first. Of a path, every set of components; it trains those that it comes by."""
    selection: int = 0
    """Of a path, how many of the study's first seeds it is chosen with; its steps are estimated with the others."""
    candidates: tuple[str, ...] = ()
    """Of a path, the variants of its arms that the study trains only as the path comes by them."""


def part_text(component: str, level: str) -> str:
    """`crop`, or `optimizer=sgd` for a level of a factor."""
    return component if level == ON else f"{component}={level}"


def size(kind: DesignKind, counts: Sequence[int]) -> int:
    """How many cells a design has, the baseline among them. counts: the levels of each component, without the
    baseline's."""
    n = len(counts)
    sizes = {
        "leave_one_out": n + 2 if n > 1 else 2,
        "add_one_in": n + 1,
        "one_factor_at_a_time": sum(counts) + 1,
        "pairwise": 1 + n + n * (n - 1) // 2,
        "full_factorial": math.prod(count + 1 for count in counts),
        "path": 2**n,
    }
    return sizes[kind]


def path_bound(components: int) -> int:
    """The most configurations that a path can try, its target included: n in the first round, n - 1 in the next."""
    return components * (components + 1) // 2


def cells(kind: DesignKind, factors: Levels) -> tuple[Cell, ...]:
    """The cells of a design, each once: the baseline first, then in the order in which they are trained."""
    names = list(factors)
    full: Cell = tuple((name, factors[name][0]) for name in names)
    alone: list[Cell] = [((name, level),) for name in names for level in factors[name]]
    if kind == "leave_one_out":
        found = [full, *(tuple(part for part in full if part != left) for left in full)]
    elif kind in ("add_one_in", "one_factor_at_a_time"):
        found = alone
    elif kind == "pairwise":
        found = [*alone, *combinations(full, 2)]
    elif kind == "full_factorial":
        found = [_cell(names, levels) for levels in product(*(("", *factors[name]) for name in names))]
        found.sort(key=lambda cell: (len(cell), [names.index(name) for name, _ in cell]))
    else:
        found = [full, *(part for count in range(1, len(names)) for part in combinations(full, count))]
    return tuple(dict.fromkeys([(), *found]))


def _cell(names: Sequence[str], levels: Sequence[str]) -> Cell:
    return tuple((name, level) for name, level in zip(names, levels, strict=True) if level)


def is_planned(kind: DesignKind, cell: Cell, components: int) -> bool:
    """Whether a cell's arm is trained with all seeds whatever the results: of a path, its two ends alone."""
    return kind != "path" or len(cell) in (0, components)


def cell_text(kind: DesignKind, cell: Cell, factors: Levels, baseline: str) -> str:
    """The name of a cell's arm, e.g. `full − crop` or `SL + crop`. baseline: name of the baseline's arm."""
    if not cell:
        return baseline
    missing = [name for name in factors if name not in dict(cell)]
    plain = all(tuple(levels) == (ON,) for levels in factors.values())
    whole = kind in ("full_factorial", "path") and plain and len(factors) > 2 and len(missing) < len(cell)
    if whole or kind == "leave_one_out":
        return " − ".join(["full", *missing])
    return " + ".join([baseline, *(part_text(*part) for part in cell)])


def path_in_words(design: Design, seeds: Sequence[int], metric: str) -> str:
    """What a path trains at most, apart from its two ends, e.g. for a plan."""
    n, (first, rest) = len(design.factors), (seeds[: design.selection], seeds[design.selection :])
    return (
        f"a path through {n} components by {selection_metric(metric)}: at most {path_bound(n)} configurations with "
        f"{_seeds(first)}, then its steps with {_seeds(rest)}; at most {path_trials(design, len(rest))} trials more"
    )


def path_trials(design: Design, rest: int) -> int:
    """The most trials that a path asks for apart from those of the study's own variants. rest: how many seeds it is
    estimated with."""
    rounds: list[int] = []
    for count in range(1, len(design.factors)):
        arms = [arm.variant in design.candidates for arm in design.arms if len(arm.levels) == count]
        rounds.append(min(sum(arms), len(design.factors) - count + 1))
    return sum(rounds) * design.selection + sum(1 for own in rounds if own) * rest


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def selection_metric(metric: str) -> str:
    """What a path, or a study's best trial, is chosen by: the study's metric on the validation split, at the best
    epoch."""
    return f"best/val/{metric.removeprefix('test/').removeprefix('best/val/')}"


@dataclass(frozen=True)
class Walk:
    """How far a path is."""

    steps: tuple[Arm, ...]
    """The arms that it has come by, from the baseline."""
    waiting: tuple[Arm, ...] = ()
    """The arms of its next round, where some of their scores are not known yet."""

    @property
    def order(self) -> tuple[str, ...]:
        """The components that it has added, in that order."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return tuple(next(name for name in arm.levels if name not in last.levels) for last, arm in pairs)

    def is_whole(self, design: Design) -> bool:
        """Whether it has come to its target."""
        return len(self.steps) == len(design.factors) + 1


def walk(design: Design, score: Callable[[str], float | None]) -> Walk:
    """The path from the baseline to the full model that adds, in each round, the component that gains most (Fawcett and
    Hoos, Analysing differences between algorithm configurations through ablation, 2016).

    score: of a variant, higher is better; None where it is not known yet, -inf where there will be none, which is
    never picked. Of equal scores the component that is declared first wins.
    """
    by_levels = {frozenset(arm.levels): arm for arm in design.arms}
    steps, left = [by_levels[frozenset()]], list(design.factors)
    while left:
        tried = [by_levels[frozenset((*steps[-1].levels, name))] for name in left]
        if len(left) == 1:  # the target: there is nothing to choose
            return Walk((*steps, *tried))
        scores = [score(arm.variant) for arm in tried]
        known = [value for value in scores if value is not None]
        if len(known) < len(tried):
            return Walk(tuple(steps), tuple(tried))
        best = max(known)
        if best == -math.inf:
            return Walk(tuple(steps))
        picked = known.index(best)
        steps.append(tried[picked])
        del left[picked]
    return Walk(tuple(steps))
