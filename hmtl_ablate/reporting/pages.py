"""A page of the documentation, made from a folder of JSON files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def write_page(arguments: Sequence[str], command: str, maker: str, page: Callable[[Path], str]) -> int:
    """Write `page(FOLDER)` to PAGE.md: the whole of a script that is called as `command` FOLDER PAGE.md.

    arguments: of the command line. maker: the command that makes such a JSON file. Returns the exit code: 0, or 2 with
    a message.
    """
    if len(arguments) != 2:
        print(f"usage: {command} FOLDER PAGE.md", file=sys.stderr)
        return 2
    folder, target = map(Path, arguments)
    if not list(folder.glob("*.json")):
        print(f"{folder}: no *.json here; make one with {maker}", file=sys.stderr)
        return 2
    target.write_text(page(folder), encoding="utf-8")
    print(f"written to {target}")
    return 0
