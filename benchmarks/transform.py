"""The puzzling transform alone, compared with the training step it is part of and with a per-image NumPy version."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from benchmarks.bench import Record, in_turns, ratio, threads
from hmtl_ablate.config import PuzzlingOptions, parse_config
from hmtl_ablate.model import HMTLModel
from hmtl_ablate.pretext import FeatureShape
from hmtl_ablate.pretext.puzzling import Puzzling
from hmtl_ablate.training.device import select_device
from hmtl_ablate.training.optim import build_optimizer


def transform(repeats: int, tiny: bool) -> Record:
    """Shuffling tiles, as a share of a training step."""
    side, count = (64, 16) if tiny else (224, 128)
    setup = select_device("auto")
    gpu = setup.device.type == "cuda"
    with threads(1):
        settings = parse_config(
            {
                "data": {"size": side},
                "model": {"backbone": "efficientnet_b0"},
                "training": {"optimizer": "adamw", "lookahead": False},
            }
        )
        model = setup.place(HMTLModel(settings, 8)).train()
        optimizer = build_optimizer(model, settings.training)
        whole = torch.randn(count, 3, side, side)
        zero, one = torch.zeros(3, 1, 1, device=setup.device), torch.ones(3, 1, 1, device=setup.device)
        images = setup.images((whole.permute(0, 2, 3, 1) * 64 + 128).clamp(0, 255).byte(), zero, one)
        targets = torch.randint(8, (count,)).to(setup.device)
        task = Puzzling(PuzzlingOptions(grid=3), FeatureShape(side, 8, 2, 2, 8))
        generator = Generator().manual_seed(0)
        pixels = whole.permute(0, 2, 3, 1).contiguous().numpy()

        def step() -> None:
            with setup.autocast():
                outputs = model([(images, {})])[0][0]
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(outputs.float(), targets).backward()
            optimizer.step()

        def puzzle() -> Tensor:
            return task.change(images, task.draw(count, generator).to(setup.device, non_blocking=True))

        rng = np.random.default_rng(0)
        sides = {
            "our transform": _seconds(puzzle, gpu, 20),
            "SL step": _seconds(step, gpu, 1),
            "NumPy, image by image": _seconds(lambda: [_split_shuffle_join(face, 3, rng) for face in pixels], gpu, 3),
        }
        found = in_turns(sides, repeats, warm_up=1)
    what = f"{side} px, batch {count}, EfficientNet-B0, {setup.reason.partition(':')[0]}"
    rows = [
        ratio(found, "our transform", "SL step", "s", "" if gpu else "≤ 0.01"),
        ratio(found, "NumPy, image by image", "our transform", "s", "≥ 20" if gpu else ""),
    ]
    return Record("transform", f"What does cutting and shuffling tiles cost ({what})?", rows)


def _seconds(run: Callable[[], object], gpu: bool, times: int) -> Callable[[], float]:
    def measured() -> float:
        started = time.perf_counter()
        for _ in range(times):
            run()
        if gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / times

    return measured


def _split_shuffle_join(image: np.ndarray, grid: int, rng: np.random.Generator) -> np.ndarray:
    """The usual way: lists of tiles, shuffled, and put together row by row."""
    tile = image.shape[0] // grid
    tiles = [image[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile] for y in range(grid) for x in range(grid)]
    order = rng.permutation(len(tiles))
    return np.vstack([np.hstack([tiles[order[y * grid + x]] for x in range(grid)]) for y in range(grid)])
