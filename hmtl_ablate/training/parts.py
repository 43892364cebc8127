"""The parts of a trial, built from its config and pack: data, supervised tasks, model, optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.data.splits import Splits, split
from hmtl_ablate.errors import DataError
from hmtl_ablate.model import HMTLModel, normalisation
from hmtl_ablate.pretext import PretextTask
from hmtl_ablate.supervised import SupervisedTask
from hmtl_ablate.training import feeds
from hmtl_ablate.training.batches import EvaluationImages, TrainingBatches
from hmtl_ablate.training.device import Device, Setup, select_device
from hmtl_ablate.training.folder import TrialFolder
from hmtl_ablate.training.optim import build_optimizer
from hmtl_ablate.training.supervised import build_tasks
from hmtl_ablate.training.workers import Workers


@dataclass(frozen=True)
class Parts:
    """All that a trial's config and pack determine. The model and the optimiser change in place during training."""

    config: TrialConfig
    pack: Pack
    folder: TrialFolder
    workers: Workers
    setup: Setup
    """Device, precision and memory format."""
    splits: Splits
    supervised: dict[str, SupervisedTask]
    """Supervised tasks in the config's order; empty in self-supervised pre-training."""
    columns: dict[str, slice]
    """Supervised task → its columns of the model's outputs [B, K]."""
    weights: dict[str, float]
    """Supervised or pretext task → weight of its loss."""
    model: HMTLModel
    pretext: dict[str, PretextTask]
    """The model's pretext tasks by name."""
    norm: tuple[Tensor, Tensor]
    """Mean and standard deviation of the model's input, each [3, 1, 1], on the device."""
    optimizer: torch.optim.Optimizer
    batches: TrainingBatches
    plan: tuple[feeds.Stream, ...]
    """The streams of a step; their number is config.passes_per_image."""
    rows: Tensor
    """Rows of the global batch that this worker trains on, int64 [b]."""
    val: EvaluationImages

    def logged(self, name: str) -> str:
        """Name of a task's loss in the history: that of a lone supervised task is `supervised`."""
        return "supervised" if name in self.supervised and len(self.supervised) == 1 else name

    def log(self, text: str) -> None:
        """Add a line to the trial's log, from one worker."""
        if self.workers.writes:
            self.folder.log(text)


def build_parts(
    config: TrialConfig,
    pack: Pack,
    folder: TrialFolder,
    workers: Workers,
    device: Device = "auto",
    share: float = 1.0,
) -> Parts:
    """Build the parts of a trial. Raises DataError, ConfigError, CheckpointError, ClusterError.

    The model's initial weights follow from config.seed alone. device, share: as in `select_device`.
    """
    setup = select_device(config.training.precision, device, share)
    splits = _checked_splits(config, pack)
    supervised = _supervised(config, pack, splits)
    model = _model(config, supervised, folder)
    mean, std = normalisation(model.inference)
    placed: HMTLModel = setup.place(model)  # type: ignore[assignment]
    batches = TrainingBatches(config, pack, splits.train, supervised, workers.rank, workers.count, setup)
    if batches.batch_size < workers.count:
        raise DataError(f"{batches.batch_size} images per step can't be split over {workers.count} workers")
    return Parts(
        config=config,
        pack=pack,
        folder=folder,
        workers=workers,
        setup=setup,
        splits=splits,
        supervised=supervised,
        columns=_columns(supervised),
        weights={name: config.loss.task_weight(name) for name in supervised}
        | {name: options.weight for name, options in config.pretext.items()},
        model=placed,
        pretext=dict(placed.pretext.items()),  # type: ignore[arg-type]
        norm=(mean.to(setup.device), std.to(setup.device)),
        optimizer=build_optimizer(placed, config.training),
        batches=batches,
        plan=tuple(feeds.streams(config, batches.batch_size)),
        rows=torch.arange(workers.rank, batches.batch_size, workers.count),
        val=EvaluationImages(config, pack, splits.val),
    )


def _checked_splits(config: TrialConfig, pack: Pack) -> Splits:
    splits = split(pack, config.data, config.tasks, unlabelled=not config.training.supervised)
    for part, rows in (("train", splits.train), ("val", splits.val)):
        if len(rows) < 2:
            raise DataError(
                f"dataset {pack.manifest.name!r}: {len(rows)} images in {part}; use more data or a larger data.fraction"
            )
    return splits


def _supervised(config: TrialConfig, pack: Pack, splits: Splits) -> dict[str, SupervisedTask]:
    if not config.training.supervised:
        return {}
    supervised = build_tasks(config, pack, splits.train)
    first = supervised[config.tasks[0]]
    if not first.present(first.targets(splits.val)).any():
        raise DataError(
            f"dataset {pack.manifest.name!r}: no image of val has a label for {config.tasks[0]}, which selects "
            "the weights; name another task first"
        )
    return supervised


def _columns(supervised: Mapping[str, SupervisedTask]) -> dict[str, slice]:
    ends = np.cumsum([task.width for task in supervised.values()]).tolist()
    return {name: slice(end - task.width, end) for (name, task), end in zip(supervised.items(), ends, strict=True)}


def _model(config: TrialConfig, supervised: Mapping[str, SupervisedTask], folder: TrialFolder) -> HMTLModel:
    torch.manual_seed(config.seed)
    model = HMTLModel(config, sum(task.width for task in supervised.values()) or 1)
    if not supervised:
        model.inference.head.requires_grad_(False)
    for name, options in config.pretext.items():
        if options.answers == "ignored":  # frozen: DDP would wait for gradients that never come
            model.pretext[name].requires_grad_(False)
    model.load_sources(config, folder.path.parent)
    return model
