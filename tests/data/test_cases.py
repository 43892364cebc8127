"""Data sets as people have them: odd separators, links, names, endings, notes and sizes."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.build import check_data, open_pack
from hmtl_ablate.data.describe import describe
from hmtl_ablate.data.pack import Manifest, load_pack
from hmtl_ablate.data.reading import EMOTIONS
from hmtl_ablate.data.sets._shared import BASIC
from hmtl_ablate.errors import DataError
from tests.data.conftest import affectnet, affectnet_row, mat, picture, save, table


def check(name: str, path: Path) -> Manifest:
    return check_data(DataConfig(name=name, size=32), path, threads=1)


def two_classes(root: Path, each: int = 4) -> Path:
    for c, emotion in enumerate(("happy", "sad")):
        for number in range(each):
            save(root / emotion / f"{number}.png", 100 * c + number)
    return root


# --- layouts and names ------------------------------------------------------------------------------------------------


def test_backslashes_in_affectnets_lists(tmp_path: Path) -> None:
    """Case affectnet_backslashes: a path's separators are read on every system."""
    affectnet(tmp_path)
    for name in ("training.csv", "validation.csv"):
        (tmp_path / name).write_text((tmp_path / name).read_text().replace("/", "\\"))
    assert check("affectnet", tmp_path).splits == {"train": 16, "valid": 8, "test": 0}


def test_backslashes_in_a_table(tmp_path: Path) -> None:
    """Case csv_backslashes; but a file that has such a name is that file."""
    for number in range(4):
        save(tmp_path / "faces" / f"{number}.png", number)
    save(tmp_path / "faces\\4.png", 4)
    rows = [[f"faces\\{number}.png", EMOTIONS[number % 2]] for number in range(5)]
    table(tmp_path / "labels.csv", [["image", "emotion"], *rows])
    found = check("csv", tmp_path)
    assert (found.count, found.dropped) == (5, ())
    assert found.layout == "labels.csv with path in image, emotion; images in the table's folder"


def test_rafdb_in_numbered_folders(tmp_path: Path) -> None:
    """Case rafdb_folders: RAF-DB's own numbers; as a plain folder, a warning that these are no known emotions."""
    for s, split in enumerate(("train", "test")):
        for number in range(1, 8):
            for i in range(2 - s):
                save(tmp_path / split / str(number) / f"{split}_{number}{i}_aligned.jpg", 100 * s + 10 * number + i)
    found = check("rafdb", tmp_path)
    assert found.layout == "train/ and test/ with folders 1 to 7, RAF-DB's numbers of the emotions"
    assert found.histogram["emotion"] == {
        "train": dict.fromkeys(BASIC, 2),
        "valid": dict.fromkeys(BASIC, 0),
        "test": dict.fromkeys(BASIC, 1),
    }
    surprise = tmp_path / "train" / "1"
    (surprise / "train_10_aligned.jpg").unlink()
    assert check("rafdb", tmp_path).histogram["emotion"]["train"]["surprise"] == 1
    assert any(note.startswith("warning: the classes are numbers (1, 2, 3") for note in check("folder", tmp_path).notes)
    assert not any(note.startswith("warning") for note in check("folder", two_classes(tmp_path / "named")).notes)


def test_links(tmp_path: Path) -> None:
    """Case links: a link that leads nowhere or to itself is a faulty file; one that leads up is skipped and named."""
    root = two_classes(tmp_path / "set")
    for name, target in (("lost.png", "/nowhere/lost.png"), ("loop.png", "loop.png"), ("up", "..")):
        os.symlink(target, root / "happy" / name)
    os.symlink("../../elsewhere", root / "sad" / "more")
    save(tmp_path / "elsewhere" / "9.png", 9)
    found = check("folder", root)
    assert found.count == 9  # the link to another folder is followed
    assert {row.file: row.reason for row in found.dropped} == {
        "happy/lost.png": "file is missing",
        "happy/loop.png": "can't be read: Too many levels of symbolic links",
    }
    assert "not followed: happy/up, a link to a folder that it is in" in found.notes


def test_names_that_are_not_utf8_pack_and_read_back(tmp_path: Path) -> None:
    """Fault C16 and the case odd_names: such a pack was "damaged" for ever."""
    root = two_classes(tmp_path / "set")
    one = (root / "happy" / "1.png").read_bytes()
    (root / "happy" / os.fsdecode(b"caf\xe9.png")).write_bytes(one)
    for number, name in enumerate(("naïve 😀.png", "two words, one comma.png", "-dash.png")):
        (root / "happy" / name).write_bytes(cv2.imencode(".png", picture(50 + number))[1].tobytes())
    made = open_pack(DataConfig(name="folder", size=32), root, tmp_path)
    again = load_pack(made.folder)
    assert again.manifest.count == 8 + 3
    assert [(copy.file, copy.of) for copy in again.manifest.duplicates] == [("happy/caf\ufffd.png", "happy/1.png")]


@pytest.mark.parametrize("where", ["class", "table"])
def test_other_names_that_are_not_utf8(where: str, tmp_path: Path) -> None:
    """Fault C16: class folders, and paths in a table."""
    odd = os.fsdecode(b"caf\xe9")
    if where == "class":
        root = two_classes(tmp_path / "set")
        (root / "sad").rename(root / odd)
        made = open_pack(DataConfig(name="folder", size=32), root, tmp_path)
        assert load_pack(made.folder).classes == {"emotion": ("caf\ufffd", "happy")}
    else:
        for number in range(3):
            save(tmp_path / f"{number}.png", number)
        (tmp_path / "2.png").rename(tmp_path / f"{odd}.png")
        (tmp_path / "labels.csv").write_bytes(b"image,gender\n0.png,m\n1.png,f\ncaf\xe9.png,m\n")
        made = open_pack(DataConfig(name="csv", size=32), tmp_path / "labels.csv", tmp_path / "store")
        assert load_pack(made.folder).manifest.count == 3


def test_other_endings_are_read_or_counted(tmp_path: Path) -> None:
    """Case other_endings: .jfif and .jpe are JPEGs; what is not read is shown by ending, not skipped in silence."""
    root = two_classes(tmp_path)
    for number, ending in enumerate((".jfif", ".jpe", ".JPE")):
        (root / "sad" / f"x{number}{ending}").write_bytes(cv2.imencode(".jpg", picture(30 + number))[1].tobytes())
    for number in range(2):
        (root / "sad" / f"{number}.GIF").write_bytes(b"GIF89a")
    (root / "README").write_text("")
    found = check("folder", root)
    assert (found.count, found.unread) == (11, {".gif": 2, "": 1})
    assert "  files not read, by ending: .gif 2, without ending 1" in describe(found).splitlines()


def turned(pixels: np.ndarray) -> bytes:
    """A JPEG with the note that the camera was turned a quarter (orientation 6)."""
    data = cv2.imencode(".jpg", pixels)[1].tobytes()
    tiff = b"MM\x00*\x00\x00\x00\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    app1 = b"Exif\x00\x00" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(app1) + 2) + app1 + data[2:]


def test_orientation_notes(tmp_path: Path) -> None:
    """Case exif: upright where nothing else refers to the pixels, ignored where boxes do."""
    pixels = np.full((64, 64, 3), 200, np.uint8)
    pixels[:, :32] = 0  # the left half as stored is the top once turned
    root = two_classes(tmp_path / "set")
    (root / "happy" / "0.png").unlink()
    (root / "happy" / "0.jpg").write_bytes(turned(pixels))
    made = open_pack(DataConfig(name="folder", size=32), root, tmp_path)
    assert "images are turned upright by their orientation note (EXIF)" in made.manifest.notes
    image = made.images[0].astype(float)
    assert image[:15].max() < 20 < 180 < image[17:].min()
    lists = tmp_path / "affectnet"
    affectnet(lists)
    (lists / "Manually_Annotated_Images" / "0" / "0.jpg").write_bytes(turned(pixels))
    made = open_pack(DataConfig(name="affectnet", size=32, face_crop="none"), lists, tmp_path)
    assert any(note.startswith("orientation notes of images (EXIF) are ignored") for note in made.manifest.notes)
    image = made.images[0].astype(float)
    assert image[:, :15].max() < 20 < 180 < image[:, 17:].min()


# --- one row never ends a check ---------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and holds none."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_images_are_refused_from_their_header(tmp_path: Path) -> None:
    """Fault C12 and the case big_image: 30,000 × 30,000 pixels took 8 GB before they were refused."""
    root = two_classes(tmp_path)
    for name, sides in (("bomb", (30_000, 30_000)), ("long", (1_000_000, 101)), ("edge", (10_001, 10_000))):
        (root / "happy" / f"{name}.png").write_bytes(png_header(*sides))
    found = check("folder", root)
    assert found.count == 8
    assert {row.file: row.reason for row in found.dropped} == {
        f"happy/{name}.png": "more than 100 megapixels" for name in ("bomb", "long", "edge")
    }


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    """Fault C12: a named pipe blocked for ever, /dev/zero filled the memory."""
    root = two_classes(tmp_path)
    os.mkfifo(root / "happy" / "pipe.png")
    os.symlink("/dev/zero", root / "happy" / "zero.png")
    found = check("folder", root)
    assert found.count == 8
    assert {row.file: row.reason for row in found.dropped} == {
        f"happy/{name}.png": "not a regular file" for name in ("pipe", "zero")
    }
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(DataError):
        check("csv", tmp_path / "labels.csv")
    with pytest.raises(DataError):
        check("csv", tmp_path)


def test_rows_that_no_image_can_have(tmp_path: Path) -> None:
    """Fault C12: each of these ended the whole check."""
    affectnet(tmp_path)
    rows = [
        affectnet_row("0/0.jpg", 0, box=(float("nan"), 0, 10, 10)),  # type: ignore[arg-type]
        affectnet_row("0/0.jpg", 0, box=(0, 0, float("inf"), 10)),  # type: ignore[arg-type]
        affectnet_row("0/nul\0.jpg", 0),
        affectnet_row(f"0/{'x' * 5000}.jpg", 0),
        affectnet_row("0/0.jpg", "²"),
    ]
    with (tmp_path / "validation.csv").open("a") as file:
        file.writelines(",".join(map(str, row)) + "\n" for row in rows)
    found = check("affectnet", tmp_path)
    assert found.count == 24
    assert [row.reason for row in found.dropped] == [
        "expression '²' is not 0 to 10",
        "face box (nan, 0.0, 10.0, 10.0) is not four numbers",
        "face box (0.0, 0.0, inf, 10.0) is not four numbers",
        "can't be read: embedded null byte",
        "can't be read: File name too long",
    ]


def test_paths_in_a_table_that_no_file_can_have(tmp_path: Path) -> None:
    """Fault C12."""
    save(tmp_path / "0.png", 0)
    rows = [["0.png", "m"], ["nul\0.png", "f"], [f"{'x' * 5000}.png", "f"], ["..", "f"], ["/dev/zero", "m"]]
    table(tmp_path / "labels.csv", [["image", "gender"], *rows])
    found = check("csv", tmp_path)
    assert found.count == 1
    assert [row.reason for row in found.dropped] == [
        "can't be read: embedded null byte",
        "can't be read: File name too long",
        "not a regular file",
        "not a regular file",
    ]


def test_arrays_that_say_they_are_larger_than_the_memory(tmp_path: Path) -> None:
    """Fault C12: a .npy header of 10¹² numbers, and a .mat that unpacks to far more than its size."""
    from tests.data.conftest import affectnet_later

    affectnet_later(tmp_path / "later")
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**12},), }}".ljust(117).encode() + b"\n"
    (tmp_path / "later" / "train_set" / "annotations" / "0_exp.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head
    )
    found = check("affectnet", tmp_path / "later")
    assert [row.reason for row in found.dropped] == ["annotation 0_exp.npy can't be read"]
    for number in range(3):
        save(tmp_path / "AFW" / f"{number}.jpg", number, 80)
        mat(tmp_path / "AFW" / f"{number}.mat", 0, 0, 0)
    mat(tmp_path / "AFW" / "0.mat", 0, 0, 0, pt2d=np.zeros((2, 6000)))
    assert [row.reason for row in check("300wlp", tmp_path).dropped] == ["0.mat holds more than 10000 numbers"]


def test_files_of_labels_have_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault C12: tables and label files are bounded like images."""
    monkeypatch.setattr("hmtl_ablate.data.reading.TABLE_BYTES", 100)
    save(tmp_path / "0.png", 0)
    table(tmp_path / "labels.csv", [["image", "gender"], *([["0.png", "m"]] * 20)])
    with pytest.raises(DataError, match=r"labels\.csv: 194 bytes, more than 100"):
        check("csv", tmp_path)


def test_a_reader_that_raises_anything_loses_one_row(tmp_path: Path) -> None:
    """Fault C12: one guard, whatever is raised."""
    from hmtl_ablate.data.reading import NO_SPLIT, Sample, Source
    from hmtl_ablate.data.registry import DATASETS, register_dataset

    def read(path: Path, data: DataConfig) -> Source:
        def sample(number: int) -> Sample:
            def pixels(size: int) -> tuple[np.ndarray, dict[str, int]]:
                if number < len(errors):
                    raise errors[number]
                return picture(number, 32), {"gender": number % 2}

            return Sample(str(number), NO_SPLIT, pixels)

        errors = (MemoryError(), KeyError("x"), RecursionError("deep"), cv2.error("bad"))
        return Source([sample(number) for number in range(8)], {"gender": ("male", "female")})

    register_dataset("raising", read, needs_path=False)
    try:
        found = check_data(DataConfig(name="raising", size=32), None)
    finally:
        del DATASETS["raising"]
    assert found.count == 4
    assert [row.reason for row in found.dropped][:3] == [
        "larger than the memory",
        "can't be read: KeyError: 'x'",
        "can't be read: RecursionError: deep",
    ]
