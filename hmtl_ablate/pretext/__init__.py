"""Pretext tasks: each a transform, a head and a loss behind one interface, `PretextTask`."""

from hmtl_ablate.pretext.base import FeatureShape, PretextTask
from hmtl_ablate.pretext.registry import PRETEXT_TASKS, build, register_pretext_task

__all__ = ["PRETEXT_TASKS", "FeatureShape", "PretextTask", "build", "register_pretext_task"]
