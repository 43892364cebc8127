"""Measurements of a split, and of the best weights at the end of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from hmtl_ablate.errors import CheckpointError
from hmtl_ablate.supervised.classification import confusion_matrix
from hmtl_ablate.training import evaluate, pictures
from hmtl_ablate.training.batches import EvaluationImages
from hmtl_ablate.training.checkpoint import load_tensors, save_tensors
from hmtl_ablate.training.parts import Parts
from hmtl_ablate.training.supervised import named

BEST = "best.safetensors"
"""File of the model's weights at the best epoch, in the trial's folder."""
PICTURED = 8
"""Faces in a picture of a pretext task."""


def predict(parts: Parts, images: EvaluationImages) -> Tensor:
    """Outputs [N, K] of all images of a split, on every worker; [N, 0] without a supervised task."""
    parts.workers.broadcast_buffers(parts.model)
    if not parts.supervised:
        return torch.empty(len(images.indices), 0)
    rank, count = parts.workers.rank, parts.workers.count
    return evaluate.predict(parts.model.inference, images, parts.setup, parts.norm, rank, count)


def measure(parts: Parts, outputs: Tensor, images: EvaluationImages) -> dict[str, float]:
    """Metrics of a split from the model's outputs [N, K]; a task without labels in the split is left out."""
    found: dict[str, float] = {}
    for name, task in parts.supervised.items():
        targets = task.targets(images.indices)
        present = task.present(targets)
        if not present.any():  # one of several tasks may have no labels in a split
            continue
        values = task.metrics(outputs[:, parts.columns[name]][present], targets[present])
        found |= named(name, values, len(parts.supervised) == 1)
    return found


def validate(parts: Parts) -> dict[str, float]:
    """`val/…` of the current weights; the scores of the pretext tasks on worker 0 alone."""
    row = {f"val/{name}": value for name, value in measure(parts, predict(parts, parts.val), parts.val).items()}
    if parts.pretext and parts.workers.writes:
        scores = evaluate.score_pretext(
            parts.model,
            parts.config.chains,
            parts.val,
            len(parts.splits.train),
            parts.setup,
            parts.norm,
            parts.config.data.seed,
        )
        row |= {f"val/{name}": value for name, value in scores.items()}
    return row


def draw_pretext(parts: Parts, epoch: int) -> None:
    """Write pictures of whole, changed and rebuilt faces of val; the same faces and changes at every epoch."""
    count = len(parts.val.indices)
    rows = np.linspace(0, count - 1, min(PICTURED, count)).round().astype(int)
    whole = parts.setup.images(parts.val.take(rows), *parts.norm)
    mean, std = parts.norm
    for chain in parts.config.chains:
        with torch.inference_mode():
            attempts, changed = evaluate.attempts(parts.model, chain, whole, parts.setup, Generator().manual_seed(0))
            for name, (output, query) in attempts.items():
                shown = {
                    "true": query.before,
                    "changed": changed,
                    "rebuilt": parts.pretext[name].rebuilt(output, query.before, query.draw),
                }
                pictures.save_rows(
                    parts.folder.path / "pictures" / f"{name}-epoch-{epoch:04d}.png",
                    [(label, images * std + mean) for label, images in shown.items()],
                )


def save_best(parts: Parts) -> None:
    """Write the model's weights as the best ones so far."""
    weights = {name: value.detach().cpu().contiguous() for name, value in parts.model.state_dict().items()}
    save_tensors(parts.folder.path / BEST, weights)


def load_best(parts: Parts) -> None:
    """Load the best weights into the model. Raises CheckpointError."""
    path = parts.folder.path / BEST
    try:
        parts.model.load_state_dict(load_tensors(path, parts.setup.device))
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit this trial: run again, which trains it again") from error


@dataclass(frozen=True)
class Measured:
    """The best weights measured."""

    metrics: dict[str, float]
    """`test/…`; empty when test was not evaluated."""
    confusion: dict[str, list[list[int]]]
    """Split (with several tasks: split/task) → counts [K][K], rows true and columns predicted."""


def measure_best(parts: Parts, evaluate_test: bool) -> Measured:
    """Load the best weights and measure them on val, and on test when `evaluate_test`.

    Writes each image's predictions and pictures of the confusion matrices into the trial's folder.
    """
    load_best(parts)
    splits = {"val": parts.val}
    if evaluate_test:
        splits["test"] = EvaluationImages(parts.config, parts.pack, parts.splits.test)
    metrics: dict[str, float] = {}
    confusion: dict[str, list[list[int]]] = {}
    predictions: dict[str, NDArray[np.generic]] = {}
    for part, images in splits.items():
        outputs = predict(parts, images)
        if part == "test":
            metrics = {f"test/{key}": value for key, value in measure(parts, outputs, images).items()}
        predictions |= _predictions(parts, part, outputs, images)
        confusion |= _confusion(parts, part, outputs, images)
    if parts.workers.writes:
        parts.folder.write_predictions(predictions)
        _draw_confusion(parts, confusion)
    return Measured(metrics, confusion)


def _predictions(parts: Parts, part: str, outputs: Tensor, images: EvaluationImages) -> dict[str, NDArray[np.generic]]:
    """The arrays of predictions.npz for one split."""
    found: dict[str, NDArray[np.generic]] = {f"{part}_index": images.indices}
    for name, task in parts.supervised.items():
        prefix = part if len(parts.supervised) == 1 else f"{part}_{name}"
        values = task.predictions(outputs[:, parts.columns[name]], task.targets(images.indices))
        found |= {f"{prefix}_{key}": value.numpy() for key, value in values.items()}
    return found


def _confusion(parts: Parts, part: str, outputs: Tensor, images: EvaluationImages) -> dict[str, list[list[int]]]:
    """The confusion matrix of each task with classes on one split."""
    found = {}
    for name, task in parts.supervised.items():
        targets = task.targets(images.indices)
        present = task.present(targets)
        if task.classes and present.any():
            own = outputs[:, parts.columns[name]]
            found[_label(parts, part, name)] = confusion_matrix(own[present], targets[present], task.classes)
    return found


def _draw_confusion(parts: Parts, confusion: Mapping[str, list[list[int]]]) -> None:
    for name, task in parts.supervised.items():
        for part in ("val", "test"):
            label = _label(parts, part, name)
            if label in confusion:
                path: Path = parts.folder.path / "pictures" / f"confusion-{label.replace('/', '-')}.png"
                pictures.save_confusion(path, confusion[label], task.classes)


def _label(parts: Parts, part: str, task: str) -> str:
    """Name of a split's measurement of one task: the split alone where there is one task."""
    return part if len(parts.supervised) == 1 else f"{part}/{task}"
