"""Dataset formats: each reads one layout on disk into a `Source`, a list of samples that are not decoded yet.

`register` adds a format; a module named by `--import` does it for a lab's own faces. The readers that come along are in
emotion_sets, pose_sets, gender_sets and generic_sets; what they share is in reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data import emotion_sets, gender_sets, generic_sets, pose_sets
from hmtl_ablate.data.emotion_sets import FERPLUS_VOTES
from hmtl_ablate.data.reading import (
    EMOTIONS,
    GENDERS,
    NO_SPLIT,
    SPLITS,
    TEST,
    TRAIN,
    VALID,
    Builder,
    Labels,
    LeftOut,
    Sample,
    SampleError,
    Source,
    crop,
    decode,
    entries,
    read_file,
)
from hmtl_ablate.errors import DataError, nearest

__all__ = [
    "EMOTIONS",
    "FERPLUS_VOTES",
    "FORMATS",
    "GENDERS",
    "NO_SPLIT",
    "SPLITS",
    "TEST",
    "TRAIN",
    "VALID",
    "Builder",
    "Format",
    "Labels",
    "LeftOut",
    "Sample",
    "SampleError",
    "Source",
    "crop",
    "decode",
    "read_file",
    "read_source",
    "register",
]


@dataclass(frozen=True)
class Format:
    """A dataset format: its reader, whether it reads from a path, where the set is, and what its users agree to."""

    name: str
    read: Callable[[Path, DataConfig], Source]
    needs_path: bool = True
    page: str = ""
    licence: str = ""


FORMATS: dict[str, Format] = {}


def register(
    name: str, read: Callable[[Path, DataConfig], Source], *, needs_path: bool = True, page: str = "", licence: str = ""
) -> None:
    """Add a dataset format (or replace one); without `needs_path` the reader gets an empty path."""
    FORMATS[name] = Format(name, read, needs_path, page, licence)


def read_source(data: DataConfig, path: Path | None) -> Source:
    """Read dataset `data.name` at `path`; raises `DataError` saying what is wrong with the name or the path."""
    if data.name not in FORMATS:
        raise DataError(f"there is no dataset {data.name!r}; {nearest(data.name, FORMATS)} (--import adds your own)")
    known = FORMATS[data.name]
    if not known.needs_path:
        if path is not None:
            raise DataError(f"dataset {data.name!r} takes no path, but was given {path}; write --data {data.name}")
        return known.read(Path(), data)
    if path is None:
        raise DataError(f"dataset {data.name!r} needs its path: --data {data.name}=PATH")
    try:
        if not path.exists():
            raise DataError(f"{path}: there is no such file or folder{_existing_part(path)}")
        if path.is_dir() and not any(path.iterdir()):
            raise DataError(f"{path}: this folder is empty")
        if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
            raise DataError(f"{path}: this is an archive; unpack it and give the folder")
        try:
            source = known.read(path, data)
        except DataError as error:
            if not known.page:
                raise
            raise DataError(f"{error}\n{known.name}: {known.page} ({known.licence})") from error
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


def _existing_part(path: Path) -> str:
    """A hint for a missing path: the sibling with a similar name, or how much of the path exists."""
    there = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if there is None:
        return ""
    missing = path.absolute().relative_to(there).parts[0]
    names = [entry.name for entry in entries(there)]
    hint = nearest(missing, names)
    return f"; {hint} in {there}" if hint.startswith("did you mean") else f"; {there} is there, {missing} in it is not"


register("rendered", generic_sets.read_rendered, needs_path=False)
register("folder", generic_sets.read_folder)
register("csv", generic_sets.read_csv)
register("images", generic_sets.read_images)
register(
    "ferplus",
    emotion_sets.read_ferplus,
    page="https://github.com/microsoft/FERPlus",
    licence="labels: MIT; images: the terms of Kaggle's FER2013",
)
register(
    "fer2013",
    emotion_sets.read_fer2013,
    page="https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
    licence="the competition's rules",
)
register(
    "affectnet",
    emotion_sets.read_affectnet,
    page="http://mohammadmahoor.com/affectnet/",
    licence="research only, signed agreement",
)
register(
    "rafdb",
    emotion_sets.read_rafdb,
    page="http://www.whdeng.cn/RAF/model1.html",
    licence="non-commercial research, password by e-mail",
)
register(
    "ckplus",
    emotion_sets.read_ckplus,
    page="https://www.jeffcohn.net/Resources/",
    licence="non-commercial research, signed agreement",
)
register("kdef", emotion_sets.read_kdef, page="https://kdef.se/", licence="non-commercial research, no redistribution")
register(
    "jaffe",
    emotion_sets.read_jaffe,
    page="https://zenodo.org/records/3451524",
    licence="non-commercial research, access on request",
)
register(
    "utkface", gender_sets.read_utkface, page="https://susanqq.github.io/UTKFace/", licence="non-commercial research"
)
register(
    "300wlp",
    pose_sets.read_300wlp,
    page="http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm",
    licence="research only",
)
register(
    "aflw2000",
    pose_sets.read_aflw2000,
    page="http://www.cbsr.ia.ac.cn/users/xiangyuzhu/projects/3DDFA/main.htm",
    licence="research only",
)
register("biwi", pose_sets.read_biwi, page="https://icu.ee.ethz.ch/research/datsets.html", licence="non-commercial use")
