"""Which code trained a trial: the commit of this package's own checkout, and what was changed since."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

DIRTY = "+dirty"
SENT = "sent_revision.json"
"""A file in a copy of the package that was sent to another machine, where no repository has it: the revision."""
LONGEST = 2**20
"""Characters of a diff that are kept."""


@dataclass(frozen=True)
class Revision:
    """State of a package's checkout."""

    commit: str = ""
    """With `+dirty` when the package differs from it; "" for an installed package, which no repository tracks."""
    diff: str = ""
    """What differs, new files included, as git shows it; at most LONGEST characters."""


@lru_cache
def revision(package: Path = Path(__file__).parents[1]) -> Revision:
    """The revision of the package, as it was when this process first asked.

    A repository that only contains the package, such as that of the project whose environment it is installed into,
    does not count, not even where that environment is committed: the package's own `__init__.py` has to be tracked, in
    a folder at the top of the repository. The working folder plays no part. A copy that was sent to this machine has
    the revision of where it came from.
    """
    if (package / SENT).is_file():
        return Revision(**json.loads((package / SENT).read_text(encoding="utf-8")))
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return Revision()
    if (_git(package, "rev-parse", "--show-prefix") or "").strip() != f"{package.name}/":
        return Revision()
    commit = (_git(package, "rev-parse", "HEAD") or "").strip()
    diff = _git(package, "diff", "--no-ext-diff", "--no-color", "HEAD", "--", ".") or ""
    for name in (_git(package, "ls-files", "--others", "--exclude-standard", "-z") or "").split("\0"):
        if name:  # its exit code is 1: the two differ
            diff += _git(package, "diff", "--no-index", "--", os.devnull, name, fine=(0, 1)) or ""
    return Revision(commit + DIRTY if commit and diff else commit, diff[:LONGEST])


def _git(folder: Path, *words: str, fine: tuple[int, ...] = (0,)) -> str | None:
    """What git prints, or None when it is not there, too slow, or fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "-c", "core.quotePath=false", *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode in fine else None
