"""Batches of a pack: selection, order and augmentation of images, all determined by the seed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.data.views import validation_view
from hmtl_ablate.supervised import SupervisedTask
from hmtl_ablate.to_device import to_device
from hmtl_ablate.training.device import Setup, fits

Render = Callable[[NDArray[np.int64], int, int], tuple[Tensor, NDArray[np.bool_]]]
"""Images of a whole step (over the workers), epoch, step → this worker's views, and which are mirrored: bool [V, B]."""


def seed_of(*numbers: int) -> int:
    """A 32-bit seed from integers: a checksum of them, the same on every machine."""
    return zlib.crc32(struct.pack(f"<{len(numbers)}q", *numbers))


@dataclass(frozen=True)
class Batch:
    """One step's images on one worker."""

    epoch: int
    """From 1."""
    step: int
    """From 0 within the epoch."""
    views: Tensor
    """uint8 [V, B, S, S, 3] on the CPU, or, augmented on the device, float [V, B, 3, S, S] there, in 0 … 1."""
    targets: dict[str, Tensor]
    """Supervised task → its targets for each view, [V, B] or [V, B, d]."""
    labelled: dict[str, np.ndarray]
    """Supervised task → which images of the global batch have a label, bool [global B]."""


class TrainingBatches(Dataset[Batch]):
    """Batch number n of the whole training: epoch n // steps + 1, step n % steps.

    With world_size workers, worker `rank` gets images rank, rank + world_size, … of each batch; an image looks the same
    whichever worker gets it (except for the noise of views that are augmented on a GPU).
    """

    def __init__(
        self,
        config: TrialConfig,
        pack: Pack,
        indices: np.ndarray,
        tasks: Mapping[str, SupervisedTask],
        rank: int,
        world_size: int,
        setup: Setup | None = None,
    ) -> None:
        self.config, self.indices, self.tasks = config, indices, tasks
        self.rank, self.world_size = rank, world_size
        self.batch_size = min(config.training.batch_size, len(indices))
        self.steps = len(indices) // self.batch_size
        """Steps per epoch; the remainder of each epoch's shuffled images, less than a batch, is dropped."""
        turn = all(task.rotation_safe for task in tasks.values())
        self.render: Render = (
            render_on(setup, config, pack, turn, rank, world_size)
            if setup is not None and setup.draws_views
            else render_by_image(config, pack, turn, rank, world_size)
        )
        self._order: tuple[int, np.ndarray] = (-1, indices)

    def __getitem__(self, number: int) -> Batch:
        epoch, step = number // self.steps + 1, number % self.steps
        whole = self._ordered(epoch)[step * self.batch_size : (step + 1) * self.batch_size]
        rows = whole[self.rank :: self.world_size]
        views, flipped = self.render(whole, epoch, step)
        mirrored = torch.from_numpy(flipped)
        targets = {name: torch.stack([task.training_targets(rows)] * len(views)) for name, task in self.tasks.items()}
        for name, task in self.tasks.items():
            targets[name][mirrored] = task.flip(targets[name][mirrored])
        labelled = {name: task.present(task.targets(whole)).numpy() for name, task in self.tasks.items()}
        return Batch(epoch, step, views, targets, labelled)

    def __len__(self) -> int:
        return self.steps * self.config.training.epochs

    def _ordered(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.indices))
            self._order = (epoch, self.indices[order])
        return self._order[1]


def render_by_image(config: TrialConfig, pack: Pack, turn: bool, rank: int, world_size: int) -> Render:
    """Views augmented on the CPU, each from the seed of its epoch and image."""
    from hmtl_ablate.data.augment import training_view  # a machine that augments on a GPU needs no albumentations

    size, passes = config.data.size, config.passes_per_image
    view = training_view(config.data.augment, config.data.stored_size, size, pack.images.shape[-1], turn=turn)

    def render(whole: NDArray[np.int64], epoch: int, step: int) -> tuple[Tensor, NDArray[np.bool_]]:
        rows = whole[rank::world_size]
        views = np.empty((passes, len(rows), size, size, 3), np.uint8)
        flipped = np.zeros((passes, len(rows)), np.bool_)
        for v, source in enumerate(config.view_sources):
            if source < v:
                views[v], flipped[v] = views[source], flipped[source]
                continue
            for place, i in enumerate(rows):
                views[v, place] = view(pack.images[i], seed_of(config.seed, epoch, int(i), v))
                flipped[v, place] = view.flipped
        return torch.from_numpy(views), flipped

    return render


def render_on(setup: Setup, config: TrialConfig, pack: Pack, turn: bool, rank: int, world_size: int) -> Render:
    """Views augmented on the device, each batch's from the seed of its epoch and step. The pack is resident there if it
    fits."""
    from hmtl_ablate.data.augment_batch import BatchView

    device = setup.device
    view = BatchView(config.data.augment, config.data.stored_size, config.data.size, pack.images.shape[-1], turn=turn)
    pixels = RESIDENT_PACK.of(pack, device) if fits(pack.images.nbytes, setup) else None

    def render(whole: NDArray[np.int64], epoch: int, step: int) -> tuple[Tensor, NDArray[np.bool_]]:
        mine = torch.arange(rank, len(whole), world_size)
        rows = whole[rank::world_size]
        stored = (
            to_device(torch.from_numpy(pack.images[rows]), device)
            if pixels is None
            else pixels.index_select(0, to_device(torch.from_numpy(rows), device))
        )
        views: list[Tensor] = []
        flipped: list[Tensor] = []
        for v, source in enumerate(config.view_sources):
            if source < v:
                views.append(views[source])
                flipped.append(flipped[source])
                continue
            seed = seed_of(config.seed, epoch, step, v)
            draws = view.draw(len(whole), Generator().manual_seed(seed)).of(mine)
            views.append(view(stored, draws, Generator(device).manual_seed(seed + rank)))
            flipped.append(draws.flipped)
        return torch.stack(views), torch.stack(flipped).numpy()

    return render


class ResidentPack:
    """The images of one pack on a GPU, for all trials of this process: one copy at a time, that of the last trial."""

    def __init__(self) -> None:
        self._held: tuple[tuple[str, torch.device], Tensor] | None = None

    def of(self, pack: Pack, device: torch.device) -> Tensor:
        """The pack's images on `device`, uint8 [N, S, S, C]."""
        key = (pack.fingerprint, device)
        if self._held is None or self._held[0] != key:
            self.release()
            self._held = (key, _copied(pack.images, device))
        return self._held[1]

    def release(self) -> None:
        """Hold nothing."""
        self._held = None


RESIDENT_PACK = ResidentPack()
"""The pack of this process."""


def _copied(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """A copy on the device, made in chunks: the whole memory map is never in the CPU's memory."""
    pixels = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), 4096):
        pixels[start : start + 4096] = torch.from_numpy(np.array(images[start : start + 4096]))
    return pixels


def stream(batches: TrainingBatches, start: int, workers: int = 0) -> Iterator[Batch]:
    """Batches from number `start` to the end of the training, prepared by `workers` processes (0: by this one)."""
    return iter(DataLoader(batches, batch_size=None, sampler=range(start, len(batches)), num_workers=workers))


class EvaluationImages:
    """Whole images of a split in the validation view.

    They are prepared at each use: that is fast compared with a network, and trials that share a pack would each hold a
    copy.
    """

    def __init__(self, config: TrialConfig, pack: Pack, indices: np.ndarray) -> None:
        self.pack, self.indices, self._size = pack, indices, config.data.size

    def take(self, rows: np.ndarray) -> Tensor:
        """Images `rows` (int64 [n], positions in the split), uint8 [n, S, S, 3]."""
        views = [validation_view(self.pack.images[i], self._size) for i in self.indices[rows]]
        return torch.from_numpy(np.stack(views))
