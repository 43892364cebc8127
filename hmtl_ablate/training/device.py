"""Which device, precision and memory format a trial uses, and why."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from hmtl_ablate import __version__
from hmtl_ablate.config import NUMERICS_VERSION
from hmtl_ablate.errors import ClusterError, ConfigError, Fault
from hmtl_ablate.machine import this_machine
from hmtl_ablate.to_device import to_device
from hmtl_ablate.training.revision import revision

Device = Literal["auto", "cpu", "cuda"]
"""Where a trial trains: cuda is this process's current GPU; auto is that GPU when there is one, else the CPU."""


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
    share: float = 1.0
    """Share of the GPU that the trial may use, above 0, at most 1: others may use the rest."""

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
        rows = to_device(images, self.device).reshape(count, side, -1).float().div_(255).sub_(mean).div_(std)
        return rows.view(count, side, side, 3).permute(0, 3, 1, 2).contiguous(memory_format=memory)


def uses_gpu(device: Device) -> bool:
    """Whether this process trains on a GPU. Raises ClusterError when it should, but PyTorch can use none."""
    found = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not found:
        raise ClusterError(
            f"the trial was given a GPU of {platform.node()}, but PyTorch can use none there: install a PyTorch built "
            "for its driver, or set resources.gpus=0 to train on the CPU"
        )
    return found


def select_device(precision: Literal["auto", "fp32", "bf16"], device: Device = "auto", share: float = 1.0) -> Setup:
    """The setup of this process. share: as in `Setup`. Raises ClusterError, as `uses_gpu` does."""
    if uses_gpu(device):
        # Emulated on GPUs before Ampere, where it is slower than fp32.
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        bf16 = has_bf16 if precision == "auto" else precision == "bf16"
        name = torch.cuda.get_device_name()
        why = (
            f"{name}: {'bf16 autocast' if bf16 else 'fp32'}, "
            f"{'channels-last, for its tensor cores' if bf16 else 'channels-first'}"
        )
        return Setup(
            torch.device("cuda", torch.cuda.current_device()),
            bf16,
            bf16,
            f"{why}, augments on it",
            draws_views=True,
            share=share,
        )
    bf16 = precision == "bf16"
    # Measured on one core (AVX-512, torch 2.15), training, images/s channels-first → channels-last: test_resnet 48 px
    # 462 → 915, EfficientNet-Lite0 48 px 74 → 186, B0 64 px 59 → 91, resnet10t 48 px 107 → 197, ResNet-50 64 px
    # 27 → 32. bf16 wins for ResNets and loses for depthwise nets, so it is opt-in.
    return Setup(
        torch.device("cpu"), bf16, True, f"CPU: {'bf16 autocast, as configured' if bf16 else 'fp32'}, channels-last"
    )


WORKSPACE = ":4096:8"
"""cuBLAS's workspace, CUBLAS_WORKSPACE_CONFIG, with which its results do not vary (24 MiB; docs.pytorch.org,
`torch.use_deterministic_algorithms`)."""


@contextmanager
def torch_state(threads: int, gpu: bool = False, deterministic: bool = True) -> Iterator[None]:
    """Torch's global state of a trial: `threads` CPU threads and, when asked or on a CPU, deterministic algorithms
    alone; restored at the end.

    Restored, also after an exception: the number of threads, deterministic mode with its warn-only flag,
    fill_uninitialized_memory, and cudnn.benchmark. The global random generator is not, nor is CUBLAS_WORKSPACE_CONFIG,
    which a process that trains on a GPU gets. Raises ConfigError when a deterministic trial comes too late for that.
    """
    if gpu:
        _prepare_cublas(deterministic)
    before = torch.get_num_threads()
    mode, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    try:
        torch.set_num_threads(threads)
        # Not without need on a GPU: bilinear `interpolate`, for one, is then composed of many small operations.
        torch.use_deterministic_algorithms(deterministic or not gpu)
        # A debugging aid that deterministic mode enables; it takes 4 % of a small network's step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark


def _prepare_cublas(deterministic: bool) -> None:
    """Set CUBLAS_WORKSPACE_CONFIG, which cuBLAS reads once, when it is first used in a process: so for every trial,
    since a later one of the same process may have to be deterministic."""
    if "CUBLAS_WORKSPACE_CONFIG" not in os.environ:
        if deterministic and torch.cuda.is_initialized():
            raise ConfigError(
                [
                    Fault(
                        ("training", "deterministic"),
                        "this process has used the GPU already, without CUBLAS_WORKSPACE_CONFIG",
                        True,
                        f"set the environment variable CUBLAS_WORKSPACE_CONFIG={WORKSPACE} before Python starts",
                    )
                ]
            )
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACE


@contextmanager
def unused_memory_returned(gpu: bool) -> Iterator[None]:
    """Before and after the block, give the GPU's memory that torch holds but no tensor uses to the other processes on
    it: what a failed trial left, and what this one leaves."""

    def give_back() -> None:
        if gpu:
            gc.collect()  # a model and its optimiser may be in cycles
            torch.cuda.empty_cache()

    give_back()
    try:
        yield
    finally:
        give_back()


NO_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How CUDA's libraries, whose errors are a plain RuntimeError, say that a GPU's memory ran out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that a GPU's memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
    )


RESIDENT = 0.25
"""Largest share of a trial's own part of a GPU's memory that a pack takes."""


def fits(size: int, setup: Setup) -> bool:
    """Whether `size` bytes of a pack may be resident on the trial's GPU.

    It depends on the GPU's total memory and the trial's share of it alone, not on what is free at the moment: with
    that, which of several trials holds its pack would depend on their order.
    """
    if setup.device.type != "cuda":
        return False
    return size <= RESIDENT * setup.share * torch.cuda.get_device_properties(setup.device).total_memory


STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak(gpu: bool) -> None:
    """Begin to measure the peak of memory anew, where the system can do that (proc(5), clear_refs)."""
    with suppress(OSError):
        CLEAR.write_text("5")
    if gpu and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_memory(gpu: bool) -> dict[str, str]:
    """Tags with the peak of this process's memory since `forget_peak`, in MiB: `memory_mib` of resident memory, the
    libraries included, and with a GPU `gpu_memory_mib` of what PyTorch held there. {} where neither is known."""
    found = {}
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                found["memory_mib"] = str(int(line.split()[1]) // 1024)
    if gpu and torch.cuda.is_initialized():
        found["gpu_memory_mib"] = str(torch.cuda.max_memory_reserved() // 2**20)
    return found


def provenance(setup: Setup, threads: int, world_size: int) -> dict[str, str]:
    """Tags of a trial: hardware, precision, host and versions."""
    import timm

    return {
        "device": torch.cuda.get_device_name() if setup.device.type == "cuda" else "cpu",
        "cpu": this_machine().cpu,
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
