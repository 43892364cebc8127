"""The trained network of a trial, ready to use on new images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hmtl_ablate.api.trials import TrainedTrial
from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.framing import cut, placed
from hmtl_ablate.data.reading import IMAGE_BYTES, SampleError, decode, read_bytes
from hmtl_ablate.data.views import validation_view
from hmtl_ablate.errors import CheckpointError, DataError, StoreError
from hmtl_ablate.exporting import files
from hmtl_ablate.exporting.description import Description, describe
from hmtl_ablate.exporting.network import filled
from hmtl_ablate.model import InferenceModel, normalisation
from hmtl_ablate.reporting.naming import find_folder
from hmtl_ablate.storage import bring, store_folder
from hmtl_ablate.supervised import SupervisedTask
from hmtl_ablate.training.checkpoint import load_tensors
from hmtl_ablate.training.folder import TrialFolder, TrialResult
from hmtl_ablate.training.supervised import task_of

Image = NDArray[np.uint8] | str | Path
"""RGB uint8 [H, W, 3] (or grey [H, W]), or the path of an image file."""


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for one image and one task.

    >>> from hmtl_ablate import Prediction
    >>> Prediction(label="happiness", values={"happiness": 0.8, "sadness": 0.2}).label
    'happiness'
    """

    values: Mapping[str, float] = field(default_factory=dict)
    """Class → probability; for a task without classes, the name of each predicted number → its value (pose: yaw, pitch
    and roll in degrees)."""
    label: str | None = None
    """The most probable class; None for a task without classes."""


def row_of(found: Mapping[str, Prediction]) -> dict[str, str | float]:
    """Supervised task → prediction of one image, as the cells of a table: a task with classes has a column for its
    label, and each class or number its own: `emotion`, `emotion/anger`."""
    row: dict[str, str | float] = {}
    for task, prediction in found.items():
        if prediction.label is not None:
            row[task] = prediction.label
        row |= {f"{task}/{name}": value for name, value in prediction.values.items()}
    return row


class TrainedModel(nn.Module):
    """Backbone and supervised head with a trial's best weights, in eval mode.

    >>> import hmtl_ablate as ha
    >>> trial = ha.train({"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}})
    >>> model = ha.load_model(trial)
    >>> model.classes["emotion"][:2]
    ('neutral', 'happiness')

    Called with normalized images [B, 3, S, S], it returns outputs [B, K]: class logits or numbers, those of several
    tasks side by side.
    """

    def __init__(
        self,
        config: TrialConfig,
        network: nn.Module,
        classes: Mapping[str, tuple[str, ...]],
        norm: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """norm: mean and standard deviation of the input, each [3, 1, 1]; None: those of its backbone."""
        super().__init__()
        self.config, self.network = config, network
        self.classes = dict(classes)
        """Supervised task → its class names in the order of the outputs; () for a task without classes."""
        if norm is None:
            if not isinstance(network, InferenceModel):
                raise TypeError("a network without a backbone of timm needs norm")
            norm = normalisation(network)
        mean, std = norm
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self._tasks = {name: task_of(name, config, names) for name, names in self.classes.items()}
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def preprocess(self, image: Image) -> Tensor:
        """A face as the network was validated on it: normalized float32 [3, S, S] on the model's device.

        image: a face cropped as those of the dataset. It is padded to a square and resized to the pack's size, then to
        the central crop that validation uses. Raises DataError when it is no image.
        """
        pixels, data = _pixels(image), self.config.data
        view = validation_view(placed(cut(pixels, None, data), data.stored_size), data.size)
        values = torch.from_numpy(view).to(self.mean.device).permute(2, 0, 1).float() / 255
        return (values - self.mean) / self.std

    @torch.inference_mode()
    def predict(self, image: Image) -> dict[str, Prediction]:
        """Supervised task → what the model predicts for one image."""
        return self.read(self(self.preprocess(image)[None]))[0]

    def read(self, outputs: Tensor) -> list[dict[str, Prediction]]:
        """Outputs [B, K] of the network → of each image, supervised task → prediction."""
        outputs = outputs.float().cpu()
        found: list[dict[str, Prediction]] = [{} for _ in outputs]
        start = 0
        for name, task in self._tasks.items():
            own, start = outputs[:, start : start + task.width], start + task.width
            for image, values in zip(found, _values(task, own), strict=True):
                label = max(values, key=lambda key, values=values: values[key]) if task.classes else None  # type: ignore[misc]
                image[name] = Prediction(values, label)
        return found

    def __repr__(self) -> str:
        return f"TrainedModel({self.config.model.backbone}, {', '.join(self.classes)}, {self.config.data.size} px)"


def load_model(trial: TrainedTrial | str | Path, store: str | Path = "runs") -> TrainedModel:
    """The network of a trial with its best weights, or one that `export` wrote, on the CPU.

    >>> import hmtl_ablate as ha
    >>> trial = ha.train({"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}})
    >>> ha.load_model(trial.trial_id)
    TrainedModel(test_resnet, emotion, 32 px)

    No file that it reads can run code: TorchScript and pickled files are refused, and so is a pt2 file with anything
    pickled in it. The network of an ONNX file runs on the CPU alone, and can't be trained.

    Args:
        trial: what `train` returned, a trial's folder or name (trial_id or its first digits, STUDY/VARIANT/SEED,
            best:STUDY), or what `export` wrote: a folder, a .onnx file or a .pt2 file.
        store: where a name is looked up.

    Raises:
        StoreError: there is no such trial, or it is not finished.
        CheckpointError: its weights can't be loaded, it has no supervised head (pre-training and probes), or the file
            is none that `export` wrote.
    """
    if isinstance(trial, (str, Path)):
        exported = files.read(Path(trial))
        if exported is not None:
            description, network = exported
            norm = torch.tensor(description.mean).view(3, 1, 1), torch.tensor(description.std).view(3, 1, 1)
            return TrainedModel(description.config(), network, description.classes, norm)
    found = TrainedFolder.of(trial, store_folder(store))
    return TrainedModel(found.config, found.network(), found.classes)


@dataclass(frozen=True)
class TrainedFolder:
    """The folder of a finished trial with a supervised head."""

    folder: TrialFolder
    config: TrialConfig
    result: TrialResult
    classes: dict[str, tuple[str, ...]]
    """Supervised task → class names; () without classes."""

    @classmethod
    def of(cls, trial: TrainedTrial | str | Path, store: Path) -> TrainedFolder:
        """By what `load_model` takes. Raises StoreError and CheckpointError."""
        folder = TrialFolder(_folder(trial, store))
        config, result = folder.config(), folder.result()
        if result is None or result.status == "failed":
            raise StoreError(
                f"{folder.path}: this trial {'failed' if result else 'is not finished'}; it has no best weights"
            )
        probe = config.probe.kind
        if probe != "none" or not config.training.supervised:
            kind = f"a {probe} probe" if probe != "none" else "pre-training without a supervised task"
            raise CheckpointError(f"{folder.path}: this trial is {kind}, so it has no supervised head to load")
        return cls(folder, config, result, _classes(config, result, folder.path))

    def network(self) -> InferenceModel:
        """The network with the trial's best weights. Raises CheckpointError."""
        path = bring(self.folder.path / "best.safetensors")
        state = load_tensors(path)
        own = {name.removeprefix("inference."): value for name, value in state.items() if name.startswith("inference.")}
        width = sum(task_of(name, self.config, names).width for name, names in self.classes.items())
        return filled(self.config, width, own, path)

    def description(self, network: InferenceModel) -> Description:
        """What a file of the network says about it."""
        return describe(self.folder, self.config, self.result, network, self.classes)


def _folder(trial: TrainedTrial | str | Path, store: Path) -> Path:
    if isinstance(trial, TrainedTrial):
        return trial.folder
    return find_folder(trial, store).path


def _classes(config: TrialConfig, result: TrialResult, folder: Path) -> dict[str, tuple[str, ...]]:
    if result.task_classes:
        return {name: tuple(result.task_classes[name]) for name in config.tasks}
    if len(config.tasks) > 1:
        raise CheckpointError(
            f"{folder}: result.json was written by an older version, without the class names of "
            f"{', '.join(config.tasks[1:])}; train this trial again"
        )
    return {config.tasks[0]: tuple(result.classes)}


def _pixels(image: Image) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3]."""
    if isinstance(image, (str, Path)):
        try:
            return decode(read_bytes(image, IMAGE_BYTES))
        except SampleError as error:
            raise DataError(f"{image}: {error}") from error
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise DataError(f"an image is uint8 [H, W, 3] (RGB) or [H, W] (grey), not {image.dtype} {list(image.shape)}")
    flat = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    return np.repeat(flat[..., None], 3, axis=2) if flat.ndim == 2 else flat


def _values(task: SupervisedTask, outputs: Tensor) -> list[dict[str, float]]:
    """Of each image, name → predicted value, from the outputs [B, width]."""
    count = len(outputs)
    targets = torch.zeros(count, dtype=torch.int64) if task.classes else torch.zeros(count, task.width)
    arrays = task.predictions(outputs, targets)
    predicted = next(values for name, values in arrays.items() if name != "label")
    names = task.classes or task.value_names or tuple(map(str, range(predicted.shape[1])))
    return [dict(zip(names, row.tolist(), strict=True)) for row in predicted]
