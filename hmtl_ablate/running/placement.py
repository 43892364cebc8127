"""Where a study's trials train, in words."""

from __future__ import annotations

from hmtl_ablate.study import Resources


def placement_in_words(resources: Resources) -> str:
    """One line for the start of a run. It only counts GPUs: a driver that asks one for its name opens a CUDA context,
    and holds hundreds of MiB of it for as long as it runs."""
    import torch

    each = f"{resources.cpus:g} CPU" + (f" and {resources.gpus:g} GPU" if resources.gpus else "")
    workers = f"{resources.workers} workers with {each} each" if resources.workers > 1 else each
    found = 0 if resources.gpus else torch.cuda.device_count()
    unused = f"; the GPU{'s' * (found > 1)} of this machine: unused (resources.gpus: 0)" if found else ""
    return f"each trial: {workers}{unused}"
