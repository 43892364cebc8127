"""Registering a dataset, and reading one by name."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data import registry, sets
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.data.reading import TRAIN, Labels, Sample, Source, in_memory
from hmtl_ablate.data.registry import DATASETS, register_dataset
from hmtl_ablate.errors import DataError
from tests.data.conftest import (
    folder,
    picture,
    read,
)


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "DATASETS", dict(DATASETS))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'ferplus'"):
        read("ferpluss", None)


def test_rendered_takes_no_path(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes no path"):
        read("rendered", tmp_path)


def test_a_registered_dataset_is_read_with_its_config_and_path(tmp_path: Path) -> None:
    folder(tmp_path)
    seen: list[tuple[Path, int]] = []

    def own(path: Path, data: DataConfig) -> Source:
        seen.append((path, data.stored_size))
        return read("folder", path)

    register_dataset("lab", own)
    assert len(registry.read_source(DataConfig(name="lab", size=32), tmp_path).samples) == 16
    assert seen == [(tmp_path, 32)]


def test_registering_a_name_again_replaces_the_dataset(tmp_path: Path) -> None:
    folder(tmp_path)
    register_dataset("ferplus", lambda path, data: read("folder", path))
    assert len(read("ferplus", tmp_path).samples) == 16


def test_errors_of_a_published_dataset_name_its_page(tmp_path: Path) -> None:
    def refuse(path: Path, data: DataConfig) -> Source:
        raise DataError(f"{path}: no faces")

    folder(tmp_path)
    register_dataset("lab", refuse, page="https://lab.example", licence="ask us")
    with pytest.raises(DataError) as caught:
        read("lab", tmp_path)
    assert str(caught.value) == f"{tmp_path}: no faces\nlab: https://lab.example (ask us)"


def test_a_dataset_without_usable_images_is_refused_with_an_example(tmp_path: Path) -> None:
    folder(tmp_path)
    register_dataset("lab", lambda path, data: Source([], {}, {"tie": 3}, (("a.png", "no label"), ("b.png", "x"))))
    with pytest.raises(DataError, match=r"\(2 dropped, e\.g\. a\.png: no label; 3 left out\)"):
        read("lab", tmp_path)


def test_a_registered_dataset_makes_packs(tmp_path: Path) -> None:
    """Grey images, two classes, and labels of a kind of its own: three numbers, missing in every other image."""

    def sample(number: int) -> Sample:
        labels: Labels = {"emotion": number % 2}
        if number % 2:
            labels = {**labels, "distances": (number, 0.5, -1.0)}
        image = picture(number, 32, grey=True)
        return Sample(f"drawn {number}", TRAIN, lambda size: in_memory(image, labels, size), subject=f"s{number // 10}")

    source = Source([sample(i) for i in range(100)], {"emotion": ("no", "yes")})
    register_dataset("lab", lambda path, data: source, needs_path=False)
    made = open_pack(DataConfig(name="lab", size=32), None, tmp_path)
    assert made.images.shape == (100, 32, 32, 1)
    np.testing.assert_array_equal(made.images[7, ..., 0], picture(7, 32, grey=True))
    assert made.labels["emotion"].tolist() == [0, 1] * 50
    assert made.labels["distances"].dtype == np.float32
    assert made.labels["distances"].shape == (100, 3)
    assert made.labels["distances"][3].tolist() == [3, 0.5, -1]
    assert np.isnan(made.labels["distances"][::2]).all()
    assert made.subject.tolist() == [number // 10 for number in range(100)]
    assert made.manifest.splits == {"train": 100, "valid": 0, "test": 0}
    assert made.manifest.labelled["distances"] == {"train": 50, "valid": 0, "test": 0}
    assert made.identity(("emotion",)) == made.fingerprint
    assert made.identity(("distances",)) == f"{made.fingerprint}+distances:{made.manifest.label_digests['distances']}"


MODULE = """
from hmtl_ablate.data.reading import Source
from hmtl_ablate.data.registry import register_dataset

register_dataset("added", lambda path, data: Source([], {}), page="https://added.example")
"""


def test_a_file_in_the_sets_folder_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "copied_sets"
    folder.mkdir()
    shutil.copy(str(sets.__file__), folder)
    (folder / "added.py").write_text(MODULE)
    (folder / "_helpers.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("copied_sets")
    assert registry.DATASETS["added"].page == "https://added.example"


def test_every_file_in_the_sets_folder_registers_one_dataset() -> None:
    files = [file for file in Path(str(sets.__file__)).parent.glob("*.py") if not file.name.startswith("_")]
    assert sorted(dataset.read.__module__ for dataset in DATASETS.values()) == sorted(
        f"hmtl_ablate.data.sets.{file.stem}" for file in files
    )
