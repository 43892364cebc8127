"""The workers of one trial, and what they agree on through torch.distributed."""

from __future__ import annotations

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

    def any(self, flag: bool, device: torch.device) -> bool:
        """True on all workers when `flag` is true on at least one."""
        if self.count == 1:
            return flag
        vote = torch.tensor(float(flag), device=device)
        dist.all_reduce(vote, op=dist.ReduceOp.MAX)
        return bool(vote.item())

    def share(self, value: T) -> T:
        """Worker 0's `value`, which can be pickled, on every worker."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0)
        return box[0]

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Give all workers the buffers of worker 0: each has batch statistics of its own, and those of 0 are saved."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)
