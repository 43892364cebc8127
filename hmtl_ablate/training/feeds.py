"""What a step shows the model: whole images, changed ones, or both (DESIGN: feed).

A batch of B images in V views becomes V streams. `shared` changes all rows of the whole views; `mixed` the first
share of them (the batch is shuffled, so any images); `siamese` adds a stream for each changed view. Tasks that join
one another change the same images in turn, each what the one before it left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from hmtl_ablate.config import Range, TrialConfig
from hmtl_ablate.pretext import PretextTask
from hmtl_ablate.to_device import to_device


@dataclass(frozen=True)
class Segment:
    """Rows low … high − 1 of the global batch that pretext tasks `tasks` change, in this order."""

    tasks: tuple[str, ...]
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
class HeadQuery:
    """What a pretext head is asked about: rows int64 [m] of the images, their draws [m, …], and the images as they were
    before the task changed them, [m, 3, s, s]."""

    rows: Tensor
    draw: Tensor
    before: Tensor


@dataclass(frozen=True)
class ModelInput:
    """Images of one size on one worker, ready for the model.

    images: as shown, [b, 3, s, s]; weights: of the supervised loss, [b]; views: number of the view each stream of
    images shows, in the order in which they stand here; asked: pretext task → what its head is asked.
    """

    images: Tensor
    weights: Tensor
    views: tuple[int, ...]
    asked: dict[str, HeadQuery]


def streams(config: TrialConfig, batch: int) -> list[Stream]:
    """The streams of a global batch of `batch` images; their number is config.passes_per_image."""
    segments, changed, weight, used = [], [], 1.0, 0
    for chain in config.chains:
        options = config.leader(chain[0])
        if options.feed == "shared":
            segments.append(Segment(chain, 0, batch))
        elif options.feed == "mixed":
            count = min(max(1, round(options.share * batch)), batch - used)
            segments.append(Segment(chain, used, used + count))
            used, weight = used + count, options.supervised_weight
        else:
            changed += [
                Stream(scale, (Segment(chain, 0, batch),), options.supervised_weight) for scale in options.changed_views
            ]
    whole = Stream((1.0, 1.0), tuple(segments), weight)
    return [whole] * config.data.views + changed


def build_inputs(
    plan: list[Stream], tasks: Mapping[str, PretextTask], views: Tensor, rows: Tensor, batch: int, generator: Generator
) -> list[ModelInput]:
    """Change the views as planned, and put those of one size together: they go through the backbone together.

    views: normalised [V, b, 3, S, S]; rows: int64 [b], rising: where this worker's images stand in the global batch of
    `batch`. All random numbers are drawn for the global batch, so they do not depend on how it is split.
    """
    by_side: dict[int, list[ModelInput]] = {}
    channels_last = views[0].is_contiguous(memory_format=torch.channels_last)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    for number, (stream, whole) in enumerate(zip(plan, views, strict=True)):
        low, high = stream.scale
        if (low, high) != (1.0, 1.0):
            share = low + (high - low) * float(torch.rand((), generator=generator))
            side = round(whole.shape[-1] * share)
            whole = F.interpolate(whole, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        images, weights, asked = whole, torch.ones(len(rows)), {}
        for segment in stream.segments:
            first, last = torch.searchsorted(rows, torch.tensor([segment.low, segment.high])).tolist()
            weights[first:last] = stream.weight
            index, shown = to_device(torch.arange(first, last), whole.device), whole[first:last]
            for name in segment.tasks:
                draw = tasks[name].draw(segment.high - segment.low, generator)[rows[first:last] - segment.low]
                asked[name] = HeadQuery(index, to_device(draw, whole.device), shown)
                shown = tasks[name].change(shown, asked[name].draw)
            if len(shown) == len(rows):
                images = shown
            else:  # not torch.cat, which forgets channels-last when one of its parts is empty
                images = images.clone()
                images[first:last] = shown
        images = images.contiguous(memory_format=memory)  # a change may forget it, and convolutions would be slower
        by_side.setdefault(images.shape[-1], []).append(
            ModelInput(images, to_device(weights, whole.device), (number,), asked)
        )
    return [_together(items) for items in by_side.values()]


def _together(items: list[ModelInput]) -> ModelInput:
    """Streams of one size as one."""
    if len(items) == 1:
        return items[0]
    asked: dict[str, list[HeadQuery]] = {}
    start = 0
    for item in items:
        for name, one in item.asked.items():
            asked.setdefault(name, []).append(HeadQuery(one.rows + start, one.draw, one.before))
        start += len(item.images)
    return ModelInput(
        torch.cat([item.images for item in items]),
        torch.cat([item.weights for item in items]),
        tuple(view for item in items for view in item.views),
        {
            name: HeadQuery(
                torch.cat([one.rows for one in parts]),
                torch.cat([one.draw for one in parts]),
                torch.cat([one.before for one in parts]),
            )
            for name, parts in asked.items()
        },
    )


def supervised_total(plan: list[Stream], labelled: NDArray[np.bool_]) -> float:
    """Sum of the supervised weights over the labelled rows of all streams; labelled: bool [B], of the global batch."""
    total = 0.0
    for stream in plan:
        changed = sum(int(labelled[segment.low : segment.high].sum()) for segment in stream.segments)
        total += int(labelled.sum()) - (1 - stream.weight) * changed
    return total


def changed_total(plan: list[Stream]) -> dict[str, int]:
    """Pretext task → number of rows it changes over all streams of the global batch."""
    totals: dict[str, int] = {}
    for stream in plan:
        for segment in stream.segments:
            for task in segment.tasks:
                totals[task] = totals.get(task, 0) + segment.high - segment.low
    return totals
