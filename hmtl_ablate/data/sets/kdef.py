"""KDEF, the Karolinska Directed Emotional Faces (Lundqvist et al. 1998)."""

from __future__ import annotations

import re
from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    GENDERS,
    Builder,
    Labels,
    LeftOut,
    Source,
    folders_in,
    images_in,
    need_folder,
    wrong_layout,
)
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.data.sets._shared import BASIC, TWO_LETTERS

KDEF_NAME = re.compile(r"[AB]([FM])(\d\d)(AF|AN|DI|HA|NE|SA|SU)(FL|HL|S|HR|FR)\.", re.IGNORECASE)
KDEF_PERSON = re.compile(r"[AB][FM]\d\d", re.IGNORECASE)


def read_kdef(path: Path, _: DataConfig) -> Source:
    """AF01AFS.JPG and so on, in one folder per person and session (AF01/), or all in one folder.

    Frontal views only, 980 in the full set. A person's two sessions are one subject, F01.
    """
    need_folder(path)
    files = _kdef_images(path)
    if KDEF_PERSON.fullmatch(path.absolute().name) or not files:  # one person's folder is not the set
        raise wrong_layout(
            path,
            "KDEF",
            "AF01/AF01AFS.JPG and so on, or all images in one folder",
            lambda p: not KDEF_PERSON.fullmatch(p.name) and bool(_kdef_images(p)),
        )
    build = Builder(path, "images named as AF01AFS.JPG")
    build.add_named(files, KDEF_NAME, "AF01AFS.JPG", _kdef_labels)
    return build.source({"emotion": BASIC, "gender": GENDERS})


def _kdef_images(path: Path) -> list[Path]:
    """The images in the folders of persons, or in `path` itself; none unless one is named as in KDEF."""
    persons = [folder for folder in folders_in(path) if KDEF_PERSON.fullmatch(folder.name)]
    files = [file for folder in persons for file in images_in(folder)] or images_in(path)
    return files if any(KDEF_NAME.match(file.name) for file in files) else []


def _kdef_labels(name: re.Match[str]) -> tuple[Labels, str]:
    sex, person, emotion, view = (part.upper() for part in name.groups())
    if view != "S":
        raise LeftOut("not a frontal view")
    return {"emotion": BASIC.index(TWO_LETTERS[emotion]), "gender": "MF".index(sex)}, sex + person


register_dataset("kdef", read_kdef, page="https://kdef.se/", licence="non-commercial research, no redistribution")
