"""The supervised tasks of a trial, on its pack."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.data.splits import labels_of, shares_of
from hmtl_ablate.supervised import SUPERVISED_TASKS, Labels, SupervisedTask


def build_tasks(config: TrialConfig, pack: Pack, train: NDArray[np.int64]) -> dict[str, SupervisedTask]:
    """The supervised tasks of a trial, in the config's order. train: rows whose classes are counted for class weights.

    Raises DataError when the pack has no labels for one of them.
    """
    return {
        name: SUPERVISED_TASKS[name].task.build(
            Labels(*labels_of(pack, config.data, name), train, shares_of(pack, config.data, name)), config
        )
        for name in config.tasks
    }


def task_of(name: str, config: TrialConfig, classes: tuple[str, ...]) -> SupervisedTask:
    """The supervised task of a trained head, which reads its outputs; one label per class, as it needs some."""
    labels = np.arange(len(classes)) if classes else np.zeros((0, 1), np.float32)
    return SUPERVISED_TASKS[name].task.build(Labels(labels, classes, np.arange(len(classes))), config)


def named(task: str, values: Mapping[str, float], alone: bool) -> dict[str, float]:
    """Metric names of one task: plain when it is the only one, else with its name in front."""
    return dict(values) if alone else {f"{task}/{name}": value for name, value in values.items()}
