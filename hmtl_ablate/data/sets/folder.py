"""A folder of images with one sub-folder per class."""

from __future__ import annotations

from pathlib import Path

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import (
    FOLDER_SPLITS,
    IMAGE_ENDINGS,
    NO_SPLIT,
    TRAIN,
    Builder,
    Source,
    class_order,
    entries,
    folders_in,
    images_below,
    images_in,
    need_folder,
    printable,
    suggest_level,
    whole,
)
from hmtl_ablate.data.registry import register_dataset
from hmtl_ablate.errors import DataError


def read_folder(path: Path, _: DataConfig) -> Source:
    """One sub-folder per class, optionally inside train/, valid/ (or val/) and test/."""
    need_folder(path)
    folders = folders_in(path)
    tops: list[tuple[Path, int]] = [(path, NO_SPLIT)]
    named = [(folder, FOLDER_SPLITS[folder.name.lower()]) for folder in folders if folder.name.lower() in FOLDER_SPLITS]
    if named and len(named) == len(folders):
        tops = named
        if len({split for _, split in named}) < len(named):
            raise DataError(f"{path}: two folders for one split: {', '.join(folder.name for folder, _ in named)}")
        if not any(split == TRAIN for _, split in named):
            raise DataError(
                f"{path}: has {', '.join(folder.name for folder, _ in named)} but no train folder"
                + suggest_level(path, _holds_classes)
            )
    elif named:
        odd = [folder.name for folder in folders if folder.name.lower() not in FOLDER_SPLITS]
        raise DataError(
            f"{path}: {named[0][0].name}/ is a split but {odd[0]}/ is not; use one sub-folder per class, or "
            "one per split with the classes inside"
        )
    found: list[tuple[Path, int, str]] = []
    for top, split in tops:
        for folder in folders_in(top):
            found += [(file, split, printable(folder.name)) for file in images_below(folder)]
    names = sorted({name for _, _, name in found})
    if len(names) < 2 or (len(tops) == 1 and not _holds_classes(path)):
        what = (
            "images but no class folders"
            if images_in(path)
            else (f"one class folder only, {names[0]}" if names else "no class folders with images")
        )
        raise DataError(
            f"{path}: holds {what}; a folder dataset has one sub-folder per class" + suggest_level(path, _holds_classes)
        )
    classes, index = class_order(names)
    form = "one folder per split, with one per class inside" if len(tops) > 1 or tops[0][0] != path else "one per class"
    build = Builder(path, f"folders: {form}")
    if all(whole(name) is not None for name in names):
        build.notes.append(f"warning: the classes are numbers ({', '.join(names[:8])}), no known emotions")
    for file, split, name in found:
        build.add(build.shown(file), split, file, {"emotion": index[name]})
    return build.source({"emotion": classes})


def _holds_classes(path: Path) -> bool:
    """Whether at least two sub-folders of `path` (or of its train folder) hold images."""
    folders = folders_in(path)
    if any(folder.name.lower() in FOLDER_SPLITS for folder in folders):
        folders = [
            inner
            for folder in folders
            if FOLDER_SPLITS.get(folder.name.lower()) == TRAIN
            for inner in folders_in(folder)
        ]
    with_images = 0
    for folder in folders[:50]:
        with_images += any(entry.name.lower().endswith(IMAGE_ENDINGS) for entry in entries(folder))
        if with_images >= 2:
            return True
    return False


register_dataset("folder", read_folder)
