"""Whether code waits for a GPU, seen on a CPU: it runs on torch's meta device, whose tensors have no values.

What asks such a tensor for a value (`.item()`, `.tolist()`, `bool(…)`, `.cpu()`, `nonzero`, a mask as an index) raises
an error. A copy from the CPU to it, for which a GPU's program would wait unless the memory is pinned, is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hmtl_ablate.training import batches, feeds, step

META = torch.device("meta")
VALUELESS = (RuntimeError, NotImplementedError)
"""What asking for a value raises."""
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class Copies(TorchDispatchMode):
    """Counts copies from the CPU to the meta device, of tensors and of Python's numbers (`new_tensor`)."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if any(isinstance(one, torch.Tensor) and one.device == META for one in tree_leaves(found)):
            given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
            # A scalar of the CPU is an argument of a kernel, and copied only by what is there to copy.
            copied = any(one.device.type == "cpu" and (one.ndim or func in COPIES) for one in given)
            self.count += copied or func is torch.ops.aten.lift_fresh.default
        return found


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Copies to the device inside the block: by `to_device`, which does not wait, and others, which do."""
    mode, found = Copies(), {"asynchronous": 0, "blocking": 0}

    def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
        found["asynchronous"] += 1
        before = mode.count
        copied = values.to(device)
        mode.count = before
        return copied

    for module in (step, feeds, batches):
        monkeypatch.setattr(module, "to_device", to_device)
    monkeypatch.setattr("hmtl_ablate.training.device.to_device", to_device)
    monkeypatch.setattr("hmtl_ablate.data.augment_batch.to_device", to_device)
    with mode:
        yield found
    found["blocking"] = mode.count
