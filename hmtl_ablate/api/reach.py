"""What a study with `decide` can decide at its store's own spread, before it is run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from hmtl_ablate.checks import finished_as, finished_trials
from hmtl_ablate.config import TrialConfig, in_percent
from hmtl_ablate.reporting.decisions import bound_of
from hmtl_ablate.reporting.sequential import POWER, decidable
from hmtl_ablate.reporting.statistics import estimate
from hmtl_ablate.reporting.wording import plural, smallest_text, unit_text
from hmtl_ablate.study import Study
from hmtl_ablate.training.folder import TrialFolder


def reach_lines(study: Study, store: Path) -> list[str]:
    """What seeds until decided costs at most, and what it can decide; nothing for a study whose seeds are fixed."""
    if study.decide is None:
        return []
    rule, metric, count = study.decide, study.metric, len(study.comparisons)
    first, most = len(study.first_seeds) * len(study.variants), len(study.seeds) * len(study.variants)
    seeds = f"{len(study.first_seeds)} to {rule.seeds} seeds"
    head = f"decide {plural(count, 'comparison')}, {seeds}: {first} to {most} trials"
    spread, source = spread_of(study, store)
    margin = bound_of(rule, count, metric).margin
    scale = 100 if in_percent(metric) else 1
    if not spread or margin is None:
        reach = decidable(1, 1, rule.seeds, rule.alpha, count)
        return [
            head,
            f"decide no spread is known in this store yet; found with {POWER:.0%} probability: a true difference of "
            f"{reach.detectable:.2f} standard deviations of a paired difference",
        ]
    reach = decidable(spread, margin, rule.seeds, rule.alpha, count)
    unit = unit_text(metric)
    found, smallest = f"{scale * reach.detectable:.3g}{unit}", smallest_text(rule.smallest, metric)
    return [
        head,
        f"decide at a standard deviation of {scale * spread:.3g}{unit} ({source}), found with {POWER:.0%} probability: "
        f"a true difference of {found}; one of {smallest} with {reach.power:.0%}; "
        f"no difference is found to be none that matters with {reach.same:.0%}",
    ]


def spread_of(study: Study, store: Path) -> tuple[float, str]:
    """The standard deviation of one paired difference in the metric's own unit, and what it is from: the study's own
    pairs, or else √2 times that between seeds of other trials on its data; 0 without either."""
    finished = finished_trials(store)
    values = {name: value for name in finished if (value := _value(store, name, study.metric)) is not None}
    variants = {variant.name: variant for variant in study.variants}
    pairs: list[list[float]] = []
    for pair in study.comparisons:
        found = []
        for seed in study.seeds:
            ours, theirs = (finished_as(study, variants[name].config(seed), finished) for name in pair)
            if ours in values and theirs in values:
                found.append(values[ours] - values[theirs])
        pairs.append(found)
    if spread := _pooled(pairs):
        return spread, f"{sum(map(len, pairs))} pairs of this study"
    groups: dict[str, list[float]] = {}
    for name, value in values.items():
        if finished[name].data.name in study.datasets:
            groups.setdefault(_without_seed(finished[name]), []).append(value)
    spread = math.sqrt(2) * _pooled(groups.values())
    return spread, "from other trials' seeds in this store, unpaired"


def _value(store: Path, name: str, metric: str) -> float | None:
    result = TrialFolder(store / "trials" / name).sound_result()
    value = None if result is None else result.metrics.get(metric)
    return value if value is not None and math.isfinite(value) else None


def _without_seed(config: TrialConfig) -> str:
    return json.dumps({key: value for key, value in config.declared().items() if key != "seed"}, sort_keys=True)


def _pooled(groups: Iterable[list[float]]) -> float:
    """Standard deviation within groups; 0 when none has two values."""
    known = [estimate(values) for values in groups if len(values) > 1]
    freedom = sum(one.n - 1 for one in known)
    return math.sqrt(sum((one.n - 1) * (one.sd or 0.0) ** 2 for one in known) / freedom) if freedom else 0.0
