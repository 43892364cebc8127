"""Evaluation on whole images of a split."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist
from torch import Generator, Tensor

from hmtl_ablate.model import HMTLModel, InferenceModel
from hmtl_ablate.pretext import PretextTask
from hmtl_ablate.training.batches import EvaluationImages
from hmtl_ablate.training.device import Setup

BATCH = 256
PRETEXT_IMAGES = 512
"""Images of val on which the pretext tasks are scored after each epoch: the cost of a small part of validation."""


@torch.inference_mode()
def predict(model: InferenceModel, images: EvaluationImages, setup: Setup, norm: tuple[Tensor, Tensor],
            rank: int = 0, world_size: int = 1) -> Tensor:
    """Logits float32 [N, K] of a split on the CPU; with several workers each predicts a part, and all get the whole."""
    model.eval()
    count = len(images.indices)
    mine = np.arange(rank, count, world_size)
    parts = []
    for start in range(0, len(mine), BATCH):
        batch = setup.images(images.take(mine[start:start + BATCH]), *norm)
        with setup.autocast():
            parts.append(model(batch).float().cpu())
    logits = torch.cat(parts) if parts else torch.empty(0, model.head.out_features)
    if world_size == 1:
        return logits
    gathered: list[Tensor] = [torch.empty(0)] * world_size
    dist.all_gather_object(gathered, logits)
    whole = torch.empty(count, model.head.out_features)
    for part, chunk in enumerate(gathered):
        whole[part::world_size] = chunk
    return whole


@torch.inference_mode()
def score_pretext(model: HMTLModel, images: EvaluationImages, setup: Setup, norm: tuple[Tensor, Tensor],
                  seed: int) -> dict[str, float]:
    """Mean score of each pretext task on images spread over a split, with the same draws at every call."""
    model.eval()
    rows = np.linspace(0, len(images.indices) - 1, min(PRETEXT_IMAGES, len(images.indices))).round().astype(int)
    tasks: Mapping[str, PretextTask] = dict(model.pretext.items())  # type: ignore[arg-type]
    sums = dict.fromkeys(tasks, 0.0)
    generator = Generator().manual_seed(seed)
    for start in range(0, len(rows), BATCH):
        whole = setup.images(images.take(rows[start:start + BATCH]), *norm)
        for name, task in tasks.items():
            output, draw = attempt(model, task, whole, setup, generator)
            sums[name] += float(task.score(output, whole, draw).sum())
    return {f"{name}/{tasks[name].metric}": total / len(rows) for name, total in sums.items()}


def attempt(model: HMTLModel, task: PretextTask, whole: Tensor, setup: Setup, generator: Generator
            ) -> tuple[Tensor, Tensor]:
    """A pretext head's output for freshly changed images, and the draw that changed them."""
    draw = task.draw(len(whole), generator).to(whole.device)
    with setup.autocast():
        output = task(*model.inference.features(task.change(whole, draw)))
    return output.float(), draw
