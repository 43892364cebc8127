"""From a pack to batches: which images, in which order, augmented how. All of it follows from the seed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.augment import training_view, validation_view
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.training.tasks import SupervisedTask


def seed_of(*numbers: int) -> int:
    """A 32-bit seed from integers; the same on every machine, and unlike for unlike numbers."""
    return zlib.crc32(struct.pack(f"<{len(numbers)}q", *numbers))


@dataclass(frozen=True)
class Batch:
    """One step's images on one worker.

    epoch: from 1; step: from 0 within the epoch; views: uint8 [V, B, S, S, 3]; targets: supervised task → its targets
    of each view, [V, B] or [V, B, 3]; labelled: supervised task → bool [all images of the step, over the workers].
    """

    epoch: int
    step: int
    views: Tensor
    targets: dict[str, Tensor]
    labelled: dict[str, np.ndarray]


class TrainingBatches(Dataset[Batch]):
    """Batch number n of the whole training: epoch n // steps + 1, step n % steps.

    With world_size workers, worker `rank` gets images rank, rank + world_size, … of each batch; an image looks the same
    whichever worker it falls to.
    """

    def __init__(self, config: TrialConfig, pack: Pack, indices: np.ndarray, tasks: Mapping[str, SupervisedTask],
                 rank: int, world_size: int) -> None:
        self.config, self.pack, self.indices, self.tasks = config, pack, indices, tasks
        self.rank, self.world_size = rank, world_size
        self.batch_size = min(config.training.batch_size, len(indices))
        self.steps = len(indices) // self.batch_size
        """Steps an epoch; what is left of a last, smaller batch is another in the next epoch."""
        # The sign of roll differs from dataset to dataset, so with pose no image is turned.
        self.view = training_view(config.data.augment, config.data.stored_size, config.data.size,
                                  pack.images.shape[-1], turn="pose" not in tasks)
        self._order: tuple[int, np.ndarray] = (-1, indices)

    def __getitem__(self, number: int) -> Batch:
        epoch, step = number // self.steps + 1, number % self.steps
        whole = self._ordered(epoch)[step * self.batch_size:(step + 1) * self.batch_size]
        rows = whole[self.rank::self.world_size]
        count, passes = len(rows), self.config.passes_per_image
        views = np.empty((passes, count, self.config.data.size, self.config.data.size, 3), np.uint8)
        flipped = np.zeros((passes, count), np.bool_)
        for v in range(passes):
            for place, i in enumerate(rows):
                views[v, place] = self.view(self.pack.images[i], seed_of(self.config.seed, epoch, int(i), v))
                flipped[v, place] = self.view.flipped
        targets = {name: torch.stack([task.targets(rows)] * passes) for name, task in self.tasks.items()}
        if "pose" in targets:
            mirrored = torch.from_numpy(np.where(flipped, np.float32(-1), np.float32(1)))
            targets["pose"][..., 0] *= mirrored  # yaw
            targets["pose"][..., 2] *= mirrored  # roll
        labelled = {name: task.present(task.targets(whole)).numpy() for name, task in self.tasks.items()}
        return Batch(epoch, step, torch.from_numpy(views), targets, labelled)

    def __len__(self) -> int:
        return self.steps * self.config.training.epochs

    def _ordered(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.indices))
            self._order = (epoch, self.indices[order])
        return self._order[1]


def stream(batches: TrainingBatches, start: int, workers: int, pin: bool) -> Iterator[Batch]:
    """Batches from number `start` to the end of the training, prepared by `workers` processes (0: this one)."""
    loader = DataLoader(batches, batch_size=None, sampler=range(start, len(batches)), num_workers=workers,
                        pin_memory=pin)
    return iter(loader)


class EvaluationImages:
    """Whole images of a split in the validation view, uint8 [n, S, S, 3]. Prepared each time they are asked for: that
    is quick beside a network, and trials that share a pack would each keep a copy."""

    def __init__(self, config: TrialConfig, pack: Pack, indices: np.ndarray) -> None:
        self.pack, self.indices, self._size = pack, indices, config.data.size

    def take(self, rows: np.ndarray) -> Tensor:
        """Images number `rows` of the split."""
        views = [validation_view(self.pack.images[i], self._size) for i in self.indices[rows]]
        return torch.from_numpy(np.stack(views))
