"""What an exported network says about itself: enough to use it without the trial that it is from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from hmtl_ablate import __version__
from hmtl_ablate.config import TrialConfig, parse_config
from hmtl_ablate.data.registry import DATASETS
from hmtl_ablate.data.views import validation_share
from hmtl_ablate.errors import CheckpointError, ConfigError, first_line
from hmtl_ablate.model import InferenceModel, normalisation
from hmtl_ablate.supervised import SupervisedTask
from hmtl_ablate.supervised.affect import Affect
from hmtl_ablate.supervised.pose import Pose
from hmtl_ablate.training.folder import TrialFolder, TrialResult
from hmtl_ablate.training.supervised import task_of

KEY = "hmtl_ablate"
"""Name of the description: ONNX metadata, extra file of a pt2 archive, entry of a folder's config.json."""
LONGEST = 1 << 20
"""Bytes of a description that are read."""

Short = Annotated[str, StringConstraints(max_length=500)]
Three = tuple[float, float, float]

PREPROCESSING = (
    "RGB face, padded with black to a square, resized to `stored` pixels (by area when it shrinks, else bilinear), "
    "the central square of the share `crop` of its side, resized to `size` pixels, divided by 255, minus `mean`, "
    "divided by `std`, as float32 [batch, 3, size, size]"
)


class TaskOutputs(BaseModel):
    """The columns of the outputs that belong to one supervised task; those of several tasks follow one another."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    outputs: Annotated[int, Field(ge=1, le=100_000)]
    classes: Annotated[tuple[Short, ...], Field(max_length=100_000)] = ()
    """Class names in the order of the outputs, which are logits; () for a task without classes."""
    values: Annotated[tuple[Short, ...], Field(max_length=1000)] = ()
    """Names of the numbers that are predicted, for a task without classes."""
    reading: Annotated[str, StringConstraints(max_length=500)] = ""
    """How the outputs become probabilities or those numbers."""


class Data(BaseModel):
    """The dataset that the network was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Short
    licence: Short = ""
    page: Short = ""


class Description(BaseModel):
    """What a file of an exported network says about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    trial_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
    backbone: Short
    """timm's name of the network."""
    size: Annotated[int, Field(ge=16, le=1024)]
    """Side of the image that the network sees, in pixels."""
    stored: Annotated[int, Field(ge=16, le=2048)]
    """Side of the square from which the central crop is taken, in pixels."""
    crop: Annotated[float, Field(gt=0, le=1)]
    """Side of the central crop as a share of the square's."""
    mean: Three
    """Red, green, blue, on the scale from 0 to 1."""
    std: Three
    preprocessing: Annotated[str, StringConstraints(max_length=2000)] = PREPROCESSING
    tasks: Annotated[dict[Short, TaskOutputs], Field(min_length=1, max_length=100)]
    pose_head: Literal["regression", "rotation6d"] = "regression"
    data: Data
    metrics: Annotated[dict[Short, float], Field(max_length=10_000)] = {}
    """Of the test split, and of the selection split at the best epoch, as the trial's result has them."""
    images: Annotated[dict[Short, int], Field(max_length=10_000)] = {}
    """Split, or metric of one class → number of images that it is of."""
    selected_by: Short = ""
    """The metric that chose the epoch."""
    epochs: int = 0
    best_epoch: int = 0
    seed: int = 0
    commit: Short = ""
    """Of this package when the trial was trained."""
    version: Short = __version__
    """Of this package when the file was written."""

    @field_validator("mean", "std")
    @classmethod
    def _finite(cls, values: Three) -> Three:
        if not all(map(math.isfinite, values)):
            raise ValueError("not three finite numbers")
        return values

    @field_validator("std")
    @classmethod
    def _positive(cls, values: Three) -> Three:
        if min(values) <= 0:
            raise ValueError("not above 0")
        return values

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Supervised task → its class names; () for a task without classes."""
        return {name: task.classes for name, task in self.tasks.items()}

    @property
    def width(self) -> int:
        """Number of the network's outputs."""
        return sum(task.outputs for task in self.tasks.values())

    def config(self) -> TrialConfig:
        """The part of the trial's config that the network and its preprocessing depend on. Raises ConfigError."""
        stored = self.stored if self.stored != self.size else None
        return parse_config(
            {
                "task": list(self.tasks),
                "model": {"backbone": self.backbone, "pose_head": self.pose_head},
                "data": {"name": self.data.name, "size": self.size, "stored": stored},
            }
        )

    def text(self) -> str:
        """As JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=1)


def describe(
    folder: TrialFolder,
    config: TrialConfig,
    result: TrialResult,
    network: InferenceModel,
    classes: Mapping[str, tuple[str, ...]],
) -> Description:
    """The description of a finished trial's network; classes: supervised task → class names."""
    dataset = DATASETS.get(config.data.name)
    mean, std = (_three(values.flatten().tolist()) for values in normalisation(network))
    built = {name: task_of(name, config, names) for name, names in classes.items()}
    return Description(
        trial_id=result.trial_id,
        backbone=config.model.backbone,
        size=config.data.size,
        stored=config.data.stored_size,
        crop=validation_share(config.data.size),
        mean=mean,
        std=std,
        tasks={
            name: TaskOutputs(outputs=task.width, classes=task.classes, values=task.value_names, reading=_reading(task))
            for name, task in built.items()
        },
        pose_head=config.model.pose_head,
        data=Data(
            name=config.data.name,
            licence="" if dataset is None else dataset.licence,
            page="" if dataset is None else dataset.page,
        ),
        metrics={
            name: value
            for name, value in result.metrics.items()
            if name.startswith(("test/", "best/val/")) and math.isfinite(value)
        },
        images=_images(folder, result, classes),
        selected_by=config.selects_by,
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        seed=config.seed,
        commit=result.tags.get("git_commit", ""),
    )


def parse(text: str | bytes, where: object) -> tuple[Description, TrialConfig]:
    """The description in a file, and its config; where: the file, for messages. Raises CheckpointError."""
    if len(text) > LONGEST:
        raise CheckpointError(f"{where}: its description is longer than {LONGEST} bytes; export the trial again")
    try:
        return checked(json.loads(text), where)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: its description is no JSON: {first_line(error)}") from error


def checked(content: Any, where: object) -> tuple[Description, TrialConfig]:
    """A description from its JSON, and its config, which agree with the registered tasks. Raises CheckpointError."""
    try:
        description = Description.model_validate(content)
        config = description.config()
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise CheckpointError(
            f"{where}: its description is malformed at {place}: {fault['msg']}; export the trial again"
        ) from error
    except ConfigError as error:
        raise CheckpointError(f"{where}: its description is of no network that can be built: {error}") from error
    for name, task in description.tasks.items():
        width = task_of(name, config, task.classes).width
        if width != task.outputs:
            raise CheckpointError(f"{where}: {name} has {task.outputs} outputs in its description, and {width} here")
    return description, config


def _images(folder: TrialFolder, result: TrialResult, classes: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Number of images of each split, and of each class's metrics."""
    found = {
        name.removesuffix("_index"): len(values)
        for name, values in folder.predictions().items()
        if name.endswith("_index")
    }
    for place, counts in result.confusion.items():  # split, or split/task where there are several tasks
        split, _, task = place.partition("/")
        prefix = f"best/{place}" if split == "val" else place
        names = classes.get(task or next(iter(classes)), ())
        found |= {f"{prefix}/recall/{name}": sum(row) for name, row in zip(names, counts, strict=False)}
    return found


def _reading(task: SupervisedTask) -> str:
    if task.classes:
        return "softmax gives the probabilities of the classes"
    if isinstance(task, Pose) and task.six:
        return (
            "two columns of a rotation matrix before Gram and Schmidt (Zhou et al. 2019, eq. 15); "
            "R = Rz(roll) Ry(yaw) Rx(pitch)"
        )
    if isinstance(task, Pose):
        return f"times {task.UNIT:g}: degrees"
    if isinstance(task, Affect):
        return "as they are"
    return f"the method `predictions` of {type(task).__name__} reads them"


def _three(values: list[float]) -> Three:
    """Three float32 numbers with the digits that they need: 0.485, not 0.48500001430511475."""
    red, green, blue = (float(str(np.float32(value))) for value in values)
    return red, green, blue
