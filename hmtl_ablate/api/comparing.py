"""Single trials: one by its name, and two side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.api.trials import TrainedTrial
from hmtl_ablate.errors import StoreError
from hmtl_ablate.reporting.image_scores import ImageScores, image_scores
from hmtl_ablate.reporting.naming import find_folder
from hmtl_ablate.reporting.sampling import mcnemar
from hmtl_ablate.reporting.statistics import Estimate, estimate
from hmtl_ablate.storage import store_folder
from hmtl_ablate.tracking.records import flat


def load_trial(name: TrainedTrial | str | Path, store: str | Path = "runs") -> TrainedTrial:
    """A trial that has ended, by its name.

    >>> import hmtl_ablate as ha
    >>> trial = ha.train({"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}})
    >>> ha.load_trial(trial.trial_id[:8]).metrics == trial.metrics
    True

    Args:
        name: a trial_id or its first digits, STUDY/VARIANT/SEED, best:STUDY, or a trial's folder.
        store: where the name is looked up.

    Raises:
        StoreError: there is no such trial, it has not ended, or its files are damaged.
    """
    if isinstance(name, TrainedTrial):
        return name
    folder = find_folder(name, store_folder(store))
    result = folder.result()
    if result is None:
        epochs = len(folder.history())
        raise StoreError(f"{folder.path}: this trial has not ended ({epochs} epochs so far); run its study again")
    return TrainedTrial(folder.path, folder.config(), result, tuple(folder.history()))


@dataclass(frozen=True)
class PairedImages:
    """Two trials' predictions of the same test images, for one task.

    >>> from hmtl_ablate import PairedImages
    >>> PairedImages("emotion", images=4, both=1, only_first=2, only_second=1, neither=0, p=1.0).both
    1
    """

    task: str
    images: int
    both: int = 0
    """Images that both are right about; these four are 0 for a task without classes."""
    only_first: int = 0
    only_second: int = 0
    neither: int = 0
    p: float | None = None
    """McNemar's exact p that both are right equally often; None for a task without classes."""
    classes: Mapping[str, tuple[int, float, float]] = field(default_factory=dict)
    """Class → its images, and each trial's recall on them, from 0 to 1."""
    error: Estimate | None = None
    """First minus second of the absolute error per image, mean over the predicted numbers, with a 95 % t interval; None
    for a task with classes."""
    disagree: tuple[int, ...] = ()
    """Numbers, in the pack, of the images that exactly one is right about."""


@dataclass(frozen=True)
class TrialComparison:
    """Two trials side by side.

    >>> import hmtl_ablate as ha
    >>> config = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> found = ha.compare(ha.train(config), ha.train(config, seed=1))
    >>> found.options, found.images[0].images
    ({'seed': (0, 1)}, 9)
    """

    first: TrainedTrial
    second: TrainedTrial
    options: Mapping[str, tuple[Any, Any]]
    """Option → its values, for those that differ."""
    metrics: Mapping[str, tuple[float, float]]
    """Metric → its values, for those that both have."""
    images: tuple[PairedImages, ...]
    """One entry per task that both have."""
    unpaired: str = ""
    """Why the predictions can't be compared image by image; "" where they are."""


def compare(
    first: TrainedTrial | str | Path, second: TrainedTrial | str | Path, store: str | Path = "runs"
) -> TrialComparison:
    """What differs between two trials: options, outcome, and which test images each is right about.

    >>> import hmtl_ablate as ha
    >>> config = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> ha.compare(ha.train(config), ha.train(config)).options
    {}

    Args:
        first, second: trials, or what `load_trial` takes.
        store: where names are looked up.

    Raises:
        StoreError: there is no such trial, or it has not ended.
    """
    one, other = load_trial(first, store), load_trial(second, store)
    own, theirs = (flat(trial.config.model_dump(mode="json")) for trial in (one, other))
    keys = list(dict.fromkeys([*own, *theirs]))
    options = {key: (own.get(key), theirs.get(key)) for key in keys if own.get(key) != theirs.get(key)}
    shared = {name: (value, other.metrics[name]) for name, value in one.metrics.items() if name in other.metrics}
    images, unpaired = _paired(one, other)
    return TrialComparison(one, other, options, shared, images, unpaired)


def _paired(one: TrainedTrial, other: TrainedTrial) -> tuple[tuple[PairedImages, ...], str]:
    """The tasks' test images side by side, and why there are none."""
    tasks = [task for task in one.config.tasks if task in other.config.tasks]
    if not tasks:
        return (), "they have no task in common"
    first, second = (_predictions(trial) for trial in (one, other))
    if not first or not second:
        lacking = [trial.trial_id for trial, found in ((one, first), (other, second)) if not found]
        return (), f"there are no predictions of test by {' and '.join(lacking)}"
    if first.keys() != second.keys() or not all(first[task].same_images(second[task]) for task in first):
        return (), "they were measured on other test images"
    return tuple(_pair(task, one, first[task], second[task]) for task in tasks if task in first), ""


@dataclass(frozen=True)
class _Predicted:
    """A task's predictions of test, in the order of the images' numbers."""

    scores: ImageScores
    arrays: Mapping[str, NDArray[Any]]
    prefix: str

    def same_images(self, other: _Predicted) -> bool:
        return self.scores.same_images(other.scores)

    def errors(self) -> NDArray[np.float64]:
        """Absolute error per image, mean over the predicted numbers; of a task without classes."""
        name = next(name for name in ("angles", "prediction") if f"{self.prefix}_{name}" in self.arrays)
        labels = self.arrays[f"{self.prefix}_label"].astype(np.float64)
        found = np.abs(self.arrays[f"{self.prefix}_{name}"].astype(np.float64) - labels).mean(axis=1)
        index = self.arrays["test_index"]
        order = np.argsort(index, kind="stable")
        kept: NDArray[np.float64] = found[order][np.isin(index[order], self.scores.index)]
        return kept


def _predictions(trial: TrainedTrial) -> dict[str, _Predicted]:
    """Task → its predictions of test."""
    from hmtl_ablate.training.folder import TrialFolder

    arrays = TrialFolder(trial.folder).predictions("test")
    alone = len(trial.config.tasks) == 1
    found = {}
    for task in trial.config.tasks:
        scores = image_scores(arrays, "test/accuracy" if alone else f"test/{task}/accuracy")
        if scores is not None:
            found[task] = _Predicted(scores, arrays, "test" if alone else f"test_{task}")
    return found


def _pair(task: str, trial: TrainedTrial, first: _Predicted, second: _Predicted) -> PairedImages:
    ours, theirs = first.scores.correct, second.scores.correct
    index, labels = first.scores.index, first.scores.labels
    if ours is None or theirs is None:
        return PairedImages(task, len(index), error=estimate((first.errors() - second.errors()).tolist()))
    names = trial.result.task_classes.get(task) or trial.result.classes
    classes = {
        name: (int(own.sum()), float(ours[own].mean()), float(theirs[own].mean()))
        for number, name in enumerate(names)
        if (own := labels == number).any()
    }
    return PairedImages(
        task,
        images=len(index),
        both=int((ours & theirs).sum()),
        only_first=int((ours & ~theirs).sum()),
        only_second=int((~ours & theirs).sum()),
        neither=int((~ours & ~theirs).sum()),
        p=mcnemar(ours, theirs),
        classes=classes,
        disagree=tuple(index[ours != theirs].tolist()),
    )
