"""Leaves out what says where and by whom a study was run: absolute paths, users' names, this machine's name."""

from __future__ import annotations

import platform
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

PATH = "<path>"
USER = "<user>"
HOST = "<host>"
SHORTEST = 4
"""Characters of a host's name from which on it is looked for in texts: a shorter one would be found inside of words."""
_PART = r"[^\s\"'`,;:()\[\]{}<>|*?/\\]+"
_UNIX = re.compile(rf"(?<![\w/.<>~\\-])/(?!dev/null\b)(?:{_PART}/)+(?:{_PART})?")
_HOME = re.compile(rf"(?<![\w.])/?(?:home|Users)/{_PART}")
_WINDOWS = re.compile(r"\b[A-Za-z]:\\+(?:[^\\\s\"']+\\+)*[^\\\s\"']*")
_TILDE = re.compile(rf"~{_PART}?/{_PART}(?:/{_PART})*")
_ADDRESS = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\b")


def scrubbed(text: str) -> str:
    """The text without absolute paths, those in a home folder, addresses user@host, and this machine's name."""
    for place in dict.fromkeys((str(Path.cwd()), str(Path.home()))):
        if place.count("/") > 1:
            text = text.replace(place, PATH)
    for pattern in (_WINDOWS, _UNIX, _HOME, _TILDE):
        text = pattern.sub(PATH, text)
    text = _ADDRESS.sub(f"{USER}@{HOST}", text)
    for name in _hosts():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", HOST, text)
    return text


def scrubbed_data(value: Any, names: Collection[str] = ()) -> Any:
    """The same for all texts in plain data, keys included. names: texts that stay as they are."""
    if isinstance(value, str):
        return value if value in names else scrubbed(value)
    if isinstance(value, dict):
        return {scrubbed_data(key, names): scrubbed_data(one, names) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(scrubbed_data(one, names) for one in value)
    return value


def _hosts() -> list[str]:
    whole = platform.node()
    return [name for name in (whole, whole.partition(".")[0]) if len(name) >= SHORTEST and name != "localhost"]
