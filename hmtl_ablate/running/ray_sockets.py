"""The folder of Ray's sockets, whose paths the system limits to 107 bytes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hmtl_ablate.errors import ClusterError

LONGEST = 107 - len("/ray/session_2026-11-25_12-00-00_000000_4194304/sockets/plasma_store_1")
"""Bytes of the longest temporary folder in which Ray's sockets can be made."""
SHORT = ("/tmp", "/var/tmp", "/dev/shm")


def place_sockets() -> None:
    """Have a Ray that this process starts use a short folder, RAY_TMPDIR, where TMPDIR is too long for its sockets.

    Raises ClusterError when RAY_TMPDIR is too long itself, or no short folder can be written.
    """
    own = os.environ.get("RAY_TMPDIR")
    if own is None and _fits(os.environ.get("TMPDIR", "/tmp")):
        return
    if own is None:
        own = next((folder for folder in SHORT if _writable(folder)), None)
    if own is None or not _fits(own):
        named = "TMPDIR" if own is None else "RAY_TMPDIR"
        raise ClusterError(
            f"{named} is too long for Ray's sockets ({own or os.environ['TMPDIR']}); "
            f"set RAY_TMPDIR to a folder of at most {LONGEST} characters, or use --engine local"
        )
    os.environ["RAY_TMPDIR"] = own


def _fits(folder: str) -> bool:
    return len(os.fsencode(folder)) <= LONGEST


def _writable(folder: str) -> bool:
    try:
        Path(folder, "ray").mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=Path(folder, "ray")):
            return True
    except OSError:
        return False
