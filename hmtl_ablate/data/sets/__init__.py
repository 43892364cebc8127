"""The built-in datasets: one module each, which reads the dataset as published and registers it.

To add a dataset, add a module to this folder that ends in a call of `register_dataset`; every module here is imported,
except those whose name starts with an underscore.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

for _name in sorted(module.name for module in iter_modules(__path__)):
    if not _name.startswith("_"):
        import_module(f"{__name__}.{_name}")
