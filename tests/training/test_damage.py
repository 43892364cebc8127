"""Damaged files of a trial's folder (fault C9): set aside, named in the log, and trained again to the same numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hmtl_ablate.config import parse_config
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import CheckpointError, TrialInterrupted
from hmtl_ablate.training.checkpoint import load_tensors, save_tensors
from hmtl_ablate.training.folder import TrialFolder, TrialResult, import_trials
from hmtl_ablate.training.loop import train
from tests.training.conftest import BASE  # type: ignore[import-not-found]

CONFIG = parse_config({**BASE, "training": {**BASE["training"], "epochs": 2}})
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "missing": lambda content: None,
    "garbage": lambda content: b"\x00\xffgarbage\n" * 40,
    "one byte": lambda content: content[:-30] + bytes([content[-30] ^ 1]) + content[-29:],
}
OUTPUTS = ("metrics.jsonl", "best.safetensors", "predictions.npz", "result.json")
TIMED = {"seconds", "images_per_second"}


@pytest.fixture(scope="module")
def finished(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial's folder."""
    folder = tmp_path_factory.mktemp("finished") / "x"
    train(CONFIG, pack, folder, evaluate_test=True)
    return folder


@pytest.fixture(scope="module")
def stopped(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same trial, stopped in its second epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "x"
    done: list[int] = []

    def on_epoch(row: dict[str, float]) -> bool:
        done.append(1)
        return False

    with pytest.raises(TrialInterrupted):
        train(CONFIG, pack, folder, evaluate_test=True, on_epoch=on_epoch, stop=lambda: bool(done))
    return folder


def damaged(source: Path, target: Path, name: str, how: str) -> TrialFolder:
    shutil.copytree(source, target)
    content = DAMAGES[how]((target / name).read_bytes())
    if content is None:
        (target / name).unlink()
    else:
        (target / name).write_bytes(content)
    return TrialFolder(target)


def curve(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k not in TIMED} for row in TrialFolder(folder).history()]


def check_equal(result: TrialResult, folder: Path, whole: Path) -> None:
    """The trial's numbers, curve, weights and predictions are those of the undamaged one."""
    expected = TrialFolder(whole).result()
    assert expected is not None
    assert (result.metrics, result.epochs, result.best_epoch) == (expected.metrics, 2, expected.best_epoch)
    assert result.confusion == expected.confusion
    assert TrialFolder(folder).sound_result(whole=True) == result
    assert curve(folder) == curve(whole)
    ours, theirs = (load_tensors(place / "best.safetensors") for place in (folder, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with np.load(folder / "predictions.npz") as ours, np.load(whole / "predictions.npz") as theirs:
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_finished_trial_with_a_damaged_file_is_trained_again(
    finished: Path, pack: Pack, tmp_path: Path, name: str, how: str
) -> None:
    folder = damaged(finished, tmp_path / "x", name, how)
    assert (folder.damage(whole=True) == (name,)) or (name == "result.json" and how == "missing")
    assert folder.sound_result(whole=True) is None
    result = train(CONFIG, pack, folder.path, evaluate_test=True)
    check_equal(result, folder.path, finished)
    assert (f"{name}.damaged" in folder.aside()) == (how != "missing")
    if not (name == "result.json" and how == "missing"):
        assert f"damaged: {name}" in (folder.path / "log.txt").read_text()
    assert train(CONFIG, pack, folder.path, evaluate_test=True) == result  # once


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors", "metrics.jsonl", "config.json"])
def test_a_stopped_trial_with_a_damaged_file_is_trained_again(
    stopped: Path, finished: Path, pack: Pack, tmp_path: Path, name: str, how: str
) -> None:
    """metrics.jsonl is written again from the checkpoint, and config.json from what the run knows."""
    folder = damaged(stopped, tmp_path / "x", name, how)
    check_equal(train(CONFIG, pack, folder.path, evaluate_test=True), folder.path, finished)
    weights = name.endswith(".safetensors")
    assert (f"{name}.damaged" in folder.aside()) == (weights and how != "missing")
    assert folder.config() == CONFIG


@pytest.mark.parametrize("how", DAMAGES)
def test_a_finished_trial_needs_no_checkpoint(finished: Path, pack: Pack, tmp_path: Path, how: str) -> None:
    """One that is left, sound or damaged, is removed."""
    assert not (finished / "last.safetensors").exists()
    (tmp_path / "old").mkdir()
    shutil.copytree(finished, tmp_path / "old" / "x")
    shutil.copyfile(finished / "best.safetensors", tmp_path / "old" / "x" / "last.safetensors")
    folder = damaged(tmp_path / "old" / "x", tmp_path / "x", "last.safetensors", how)
    assert train(CONFIG, pack, folder.path, evaluate_test=True) == folder.result()
    assert folder.aside() == {}
    assert not (folder.path / "last.safetensors").exists()


@pytest.mark.slow
def test_a_trial_that_is_measured_later_survives_a_damaged_checkpoint(
    finished: Path, pack: Pack, tmp_path: Path
) -> None:
    """A search's trial, which has not seen the test split, becomes a variant's."""
    train(CONFIG, pack, tmp_path / "search", evaluate_test=False, keep_last=True)
    folder = damaged(tmp_path / "search", tmp_path / "x", "last.safetensors", "half")
    check_equal(train(CONFIG, pack, folder.path, evaluate_test=True), folder.path, finished)


def test_large_files_are_compared_by_size_until_another_trial_starts_from_them(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmtl_ablate.training.folder.SMALL", 100)
    folder = damaged(finished, tmp_path / "x", "best.safetensors", "one byte")
    assert folder.damage() == ()
    assert folder.damage(whole=True) == ("best.safetensors",)


@pytest.mark.parametrize("how", ["empty", "half", "garbage", "one byte"])
def test_damaged_trials_are_not_imported_and_are_replaced_by_imported_ones(
    finished: Path, tmp_path: Path, how: str
) -> None:
    name = "0123456789abcdef"
    sound = tmp_path / "sound" / name
    shutil.copytree(finished, sound)
    content = json.loads((sound / "result.json").read_text()) | {"trial_id": name}
    content.pop("crc32")
    TrialFolder(sound).write_result(TrialResult.model_validate(content))
    bad = damaged(sound, tmp_path / "bad" / name, "best.safetensors", how).path
    found = import_trials(bad, tmp_path / "store")
    assert (found.taken, [why for _, why in found.refused]) == ((), ["damaged: best.safetensors"])
    damaged(sound, tmp_path / "own" / name, "result.json", how)
    assert import_trials(sound, tmp_path / "own").taken == (name,)
    assert TrialFolder(tmp_path / "own" / name).sound_result(whole=True) is not None


def test_a_changed_tensor_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_tensors(path, {"a": torch.arange(4.0), "b": torch.tensor(2)})
    assert load_tensors(path)["a"].tolist() == [0, 1, 2, 3]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        load_tensors(path)


def test_a_failure_in_another_encoding_is_read(tmp_path: Path) -> None:
    (tmp_path / "failure.txt").write_bytes(b"caf\xe9")
    assert TrialFolder(tmp_path).failure() == "caf\ufffd"
