"""What a cluster's nodes get from this machine: this package, and the modules of `--import`, in the versions that this
machine has. The libraries have to be installed there."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hmtl_ablate.errors import ClusterError
from hmtl_ablate.training.revision import SENT, revision

LARGEST = 64 * 2**20
"""Bytes that a module may have: the cluster's head holds them in its memory."""
PACKAGE = __name__.partition(".")[0]


@contextmanager
def shipped(imports: Iterable[str]) -> Iterator[dict[str, Any]]:
    """A runtime environment for `ray.init`, which uploads it within the block.

    Raises ClusterError for a module that is too large.
    """
    names = dict.fromkeys((PACKAGE, *(name.partition(".")[0] for name in imports)))
    with tempfile.TemporaryDirectory(prefix="hmtl-ablate-modules-") as folder:
        copies = [_copy(source, Path(folder)) for name in names for source in _source(name)]
        (Path(folder) / PACKAGE / SENT).write_text(json.dumps(asdict(revision())), encoding="utf-8")
        yield {"py_modules": [str(copy) for copy in copies]}


def _source(name: str) -> list[Path]:
    """Folder or file of a module; [] for one that is compiled: it must be installed on the nodes, like any library."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return [Path(place) for place in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []


def _copy(source: Path, folder: Path) -> Path:
    """Copy a module without what git ignores."""
    copy = folder / source.name
    files = {source: copy} if source.is_file() else {source / name: copy / name for name in tracked(source)}
    size = sum(path.stat().st_size for path in files)
    if size > LARGEST:
        raise ClusterError(
            f"{source}: this module would be sent to the cluster, and has {size / 2**20:.0f} MiB of at most "
            f"{LARGEST // 2**20}; move data out of it, or list it in .gitignore"
        )
    for path, target in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return copy


def tracked(folder: Path) -> list[Path]:
    """Paths, relative to `folder`, of its files that git does not ignore; without git, of all but compiled ones."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "."]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError, UnicodeDecodeError):  # no git, or no repository
        listed = ""
    # A package that is installed in an environment inside a repository is ignored as a whole, and yet meant.
    names = [Path(name) for name in listed.split("\0") if name] or [
        path.relative_to(folder) for path in folder.rglob("*") if "__pycache__" not in path.parts
    ]
    return sorted(name for name in names if (folder / name).is_file())
