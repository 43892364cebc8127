"""Packs: built once, whole or not at all, with everything that was dropped listed."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hmtl_ablate.config import DataConfig, TrialConfig, trial_id
from hmtl_ablate.data import build
from hmtl_ablate.data.build import check_data, open_pack, refuse_unusable
from hmtl_ablate.data.pack import PACK_FORMAT, load_pack
from hmtl_ablate.data.reading import EMOTIONS
from hmtl_ablate.errors import DataError, StoreError

FOLDER = DataConfig(name="folder", size=32)
CSV = DataConfig(name="csv", size=32)


def picture(seed: int, side: int = 40, grey: bool = False) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8) if grey else (8, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def faces(root: Path, each: int = 3, grey: bool = False, splits: tuple[str, ...] = ("train", "valid", "test")) -> Path:
    for s, split in enumerate(splits):
        for c, emotion in enumerate(EMOTIONS):
            (root / split / emotion).mkdir(parents=True)
            for i in range(each):
                cv2.imwrite(str(root / split / emotion / f"{i}.png"), picture(1000 * s + 100 * c + i, grey=grey))
    return root


def files(store: Path) -> list[str]:
    return sorted(p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file() and p.suffix != ".lock")


# --- content ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grey", [False, True])
def test_a_pack_holds_what_the_files_hold(grey: bool, tmp_path: Path) -> None:
    root = faces(tmp_path / "set", grey=grey)
    made = open_pack(FOLDER, root, tmp_path / "store")
    channels = 1 if grey else 3
    assert made.images.shape == (72, 32, 32, channels)
    assert isinstance(made.images, np.memmap)
    assert not made.images.flags.writeable
    assert made.manifest.splits == {"train": 24, "valid": 24, "test": 24}
    assert made.manifest.histogram["emotion"]["valid"] == dict.fromkeys(EMOTIONS, 3)
    assert (made.manifest.stored, made.manifest.channels, made.manifest.count) == (32, channels, 72)
    assert made.classes == {"emotion": EMOTIONS}
    assert np.bincount(made.split).tolist() == [24, 24, 24]
    assert made.labels["emotion"].dtype == np.int64
    at = np.flatnonzero((made.split == 1) & (made.labels["emotion"] == EMOTIONS.index("fear")))[2]
    expected = cv2.resize(picture(1000 + 400 + 2), (32, 32), interpolation=cv2.INTER_AREA)[..., ::-1]
    if not grey:
        np.testing.assert_array_equal(made.images[at], expected)
    again = load_pack(made.folder)
    np.testing.assert_array_equal(again.images, made.images)
    assert again.fingerprint == made.fingerprint


def test_pose_gender_and_missing_labels(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["path", "gender", "yaw", "pitch", "roll"],
        ["0.png", "f", 10, -5, 2.5],
        ["1.png", "", 1, 2, 3],
        ["2.png", "male", "", "", ""],
    ]
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), picture(i))
    with (tmp_path / "faces.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    made = open_pack(CSV, tmp_path, tmp_path / "store")
    assert made.labels["gender"].tolist() == [1, -1, 0]
    np.testing.assert_array_equal(made.labels["pose"], np.array([[10, -5, 2.5], [1, 2, 3], [np.nan] * 3], np.float32))
    assert made.split.tolist() == [-1, -1, -1]
    assert made.manifest.splits == {"all": 3}
    assert made.classes == {"gender": ("male", "female")}


def test_rendered_is_a_dataset_that_is_the_same_twice(tmp_path: Path) -> None:
    data = DataConfig(name="rendered", images=200, size=32)
    one, two = (open_pack(data, None, tmp_path / name) for name in "ab")
    other = open_pack(DataConfig(name="rendered", images=200, size=32, seed=1), None, tmp_path / "a")
    assert one.fingerprint == two.fingerprint != other.fingerprint
    assert one.folder.name == two.folder.name != other.folder.name
    assert one.manifest.splits == {"train": 160, "valid": 20, "test": 20}
    assert set(one.labels) == {"emotion", "gender", "pose", "affect"}
    assert set(np.unique(one.labels["emotion"])) == set(range(8))


def test_the_fingerprint_follows_content_alone(tmp_path: Path) -> None:
    root = faces(tmp_path / "set")
    first = open_pack(FOLDER, root, tmp_path / "store")
    for file in root.rglob("*.png"):
        os.utime(file, (1, 1))
    touched = open_pack(FOLDER, root, tmp_path / "store")
    assert touched.folder != first.folder
    assert touched.fingerprint == first.fingerprint
    cv2.imwrite(str(root / "train" / "fear" / "0.png"), picture(5000))
    assert open_pack(FOLDER, root, tmp_path / "store").fingerprint != first.fingerprint


def test_duplicates_across_splits_are_dropped_from_train_and_listed(tmp_path: Path) -> None:
    root = faces(tmp_path / "set")
    shutil.copy(root / "test" / "fear" / "0.png", root / "train" / "fear" / "copy.png")
    shutil.copy(root / "test" / "anger" / "0.png", root / "valid" / "anger" / "copy.png")
    near = cv2.imread(str(root / "test" / "fear" / "1.png"))
    cv2.imwrite(str(root / "train" / "anger" / "near.jpg"), near, [cv2.IMWRITE_JPEG_QUALITY, 60])
    shutil.copy(root / "train" / "fear" / "2.png", root / "train" / "anger" / "other.png")
    made = open_pack(FOLDER, root, tmp_path / "store")
    assert {(d.file, d.of, d.kind) for d in made.manifest.duplicates} == {
        ("train/fear/copy.png", "test/fear/0.png", "exact"),
        ("valid/anger/copy.png", "test/anger/0.png", "exact"),
        ("train/anger/near.jpg", "test/fear/1.png", "near"),
        ("train/fear/2.png", "train/anger/other.png", "exact"),
        ("train/anger/other.png", "train/fear/2.png", "exact"),
    }
    assert made.manifest.splits == {"train": 23, "valid": 24, "test": 24}
    assert len(made.images) == 71


# --- identity ---------------------------------------------------------------------------------------------------------


def blocks(root: Path, numbers: range) -> None:
    """Lossless images at the stored size, so that no library's resizing or compression is in the fingerprint."""
    root.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(root / f"{number}.png"), np.kron(coarse, np.ones((4, 4, 1), np.uint8)))


def block_table(root: Path, *, affect: bool, shift: float = 0.0) -> Path:
    """A table of 24 images with emotion, gender and pose, each missing in some rows; optionally affect."""
    blocks(root, range(24))
    rows: list[list[object]] = [["path", "emotion", "gender", "yaw", "pitch", "roll"]]
    for i in range(24):
        pose = (3 * i - 30, 20 - i, i / 2) if i % 3 else ("", "", "")
        rows.append([f"{i}.png", EMOTIONS[i % 8] if i % 5 else "", "fm"[i % 2] if (i + 1) % 7 else "", *pose])
    if affect:
        rows[0] += ["valence", "arousal"]
        for i, row in enumerate(rows[1:]):
            row += [i / 24 + shift, -i / 24] if i % 2 else [-2, -2]
    with (root / "faces.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def test_fingerprints_never_change(tmp_path: Path) -> None:
    """As computed before packs had labels other than emotion, gender and pose: every trial id depends on them."""
    rendered = open_pack(DataConfig(name="rendered", images=96, size=32), None, tmp_path)
    assert rendered.fingerprint == "892513b4333bb585"
    for s, split in enumerate(("train", "valid", "test")):
        for c, emotion in enumerate(EMOTIONS):
            start = 16 * s + 2 * c
            blocks(tmp_path / "folder" / split / emotion, range(start, start + 2))
    assert open_pack(FOLDER, tmp_path / "folder", tmp_path).fingerprint == "abafb32c8712b174"
    for affect in (False, True):
        made = open_pack(CSV, block_table(tmp_path / "csv", affect=affect), tmp_path)
        assert made.fingerprint == "5c88ab6ce1306151"


def test_only_trials_that_read_affect_depend_on_it(tmp_path: Path) -> None:
    without = open_pack(CSV, block_table(tmp_path / "a", affect=False), tmp_path)
    first = open_pack(CSV, block_table(tmp_path / "b", affect=True), tmp_path)
    other = open_pack(CSV, block_table(tmp_path / "c", affect=True, shift=0.01), tmp_path)
    assert without.manifest.label_digests == {}
    assert first.manifest.label_digests.keys() == {"affect"}
    assert first.labels["affect"].dtype == np.float32
    np.testing.assert_array_equal(
        first.labels["affect"][:2], np.array([[np.nan, np.nan], [1 / 24, -1 / 24]], np.float32)
    )

    def ids(tasks: tuple[str, ...]) -> list[str]:
        return [trial_id(TrialConfig(), made.identity(tasks)) for made in (without, first, other)]

    unchanged = trial_id(TrialConfig(), "5c88ab6ce1306151")
    assert set(ids(("emotion",))) == set(ids(("emotion", "gender", "pose"))) == {unchanged}
    assert len(set(ids(("affect",)))) == len(set(ids(("emotion", "affect")))) == 3
    assert first.identity(("affect", "emotion")) == first.identity(("emotion", "affect"))
    assert load_pack(first.folder).identity(("affect",)) == first.identity(("affect",))


def test_a_pack_of_an_older_format_is_rebuilt_from_the_dataset(tmp_path: Path) -> None:
    root = faces(tmp_path / "set")
    made = open_pack(FOLDER, root, tmp_path / "store")
    manifest = json.loads((made.folder / "manifest.json").read_text())
    manifest["format"] = PACK_FORMAT - 1
    del manifest["label_digests"]
    (made.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="has format 2, and this version reads 3"):
        load_pack(made.folder)


# --- faults -----------------------------------------------------------------------------------------------------------


def spoil(root: Path) -> dict[str, str]:
    raw = (root / "train" / "fear" / "0.png").read_bytes()
    (root / "train" / "fear" / "zero.png").write_bytes(b"")
    (root / "train" / "fear" / "cut.png").write_bytes(raw[: len(raw) // 2])
    (root / "train" / "fear" / "text.jpg").write_bytes(b"<html>")
    (root / "train" / "fear" / "cut.jpg").write_bytes(cv2.imencode(".jpg", picture(1))[1].tobytes()[:-300])
    return {
        "train/fear/zero.png": "empty file",
        "train/fear/cut.png": "truncated PNG",
        "train/fear/text.jpg": "can't be decoded as an image",
        "train/fear/cut.jpg": "truncated JPEG",
    }


def test_corrupt_images_are_listed_and_dropped(tmp_path: Path) -> None:
    root = faces(tmp_path / "set")
    expected = spoil(root)
    made = open_pack(FOLDER, root, tmp_path / "store", max_faults=0.1)
    assert {d.file: d.reason for d in made.manifest.dropped} == expected
    assert made.manifest.count == 72
    assert made.manifest.rows == 76
    clean = open_pack(FOLDER, faces(tmp_path / "clean"), tmp_path / "store")
    assert clean.fingerprint == made.fingerprint


def test_too_many_faults_stop_the_build_and_leave_nothing(tmp_path: Path) -> None:
    root = faces(tmp_path / "set")
    spoil(root)
    with pytest.raises(DataError, match=r"4 of 76 rows are faulty, more than 1 %:\n  train/fear/cut\.jpg: truncated"):
        open_pack(FOLDER, root, tmp_path / "store")
    assert files(tmp_path / "store") == []


def test_check_lists_all_and_writes_nothing(tmp_path: Path) -> None:
    root = faces(tmp_path / "set")
    clean = check_data(FOLDER, root)
    assert clean == open_pack(FOLDER, root, tmp_path / "store").manifest
    expected = spoil(root)
    before = sorted(tmp_path.rglob("*"))
    spoilt = check_data(FOLDER, root)
    assert {d.file: d.reason for d in spoilt.dropped} == expected
    assert sorted(tmp_path.rglob("*")) == before
    refuse_unusable(clean)
    with pytest.raises(DataError, match="4 of 76"):
        refuse_unusable(spoilt)


def test_a_set_of_which_only_duplicates_are_left_is_an_error(tmp_path: Path) -> None:
    """Copies with different labels: all are dropped, none is faulty."""
    for emotion in ("fear", "anger"):
        (tmp_path / "set" / emotion).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "set" / emotion / "0.png"), picture(1))
    checked = check_data(FOLDER, tmp_path / "set")
    assert (checked.count, checked.dropped, len(checked.duplicates)) == (0, (), 2)
    with pytest.raises(DataError, match="no usable image is left as dataset 'folder'; 0 faulty, 2 duplicates"):
        refuse_unusable(checked)
    with pytest.raises(DataError, match="no usable image is left"):
        open_pack(FOLDER, tmp_path / "set", tmp_path / "store")


def test_nothing_usable(tmp_path: Path) -> None:
    for emotion in EMOTIONS:
        (tmp_path / "set" / emotion).mkdir(parents=True)
        (tmp_path / "set" / emotion / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match="no usable image"):
        open_pack(FOLDER, tmp_path / "set", tmp_path / "store", max_faults=1)


# --- building ---------------------------------------------------------------------------------------------------------


def test_a_pack_is_built_once_and_survives_moving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = faces(tmp_path / "set")
    made = open_pack(FOLDER, root, tmp_path / "store")
    (tmp_path / "store").rename(tmp_path / "moved")
    monkeypatch.setattr(build, "_scan", lambda *_: pytest.fail("decoded again"))
    assert open_pack(FOLDER, root, tmp_path / "moved").fingerprint == made.fingerprint


def test_a_path_may_be_a_pack(tmp_path: Path) -> None:
    made = open_pack(FOLDER, faces(tmp_path / "set"), tmp_path / "store")
    shutil.copytree(made.folder, tmp_path / "carried")
    again = open_pack(FOLDER, tmp_path / "carried", tmp_path / "none")
    assert (again.folder, again.fingerprint) == (tmp_path / "carried", made.fingerprint)
    assert check_data(FOLDER, tmp_path / "carried") == made.manifest
    with pytest.raises(DataError, match=r"images of 32 px.*asks for 48; set data\.stored to 32"):
        open_pack(DataConfig(name="folder"), tmp_path / "carried", tmp_path / "none")
    with pytest.raises(DataError, match="a pack of 'folder', not of 'csv'"):
        open_pack(CSV, tmp_path / "carried", tmp_path / "none")


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    open_pack(FOLDER, faces(tmp_path / "set"), tmp_path / "store", lambda *args: calls.append(args))
    reading = [done for done, total, what in calls if what == "reading images" and total == 72]
    assert reading == sorted(reading)
    assert reading[-1] == 72


def test_an_interrupted_build_leaves_nothing_and_is_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = faces(tmp_path / "set")

    def interrupt(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_pack(FOLDER, root, tmp_path / "store", interrupt)
    assert files(tmp_path / "store") == []
    for step in ("_judge", "_compact"):
        with monkeypatch.context() as patch:
            patch.setattr(build, step, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                open_pack(FOLDER, root, tmp_path / "store")
        assert files(tmp_path / "store") == []
    assert open_pack(FOLDER, root, tmp_path / "store").manifest.count == 72


BUILD = """
import sys, time
from pathlib import Path
from hmtl_ablate.config import DataConfig, TrialConfig, trial_id
from hmtl_ablate.data import build
def slow(done, total, what):
    print("reading", flush=True)
    time.sleep(float(sys.argv[3]))
print(build.open_pack(DataConfig(name="folder", size=32), Path(sys.argv[1]), Path(sys.argv[2]), slow).fingerprint)
"""


def building(root: Path, store: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(root), str(store), str(pause)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_killed_build_is_rebuilt(tmp_path: Path) -> None:
    root, store = faces(tmp_path / "set"), tmp_path / "store"
    with building(root, store, 60) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGKILL)
    assert any(".building" in file for file in files(store))
    made = open_pack(FOLDER, root, store)
    assert made.manifest.count == 72
    assert not any(".building" in file for file in files(store))


@pytest.mark.slow
def test_two_processes_build_one_pack(tmp_path: Path) -> None:
    root, store = faces(tmp_path / "set"), tmp_path / "store"
    with building(root, store, 0.5) as one, building(root, store, 0.5) as two:
        outputs = [process.communicate()[0].splitlines() for process in (one, two)]
    assert outputs[0][-1] == outputs[1][-1]
    assert len([folder for folder in (store / "packs").iterdir() if folder.is_dir()]) == 1


@pytest.mark.parametrize("spoilt", ["images.npy", "labels.npz", "manifest.json"])
def test_a_damaged_pack_is_refused(spoilt: str, tmp_path: Path) -> None:
    made = open_pack(FOLDER, faces(tmp_path / "set"), tmp_path / "store")
    file = made.folder / spoilt
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match="damaged"):
        load_pack(made.folder)
    file.unlink()
    with pytest.raises(DataError, match=f"no finished pack here .{spoilt} is missing"):
        load_pack(made.folder)


def zero(folder: Path, image: int) -> None:
    """Overwrite one image of a pack with zeros, as a crash of the machine can."""
    side = 32 * 32 * 3
    with (folder / "images.npy").open("r+b") as file:
        file.seek(128 + image * side)
        file.write(bytes(side))


def test_zeroed_pixels_are_found_when_a_pack_is_opened(tmp_path: Path) -> None:
    """Fault C18: a pack whose pixels were lost was trained on."""
    root = faces(tmp_path / "set")
    made = open_pack(FOLDER, root, tmp_path / "store")
    zero(made.folder, 71)
    with pytest.raises(DataError, match=r"damaged \(image 71 is not the one of its fingerprint\)"):
        load_pack(made.folder)
    again = open_pack(FOLDER, root, tmp_path / "store")
    assert again.folder == made.folder
    assert again.fingerprint == made.fingerprint
    assert (made.folder.parent / f"{made.folder.name}.damaged" / "images.npy").is_file()
    load_pack(again.folder, whole=True)


def test_data_check_compares_every_image_of_a_pack(tmp_path: Path) -> None:
    """Fault C18: opening samples 64 images, `data check` reads all."""
    made = open_pack(FOLDER, faces(tmp_path / "set"), tmp_path / "store")
    sampled = set(np.linspace(0, 71, 64).round().astype(int).tolist())
    missed = next(image for image in range(72) if image not in sampled)
    zero(made.folder, missed)
    load_pack(made.folder)
    with pytest.raises(DataError, match=f"image {missed} is not the one"):
        check_data(FOLDER, made.folder)


@pytest.mark.parametrize("name", ["split", "label.emotion", "label.affect", "digest", "group"])
def test_changed_labels_are_found_when_a_pack_is_opened(name: str, tmp_path: Path) -> None:
    """Fault C18: labels, splits and groups belong to the fingerprint too."""
    made = open_pack(CSV, block_table(tmp_path / "set", affect=True), tmp_path / "store")
    with np.load(made.folder / "labels.npz") as file:
        arrays = dict(file)
    arrays[name] = arrays[name].copy()
    arrays[name][5] = 0 if name != "digest" else 1
    arrays[name][6] = 1
    np.savez_compressed(made.folder / "labels.npz", **arrays)
    with pytest.raises(DataError, match=r"damaged \(its labels are not those of its fingerprint\)"):
        load_pack(made.folder)


def test_labels_that_unpack_to_far_more_than_they_need(tmp_path: Path) -> None:
    """Fault C12: a small labels.npz may hold more than the memory."""
    made = open_pack(FOLDER, faces(tmp_path / "set"), tmp_path / "store")
    np.savez_compressed(made.folder / "labels.npz", split=np.zeros(4_000_000, np.int8))
    with pytest.raises(DataError, match=r"labels\.npz unpacks to 4,000,128 bytes for 72 images"):
        load_pack(made.folder)


@pytest.mark.parametrize("name", ["images.npy", "labels.npz"])
def test_a_pack_of_pipes_is_refused(name: str, tmp_path: Path) -> None:
    """Fault C12: opening a named pipe blocked for ever."""
    made = open_pack(FOLDER, faces(tmp_path / "set"), tmp_path / "store")
    (made.folder / name).unlink()
    os.mkfifo(made.folder / name)
    with pytest.raises(DataError, match=f"{name} is not a regular file"):
        load_pack(made.folder)


def test_a_store_that_cant_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = faces(tmp_path / "set")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be written"):
        open_pack(FOLDER, root, tmp_path / "file" / "store")
    made = open_pack(FOLDER, root, tmp_path / "store")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system", "store")

    monkeypatch.setattr(Path, "mkdir", refuse)  # chmod does not stop root
    with pytest.raises(StoreError, match="Read-only file system; choose another store with --runs"):
        open_pack(FOLDER, root, tmp_path / "other")
    assert open_pack(FOLDER, root, tmp_path / "store").fingerprint == made.fingerprint  # a built pack needs no writing
