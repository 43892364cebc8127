"""Temporary folders of a run, and what drivers that were killed have left of theirs."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

PREFIX = "hmtl-ablate-run-"
OWNER = "owner.lock"
"""A file that the owning process has locked: the lock ends with the process, however that ends."""


_locks: dict[str, IO[str]] = {}


def own_folder() -> str:
    """A new temporary folder of this process, until `drop`. Those whose owners are dead are removed first."""
    sweep()
    folder = tempfile.mkdtemp(prefix=PREFIX)
    # Locked under another name, so that no sweep finds an owner's file without its lock.
    new = Path(folder) / f"{OWNER}.new"
    _locks[folder] = new.open("w")
    fcntl.flock(_locks[folder], fcntl.LOCK_EX)
    new.rename(Path(folder) / OWNER)
    return folder


def drop(folder: str) -> None:
    """Remove a folder that `own_folder` made."""
    shutil.rmtree(folder, ignore_errors=True)
    _locks.pop(folder).close()


def sweep() -> None:
    """Remove the folders that `own_folder` made for processes of this user that are dead."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        with suppress(OSError):  # another process's sweep, or another user's folder
            if owner.parent.lstat().st_uid != os.getuid() or owner.parent.is_symlink():
                continue
            with owner.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(owner.parent, ignore_errors=True)
