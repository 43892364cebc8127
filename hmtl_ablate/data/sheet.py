"""A contact sheet: what the faces of a dataset look like as a pack stores them, a few of each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.data.framing import resized
from hmtl_ablate.data.pack import Manifest
from hmtl_ablate.data.reading import SHARES
from hmtl_ablate.errors import DataError
from hmtl_ablate.supervised import SUPERVISED_TASKS

COLUMNS, ROWS = 12, 16
"""Images in a row, and rows of a task at most."""
SIDE, TITLE, LINE = 80, 150, 22
"""Side of an image, width of the titles, and height of a heading, in pixels."""
WIDTH = TITLE + COLUMNS * SIDE

Image = Callable[[int], NDArray[np.uint8]]
"""Position in the pack → stored image, uint8 [S, S, C]."""


def check_target(file: Path) -> None:
    """Raise `DataError` unless a picture can be written to `file`; before a long reading, not after it."""
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise DataError(f"--sheet {file}: a picture ends in .png, .jpg or .webp")
    if not file.parent.is_dir():
        raise DataError(f"--sheet {file}: there is no folder {file.parent}")


def write_sheet(file: Path, manifest: Manifest, labels: Mapping[str, NDArray[Any]], image: Image) -> None:
    """Draw the contact sheet of a pack to `file`; raises `DataError` when it can't be written."""
    ok, data = cv2.imencode(file.suffix.lower(), contact_sheet(manifest, labels, image)[..., ::-1])
    try:
        if not ok:
            raise OSError(f"can't be encoded as {file.suffix}")
        file.write_bytes(data.tobytes())
    except OSError as error:
        raise DataError(f"--sheet {file}: {error.strerror or error}") from error


def contact_sheet(manifest: Manifest, labels: Mapping[str, NDArray[Any]], image: Image) -> NDArray[np.uint8]:
    """RGB, uint8 [H, W, 3]: of each task a row per class, or of a task without classes rows by its first number.

    labels: as `Pack.labels`. A row shows up to `COLUMNS` images, evenly spaced over those of the row.
    """
    parts = [
        _text(f"{manifest.name}: {manifest.count} images, {manifest.stored} px, {manifest.fingerprint}", WIDTH, LINE)
    ]
    for heading, rows in _tasks(manifest, labels):
        parts.append(_text(heading, WIDTH, LINE))
        parts += [_strip(title, positions, image) for title, positions in rows[:ROWS]]
        if len(rows) > ROWS:
            parts.append(_text(f"and {len(rows) - ROWS} more classes", WIDTH, LINE))
    return np.concatenate(parts)


def _strip(title: str, positions: NDArray[np.int64], image: Image) -> NDArray[np.uint8]:
    strip = np.full((SIDE, WIDTH, 3), 255, np.uint8)
    strip[:, :TITLE] = _text(title, TITLE, SIDE)
    for place, position in enumerate(_spaced(positions, COLUMNS).tolist()):
        stored = image(position)
        rgb = stored if stored.shape[2] == 3 else np.repeat(stored, 3, axis=2)
        left = TITLE + place * SIDE
        strip[:, left : left + SIDE] = resized(rgb, SIDE, SIDE)
    return strip


Rows = list[tuple[str, NDArray[np.int64]]]
"""Title and positions in the pack of each row."""


def _tasks(manifest: Manifest, labels: Mapping[str, NDArray[Any]]) -> list[tuple[str, Rows]]:
    """A heading and rows for each task."""
    found = [(task, _by_class(labels[task], names)) for task, names in manifest.classes.items()]
    found += [
        (f"{task}, by {_number_name(task)}", _by_number(values))
        for task, values in labels.items()
        if values.ndim == 2 and not task.endswith(SHARES)
    ]
    whole = np.arange(manifest.count)
    return found or [("without labels", [("", part) for part in np.array_split(whole, 4) if len(part)])]


def _number_name(task: str) -> str:
    names = SUPERVISED_TASKS[task].task.value_names if task in SUPERVISED_TASKS else ()
    return names[0] if names else "its first number"


def _by_class(values: NDArray[np.int64], names: tuple[str, ...]) -> Rows:
    members = [np.flatnonzero(values == number).astype(np.int64) for number in range(len(names))]
    return [(f"{name} {len(rows)}", rows) for name, rows in zip(names, members, strict=True) if len(rows)]


def _by_number(values: NDArray[np.float32]) -> Rows:
    there = np.flatnonzero(~np.isnan(values).any(axis=1)).astype(np.int64)
    ordered = there[np.argsort(values[there, 0], kind="stable")]
    parts = [part for part in np.array_split(ordered, 6) if len(part)]
    return [(f"{values[part[0], 0]:.3g} to {values[part[-1], 0]:.3g}", part) for part in parts]


def _spaced(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    steps = np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(int)
    return positions[steps]


def _text(text: str, width: int, height: int) -> NDArray[np.uint8]:
    canvas = np.full((height, width, 3), 255, np.uint8)
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(canvas, plain, (6, height // 2 + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas
