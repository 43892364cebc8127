"""The workers of one trial, and what they agree on through torch.distributed.

A decision that leads to a collective operation (a checkpoint, a stop, the end of an epoch) is the same on all workers,
or some of them wait for the others for ever. So nothing that a worker sees alone decides it: its clock, its files, its
share of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """This process's place among the workers of a trial. With one worker every operation is local."""

    rank: int = 0
    """Number of this worker, from 0; worker 0 alone writes files."""
    count: int = 1
    """Number of workers (the world size)."""

    @property
    def writes(self) -> bool:
        """Whether this worker writes the trial's folder."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over the workers, of the same shape."""
        if self.count > 1:
            value = value.clone()
            dist.all_reduce(value)
            value = value / self.count
        return value

    def vote(self, device: torch.device, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is true on at least one worker. With several workers it waits for the device."""
        if self.count == 1:
            return flags
        votes = torch.tensor(flags, dtype=torch.float32, device=device)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return tuple(vote > 0 for vote in votes.tolist())

    def agree(self, device: torch.device, numbers: Sequence[float]) -> bool:
        """Whether all workers have these numbers; the answer is the same on all."""
        if self.count == 1:
            return True
        ends = torch.tensor([*numbers, *(-number for number in numbers)], dtype=torch.float64, device=device)
        dist.all_reduce(ends, op=dist.ReduceOp.MAX)  # the highest, and minus the lowest
        high, low = ends.view(2, -1).tolist()
        return all(a == -b for a, b in zip(high, low, strict=True))

    def share(self, value: T) -> T:
        """Worker 0's `value`, which can be pickled, on every worker."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0)
        return box[0]

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give all workers the buffers of worker 0, before they are used: each has running statistics of its own share
        of the batches, and those of 0 are saved."""
        if self.count > 1:
            sent = [dist.broadcast(buffer, 0, async_op=True) for buffer in model.buffers()]
            for one in sent:
                if one is not None:  # this process is of the group, so it never is
                    one.wait()
