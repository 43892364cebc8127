"""What one GPU does: training through the whole loop, what pretext tasks cost there, augmentation, and peak memory.

The pack is on the GPU and views are drawn there, so what is measured is the loop that a trial runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from benchmarks.bench import Record, Row, alone, in_turns, ratio
from benchmarks.training import config, faces, platform_side
from hmtl_ablate.data.augment import training_view
from hmtl_ablate.data.augment_batch import BatchView
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.training.device import Setup, select_device

NET = "efficientnet_b0"
PRETEXT: Mapping[str, Mapping[str, Any]] = {
    "SL": {},
    "puzzling, shared": {"puzzling": {"feed": "shared"}},
    "puzzling, siamese": {"puzzling": {"feed": "siamese"}},
    "in-painting-pl (VGG16), shared": {
        "inpainting": {"feed": "shared", "perceptual": "vgg16", "perceptual_weights": None}
    },
}


def gpu(repeats: int, tiny: bool) -> Record:
    """Images a second over image and batch size, pretext tasks compared with SL, augmentation, peak memory."""
    setup = select_device("auto")
    net, points = ("test_resnet", {32: (16,)}) if tiny else (NET, {64: (512,), 112: (256,)})
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for size, batches in points.items():
            pack = faces(size, 20 * batches[-1] if not tiny else 128, place)
            for batch in batches:
                rows += _speed(setup, pack, net, size, batch, place, repeats)
            rows += _augmentation(setup, pack, batches[0], repeats)
    return Record(
        "gpu",
        f"What does one GPU do ({net}, {setup.reason})?",
        rows,
        ["Whole epochs of 16 steps of the largest batch: augmentation (weak), validation, checkpoint and log counted."],
    )


def _speed(setup: Setup, pack: Pack, net: str, size: int, batch: int, place: Path, repeats: int) -> list[Row]:
    """Each pretext task compared with SL; with the peak of the memory that SL's epochs took."""
    what, training = f"{size} px, batch {batch}", {"batch_size": batch, "precision": "auto"}
    sides: dict[str, Callable[[], float]] = {}
    for number, (task, options) in enumerate(PRETEXT.items()):
        settings = config(net, size, pack.manifest.count, training=training, pretext=options)
        sides[task] = platform_side(pack, settings, place / f"{size}-{batch}-{number}")
    peaks = []
    if setup.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        sides["SL"]()
        peaks = [alone(f"{what}: peak memory, SL", [torch.cuda.max_memory_allocated() / 2**30], "GiB")]
    found = in_turns(sides, repeats, warm_up=1)
    named = {f"{what}: SL + {task}" if task != "SL" else f"{what}: SL": values for task, values in found.items()}
    baseline = f"{what}: SL"
    return [
        alone(baseline, named[baseline], "images/s"),
        *peaks,
        *(ratio(named, task, baseline, "images/s") for task in named if task != baseline),
    ]


def _augmentation(setup: Setup, pack: Pack, batch: int, repeats: int) -> list[Row]:
    """Batches on the device compared with one core of the CPU, image by image."""
    size = pack.manifest.stored
    images, rows = torch.from_numpy(pack.images[:batch].copy()).to(setup.device), []
    for level in ("weak", "strong"):
        view, one = BatchView(level, size, size, 3), training_view(level, size, size, 3)

        def at_once(view: BatchView = view) -> float:
            started = time.perf_counter()
            for number in range(20):
                view(images, view.draw(len(images), Generator().manual_seed(number)))
            if setup.device.type == "cuda":
                torch.cuda.synchronize()
            return 20 * len(images) / (time.perf_counter() - started)

        def by_image(one: Callable[..., Any] = one) -> float:
            started = time.perf_counter()
            for number, image in enumerate(pack.images[:64]):
                one(image, number)
            return 64 / (time.perf_counter() - started)

        what = f"{size} px, augmentation {level}"
        found = in_turns({f"{what}, whole batches": at_once, "image by image, one core": by_image}, repeats, warm_up=1)
        rows.append(ratio(found, f"{what}, whole batches", "image by image, one core", "images/s"))
    return rows
