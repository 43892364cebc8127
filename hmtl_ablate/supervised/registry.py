"""The registered supervised tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hmtl_ablate.errors import HmtlError
from hmtl_ablate.supervised.base import Metric, SupervisedTask


@dataclass(frozen=True)
class RegisteredTask:
    """A supervised task by its name."""

    task: type[SupervisedTask]
    metrics: Mapping[str, Metric]
    """Metric → what it is; the first one selects the weights."""
    class_metrics: Mapping[str, Metric]
    """Metrics of each class, logged as `metric/class`. They select nothing and are no column of a table."""


SUPERVISED_TASKS: dict[str, RegisteredTask] = {}
"""Every supervised task by name: those of this package, then those of `--import`, in the order of registration."""


def register_supervised_task(
    name: str,
    task: type[SupervisedTask],
    metrics: Mapping[str, Metric],
    class_metrics: Mapping[str, Metric] | None = None,
) -> None:
    """Make a supervised task known by `name`.

    >>> from hmtl_ablate import register_supervised_task
    >>> from hmtl_ablate.supervised import Metric, classification
    >>> register_supervised_task("mask", classification.Classification, {"accuracy": Metric("max", "accuracy", "%")})

    metrics: what `SupervisedTask.metrics` gives, at least one; the first selects the weights. class_metrics: what it
    gives for each class, as `metric/class`. Raises HmtlError when the name is malformed or taken by another task, when
    there is no metric, or when another task has a metric of the same name but of another direction or unit: a lone
    task's metrics are logged without its name, and a report must know what they are.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise HmtlError(f"supervised task {name!r}: use lower-case letters, digits and _ in its name")
    if name in SUPERVISED_TASKS and SUPERVISED_TASKS[name].task is not task:
        raise HmtlError(f"supervised task {name!r} is registered already: choose another name")
    if not metrics:
        raise HmtlError(f"supervised task {name!r}: declare at least one metric; the first selects the weights")
    entry = RegisteredTask(task, dict(metrics), dict(class_metrics or {}))
    for other, known in SUPERVISED_TASKS.items():
        for metric in entry.metrics.keys() & known.metrics.keys():
            mine, theirs = entry.metrics[metric], known.metrics[metric]
            if other != name and (mine.direction, mine.unit) != (theirs.direction, theirs.unit):
                raise HmtlError(
                    f"supervised task {name!r}: {other!r} has a metric {metric!r} of another direction or unit; "
                    "choose another name for it"
                )
    SUPERVISED_TASKS[name] = entry
