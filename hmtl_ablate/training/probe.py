"""Probes: classifiers on the frozen features of a backbone (docs/paper.md, argument 5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hmtl_ablate.config import TrialConfig, trial_id
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.data.splits import folds, labels_of, present, split
from hmtl_ablate.errors import DataError, TrialInterrupted
from hmtl_ablate.model import HMTLModel, normalisation
from hmtl_ablate.supervised import SupervisedTask
from hmtl_ablate.supervised.classification import confusion_matrix
from hmtl_ablate.training import pictures
from hmtl_ablate.training.batches import EvaluationImages, seed_of
from hmtl_ablate.training.checkpoint import load_tensors
from hmtl_ablate.training.device import Device, provenance, select_device
from hmtl_ablate.training.folder import TrialFolder, TrialResult, passes_before
from hmtl_ablate.training.optim import build_optimizer, learning_rate
from hmtl_ablate.training.supervised import build_tasks

TEMPERATURE = 0.07
"""knn: T of the votes' weights exp(similarity / T) (Wu et al. 2018, section 3.4)."""
BATCH = 256

Rows = NDArray[np.int64]


def probe(
    config: TrialConfig,
    pack: Pack,
    folder: TrialFolder,
    *,
    evaluate_test: bool,
    on_epoch: Callable[[dict[str, float]], bool],
    stop: Callable[[], bool],
    threads: int,
    write: bool,
    device: Device = "auto",
    pieces: int = 1,
) -> TrialResult:
    """Run the probe that `config` declares and return its result; `write`: also write it into `folder`.

    The features of all images are computed once, from whole images, BATCH / pieces at a time. Without folds, the probe
    is fitted to train, selected on val and measured on test. With folds, each image is predicted by the probe fitted to
    the other folds, at its last epoch, and `test/…` is over all images. Raises DataError, CheckpointError, and
    TrialInterrupted between folds.
    """
    started = time.monotonic()
    folder.log(f"probe: {config.probe.kind}")
    setup = select_device(config.training.precision, device)
    torch.manual_seed(config.seed)
    model = HMTLModel(config, 1)
    model.load_sources(config, folder.path.parent)
    passes = passes_before(config, folder.path.parent)
    features = _Features(config, pack, setup.place(model).eval(), setup, BATCH // pieces)  # type: ignore[arg-type]
    if config.probe.kind == "direct":
        metrics, predictions = _direct(config, features, folder.path.parent)
    elif config.probe.folds:
        metrics, predictions = _cross_validated(config, pack, features, stop)
    else:
        metrics, predictions = _selected(config, pack, features, evaluate_test, stop)
    row = {
        "epoch": float(config.training.epochs),
        "image_passes": passes,
        "seconds": time.monotonic() - started,
        "images": float(len(features.rows)),
        **{name: value for name, value in metrics.items() if name.startswith("val/")},
    }
    task = features.task
    confusion = {
        part: confusion_matrix(outputs, targets, task.classes)
        for part, (_, outputs, targets) in predictions.items()
        if task.classes
    }
    result = TrialResult(
        trial_id=trial_id(config, pack.identity(config.tasks)),
        status="finished",
        epochs=config.training.epochs,
        best_epoch=config.training.epochs,
        image_passes=passes,
        seconds=round(row["seconds"], 3),
        metrics={name if name.startswith("test/") else f"best/{name}": value for name, value in metrics.items()},
        tags=provenance(setup, threads, 1),
        classes=list(task.classes),
        confusion=confusion,
    )
    if write:
        folder.write_history([row])
        arrays: dict[str, NDArray[Any]] = {}
        for part, (rows, outputs, targets) in predictions.items():
            arrays[f"{part}_index"] = rows
            arrays |= {f"{part}_{key}": value.numpy() for key, value in task.predictions(outputs, targets).items()}
            if part in confusion:
                pictures.save_confusion(
                    folder.path / "pictures" / f"confusion-{part}.png", confusion[part], task.classes
                )
        folder.write_predictions(arrays)
        result = folder.write_result(result)
    on_epoch(row)
    return result


class _Features:
    """The frozen backbone's pooled features of all labelled images, and the task that is predicted from them."""

    def __init__(self, config: TrialConfig, pack: Pack, model: HMTLModel, setup: Any, batch: int) -> None:
        self.config, self.pack = config, pack
        labels, _ = labels_of(pack, config.data, config.tasks[0])
        self.rows: Rows = np.flatnonzero(present(labels)).astype(np.int64)
        self.task = self.task_of(self.rows)
        self._place = np.full(len(labels), -1, np.int64)
        self._place[self.rows] = np.arange(len(self.rows))
        images = EvaluationImages(config, pack, self.rows)
        norm = tuple(value.to(setup.device) for value in normalisation(model.inference))
        parts = []
        with torch.inference_mode(), setup.autocast():
            for start in range(0, len(self.rows), batch):
                taken = images.take(np.arange(start, min(start + batch, len(self.rows))))
                parts.append(model.inference.features(setup.images(taken, *norm))[1].float().cpu())
        self._features = torch.cat(parts).clone()

    def task_of(self, train: Rows) -> SupervisedTask:
        return build_tasks(self.config, self.pack, train)[self.config.tasks[0]]

    def of(self, rows: Rows) -> Tensor:
        return self._features[self._place[rows]]


def _selected(
    config: TrialConfig, pack: Pack, features: _Features, evaluate_test: bool, stop: Callable[[], bool]
) -> tuple[dict[str, float], dict[str, tuple[Rows, Tensor, Tensor]]]:
    splits = split(pack, config.data, config.tasks)
    _check(pack, splits.train, splits.val)
    if stop():
        raise TrialInterrupted("stopped before the probe; run the same command again to start it")
    predict = _fit(config, features, splits.train, splits.val, seed_of(config.seed, 0))
    metrics: dict[str, float] = {}
    predictions = {}
    for part, rows in (("val", splits.val), ("test", splits.test)):
        if part == "val" or evaluate_test:
            outputs, targets = predict(rows), features.task.targets(rows)
            metrics |= {f"{part}/{name}": value for name, value in features.task.metrics(outputs, targets).items()}
            predictions[part] = rows, outputs, targets
    return metrics, predictions


def _cross_validated(
    config: TrialConfig, pack: Pack, features: _Features, stop: Callable[[], bool]
) -> tuple[dict[str, float], dict[str, tuple[Rows, Tensor, Tensor]]]:
    assert config.probe.folds is not None
    parts = folds(pack, features.rows, config.probe.folds, config.data.seed)
    outputs = torch.zeros(len(features.rows), features.task.width)
    for number, held in enumerate(parts):
        if stop():
            raise TrialInterrupted("stopped between folds; run the same command again to restart the probe")
        train = np.setdiff1d(features.rows, held)
        _check(pack, train, held)
        predict = _fit(config, features, train, None, seed_of(config.seed, number))
        outputs[torch.from_numpy(np.searchsorted(features.rows, held))] = predict(held)
    targets = features.task.targets(features.rows)
    metrics = {f"test/{name}": value for name, value in features.task.metrics(outputs, targets).items()}
    return metrics, {"test": (features.rows, outputs, targets)}


def _direct(
    config: TrialConfig, features: _Features, trials: Path
) -> tuple[dict[str, float], dict[str, tuple[Rows, Tensor, Tensor]]]:
    """All images, predicted by the trained head of the trial that the weights name."""
    source = TrialFolder(trials / (config.model.weights or "").removeprefix("trial:"))
    trained, result = source.config(), source.result()
    assert result is not None  # passes_before refuses an unfinished one
    if trained.tasks != config.tasks or trained.probe.kind != "none" or not trained.training.supervised:
        raise DataError(
            f"{config.model.weights} was trained for {', '.join(trained.tasks)}, so it can't be measured "
            f"on {config.tasks[0]} directly; use a probe"
        )
    task = features.task
    unknown = [name for name in task.classes if name not in result.classes]
    if unknown:
        raise DataError(
            f"{config.model.weights} knows no {', '.join(unknown)}: it was trained on "
            f"{', '.join(result.classes)}; leave them out with data.leave_out, or use a probe"
        )
    state = load_tensors(source.path / "best.safetensors")
    outputs = features.of(features.rows) @ state["inference.head.weight"].T + state["inference.head.bias"]
    if task.classes:
        outputs = outputs[:, [result.classes.index(name) for name in task.classes]]
    elif trained.model.pose_head != config.model.pose_head:
        raise DataError(f"{config.model.weights} has a {trained.model.pose_head} head; set model.pose_head to it")
    targets = task.targets(features.rows)
    metrics = {f"test/{name}": value for name, value in task.metrics(outputs, targets).items()}
    return metrics, {"test": (features.rows, outputs, targets)}


def _check(pack: Pack, train: Rows, held: Rows) -> None:
    if len(train) < 2 or not len(held):
        raise DataError(
            f"dataset {pack.manifest.name!r}: {len(train)} images to fit a probe to and {len(held)} to "
            "measure it on; use more data or fewer folds"
        )


def _fit(
    config: TrialConfig, features: _Features, train: Rows, val: Rows | None, seed: int
) -> Callable[[Rows], Tensor]:
    """Fit a probe to `train`; returns its function from rows to outputs [n, classes], at its best epoch on `val`."""
    mean, std = features.of(train).mean(dim=0), features.of(train).std(dim=0).clamp_min(1e-6)

    def scaled(rows: Rows) -> Tensor:
        return (features.of(rows) - mean) / std

    task = features.task_of(train)
    if config.probe.kind == "knn":
        return lambda rows: nearest_vote(
            features.of(rows), features.of(train), task.targets(train), task.width, config.probe.neighbours
        )
    torch.manual_seed(seed)
    head = _head(config, mean.numel(), task.width)
    inputs, targets = scaled(train), task.training_targets(train)
    optimizer = build_optimizer(head, config.training)
    generator = torch.Generator().manual_seed(seed)
    size = min(config.training.batch_size, len(train))
    best, best_state = -1.0, head.state_dict()
    for epoch in range(config.training.epochs):
        head.train()
        order = torch.randperm(len(train), generator=generator)
        steps = list(order.split(size))
        for step, rows in enumerate(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config.training, epoch + (step + 1) / len(steps))
            optimizer.zero_grad(set_to_none=True)
            task.loss(head(inputs[rows]), targets[rows]).mean().backward()
            optimizer.step()
        head.eval()
        if val is not None:
            with torch.inference_mode():
                accuracy = task.metrics(head(scaled(val)), task.targets(val))["accuracy"]
            if accuracy > best:
                best, best_state = accuracy, {name: value.clone() for name, value in head.state_dict().items()}
    if val is not None:
        head.load_state_dict(best_state)

    def predict(rows: Rows) -> Tensor:
        with torch.inference_mode():
            return head(scaled(rows)).clone()

    return predict


def _head(config: TrialConfig, inputs: int, outputs: int) -> nn.Module:
    """linear: one layer; nonlinear: one hidden layer with ReLU and dropout before the linear one."""
    if config.probe.kind == "linear":
        return nn.Linear(inputs, outputs)
    return nn.Sequential(
        nn.Linear(inputs, config.probe.hidden),
        nn.ReLU(),
        nn.Dropout(config.model.dropout),
        nn.Linear(config.probe.hidden, outputs),
    )


def nearest_vote(features: Tensor, known: Tensor, targets: Tensor, classes: int, neighbours: int) -> Tensor:
    """Log shares [n, classes] of the votes of the nearest of `known` [m, P] for each of `features` [n, P].

    The `neighbours` most similar by cosine vote for their class with weight exp(similarity / T), T = 0.07 (Wu et al.
    2018, *Unsupervised Feature Learning via Non-Parametric Instance Discrimination*, section 3.4).
    """
    similar = F.normalize(features, dim=1) @ F.normalize(known, dim=1).T
    weights, nearest = similar.topk(min(neighbours, len(known)), dim=1)
    weights = torch.exp((weights - 1) / TEMPERATURE)
    votes = torch.zeros(len(features), classes).scatter_add_(1, targets[nearest], weights)
    return (votes / votes.sum(dim=1, keepdim=True)).clamp_min(1e-12).log()
