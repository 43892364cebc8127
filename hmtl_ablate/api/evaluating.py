"""A trained model measured on a split of a dataset, with the code that measures it in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmtl_ablate.api.models import TrainedFolder, TrainedModel, load_model
from hmtl_ablate.api.trials import TrainedTrial
from hmtl_ablate.checks import open_store
from hmtl_ablate.config import READER_OPTIONS, DataConfig, TrialConfig, trial_id
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.data.pack import Pack, is_pack, load_pack
from hmtl_ablate.data.registry import DATASETS
from hmtl_ablate.data.splits import Splits, labels_of, shares_of
from hmtl_ablate.data.splits import split as split_pack
from hmtl_ablate.errors import DataError, HmtlError
from hmtl_ablate.exporting import files
from hmtl_ablate.model import InferenceModel, normalisation
from hmtl_ablate.storage import store_folder
from hmtl_ablate.supervised import SUPERVISED_TASKS, Labels, SupervisedTask
from hmtl_ablate.supervised.classification import confusion_matrix
from hmtl_ablate.training import evaluate as measuring
from hmtl_ablate.training.batches import EvaluationImages
from hmtl_ablate.training.device import Device, Setup, select_device, torch_state
from hmtl_ablate.training.supervised import named, task_of

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class TaskScores:
    """One task on one split.

    >>> from hmtl_ablate import TaskScores
    >>> TaskScores(2, {"accuracy": 0.5}).n
    2
    """

    n: int
    """Images that have a label."""
    metrics: Mapping[str, float]
    """Metric → value, as the task computes them in training: accuracies from 0 to 1, angles in degrees."""
    images: Mapping[str, int] = field(default_factory=dict)
    """Class → its images; {} for a task without classes."""
    recall: Mapping[str, float] = field(default_factory=dict)
    """Class that occurs → share of its images that are predicted right."""


@dataclass(frozen=True)
class Evaluation:
    """A model measured on a split.

    >>> import hmtl_ablate as ha
    >>> trial = ha.train({"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}})
    >>> found = ha.evaluate(trial)
    >>> found.split, found.tasks["emotion"].n == sum(found.tasks["emotion"].images.values())
    ('test', True)
    """

    model: str
    """The trial's id, or the path of an exported model."""
    data: str
    """Name of the dataset."""
    split: Split
    n: int
    """Images of the split."""
    tasks: Mapping[str, TaskScores]
    """Supervised task → its scores."""
    missing: tuple[str, ...] = ()
    """Tasks of the model without a label in this split."""

    @property
    def metrics(self) -> dict[str, float]:
        """Named as those of a trial: test/accuracy, or test/emotion/accuracy of a model with several tasks."""
        alone = len(self.tasks) + len(self.missing) == 1
        return {
            f"{self.split}/{name}": value
            for task, scores in self.tasks.items()
            for name, value in named(task, scores.metrics, alone).items()
        }


@dataclass(frozen=True)
class _Subject:
    """What is measured: a network, and all that its images depend on."""

    name: str
    config: TrialConfig
    network: InferenceModel | TrainedModel
    classes: Mapping[str, tuple[str, ...]]
    norm: tuple[Tensor, Tensor]
    trial: TrainedFolder | None
    """None for an exported model."""
    setup: Setup
    threads: int


def evaluate(
    model: TrainedTrial | str | Path,
    data: Mapping[str, str | Path | None] | None = None,
    *,
    split: Split = "test",
    store: str | Path = "runs",
    device: Device = "auto",
) -> Evaluation:
    """Measure a model on a split of a dataset: its trial's own, or another with the same labels and classes.

    >>> import hmtl_ablate as ha
    >>> trial = ha.train({"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}})
    >>> ha.evaluate(trial).metrics["test/accuracy"] == trial.metrics["test/accuracy"]
    True

    On the trial's own data, and the same kind of machine, the values are those that the trial's result has.

    Args:
        model: what `load_model` takes.
        data: one dataset, {name: path}; None as path for rendered faces. None: the data that the trial was trained on.
        split: train, val or test, as a trial on this dataset has them.
        store: where a name of a trial is looked up, and where packs are.
        device: auto takes a GPU where there is one.

    Raises:
        HmtlError: there is no such model or dataset, the dataset has no label for any of its tasks or other classes, or
            the split has no image.
    """
    place = store_folder(store)
    subject = _subject(model, place, device)
    config, pack = _data(subject, data, _store(subject, place))
    present = tuple(task for task in subject.classes if task in pack.labels)
    if not present:
        raise DataError(
            f"dataset {config.data.name!r} has no labels for {', '.join(subject.classes)}; "
            f"it has: {', '.join(sorted(pack.labels)) or 'none'}"
        )
    for task in present:
        _check_classes(task, subject.classes[task], labels_of(pack, config.data, task)[1], config.data.name)
    splits = split_pack(pack, config.data, present)
    rows: NDArray[np.int64] = getattr(splits, split)
    if not len(rows):
        raise DataError(f"dataset {config.data.name!r}: its {split} split has no image; name another with --split")
    with torch_state(subject.threads, subject.setup.device.type == "cuda", config.training.deterministic):
        outputs = measuring.predict(
            subject.network,  # type: ignore[arg-type]
            EvaluationImages(config, pack, rows),
            subject.setup,
            subject.norm,
        )
        found = _scores(subject, config, pack, splits, rows, outputs)
    if not found:
        raise DataError(f"dataset {config.data.name!r}: no image of {split} has a label for {', '.join(present)}")
    missing = tuple(task for task in subject.classes if task not in found)
    return Evaluation(subject.name, config.data.name, split, len(rows), found, missing)


def _subject(model: TrainedTrial | str | Path, store: Path, device: Device) -> _Subject:
    if isinstance(model, (str, Path)) and files.read(Path(model)) is not None:
        loaded = load_model(model, store)
        # an exported network takes the memory format that it was written with
        setup = replace(select_device("fp32", device), channels_last=False)
        loaded.to(setup.device)
        norm = loaded.mean, loaded.std
        return _Subject(str(model), loaded.config, loaded, loaded.classes, norm, None, setup, torch.get_num_threads())
    trial = TrainedFolder.of(model, store)
    setup = select_device(trial.config.training.precision, device)
    network = trial.network()
    mean, std = normalisation(network)
    placed: InferenceModel = setup.place(network)  # type: ignore[assignment]
    norm = mean.to(setup.device), std.to(setup.device)
    threads = int(trial.result.tags.get("threads", "1") or 1)
    return _Subject(trial.result.trial_id, trial.config, placed, trial.classes, norm, trial, setup, threads)


def _store(subject: _Subject, store: Path) -> Path:
    """The store that the trial's folder is in; else the one that is named."""
    if subject.trial is not None and subject.trial.folder.path.parent.name == "trials":
        return subject.trial.folder.path.parent.parent
    return store


def _data(subject: _Subject, data: Mapping[str, str | Path | None] | None, store: Path) -> tuple[TrialConfig, Pack]:
    """The config with the dataset that is asked for, and its pack."""
    own = subject.config
    if not data:
        if subject.trial is None:
            raise HmtlError(
                f"{subject.name}: an exported model has no data of its own; name a dataset: --data NAME=PATH"
            )
        return own, _own_pack(subject.trial, store)
    if len(data) != 1:
        raise HmtlError(f"{len(data)} datasets: evaluate on one at a time")
    ((name, path),) = data.items()
    config = own if name == own.data.name else _with_data(own, name)
    return config, open_pack(config.data, None if path is None else Path(path), open_store(store))


def _with_data(config: TrialConfig, name: str) -> TrialConfig:
    """The config on another dataset: options that only the trial's own dataset has get their defaults."""
    heeded = DATASETS[name].options if name in DATASETS else READER_OPTIONS
    dropped = ("images", *(option for option in READER_OPTIONS if option not in heeded))
    plain = DataConfig()
    return config.replaced({("data", "name"): name} | {("data", option): getattr(plain, option) for option in dropped})


def _own_pack(trial: TrainedFolder, store: Path) -> Pack:
    """The pack that a trial was trained on: the one in the store with which its config has its id."""
    config, data = trial.config, trial.config.data
    for folder in sorted((store / "packs").glob(f"{data.name}-{data.stored_size}px-*")):
        if not is_pack(folder):
            continue
        try:
            pack = load_pack(folder)
        except DataError:
            continue
        if trial_id(config, pack.identity(config.tasks)) == trial.result.trial_id:
            return pack
    if data.name in DATASETS and not DATASETS[data.name].needs_path:
        return open_pack(data, None, open_store(store))
    raise DataError(
        f"{trial.folder.path}: the pack of {data.name!r} that this trial was trained on is not in {store / 'packs'}; "
        f"name the dataset: --data {data.name}=PATH"
    )


def _check_classes(task: str, own: tuple[str, ...], given: tuple[str, ...], name: str) -> None:
    """Raise DataError unless the data has the model's classes in the model's order."""
    if own == given:
        return
    lacks, adds = [one for one in own if one not in given], [one for one in given if one not in own]
    differences = [
        *([f"it lacks {', '.join(lacks)}"] if lacks else []),
        *([f"it has {', '.join(adds)}, which the model does not know"] if adds else []),
    ] or [f"their order is {', '.join(given)}, the model's {', '.join(own)}"]
    raise DataError(
        f"dataset {name!r} has other {task} classes than the model: {'; '.join(differences)}; "
        "evaluate on data with the same classes"
    )


def _scores(
    subject: _Subject, config: TrialConfig, pack: Pack, splits: Splits, rows: NDArray[np.int64], outputs: Tensor
) -> dict[str, TaskScores]:
    """Task → scores; a task without a label among `rows` is left out. outputs: [n, K] of `rows`."""
    found, start = {}, 0
    for name, classes in subject.classes.items():
        width = task_of(name, config, classes).width
        own, start = outputs[:, start : start + width], start + width
        if name not in pack.labels:
            continue
        labels = Labels(
            labels_of(pack, config.data, name)[0], classes, splits.train, shares_of(pack, config.data, name)
        )
        scores = _score(SUPERVISED_TASKS[name].task.build(labels, config), own, rows)
        if scores.n:
            found[name] = scores
    return found


def _score(task: SupervisedTask, outputs: Tensor, rows: NDArray[np.int64]) -> TaskScores:
    """Scores of one task from its own columns [n, width] of the outputs of `rows`."""
    targets = task.targets(rows)
    present = task.present(targets)
    if not present.any():
        return TaskScores(0, {})
    outputs, targets = outputs[present], targets[present]
    metrics = task.metrics(outputs, targets)
    if not task.classes:
        return TaskScores(len(targets), metrics)
    counts = confusion_matrix(outputs, targets, task.classes)
    images = {name: sum(row) for name, row in zip(task.classes, counts, strict=True)}
    right = {name: counts[k][k] for k, name in enumerate(task.classes)}
    return TaskScores(len(targets), metrics, images, {name: right[name] / n for name, n in images.items() if n})
