"""Copies from the CPU to the device that do not wait for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`. To a GPU it is copied asynchronously, from pinned memory."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
