"""A trained model on many images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from hmtl_ablate.api.models import Image, Prediction, TrainedModel, load_model
from hmtl_ablate.api.trials import TrainedTrial
from hmtl_ablate.errors import DataError, HmtlError
from hmtl_ablate.training.device import Device, select_device

Progress = Callable[[int, int, str], None]
"""Called with how many are done, how many there are, and what they are."""


@dataclass(frozen=True)
class Predicted:
    """What a model predicts for one of many images.

    >>> from hmtl_ablate import Predicted
    >>> Predicted("a.jpg", fault="no image").tasks
    {}
    """

    image: str
    """Its path; of an array, its position, from 0."""
    tasks: Mapping[str, Prediction] = field(default_factory=dict)
    """Supervised task → prediction; {} for an image that can't be read."""
    fault: str = ""
    """Why the image can't be read."""


def predict(
    model: TrainedModel | TrainedTrial | str | Path,
    images: Iterable[Image],
    *,
    store: str | Path = "runs",
    batch_size: int = 64,
    device: Device = "auto",
    progress: Progress | None = None,
) -> list[Predicted]:
    """What a model predicts for each of many images, in their order; one that can't be read has a `fault`.

    >>> import hmtl_ablate as ha
    >>> import numpy as np
    >>> trial = ha.train({"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}})
    >>> [found] = ha.predict(trial, [np.zeros((40, 40, 3), np.uint8)])
    >>> found.image, found.tasks["emotion"].label in ha.load_model(trial).classes["emotion"]
    ('0', True)

    Args:
        model: a model, or what `load_model` takes.
        images: arrays, or paths of image files, each a face cropped as those of the dataset.
        store: where a name of a trial is looked up.
        batch_size: images that the network sees at once, at least 1.
        device: auto takes a GPU where there is one.
        progress: called after each batch.

    Raises:
        HmtlError: the model can't be loaded, or the device can't be used.
    """
    if batch_size < 1:
        raise HmtlError(f"batch_size {batch_size}: write a whole number of at least 1")
    own = model if isinstance(model, TrainedModel) else load_model(model, store)
    given, home = list(images), own.mean.device
    own.to(select_device("fp32", device).device)
    try:
        return [one for batch in _batches(own, given, batch_size, progress) for one in batch]
    finally:
        own.to(home)


def _batches(
    model: TrainedModel, images: Sequence[Image], size: int, progress: Progress | None
) -> Iterator[list[Predicted]]:
    for start in range(0, len(images), size):
        rows = range(start, min(start + size, len(images)))
        yield _batch(model, {row: images[row] for row in rows})
        if progress is not None:
            progress(rows.stop, len(images), "images")


@torch.inference_mode()
def _batch(model: TrainedModel, images: Mapping[int, Image]) -> list[Predicted]:
    tensors: dict[int, Tensor] = {}
    faults: dict[int, str] = {}
    for row, image in images.items():
        try:
            tensors[row] = model.preprocess(image)
        except DataError as error:
            faults[row] = str(error)
    read = dict(zip(tensors, model.read(model(torch.stack(list(tensors.values())))), strict=True)) if tensors else {}
    return [
        Predicted(str(image) if isinstance(image, (str, Path)) else str(row), read.get(row, {}), faults.get(row, ""))
        for row, image in images.items()
    ]
