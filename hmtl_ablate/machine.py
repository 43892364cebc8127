"""What this machine is, read without PyTorch: the names under which its speed is stored."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
GPUS = Path("/proc/driver/nvidia/gpus")
"""The NVIDIA driver has a folder of each GPU here, with its name in the file `information`."""


@dataclass(frozen=True)
class Machine:
    """A machine as trials see it."""

    cpu: str
    """Model of the processor and number of cores, e.g. "AMD EPYC, 2 cores"."""
    cores: int
    """Cores that this process may use."""
    gpus: tuple[str, ...]
    """Names of the GPUs, as PyTorch has them."""

    def device(self, gpus: float) -> str:
        """What a trial with this many GPUs trains on: the name of a GPU or, with 0, of the processor."""
        if not gpus:
            return self.cpu
        return self.gpus[0] if self.gpus else "unknown GPU"

    def at_once(self, cpus: float, gpus: float) -> int:
        """Trials of so many cores and GPUs that fit at the same time, 0 where not even one does."""
        room = int(self.cores / cpus + 1e-9)
        return min(room, int(len(self.gpus) / gpus + 1e-9)) if gpus else room


@lru_cache(maxsize=1)
def this_machine() -> Machine:
    """The machine of this process. GPUs that CUDA_VISIBLE_DEVICES hides are not counted."""
    cores = len(os.sched_getaffinity(0))
    return Machine(
        f"{cpu_name()}, {cores} core{'s' * (cores > 1)}", cores, _gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    )


def cpu_name() -> str:
    """Model of the processor, "unknown processor" where nothing says so."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    return " ".join(found[1].split()) if found else platform.processor() or platform.machine() or "unknown processor"


def _gpus(visible: str | None) -> tuple[str, ...]:
    names = []
    for file in sorted(GPUS.glob("*/information")):
        try:
            found = re.search(r"^Model:\s*(.+)$", file.read_text(errors="replace"), re.MULTILINE)
        except OSError:
            found = None
        names.append(found[1].strip() if found else "unknown GPU")
    if visible is None:
        return tuple(names)
    shown = [part for part in visible.split(",") if part.strip() and part.strip() != "-1"]
    return tuple(names[: len(shown)])
