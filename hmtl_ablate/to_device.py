"""Copies from the CPU to the device that do not wait for it, and constants that are copied once."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`. To a GPU it is copied asynchronously, from pinned memory."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


class Constant:
    """A tensor that does not change, such as class weights, copied to each device at its first use there."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self._copies: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Tensor:
        """The tensor on `device`."""
        if device not in self._copies:
            self._copies[device] = self.values.to(device)
        return self._copies[device]
