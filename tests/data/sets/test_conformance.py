"""Every dataset passes one suite on files written in its layouts, and reports what is wrong with other layouts."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.reading import GENDERS, Labels, Source
from hmtl_ablate.data.registry import DATASETS, read_source
from hmtl_ablate.errors import DataError
from tests.data.conftest import (
    LAYOUTS,
    Write,
    affectnet,
    affectnet_later,
    aflw2000,
    biwi,
    ckplus,
    ckplus_48,
    fer2013,
    ferplus,
    folder,
    jaffe,
    kaggle,
    kdef,
    lp300w,
    manifest,
    rafdb,
    read,
    utkface,
)

PUBLISHED = {
    "ferplus",
    "fer2013",
    "affectnet",
    "rafdb",
    "ckplus",
    "kdef",
    "jaffe",
    "utkface",
    "300wlp",
    "aflw2000",
    "biwi",
}


WITH_PATH = sorted(name for name in DATASETS if DATASETS[name].needs_path)


def test_every_dataset_has_a_layout_and_every_published_set_its_page() -> None:
    assert set(DATASETS) == {layout.name for layout in LAYOUTS.values()}
    assert {name for name, known in DATASETS.items() if known.page.startswith("http") and known.licence} == PUBLISHED


@pytest.mark.parametrize("name", LAYOUTS)
def test_conformance(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    root = tmp_path / "set"
    root.mkdir()
    layout.write(root)
    source, again = (
        read_source(
            DataConfig(name=layout.name, images=64 if layout.name == "rendered" else None),
            root if DATASETS[layout.name].needs_path else None,
        )
        for _ in range(2)
    )
    assert [sample.name for sample in source.samples] == [sample.name for sample in again.samples]
    assert len({sample.name for sample in source.samples}) == len(source.samples)
    assert {sample.split for sample in source.samples} == layout.splits
    assert {bool(sample.subject) for sample in source.samples} == {layout.subjects}
    assert source.dropped == ()
    assert bool(source.layout) == DATASETS[layout.name].needs_path
    assert "\n" not in source.layout
    assert source.classes.get("emotion", ()) == layout.emotions
    assert source.classes.get("gender", GENDERS) == GENDERS
    seen: dict[str, set[object]] = {}
    for sample, twin in zip(source.samples[:32], again.samples[:32], strict=True):
        image, labels = sample.read(48)
        assert image.dtype == np.uint8
        assert image.ndim == 2 or image.shape[2] == 3
        np.testing.assert_array_equal(image, twin.read(48)[0])
        assert labels == twin.read(48)[1]
        for task, label in labels.items():
            if isinstance(label, int):
                assert 0 <= label < len(source.classes[task])
            else:
                width, limit = {"pose": (3, 99), "affect": (2, 1)}[task]
                assert len(label) == width
                assert all(-limit <= number <= limit for number in label)
            seen.setdefault(task, set()).add(label)
        assert all(os.path.exists(file) for file in sample.files)
    assert set(seen) == {*layout.others, *(["emotion"] if layout.emotions else [])}
    assert seen.get("emotion", set()) == set(range(len(layout.emotions)))


@pytest.mark.parametrize("name", WITH_PATH)
def test_wrong_paths(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"needs its path: --data {name}=PATH"):
        read(name, None)
    (tmp_path / "faces").mkdir()
    with pytest.raises(DataError, match=r"no such file or folder; did you mean 'faces'"):
        read(name, tmp_path / "facse")
    with pytest.raises(DataError) as where:
        read(name, tmp_path / "facse")
    assert DATASETS[name].page in str(where.value)  # where to get it
    with pytest.raises(DataError, match="empty"):
        read(name, tmp_path / "faces")
    (tmp_path / "faces.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="unpack"):
        read(name, tmp_path / "faces.zip")
    (tmp_path / "faces" / "notes.txt").write_text("nothing")
    with pytest.raises(DataError):
        read(name, tmp_path / "faces")


@pytest.mark.parametrize("name", WITH_PATH)
def test_no_permission(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)  # chmod does not stop root
    with pytest.raises(DataError, match="no permission to read"):
        read(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "write", "root", "path"),
    [
        ("ferplus", ferplus, "a/b", "a"),
        ("ferplus", ferplus, "a/b", "."),
        ("ferplus", ferplus, "a", "a/FER2013Train"),
        ("ferplus", kaggle, "a/b", "a"),
        ("fer2013", fer2013, "a/b", "a"),
        ("fer2013", LAYOUTS["fer2013, folders"].write, "a/b", "a"),
        ("fer2013", LAYOUTS["fer2013, folders"].write, "a", "a/train"),
        ("affectnet", affectnet, "a/b", "a"),
        ("affectnet", affectnet, "a", "a/Manually_Annotated_Images"),
        ("affectnet", affectnet_later, "a", "a/train_set"),
        ("rafdb", rafdb, "a/b", "a"),
        ("rafdb", rafdb, "a", "a/EmoLabel"),
        ("rafdb", rafdb, "a", "a/Image/aligned"),
        ("ckplus", ckplus, "a/b", "a"),
        ("ckplus", ckplus, "a", "a/cohn-kanade-images"),
        ("ckplus", ckplus, "a", "a/cohn-kanade-images/S005"),
        ("ckplus", ckplus, "a", "a/Emotion"),
        ("ckplus", ckplus_48, "a/b", "a"),
        ("ckplus", ckplus_48, "a", "a/anger"),
        ("kdef", kdef, "a/KDEF", "a"),
        ("kdef", kdef, "a", "a/AF01"),
        ("kdef", LAYOUTS["kdef, flat"].write, "a/b", "a"),
        ("jaffe", jaffe, "a/b", "a"),
        ("utkface", utkface, "a/b", "a"),
        ("300wlp", lp300w, "a/b", "a"),
        ("300wlp", lp300w, "a", "a/AFW"),
        ("aflw2000", aflw2000, "a/b", "a"),
        ("biwi", biwi, "a/b", "a"),
        ("biwi", biwi, "a", "a/01"),
        ("folder", folder, "a/b", "a"),
        ("folder", folder, "a", "a/fear"),
        ("folder", LAYOUTS["folder, splits"].write, "a/b", "a"),
        ("csv", manifest, "a/b", "a"),
        ("csv", manifest, "a", "a/images"),
    ],
)
def test_wrong_level(name: str, write: Write, root: str, path: str, tmp_path: Path) -> None:
    (tmp_path / root).mkdir(parents=True)
    write(tmp_path / root)
    with pytest.raises(DataError) as caught:
        read(name, tmp_path / path)
    says, *source = str(caught.value).splitlines()
    assert says.endswith(f"; did you mean {tmp_path / root}?")
    page = DATASETS[name].page
    assert source == ([f"{name}: {page} ({DATASETS[name].licence})"] if page else [])


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_another_layout_names_what_was_expected_and_found(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"no .+ here: expected .+; found notes\.txt\n" + name):
        read(name, tmp_path)


@pytest.mark.parametrize(
    ("layout", "pattern", "says"),
    [
        ("fer2013, folders", "t*/*", "test: no emotion folders"),
        ("rafdb", "EmoLabel", r"no labels file EmoLabel/list_patition_label\.txt next to Image/"),
        ("rafdb", "Image/aligned", r"unpack Image/aligned\.zip"),
        ("ckplus", "Emotion", r"no Emotion/ next to cohn-kanade-images/; .*Emotion_labels\.zip"),
        ("ckplus", "Emotion/S*", "no emotion file belongs to a sequence"),
        ("ckplus", "cohn-kanade-images", "expected cohn-kanade-images/ and Emotion/"),
        ("300wlp", "*/*.mat", r"none of the 12 images has its \.mat next to it"),
        ("aflw2000", "*.mat", r"none of the 6 images has its \.mat next to it"),
        ("biwi", "*/*_pose.txt", "none of the 6 images has its pose next to it"),
    ],
)
def test_missing_labels_or_images(layout: str, pattern: str, says: str, tmp_path: Path) -> None:
    LAYOUTS[layout].write(tmp_path)
    for path in tmp_path.glob(pattern):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=says):
        read(LAYOUTS[layout].name, tmp_path)


def found(source: Source) -> list[tuple[str, int, str, Labels]]:
    return [(Path(sample.name).stem, sample.split, sample.subject, sample.read(48)[1]) for sample in source.samples]


@pytest.mark.parametrize(
    "layout",
    [
        "folder",
        "fer2013, folders",
        "rafdb",
        "ckplus",
        "ckplus, CK+48",
        "kdef",
        "kdef, flat",
        "jaffe",
        "utkface",
        "300wlp",
        "aflw2000",
        "biwi",
    ],
)
@pytest.mark.parametrize("endings", [(".JPG", ".jpeg", ".png"), (".tif", ".TIFF"), (".bmp",)])
def test_other_file_endings_read_alike(layout: str, endings: tuple[str, ...], tmp_path: Path) -> None:
    name = LAYOUTS[layout].name
    LAYOUTS[layout].write(tmp_path)
    before = found(read(name, tmp_path))
    images = sorted(path for path in tmp_path.rglob("*.*") if path.suffix.lower() in (".jpg", ".png", ".tiff"))
    for number, path in enumerate(images):
        ending = endings[number % len(endings)]
        raw = cv2.imencode(ending.lower(), cv2.imread(str(path)))[1]
        path.unlink()
        path.with_suffix(ending).write_bytes(raw.tobytes())
    after = read(name, tmp_path)
    assert after.dropped == ()
    assert found(after) == before
