"""Supervised tasks: each a target, a loss and metrics behind one small interface.

Every module of this package but base and registry is a task and registers itself. A lab adds its own in a module that
`--import` names. How to write one: base.py.
"""

from __future__ import annotations

import importlib
import pkgutil

from hmtl_ablate.supervised.base import Labels, Metric, SupervisedTask, TaskOptions
from hmtl_ablate.supervised.registry import SUPERVISED_TASKS, RegisteredTask, register_supervised_task

__all__ = [
    "SUPERVISED_TASKS",
    "Labels",
    "Metric",
    "RegisteredTask",
    "SupervisedTask",
    "TaskOptions",
    "register_supervised_task",
]

_FIRST = ("classification", "pose")
"""Registered first, so that the first metric of all, which tables fall back on, is accuracy; the others by name."""


def _register_all() -> None:
    """Import every task of this package."""
    found = {module.name for module in pkgutil.iter_modules(__path__)} - {"base", "registry"}
    for name in (*_FIRST, *sorted(found - {*_FIRST})):
        importlib.import_module(f"{__name__}.{name}")


_register_all()
