"""Which device, precision and memory format a trial uses, and why."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hmtl_ablate import __version__
from hmtl_ablate.config import NUMERICS_VERSION
from hmtl_ablate.training.revision import revision


@dataclass(frozen=True)
class Setup:
    """Device, precision and memory format of a trial."""

    device: torch.device
    """Device of the model."""
    bf16: bool
    """Autocast to bfloat16."""
    channels_last: bool
    """Memory format of images and weights."""
    reason: str
    """Device, precision and memory format in words, for the log."""
    draws_views: bool = False
    """Augment whole batches on the device rather than single images on the CPU."""

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()

    def place(self, model: nn.Module) -> nn.Module:
        memory = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(device=self.device, memory_format=memory)  # type: ignore[call-overload,no-any-return]

    def images(self, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Normalised images, float [B, 3, S, S] on the device, in the setup's memory format.

        images: uint8 [B, S, S, 3] on the CPU, or float [B, 3, S, S] in 0 … 1 on the device; mean, std: [3, 1, 1] on the
        device.
        """
        memory = torch.channels_last if self.channels_last else torch.contiguous_format
        if images.dtype != torch.uint8:
            return ((images - mean) / std).contiguous(memory_format=memory)
        # Whole rows of pixels in place: on a CPU three times as fast as broadcasting over the three channels.
        count, side = images.shape[:2]
        mean, std = mean.flatten().repeat(side), std.flatten().repeat(side)
        rows = images.to(self.device, non_blocking=True).reshape(count, side, -1).float().div_(255).sub_(mean).div_(std)
        return rows.view(count, side, side, 3).permute(0, 3, 1, 2).contiguous(memory_format=memory)


def select_device(precision: Literal["auto", "fp32", "bf16"]) -> Setup:
    """The setup of this process: its GPU when there is one, else the CPU."""
    if torch.cuda.is_available():
        has_bf16 = torch.cuda.is_bf16_supported()
        bf16 = has_bf16 if precision == "auto" else precision == "bf16"
        name = torch.cuda.get_device_name()
        why = (
            f"{name}: {'bf16 autocast' if bf16 else 'fp32'}, "
            f"{'channels-last, for its tensor cores' if bf16 else 'channels-first'}"
        )
        return Setup(
            torch.device("cuda", torch.cuda.current_device()), bf16, bf16, f"{why}, augments on it", draws_views=True
        )
    bf16 = precision == "bf16"
    # Measured on one core (AVX-512, torch 2.15), training, images/s channels-first → channels-last: test_resnet 48 px
    # 462 → 915, EfficientNet-Lite0 48 px 74 → 186, B0 64 px 59 → 91, resnet10t 48 px 107 → 197, ResNet-50 64 px
    # 27 → 32. bf16 wins for ResNets and loses for depthwise nets, so it is opt-in.
    return Setup(
        torch.device("cpu"), bf16, True, f"CPU: {'bf16 autocast, as configured' if bf16 else 'fp32'}, channels-last"
    )


@contextmanager
def torch_state(threads: int) -> Iterator[None]:
    """Torch's global state of a trial: `threads` CPU threads and deterministic algorithms; restored at the end.

    Restored, also after an exception: the number of threads, deterministic mode with its warn-only flag,
    fill_uninitialized_memory, and cudnn.benchmark. The global random generator is not.
    """
    before = torch.get_num_threads()
    mode, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    try:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # A debugging aid that deterministic mode enables; it takes 4 % of a small network's step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark


RESIDENT = 0.25
"""Largest share of a GPU's free memory that a pack takes: several trials may share one."""


def fits(size: int, device: torch.device) -> bool:
    """Whether `size` bytes of a pack may be resident on the device."""
    return device.type == "cuda" and size <= RESIDENT * torch.cuda.mem_get_info(device)[0]


def provenance(setup: Setup, threads: int, world_size: int) -> dict[str, str]:
    """Tags of a trial: hardware, precision, host and versions."""
    import timm

    return {
        "device": torch.cuda.get_device_name() if setup.device.type == "cuda" else "cpu",
        "precision": "bf16" if setup.bf16 else "fp32",
        "host": platform.node(),
        "threads": str(threads),
        "workers": str(world_size),
        "git_commit": revision().commit,
        "numerics": str(NUMERICS_VERSION),
        "version.hmtl-ablate": __version__,
        "version.torch": torch.__version__,
        "version.timm": timm.__version__,
        "version.python": platform.python_version(),
    }
