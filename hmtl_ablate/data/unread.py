"""What a reader did not read in the dataset's folder, so that nothing is skipped in silence."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hmtl_ablate.data.reading import entries, is_folder, leads_up, printable

MAX_FILES = 2_000_000
"""Files that are looked at."""


@dataclass(frozen=True)
class Unread:
    """Files in a folder, and below it, that were not read."""

    endings: dict[str, int]
    """Ending in lower case, "" for none → files, the most frequent first."""
    notes: tuple[str, ...]
    """Links that were not followed, one line each."""


def unread(root: Path, read: Iterable[str]) -> Unread:
    """The files in and below `root` that are not among the paths `read`, without hidden ones."""
    known = {os.path.abspath(path) for path in read}
    endings: Counter[str] = Counter()
    notes: list[str] = []
    folders, count = [os.path.abspath(root)], 0
    while folders and count < MAX_FILES:
        folder = folders.pop()
        for entry in entries(Path(folder)):
            count += 1
            if not is_folder(entry):
                if entry.path not in known:
                    endings[printable(os.path.splitext(entry.name)[1].lower())] += 1
            elif leads_up(Path(entry.path)):
                shown = printable(os.path.relpath(entry.path, os.path.abspath(root)))
                notes.append(f"not followed: {shown}, a link to a folder that it is in")
            else:
                folders.append(entry.path)
    if folders:
        notes.append(f"only the first {MAX_FILES:,} files were compared with those that were read")
    return Unread(dict(sorted(endings.items(), key=lambda item: (-item[1], item[0]))), tuple(sorted(notes)))
