"""A trial's network as a file for other programs."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hmtl_ablate.api.models import TrainedFolder, TrainedModel
from hmtl_ablate.api.trials import TrainedTrial
from hmtl_ablate.data.renderer import render_faces
from hmtl_ablate.errors import CheckpointError, HmtlError
from hmtl_ablate.exporting import files
from hmtl_ablate.exporting.description import Description
from hmtl_ablate.storage import store_folder

FACES = 16
"""Drawn faces on which the file is compared with PyTorch."""
TOLERANCE: Mapping[str, float] = {"fp32": 1e-4, "fp16": 0.01, "int8": 0.1}
"""Largest difference that is no reason to worry: of probabilities, and of the outputs of tasks without classes."""


@dataclass(frozen=True)
class Exported:
    """What `export` wrote, and how far its answers are from the trial's network.

    >>> from pathlib import Path
    >>> from hmtl_ablate import Exported
    >>> Exported(Path("model.onnx"), 42, "fp32", {"emotion": 3e-7}, 1e-4).faithful
    True
    """

    path: Path
    size: int
    """Bytes of the file, or of all files of the folder."""
    precision: str
    """fp32, fp16 or int8."""
    differences: Mapping[str, float]
    """Supervised task → largest absolute difference from PyTorch on 16 drawn faces: of the probabilities of its
    classes, or of its outputs where it has none."""
    tolerance: float

    @property
    def faithful(self) -> bool:
        """No difference is above the tolerance."""
        return all(value <= self.tolerance for value in self.differences.values())


def export(
    trial: TrainedTrial | str | Path,
    to: str | Path,
    *,
    precision: str = "fp32",
    store: str | Path = "runs",
) -> Exported:
    """Write a trial's network, without pretext heads, for other programs; `load_model` reads it too.

    >>> import hmtl_ablate as ha
    >>> trial = ha.train({"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}})
    >>> ha.export(trial, "emotion").faithful
    True

    The file holds class names, preprocessing, the data's name and licence, metrics and the trial's id
    (docs/models.md). It is compared with PyTorch on 16 drawn faces before it takes its place.

    Args:
        trial: what `train` returned, a trial's folder or name, as `load_model` takes it.
        to: a file `*.onnx` or `*.pt2`, replaced when it exists, or a folder, which gets safetensors with timm's names
            and a model card.
        precision: fp16 and int8 (weights) for ONNX alone, by ONNX Runtime's tools.
        store: where a name is looked up.

    Raises:
        StoreError: there is no such trial, or it is not finished.
        CheckpointError: it has no network to export, the format has no form for it, or the file in fp32 differs from
            PyTorch by more than 1e-4. For fp16 and int8 the result says how much it differs.
        HmtlError: there is no such format, or the path can't be written.
    """
    path = Path(to)
    files.check(path, precision)
    found = TrainedFolder.of(trial, store_folder(store))
    network = found.network()
    description = found.description(network)
    model = TrainedModel(found.config, network, found.classes)
    with _scratch(path) as folder:
        new = folder / path.name
        files.write(network, description, new, precision)
        differences = _differences(model, files.outside(new), description)
        worst, tolerance = max(differences.values()), TOLERANCE[precision]
        if not math.isfinite(worst) or (precision == "fp32" and worst > tolerance):
            raise CheckpointError(
                f"{to}: not written: its outputs differ from PyTorch's by up to {worst:.2g}; {tolerance:g} is allowed"
            )
        size = _size(new)
        files.place(new, path)
    return Exported(path, size, precision, differences, tolerance)


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """A folder next to a path, for what is not complete yet; gone afterwards."""
    try:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=".export-"))
    except OSError as error:
        raise HmtlError(f"can't write {path}: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@torch.inference_mode()
def _differences(model: TrainedModel, other: nn.Module, description: Description) -> dict[str, float]:
    """Supervised task → largest absolute difference of what both networks answer to drawn faces."""
    faces, _ = render_faces(FACES, description.stored, seed=0)
    images = torch.stack([model.preprocess(face) for face in faces])
    own, start, found = model(images), 0, {}
    theirs = other(images)
    for name, task in description.tasks.items():
        columns = slice(start, start + task.outputs)
        start += task.outputs
        pair = [
            outputs[:, columns].softmax(dim=1) if task.classes else outputs[:, columns] for outputs in (own, theirs)
        ]
        found[name] = float((pair[0] - pair[1]).abs().max())
    return found


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.iterdir() if path.is_dir() else [path]))
