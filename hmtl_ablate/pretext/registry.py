"""The pretext tasks by name. A module that `--import` names adds its own:

register_pretext_task("colour", ColourOptions, Colour)
"""

from __future__ import annotations

from hmtl_ablate.config import PRETEXT_OPTIONS, PretextOptions
from hmtl_ablate.errors import HmtlError
from hmtl_ablate.pretext.base import FeatureShape, PretextTask
from hmtl_ablate.pretext.inpainting import Inpainting
from hmtl_ablate.pretext.puzzling import Puzzling
from hmtl_ablate.pretext.rotation import Rotation

PRETEXT_TASKS: dict[str, type[PretextTask]] = {"puzzling": Puzzling, "rotation": Rotation, "inpainting": Inpainting}
"""Class of each pretext task; `hmtl_ablate.config.PRETEXT_OPTIONS` has the classes of their options."""


def register_pretext_task(name: str, options: type[PretextOptions], task: type[PretextTask]) -> None:
    """Register a pretext task; study files then name it under `pretext:`.

    >>> from hmtl_ablate import register_pretext_task
    >>> from hmtl_ablate.config import RotationOptions
    >>> from hmtl_ablate.pretext.rotation import Rotation
    >>> register_pretext_task("turning", RotationOptions, Rotation)

    Tasks that change the same images do so in the order of registration, after the built-in ones. Registering the same
    class again is allowed. Raises HmtlError when another task has this name.
    """
    if PRETEXT_TASKS.get(name, task) is not task:
        raise HmtlError(f"pretext task {name!r} is already registered: choose another name")
    PRETEXT_OPTIONS[name] = options
    PRETEXT_TASKS[name] = task


def build(name: str, options: PretextOptions, features: FeatureShape) -> PretextTask:
    """The pretext task `name`; the weights of its head are drawn from torch's global generator."""
    return PRETEXT_TASKS[name](options, features)
