"""The effects of ablation designs: contrasts of their arms, paired by seed (docs/methods.md, Ablation designs)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

from hmtl_ablate.config import metric_info
from hmtl_ablate.reporting.statistics import SEEDS_TO_TEST, Estimate, estimate, holm, p_different
from hmtl_ablate.study import Arm, Design, part_text, selection_metric, walk

ALL_ORDERS = 3
"""A full factorial of at most so many components has interactions of every order; one of more has those of pairs."""
IN_ALL = "in all"
"""The full model minus the baseline."""

Scores = Mapping[str, Mapping[int, float]]
"""Variant → seed → value of a metric."""
Part = tuple[str, str]
"""A component and its level."""


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of arms."""

    name: str
    weights: Mapping[str, float]
    """Variant → weight; without those that cancel, so that it is empty where both sides are the same arm."""
    tested: bool = True
    """Whether it is one of the effects that are tested."""


@dataclass(frozen=True)
class Effect:
    """One contrast of a design, in the metric's own unit."""

    name: str
    weights: Mapping[str, float]
    values: Mapping[int, float]
    """Seed → value, of the seeds that all of its arms have."""
    estimate: Estimate
    p: float | None
    """Two-sided, adjusted by Holm's method for the design's effects; None where it was not tested."""
    picked: float | None = None
    """Of a step of a path, what it gained on the validation split with the seeds that it was chosen with."""


@dataclass(frozen=True)
class DesignEffects:
    """The effects of one design."""

    design: str
    kind: str
    metric: str
    effects: tuple[Effect, ...]
    unfinished: str = ""
    """Why a path is not whole, or ""."""


def study_effects(
    study: Mapping[Any, Any], trials: Sequence[Mapping[Any, Any]], over: Collection[tuple[str, int]]
) -> tuple[DesignEffects, ...]:
    """The effects of a study's designs, in its order.

    study: a row of `Results.studies`; trials: its trials with standing `declared`, rows of `Results.trials`; over:
    (variant, seed) of all trials that ended, those that do not count among them.
    """
    metric = str(study["metric"])
    scores = scores_of(trials, metric)
    found = []
    for name, raw in study["designs"].items():
        design = design_of(raw)
        if design.kind == "path":
            found.append(
                _path(name, design, study["seeds"], scores_of(trials, selection_metric(metric)), scores, metric, over)
            )
        else:
            effects = [_effect(contrast, scores) for contrast in contrasts(design)]
            found.append(DesignEffects(name, design.kind, metric, tested(effects)))
    return tuple(found)


def design_of(raw: Mapping[str, Any]) -> Design:
    """A design from plain data, as a study records it."""
    return Design(
        raw["kind"],
        {name: tuple(levels) for name, levels in raw["factors"].items()},
        tuple(Arm(arm["variant"], arm["levels"]) for arm in raw["arms"]),
        raw["selection"],
        tuple(raw["candidates"]),
    )


def path_only(study: Mapping[Any, Any]) -> set[str]:
    """Variants that a study has as arms of a path alone. Some are there because they scored highest with the first
    seeds, so that a mean with these seeds in it is too high."""
    return {name for raw in study["designs"].values() for name in raw["candidates"]}


def scores_of(trials: Sequence[Mapping[Any, Any]], metric: str) -> dict[str, dict[int, float]]:
    """Scores of the finished trials that have a finite value of the metric."""
    found: dict[str, dict[int, float]] = {}
    for trial in trials:
        value = trial.get(f"metrics.{metric}")
        if trial["status"] == "finished" and isinstance(value, int | float) and math.isfinite(value):
            found.setdefault(trial["variant"], {})[trial["seed"]] = float(value)
    return found


def contrasts(design: Design) -> list[Contrast]:
    """What a design of any kind but `path` estimates."""
    baseline, alone = _arm(design, ()), [(name, level) for name, levels in design.factors.items() for level in levels]
    if design.kind == "leave_one_out":
        full = tuple(alone)
        found = [_contrast(name, [(1, _arm(design, full)), (-1, _arm(design, _but(full, name)))]) for name, _ in full]
        whole = Contrast(IN_ALL, _weights([(1, _arm(design, full)), (-1, baseline)]), tested=False)
        return [*found, whole] if len(full) > 1 else found
    if design.kind == "pairwise":
        return [_interaction(design, pair, ()) for pair in combinations(alone, 2)]
    if design.kind == "full_factorial":
        return _factorial(design)
    return [_contrast(part_text(*part), [(1, _arm(design, [part])), (-1, baseline)]) for part in alone]


def _factorial(design: Design) -> list[Contrast]:
    """Main effects and interactions, each averaged over the levels of the components that it does not name."""
    names = list(design.factors)
    orders = range(1, len(names) + 1) if len(names) <= ALL_ORDERS else (1, 2)
    found = []
    for order in orders:
        for chosen in combinations(names, order):
            others = [name for name in names if name not in chosen]
            for levels in product(*(design.factors[name] for name in chosen)):
                found.append(_interaction(design, tuple(zip(chosen, levels, strict=True)), others))
    return found


def _interaction(design: Design, parts: Sequence[Part], others: Sequence[str]) -> Contrast:
    """Of one part the difference that it makes; of two, ab − a − b + neither; of more, likewise: the sum over all
    subsets, those that lack an odd number of parts with a minus sign. Averaged over all levels of the others."""
    rest = list(product(*(("", *design.factors[name]) for name in others)))
    terms = []
    for background in rest:
        context = [(name, level) for name, level in zip(others, background, strict=True) if level]
        for count in range(len(parts) + 1):
            for subset in combinations(parts, count):
                sign = (-1) ** (len(parts) - count)
                terms.append((sign / len(rest), _arm(design, [*context, *subset])))
    return _contrast(" × ".join(part_text(*part) for part in parts), terms)


def _but(parts: Sequence[Part], name: str) -> list[Part]:
    return [part for part in parts if part[0] != name]


def _arm(design: Design, parts: Sequence[Part]) -> str:
    return next(arm.variant for arm in design.arms if dict(arm.levels) == dict(parts))


def _contrast(name: str, terms: Sequence[tuple[float, str]]) -> Contrast:
    return Contrast(name, _weights(terms))


def _weights(terms: Sequence[tuple[float, str]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for weight, variant in terms:
        total[variant] = total.get(variant, 0.0) + weight
    return {variant: weight for variant, weight in total.items() if abs(weight) > 1e-9}


def _effect(contrast: Contrast, scores: Scores, seeds: Sequence[int] | None = None) -> tuple[Effect, bool]:
    """The effect, over the seeds that all arms have, of those named; and whether it is to be tested."""
    own = [scores.get(variant, {}) for variant in contrast.weights]
    common = sorted(set.intersection(*(set(one) for one in own)) if own else set())
    values = {
        seed: math.fsum(weight * scores[variant][seed] for variant, weight in contrast.weights.items())
        for seed in common
        if seeds is None or seed in seeds
    }
    found = estimate(list(values.values()))
    return Effect(contrast.name, contrast.weights, values, found, None), contrast.tested


def tested(effects: Sequence[tuple[Effect, bool]]) -> tuple[Effect, ...]:
    """The effects with their p values: of those to be tested that have seeds enough, adjusted for their number."""
    wanted = [
        number
        for number, (effect, is_tested) in enumerate(effects)
        if is_tested and effect.weights and len(effect.values) >= SEEDS_TO_TEST
    ]
    ps = holm([p_different(list(effects[number][0].values.values())) for number in wanted])
    adjusted = dict(zip(wanted, ps, strict=True))
    return tuple(replace(effect, p=adjusted.get(number)) for number, (effect, _) in enumerate(effects))


def _path(
    name: str,
    design: Design,
    seeds: Sequence[int],
    validation: Scores,
    scores: Scores,
    metric: str,
    over: Collection[tuple[str, int]],
) -> DesignEffects:
    """The steps of a path in their order, estimated with the seeds that it was not chosen with."""
    first, rest = list(seeds[: design.selection]), list(seeds[design.selection :])
    chosen_by = selection_metric(metric)
    mean = _mean_of(validation, first, over)
    sign = -1 if metric_info(chosen_by).direction == "min" else 1

    def signed(variant: str) -> float | None:
        value = mean(variant)
        return None if value is None else value if math.isinf(value) else sign * value

    way = walk(design, signed)
    effects = []
    for number, component in enumerate(way.order, 1):
        arm, before = way.steps[number].variant, way.steps[number - 1].variant
        effect, is_tested = _effect(_contrast(f"{number}. {component}", [(1, arm), (-1, before)]), scores, rest)
        gain = _difference(mean(arm), mean(before))
        effects.append((replace(effect, picked=gain if number < len(design.factors) else None), is_tested))
    whole = way.is_whole(design)
    if whole:
        ends = _weights([(1, way.steps[-1].variant), (-1, way.steps[0].variant)])
        effects.append(_effect(Contrast(IN_ALL, ends, tested=False), scores, rest))
    rounds = len(design.factors) - 1
    unfinished = "" if whole else f"the path is not whole: {len(way.order)} of {rounds} rounds are decided"
    return DesignEffects(name, design.kind, metric, tested(effects), unfinished)


def _mean_of(scores: Scores, seeds: Sequence[int], over: Collection[tuple[str, int]]) -> Callable[[str], float | None]:
    """Mean score of a variant over these seeds; -inf where a trial that is over has none, None where one is not."""

    def mean(variant: str) -> float | None:
        own = scores.get(variant, {})
        missing = [seed for seed in seeds if seed not in own]
        if missing:
            return -math.inf if any((variant, seed) in over for seed in missing) else None
        return math.fsum(own[seed] for seed in seeds) / len(seeds)

    return mean


def _difference(one: float | None, other: float | None) -> float | None:
    if one is None or other is None or math.isinf(one) or math.isinf(other):
        return None
    return one - other
