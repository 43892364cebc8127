"""Pretext tasks: each a transform, a head and a loss behind one small interface.

`PRETEXT_TASKS` maps a task's name to its class. A lab adds its own in a module that `--import` names:

    register("colour", ColourOptions, Colour)
"""

from __future__ import annotations

from hmtl_ablate.config import PRETEXT_OPTIONS, PretextOptions
from hmtl_ablate.errors import HmtlError
from hmtl_ablate.pretext.base import FeatureShape, PretextTask
from hmtl_ablate.pretext.inpainting import Inpainting
from hmtl_ablate.pretext.puzzling import Puzzling
from hmtl_ablate.pretext.rotation import Rotation

PRETEXT_TASKS: dict[str, type[PretextTask]] = {"puzzling": Puzzling, "rotation": Rotation, "inpainting": Inpainting}

__all__ = ["PRETEXT_TASKS", "FeatureShape", "PretextTask", "build", "register"]


def register(name: str, options: type[PretextOptions], task: type[PretextTask]) -> None:
    """Make a pretext task known by `name`; raises HmtlError when the name is taken by another task."""
    if PRETEXT_TASKS.get(name, task) is not task:
        raise HmtlError(f"pretext task {name!r} is registered already: choose another name")
    PRETEXT_OPTIONS[name] = options
    PRETEXT_TASKS[name] = task


def build(name: str, options: PretextOptions, features: FeatureShape) -> PretextTask:
    """The head of pretext task `name`, with fresh weights from torch's global generator."""
    return PRETEXT_TASKS[name](options, features)
