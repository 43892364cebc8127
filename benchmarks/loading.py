"""From the disk to augmented batches: our pack and torchvision's ImageFolder, which decodes each JPEG every time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.bench import Record, in_turns, ratio
from hmtl_ablate.config import TrialConfig, parse_config
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.data.reading import EMOTIONS
from hmtl_ablate.data.renderer import render_faces
from hmtl_ablate.data.splits import split
from hmtl_ablate.training.batches import TrainingBatches, stream
from hmtl_ablate.training.supervised import build_tasks

CORES = 2
STORED = 350
"""Pixels: the side of AffectNet's and many other sets' face crops, after alignment."""


def loading(repeats: int, tiny: bool) -> Record:
    """Augmented images a second, weak level, 112 px, two cores."""
    size, count = (48, 96) if tiny else (112, 2000)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_faces(place / "faces", count, STORED)
        settings = parse_config({"data": {"name": "folder", "size": size}, "training": {"batch_size": 64}})
        pack = open_pack(settings.data, place / "faces", place)
        sides = {
            "ours, from a pack": _ours(pack, settings),
            "torchvision ImageFolder": _torchvision(place / "faces", settings),
        }
        found = in_turns(sides, repeats, warm_up=1)
    rows = [ratio(found, "ours, from a pack", "torchvision ImageFolder", "images/s", "≥ 3")]
    return Record(
        "loading",
        f"How fast do augmented images come, {size} px, weak, {CORES} cores?",
        rows,
        [
            f"{count} JPEG faces of {STORED} px, quality 90; torchvision: rotation ±15°, centre crop, flip, "
            f"resize, colour jitter at 0.4, grey at 0.2; both with {CORES} loader processes, their start "
            "counted."
        ],
    )


def write_faces(folder: Path, count: int, side: int) -> None:
    """Rendered faces as JPEGs in one folder an emotion, under train/."""
    images, labels = render_faces(count, 96, seed=0)
    for number, (image, emotion) in enumerate(zip(images, labels["emotion"], strict=True)):
        path = folder / "train" / EMOTIONS[emotion] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path), cv2.cvtColor(large, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])


def _ours(pack: Pack, settings: TrialConfig) -> Callable[[], float]:
    rows = split(pack, settings.data, settings.tasks).train
    batches = TrainingBatches(settings, pack, rows, build_tasks(settings, pack, rows), 0, 1)
    epoch = 0

    def measured() -> float:
        nonlocal epoch
        first, epoch = epoch * batches.steps, epoch + 1
        loader = stream(batches, first, CORES)
        return _rate((next(loader).views for _ in range(batches.steps)), batches.batch_size)

    return measured


def _torchvision(folder: Path, settings: TrialConfig) -> Callable[[], float]:
    size = settings.data.size
    side = round(STORED * 0.84)  # the middle of the range that our weak level crops to
    view = v2.Compose(
        [
            v2.RandomRotation(15),
            v2.CenterCrop(side),
            v2.RandomHorizontalFlip(),
            v2.Resize((size, size)),
            v2.RandomApply([v2.ColorJitter(0.32, 0.32, 0.32, 0.08)], p=0.4),
            v2.RandomGrayscale(0.2),
            v2.PILToTensor(),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(folder / "train"), view),
        batch_size=settings.training.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=CORES,
    )
    return lambda: _rate((images for images, _ in loader), settings.training.batch_size)


def _rate(batches: Iterable[object], size: int) -> float:
    started, count = time.perf_counter(), 0
    for _ in batches:
        count += size
    return count / (time.perf_counter() - started)
