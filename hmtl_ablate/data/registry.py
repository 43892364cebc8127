"""The registry of datasets: `register_dataset` adds one, `read_source` reads one from disk.

A dataset is a function that reads one layout on disk into a `Source`, a list of samples that are not decoded yet
(reading.py). The built-in ones are in the sets folder, one file each. A module named by `--import` adds your own:

    def read(path: Path, data: DataConfig) -> Source: ...

    register_dataset("lab", read)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hmtl_ablate.config import READER_OPTIONS, DataConfig
from hmtl_ablate.data.reading import Source, entries
from hmtl_ablate.errors import DataError, nearest, nearest_registered

ARCHIVE_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")

Read = Callable[[Path, DataConfig], Source]
"""Reads the dataset at a path; raises `DataError` when the path has another layout."""


@dataclass(frozen=True)
class Dataset:
    """A registered dataset."""

    name: str
    """Value of `data.name` and of `--data NAME=PATH`."""
    read: Read
    needs_path: bool = True
    """False for a dataset that is generated: `read` then gets an empty path."""
    page: str = ""
    """Where to get it; shown by `data check` and with errors."""
    licence: str = ""
    options: tuple[str, ...] = ()
    """The options of `config.READER_OPTIONS` that `read` heeds; others are refused."""


DATASETS: dict[str, Dataset] = {}
"""Every registered dataset by name."""


def register_dataset(
    name: str,
    read: Read,
    *,
    needs_path: bool = True,
    page: str = "",
    licence: str = "",
    options: tuple[str, ...] = (),
) -> None:
    """Add the dataset `name`, or replace it.

    >>> from hmtl_ablate import register_dataset
    >>> from hmtl_ablate.data.sets.folder import read_folder
    >>> register_dataset("lab", read_folder, licence="internal use")

    Args:
        name: value of `data.name`.
        read: reads the dataset at a path into a `Source`; raises DataError when the path has another layout.
        needs_path: False for a dataset that is generated; `read` then gets an empty path.
        page, licence: shown by `hmtl-ablate data check` and with errors.
        options: those of `config.READER_OPTIONS` that `read` heeds, e.g. ("votes",); others are refused.
    """
    DATASETS[name] = Dataset(name, read, needs_path, page, licence, options)


def check_dataset(data: DataConfig) -> Dataset:
    """The dataset `data.name`; raises `DataError` when there is none, or it does not heed an option of `data`."""
    if data.name not in DATASETS:
        raise DataError(f"there is no dataset {data.name!r}; {nearest_registered(data.name, DATASETS)}")
    dataset = DATASETS[data.name]
    for option in READER_OPTIONS:
        if data.changed(option) and option not in dataset.options:
            heeded = [name for name, known in DATASETS.items() if option in known.options]
            raise DataError(
                f"data.{option}: {getattr(data, option)}: dataset {data.name!r} has no such choice, only "
                f"{', '.join(heeded)}; set it to {DataConfig.model_fields[option].default}"
            )
    return dataset


def check_path(path: Path) -> None:
    """Raise `DataError` unless there is something to read at the path."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder{_existing_part(path)}")
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(f"{path}: this folder is empty")
    if path.suffix.lower() in ARCHIVE_ENDINGS:
        raise DataError(f"{path}: this is an archive; unpack it and give the folder")


def read_source(data: DataConfig, path: Path | None) -> Source:
    """Read dataset `data.name` at `path`; raises `DataError` when the name, an option or the path is wrong."""
    dataset = check_dataset(data)
    if not dataset.needs_path:
        if path is not None:
            raise DataError(f"dataset {data.name!r} takes no path, but was given {path}; write --data {data.name}")
        return dataset.read(Path(), data)
    if path is None:
        raise DataError(f"dataset {data.name!r} needs its path: --data {data.name}=PATH")
    try:
        source = _read(dataset, data, path)
    except PermissionError as error:
        raise DataError(f"{error.filename or path}: no permission to read this") from error
    except OSError as error:
        raise DataError(f"{error.filename or path}: {error.strerror or error}") from error
    if not source.samples:
        first = f", e.g. {source.dropped[0][0]}: {source.dropped[0][1]}" if source.dropped else ""
        raise DataError(
            f"{path}: no usable image as dataset {data.name!r} ({len(source.dropped)} dropped"
            f"{first}; {sum(source.left_out.values())} left out)"
        )
    return source


def _read(dataset: Dataset, data: DataConfig, path: Path) -> Source:
    try:
        check_path(path)
        return dataset.read(path, data)
    except DataError as error:
        if not dataset.page:
            raise
        raise DataError(f"{error}\n{dataset.name}: {dataset.page} ({dataset.licence})") from error


def _existing_part(path: Path) -> str:
    """A hint for a missing path: the sibling with a similar name, or how much of the path exists."""
    there = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if there is None:
        return ""
    missing = path.absolute().relative_to(there).parts[0]
    names = [entry.name for entry in entries(there)]
    hint = nearest(missing, names)
    return f"; {hint} in {there}" if hint.startswith("did you mean") else f"; {there} exists, but has no {missing}"
