"""Which device, precision and memory format a trial uses, and why."""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hmtl_ablate import __version__
from hmtl_ablate.config import NUMERICS_VERSION
from hmtl_ablate.training.folder import commit


@dataclass(frozen=True)
class Setup:
    """device: where the model lives; bf16: autocast to bfloat16; channels_last: memory format; reason: in words;
    draws_views: augment there, whole batches at once, rather than on the CPU image by image."""

    device: torch.device
    bf16: bool
    channels_last: bool
    reason: str
    draws_views: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()

    def place(self, model: nn.Module) -> nn.Module:
        memory = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(device=self.device, memory_format=memory)  # type: ignore[call-overload,no-any-return]

    def images(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """uint8 [B, S, S, 3] on the CPU, or float [B, 3, S, S] from 0 to 1 on the device → normalised float
        [B, 3, S, S] on the device."""
        memory = torch.channels_last if self.channels_last else torch.contiguous_format
        if images.dtype != torch.uint8:
            return ((images - mean) / std).contiguous(memory_format=memory)
        # By whole rows of pixels and in place: three times as fast on a CPU as over the three channels of each.
        count, side = images.shape[:2]
        mean, std = mean.flatten().repeat(side), std.flatten().repeat(side)
        rows = images.to(self.device, non_blocking=True).reshape(count, side, -1).float().div_(255).sub_(mean).div_(std)
        return rows.view(count, side, side, 3).permute(0, 3, 1, 2).contiguous(memory_format=memory)


def select_device(precision: Literal["auto", "fp32", "bf16"]) -> Setup:
    """The setup of this process: a GPU when it sees one."""
    if torch.cuda.is_available():
        has_bf16 = torch.cuda.is_bf16_supported()
        bf16 = has_bf16 if precision == "auto" else precision == "bf16"
        name = torch.cuda.get_device_name()
        why = (
            f"{name}: {'bf16 autocast' if bf16 else 'fp32'}, "
            f"{'channels-last, as its tensor cores want it' if bf16 else 'channels-first'}"
        )
        return Setup(
            torch.device("cuda", torch.cuda.current_device()), bf16, bf16, f"{why}, augments there", draws_views=True
        )
    bf16 = precision == "bf16"
    # Measured on one core (AVX-512, torch 2.15), training, images/s channels-first → channels-last: test_resnet 48 px
    # 462 → 915, EfficientNet-Lite0 48 px 74 → 186, B0 64 px 59 → 91, resnet10t 48 px 107 → 197, ResNet-50 64 px
    # 27 → 32. bf16 wins for ResNets and loses for depthwise nets, so it waits to be asked for.
    return Setup(
        torch.device("cpu"), bf16, True, f"CPU: {'bf16 autocast, as asked' if bf16 else 'fp32'}, channels-last"
    )


RESIDENT = 0.25
"""Largest share of a GPU's free memory that a pack takes: several trials may share one."""


def fits(size: int, device: torch.device) -> bool:
    """May so many bytes stay on the device?"""
    return device.type == "cuda" and size <= RESIDENT * torch.cuda.mem_get_info(device)[0]


def provenance(setup: Setup, threads: int, world_size: int) -> dict[str, str]:
    """Tags that say where and with what a trial ran."""
    import timm

    tags = {
        "device": torch.cuda.get_device_name() if setup.device.type == "cuda" else "cpu",
        "precision": "bf16" if setup.bf16 else "fp32",
        "host": platform.node(),
        "threads": str(threads),
        "workers": str(world_size),
        "git_commit": commit(),
        "numerics": str(NUMERICS_VERSION),
        "version.hmtl-ablate": __version__,
        "version.torch": torch.__version__,
        "version.timm": timm.__version__,
        "version.python": platform.python_version(),
    }
    return tags
