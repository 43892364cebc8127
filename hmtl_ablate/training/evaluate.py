"""Evaluation on whole images of a split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Generator, Tensor

from hmtl_ablate.model import HMTLModel, InferenceModel
from hmtl_ablate.pretext import PretextTask
from hmtl_ablate.training import feeds
from hmtl_ablate.training.batches import EvaluationImages
from hmtl_ablate.training.device import Setup

BATCH = 256
PRETEXT_SHARE = 1 / 32
"""Images of val on which the pretext tasks are scored after each epoch, as a share of the epoch's training images: it
costs about one percent of the epoch (a forward pass is a third of a step)."""
PRETEXT_IMAGES = 512
"""Largest number of those images."""


@torch.inference_mode()
def predict(
    model: InferenceModel,
    images: EvaluationImages,
    setup: Setup,
    norm: tuple[Tensor, Tensor],
    rank: int = 0,
    world_size: int = 1,
) -> Tensor:
    """Outputs float32 [N, K] of a split on the CPU. Each worker predicts a part of it; all of them get all outputs."""
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
    chains: Sequence[tuple[str, ...]],
    images: EvaluationImages,
    trained: int,
    setup: Setup,
    norm: tuple[Tensor, Tensor],
    seed: int,
) -> dict[str, float]:
    """Mean score of each pretext task, `task/metric`, on evenly spaced images of a split, with equal draws every time.

    chains: pretext tasks that change the same images in turn; trained: training images per epoch.
    """
    model.eval()
    count = min(max(round(PRETEXT_SHARE * trained), 64), PRETEXT_IMAGES, len(images.indices))
    rows = np.linspace(0, len(images.indices) - 1, count).round().astype(int)
    sums: dict[str, float] = {}
    generator = Generator().manual_seed(seed)
    for start in range(0, len(rows), BATCH):
        whole = setup.images(images.take(rows[start : start + BATCH]), *norm)
        for chain in chains:
            for name, (output, query) in attempts(model, chain, whole, setup, generator)[0].items():
                task: PretextTask = model.pretext[name]  # type: ignore[assignment]
                key = f"{name}/{task.metric}"
                sums[key] = sums.get(key, 0.0) + float(task.score(output, query.before, query.draw).sum())
    return {key: total / len(rows) for key, total in sums.items()}


def attempts(
    model: HMTLModel, chain: tuple[str, ...], whole: Tensor, setup: Setup, generator: Generator
) -> tuple[dict[str, tuple[Tensor, feeds.HeadQuery]], Tensor]:
    """Change whole images [B, 3, S, S] by a chain of pretext tasks and run each head.

    Returns pretext task → its head's output for all images and what they were changed from, and the changed images.
    """
    count = len(whole)
    plan = [feeds.Stream((1.0, 1.0), (feeds.Segment(chain, 0, count),), 1.0)]
    tasks: dict[str, PretextTask] = dict(model.pretext.items())  # type: ignore[arg-type]
    (changed,) = feeds.build_inputs(plan, tasks, whole[None], torch.arange(count), count, generator)
    with setup.autocast():
        maps, pooled = model.inference.features(changed.images)
        outputs = {name: model.pretext[name](maps, pooled) for name in chain}
    return {name: (outputs[name].float(), changed.queries[name]) for name in chain}, changed.images
