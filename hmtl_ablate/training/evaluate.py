"""Evaluation on whole images of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Generator, Tensor

from hmtl_ablate.model import HMTLModel, InferenceModel
from hmtl_ablate.pretext import PretextTask
from hmtl_ablate.training.batches import EvaluationImages
from hmtl_ablate.training.device import Setup

BATCH = 256
PRETEXT_SHARE, PRETEXT_IMAGES = 1 / 32, 512
"""Images of val on which the pretext tasks are scored after each epoch: a share of the epoch's training images, so that
it costs about one percent of them (a forward pass is a third of a step), and no more than so many."""


@torch.inference_mode()
def predict(
    model: InferenceModel,
    images: EvaluationImages,
    setup: Setup,
    norm: tuple[Tensor, Tensor],
    rank: int = 0,
    world_size: int = 1,
) -> Tensor:
    """Outputs float32 [N, K] of a split on the CPU; several workers predict a part each, and all get the whole."""
    model.eval()
    count = len(images.indices)
    mine = np.arange(rank, count, world_size)
    parts = []
    for start in range(0, len(mine), BATCH):
        batch = setup.images(images.take(mine[start : start + BATCH]), *norm)
        with setup.autocast():
            parts.append(model(batch).float().cpu())
    outputs = torch.cat(parts) if parts else torch.empty(0, model.head.out_features)
    if world_size == 1:
        return outputs
    gathered: list[Tensor] = [torch.empty(0)] * world_size
    dist.all_gather_object(gathered, outputs)
    whole = torch.empty(count, model.head.out_features)
    for part, chunk in enumerate(gathered):
        whole[part::world_size] = chunk
    return whole


@torch.inference_mode()
def score_pretext(
    model: HMTLModel,
    chains: Sequence[Sequence[str]],
    images: EvaluationImages,
    trained: int,
    setup: Setup,
    norm: tuple[Tensor, Tensor],
    seed: int,
) -> dict[str, float]:
    """Mean score of each pretext task on images spread over a split, with the same draws at every call.

    trained: images an epoch trains on.
    """
    model.eval()
    count = min(max(round(PRETEXT_SHARE * trained), 64), PRETEXT_IMAGES, len(images.indices))
    rows = np.linspace(0, len(images.indices) - 1, count).round().astype(int)
    sums: dict[str, float] = {}
    generator = Generator().manual_seed(seed)
    for start in range(0, len(rows), BATCH):
        whole = setup.images(images.take(rows[start : start + BATCH]), *norm)
        for chain in chains:
            for name, attempt in attempts(model, chain, whole, setup, generator)[0].items():
                task: PretextTask = model.pretext[name]  # type: ignore[assignment]
                key = f"{name}/{task.metric}"
                sums[key] = sums.get(key, 0.0) + float(task.score(attempt.output, attempt.before, attempt.draw).sum())
    return {key: total / len(rows) for key, total in sums.items()}


@dataclass(frozen=True)
class Attempt:
    """A pretext head's output for freshly changed images, what was drawn, and the images before this task's change."""

    output: Tensor
    draw: Tensor
    before: Tensor


def attempts(
    model: HMTLModel, chain: Sequence[str], whole: Tensor, setup: Setup, generator: Generator
) -> tuple[dict[str, Attempt], Tensor]:
    """Change whole images [B, 3, S, S] by a chain of pretext tasks and ask each head; also the changed images."""
    images = whole
    changed: dict[str, tuple[Tensor, Tensor]] = {}
    for name in chain:
        task: PretextTask = model.pretext[name]  # type: ignore[assignment]
        draw = task.draw(len(whole), generator).to(whole.device)
        changed[name] = draw, images
        images = task.change(images, draw)
    with setup.autocast():
        maps, pooled = model.inference.features(images)
        outputs = {name: model.pretext[name](maps, pooled) for name in chain}
    return {name: Attempt(outputs[name].float(), *changed[name]) for name in chain}, images
