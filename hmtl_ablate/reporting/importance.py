"""Importance of searched options: PED-ANOVA (Watanabe et al. 2023), as Optuna computes it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

FEWEST = 20
"""With fewer configurations importances say little."""


def importances(
    configurations: Sequence[tuple[Mapping[str, Any], float]],
    direction: Literal["max", "min"] = "max",
    space: Mapping[str, Mapping[str, Any]] = {},
) -> dict[str, float]:
    """Searched option → its share of the importance, the largest first; shares add up to 1.

    configurations: the searched options of each with its score. Only options that all configurations have, and that
    differ among them, can be compared; {} with fewer than two of either, or where Optuna finds no difference.
    space: option → what was searched, as `running.study_log` records it; of others the tried values are the range.
    """
    common = [
        key for key in (configurations[0][0] if configurations else {}) if all(key in one for one, _ in configurations)
    ]
    keys = [key for key in common if len({str(one[key]) for one, _ in configurations}) > 1]
    if len(keys) < 2 or len(configurations) < 4:
        return {}
    import optuna

    distributions = {key: _distribution([one[key] for one, _ in configurations], space.get(key, {})) for key in keys}
    study = _quiet_study("maximize" if direction == "max" else "minimize")
    for options, score in configurations:
        params = {key: _value(options[key], distributions[key]) for key in keys}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=score))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the evaluator is experimental in some versions of Optuna
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    return {key: float(share) for key, share in found.items()} if sum(found.values()) > 0 else {}


def _quiet_study(direction: str) -> Any:
    """A study in memory, whose making Optuna does not announce."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction=direction)
    finally:
        optuna.logging.set_verbosity(before)


def _distribution(values: Sequence[Any], searched: Mapping[str, Any]) -> Any:
    """What was searched, where all values are from it; else a range for numbers that are not whole, and a choice for
    anything else."""
    import optuna

    if searched.get("kind") in ("uniform", "loguniform") and all(_within(value, searched) for value in values):
        log = searched["kind"] == "loguniform"
        return optuna.distributions.FloatDistribution(searched["low"], searched["high"], log=log)
    if searched.get("kind") == "int" and all(_on_grid(value, searched) for value in values):
        return optuna.distributions.IntDistribution(
            int(searched["low"]), int(searched["high"]), step=searched.get("step", 1)
        )
    if searched.get("kind") == "choice" and {str(value) for value in values} <= set(map(str, searched["choices"])):
        return optuna.distributions.CategoricalDistribution([str(value) for value in searched["choices"]])
    if any(isinstance(value, float) for value in values) and not any(isinstance(value, str | list) for value in values):
        low, high = float(min(values)), float(max(values))
        return optuna.distributions.FloatDistribution(low, high, log=low > 0 and high / low >= 20)
    return optuna.distributions.CategoricalDistribution(sorted({str(value) for value in values}))


def _value(value: Any, distribution: Any) -> Any:
    import optuna

    if isinstance(distribution, optuna.distributions.IntDistribution):
        return int(value)
    return float(value) if isinstance(distribution, optuna.distributions.FloatDistribution) else str(value)


def _on_grid(value: Any, searched: Mapping[str, Any]) -> bool:
    """Whether it is one of the whole numbers low, low + step, … (older versions did not record the step)."""
    whole = isinstance(value, int) and _within(value, searched)
    return whole and (value - searched["low"]) % searched.get("step", 1) == 0


def _within(value: Any, searched: Mapping[str, Any]) -> bool:
    return isinstance(value, int | float) and searched["low"] <= value <= searched["high"]
