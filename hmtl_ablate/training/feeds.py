"""The model's inputs in a step: whole images, changed ones, or both (option `feed` of a pretext task).

A batch of B images in V views becomes V streams. `shared` changes all rows of the whole views; `mixed` the first
share of them (the batch is shuffled, so these are random images); `siamese` adds a stream for each changed view, which
in pre-training is all there is. Tasks that are joined change the same images in turn, each the output of the one before
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Rows of the global batch that pretext tasks change."""

    tasks: tuple[str, ...]
    """The pretext tasks, in the order in which they change the images."""
    low: int
    """First row."""
    high: int
    """One past the last row."""
    same_draw: bool = False
    """Whether each image has the same draw in all streams with these tasks."""


@dataclass(frozen=True)
class Stream:
    """One view of the global batch, and the changes to it."""

    scale: Range
    """Range of the image's side relative to data.size; drawn anew each step."""
    segments: tuple[Segment, ...]
    """The rows that pretext tasks change."""
    weight: float
    """Weight of the supervised loss on changed rows; whole rows have 1."""


@dataclass(frozen=True)
class HeadQuery:
    """The images that one pretext head predicts for."""

    rows: Tensor
    """Rows of ModelInput.images, int64 [m]."""
    draw: Tensor
    """Random part of each image's change, [m, …]."""
    before: Tensor
    """The images before this task changed them, [m, 3, s, s]."""

    def answered_by(self, draw: Tensor | None, whole: Tensor, first: int) -> HeadQuery:
        """The query with answers that have nothing to do with its images: another draw, and the pixels of other images.

        draw: None where the draw is not what the head predicts; whole: the view that the images are from,
        [b, 3, s, s]; first: row of the first one in it. Each image gets those of the next one, the last those of the
        first, a lone one those of the next whole image; only the image of a share of one keeps its own.
        """
        if len(self.before) == 1:
            start = (first + 1) % len(whole)
            before = whole[start : start + 1]
        else:
            before = torch.cat([self.before[1:], self.before[:1]])
        return HeadQuery(self.rows, self.draw if draw is None else draw, before)


@dataclass(frozen=True)
class ModelInput:
    """Images of one size on one worker, ready for the model."""

    images: Tensor
    """Whole and changed images, [n, 3, s, s]: one stream after another."""
    weights: Tensor
    """Weight of each image in the supervised loss, [n]."""
    views: tuple[int, ...]
    """Number of each stream's view, in the order of the streams in `images`."""
    queries: dict[str, HeadQuery]
    """Pretext task → the images that its head predicts for."""


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
                Stream(scale, (Segment(chain, 0, batch, options.same_draw),), options.supervised_weight)
                for scale in options.changed_views
            ]
    whole = Stream((1.0, 1.0), tuple(segments), weight)
    return [whole] * (config.passes_per_image - len(changed)) + changed


def build_inputs(
    plan: Sequence[Stream],
    tasks: Mapping[str, PretextTask],
    views: Tensor,
    rows: Tensor,
    batch: int,
    generator: Generator,
    redrawn: Mapping[str, Generator] | None = None,
) -> list[ModelInput]:
    """Change the views as planned, and concatenate those of one size for one pass through the backbone.

    views: normalised [V, b, 3, S, S]; rows: int64 [b], ascending: this worker's rows of the global batch of `batch`
    images; redrawn: pretext task with random answers → what they are drawn from, apart from the draws of the changes.
    All random numbers are drawn for the global batch, so they do not depend on how it is split over workers; the other
    images of random answers are from this worker's share.
    """
    by_side: dict[int, list[ModelInput]] = {}
    drawn, others = _Draws(tasks), _Draws(tasks)
    channels_last = views[0].is_contiguous(memory_format=torch.channels_last)
    memory = torch.channels_last if channels_last else torch.contiguous_format
    for number, (stream, whole) in enumerate(zip(plan, views, strict=True)):
        low, high = stream.scale
        if (low, high) != (1.0, 1.0):
            share = low + (high - low) * float(torch.rand((), generator=generator))
            side = round(whole.shape[-1] * share)
            whole = F.interpolate(whole, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
        images, weights, queries = whole, torch.ones(len(rows)), {}
        for segment in stream.segments:
            first, last = torch.searchsorted(rows.contiguous(), torch.tensor([segment.low, segment.high])).tolist()
            weights[first:last] = stream.weight
            index, shown = to_device(torch.arange(first, last), whole.device), whole[first:last]
            mine = rows[first:last] - segment.low
            for name in segment.tasks:
                draw = to_device(drawn(name, segment, generator)[mine], whole.device)
                queries[name] = HeadQuery(index, draw, shown)
                if redrawn and name in redrawn:
                    other = others(name, segment, redrawn[name])[mine] if tasks[name].draw_is_answer else None
                    moved = None if other is None else to_device(other, whole.device)
                    queries[name] = queries[name].answered_by(moved, whole, first)
                if len(shown):  # a task never sees an empty batch; a worker's share may have no changed image
                    shown = tasks[name].change(shown, draw)
            if len(shown) == len(rows):
                images = shown
            else:  # not torch.cat, which loses channels-last when one of its parts is empty
                images = images.clone()
                images[first:last] = shown
        images = images.contiguous(memory_format=memory)  # a change may lose it, which slows convolutions
        by_side.setdefault(images.shape[-1], []).append(
            ModelInput(images, to_device(weights, whole.device), (number,), queries)
        )
    return [_together(items) for items in by_side.values()]


class _Draws:
    """Draws the random part of each task's changes to a segment of the global batch."""

    def __init__(self, tasks: Mapping[str, PretextTask]) -> None:
        self.tasks = tasks
        self.last: dict[str, Tensor] = {}

    def __call__(self, name: str, segment: Segment, generator: Generator) -> Tensor:
        """[high − low, …]; the same in all streams where the segment says so."""
        if name not in self.last or not segment.same_draw:
            self.last[name] = self.tasks[name].draw(segment.high - segment.low, generator)
        return self.last[name]


def _together(items: list[ModelInput]) -> ModelInput:
    """Concatenate streams of one size."""
    if len(items) == 1:
        return items[0]
    queries: dict[str, list[HeadQuery]] = {}
    start = 0
    for item in items:
        for name, one in item.queries.items():
            queries.setdefault(name, []).append(HeadQuery(one.rows + start, one.draw, one.before))
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
            for name, parts in queries.items()
        },
    )


def supervised_total(plan: Sequence[Stream], labelled: NDArray[np.bool_]) -> float:
    """Sum of the supervised weights over the labelled rows of all streams; labelled: bool [B], of the global batch."""
    total = 0.0
    for stream in plan:
        changed = sum(int(labelled[segment.low : segment.high].sum()) for segment in stream.segments)
        total += int(labelled.sum()) - (1 - stream.weight) * changed
    return total


def changed_total(plan: Sequence[Stream]) -> dict[str, int]:
    """Pretext task → number of rows it changes over all streams of the global batch."""
    totals: dict[str, int] = {}
    for stream in plan:
        for segment in stream.segments:
            for task in segment.tasks:
                totals[task] = totals.get(task, 0) + segment.high - segment.low
    return totals
