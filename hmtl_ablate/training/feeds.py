"""What a step shows the model: whole images, changed ones, or both (DESIGN: feed).

A batch of B images in V views becomes V streams. `shared` changes all rows of the whole views; `mixed` the first
share of them (the batch is shuffled, so any images); `siamese` adds a stream for each changed view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from hmtl_ablate.config import Range, TrialConfig
from hmtl_ablate.pretext import PretextTask


@dataclass(frozen=True)
class Segment:
    """Rows low … high − 1 of the global batch that pretext task `task` changes."""

    task: str
    low: int
    high: int


@dataclass(frozen=True)
class Stream:
    """One view of the global batch: the range of its side relative to data.size, and what is changed in it.

    weight: of the supervised loss on changed rows; whole rows have 1.
    """

    scale: Range
    segments: tuple[Segment, ...]
    weight: float


@dataclass(frozen=True)
class Given:
    """One stream on one worker, ready for the model.

    images: as shown, [b, 3, s, s]; whole: the same before the change; weights: of the supervised loss, [b];
    tasks: name → (rows int64 [m], draw [m, …]).
    """

    images: Tensor
    whole: Tensor
    weights: Tensor
    tasks: dict[str, tuple[Tensor, Tensor]]


def streams(config: TrialConfig, batch: int) -> list[Stream]:
    """The streams of a global batch of `batch` images; their number is config.passes_per_image."""
    segments, weight, used = [], 1.0, 0
    for name, options in config.pretext.items():
        if options.feed == "shared":
            segments.append(Segment(name, 0, batch))
        elif options.feed == "mixed":
            count = min(max(1, round(options.share * batch)), batch - used)
            segments.append(Segment(name, used, used + count))
            used, weight = used + count, options.supervised_weight
    whole = Stream((1.0, 1.0), tuple(segments), weight)
    changed = [Stream(scale, (Segment(name, 0, batch),), options.supervised_weight)
               for name, options in config.pretext.items() if options.feed == "siamese"
               for scale in options.changed_views]
    return [whole] * config.data.views + changed


def give(plan: list[Stream], tasks: Mapping[str, PretextTask], views: Tensor, rows: Tensor, batch: int,
         generator: Generator) -> list[Given]:
    """Change the views as planned.

    views: normalised [V, b, 3, S, S]; rows: int64 [b], where this worker's images stand in the global batch of `batch`.
    All random numbers are drawn for the global batch, so they do not depend on how it is split.
    """
    given = []
    for stream, whole in zip(plan, views, strict=True):
        low, high = stream.scale
        if (low, high) != (1.0, 1.0):
            share = low + (high - low) * float(torch.rand((), generator=generator))
            side = round(whole.shape[-1] * share)
            whole = F.interpolate(whole, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        images, weights, placed = whole, torch.ones(len(rows)), {}
        for segment in stream.segments:
            task = tasks[segment.task]
            draw = task.draw(segment.high - segment.low, generator)
            mine = ((rows >= segment.low) & (rows < segment.high)).nonzero().flatten()
            draw = draw[rows[mine] - segment.low].to(whole.device)
            weights[mine] = stream.weight
            index = mine.to(whole.device)
            if len(mine) == len(rows):
                images = task.change(whole, draw)
            else:
                images = images.clone()
                images[index] = task.change(whole[index], draw)
            placed[segment.task] = (index, draw)
        given.append(Given(images, whole, weights.to(whole.device), placed))
    return given


def supervised_total(plan: list[Stream], batch: int) -> float:
    """Sum of the supervised weights over all rows of all streams of the global batch."""
    return sum(batch - sum((1 - stream.weight) * (s.high - s.low) for s in stream.segments) for stream in plan)


def changed_total(plan: list[Stream]) -> dict[str, int]:
    """Pretext task → number of rows it changes over all streams of the global batch."""
    totals: dict[str, int] = {}
    for stream in plan:
        for segment in stream.segments:
            totals[segment.task] = totals.get(segment.task, 0) + segment.high - segment.low
    return totals
