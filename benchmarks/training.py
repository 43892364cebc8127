"""Images per second of our training against a bare PyTorch loop, and of each pretext task against our SL.

One round is an epoch of every side: its training, its validation, the checkpoint and the log.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2

from benchmarks.bench import Record, Row, Turns, in_turns, ratio, threads
from hmtl_ablate.config import TrialConfig, parse_config
from hmtl_ablate.data.augment import training_view
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.data.splits import split
from hmtl_ablate.data.views import validation_view
from hmtl_ablate.training.device import select_device
from hmtl_ablate.training.loop import train

IMAGES = {"efficientnet_b0": 800, "resnet50": 1000, "test_resnet": 6000}
"""Faces of a benchmark's pack, 80 % of which train: 5 to 25 s an epoch on one core."""
ENDLESS = 1000
"""Epochs of a side; it is let go on for as many as are measured."""


def faces(size: int, images: int, store: Path) -> Pack:
    """A pack of rendered faces: what is in the pictures takes no time."""
    return open_pack(config("test_resnet", size, images).data, None, store)


def config(backbone: str, size: int, images: int, **changes: Any) -> TrialConfig:
    """SL as the recipe has it, with AdamW, so that a bare loop needs no wrapper of its own."""
    training = {
        "optimizer": "adamw",
        "lookahead": False,
        "lr": 1e-3,
        "batch_size": 64,
        "epochs": ENDLESS,
        "precision": "fp32",
    }
    return parse_config(
        {
            "data": {"images": images, "size": size},
            "model": {"backbone": backbone},
            "training": training | changes.pop("training", {}),
            **changes,
        }
    )


def platform_side(pack: Pack, settings: TrialConfig, folder: Path) -> Callable[[], float]:
    """Our training, an epoch at each call; gives images (not passes) a second, all of the epoch's work counted."""
    images = len(split(pack, settings.data, settings.tasks).train) // settings.training.batch_size
    images *= settings.training.batch_size

    def run(pause: Callable[[], None]) -> None:
        def on_epoch(metrics: dict[str, float]) -> bool:
            pause()
            return False

        train(settings, pack, folder, evaluate_test=False, threads=torch.get_num_threads(), on_epoch=on_epoch)

    turns = Turns(run)
    return lambda: images / turns.advance()


def bare_side(pack: Pack, settings: TrialConfig, folder: Path, *, channels_last: bool) -> Callable[[], float]:
    """What a researcher writes by hand for the same trial: model, optimiser, schedule, augmentation, validation and
    checkpoint alike; the pack in memory."""
    data, training = settings.data, settings.training
    rows = split(pack, data, settings.tasks)
    pixels, labels = np.array(pack.images), pack.labels["emotion"]
    memory = torch.channels_last if channels_last else torch.contiguous_format
    torch.manual_seed(settings.seed)
    model = timm.create_model(settings.model.backbone, num_classes=8, drop_rate=settings.model.dropout)
    device = select_device("auto").device
    model = model.to(device, memory_format=memory)
    mean, std = (torch.tensor(model.pretrained_cfg[key], device=device).view(3, 1, 1) for key in ("mean", "std"))
    optimizer = create_optimizer_v2(model, opt=training.optimizer, lr=training.lr, weight_decay=training.weight_decay)
    view = training_view(data.augment, data.stored_size, data.size, pixels.shape[-1])
    rng = np.random.default_rng(settings.seed)
    steps, size, count = len(rows.train) // training.batch_size, training.batch_size, 0

    def scaled(images: list[np.ndarray]) -> torch.Tensor:
        batch = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float() / 255
        return ((batch - mean) / std).contiguous(memory_format=memory)

    def epoch() -> float:
        nonlocal count
        started = time.perf_counter()
        model.train()
        order, total = rng.permutation(rows.train), 0.0
        for step in range(steps):
            count += 1
            for group in optimizer.param_groups:
                group["lr"] = training.lr * 0.5 * (1 + math.cos(math.pi * count / (steps * training.epochs)))
            chosen = order[step * size : (step + 1) * size]
            images = scaled([view(pixels[i], int(rng.integers(2**32))) for i in chosen])
            loss = F.cross_entropy(model(images), torch.from_numpy(labels[chosen]).to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip or 0.0)
            optimizer.step()
            total += loss.item()
        model.eval()
        correct = 0
        with torch.inference_mode():
            for start in range(0, len(rows.val), 256):
                chosen = rows.val[start : start + 256]
                predicted = model(scaled([validation_view(pixels[i], data.size) for i in chosen])).argmax(dim=1).cpu()
                correct += int((predicted == torch.from_numpy(labels[chosen])).sum())
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "bare.pt")
        print(f"{total / steps:.3f} {correct / len(rows.val):.3f}", file=(folder / "bare.log").open("a"))
        return steps * size / (time.perf_counter() - started)

    return epoch


def training(repeats: int, tiny: bool) -> Record:
    """Our training against a bare loop, end to end."""
    nets = {"test_resnet": 48} if tiny else {"efficientnet_b0": 64, "resnet50": 64, "test_resnet": 48}
    rows: list[Row] = []
    with threads(1), tempfile.TemporaryDirectory() as name:
        for net, size in nets.items():
            images = 128 if tiny else IMAGES[net]
            place = Path(name)
            pack, plain = faces(size, images, place), config(net, size, images)
            sides = {
                "ours, fp32": platform_side(pack, plain, place / f"{net}-fp32"),
                "ours, bf16": platform_side(
                    pack, config(net, size, images, training={"precision": "bf16"}), place / f"{net}-bf16"
                ),
                "bare, alike": bare_side(pack, plain, place, channels_last=True),
                "bare, eager": bare_side(pack, plain, place, channels_last=False),
            }
            found = in_turns(sides, repeats, warm_up=1)
            best = max(("ours, fp32", "ours, bf16"), key=lambda side: sorted(found[side])[repeats // 2])
            what = f"{net}, {size} px"
            rows += [
                _named(
                    ratio(found, "ours, fp32", "bare, alike", "images/s", "≥ 0.97"),
                    f"{what}: SL, fp32",
                    "bare loop, fp32, channels-last",
                ),
                _named(
                    ratio(found, best, "bare, eager", "images/s", "≥ 1.0"),
                    f"{what}: SL, best choice ({best.removeprefix('ours, ')}, channels-last)",
                    "bare loop, fp32, channels-first",
                ),
                _named(ratio(found, "ours, bf16", "ours, fp32", "images/s"), f"{what}: SL, bf16", "SL, fp32"),
            ]
    return Record(
        "training",
        "What does the platform's loop cost over one written by hand?",
        rows,
        ["One core. An epoch with its loading, augmentation (weak), validation, checkpoint and log."],
    )


def pretext(repeats: int, tiny: bool) -> Record:
    """What each pretext task costs compared with SL."""
    # As many images an epoch as the scoring on val is meant for: at least 2,048 train.
    nets = {"test_resnet": (48, 128)} if tiny else {"efficientnet_b0": (64, 2560), "test_resnet": (48, 6000)}
    every: Mapping[str, tuple[Mapping[str, Any], str]] = {
        "puzzling, shared": ({"puzzling": {"feed": "shared"}}, "≥ 0.97"),
        "puzzling, mixed": ({"puzzling": {"feed": "mixed"}}, "≥ 0.97"),
        "in-painting (pixels), shared": ({"inpainting": {"feed": "shared"}}, "≥ 0.80"),
        "rotation, shared": ({"rotation": {"feed": "shared"}}, ""),
        "puzzling, siamese": ({"puzzling": {"feed": "siamese"}}, ""),
        "in-painting-pl (Lite0), shared": (
            {"inpainting": {"feed": "shared", "perceptual": "tf_efficientnet_lite0", "perceptual_weights": "package"}},
            "",
        ),
    }
    rows: list[Row] = []
    with threads(1), tempfile.TemporaryDirectory() as name:
        for net, (size, images) in nets.items():
            place = Path(name)
            pack = faces(size, images, place)
            tasks = {task: choice for task, choice in every.items() if choice[1] or net == "test_resnet"}
            sides = {"SL": platform_side(pack, config(net, size, images), place / f"{net}-SL")}
            sides |= {
                task: platform_side(
                    pack, config(net, size, images, pretext=options), place / f"{net}-{task[:9]}-{number}"
                )
                for number, (task, (options, _)) in enumerate(tasks.items())
            }
            found = in_turns(sides, repeats, warm_up=1)
            rows += [
                _named(ratio(found, task, "SL", "images/s", goal), f"{net}, {size} px: SL + {task}", "SL")
                for task, (_, goal) in tasks.items()
            ]
    return Record(
        "pretext",
        "What does a pretext task cost compared with SL?",
        rows,
        [
            "One core, fp32. Images, not passes: a siamese feed trains on each image twice. The epochs hold "
            "the scoring of the pretext task on val, as every epoch of a trial does."
        ],
    )


def _named(row: Row, what: str, against: str) -> Row:
    return replace(row, what=what, against=against)
