"""Temporary folders of killed drivers (fault C18)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hmtl_ablate.running.scratch import OWNER, PREFIX, drop, own_folder, sweep


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_goes_when_it_is_dropped(temporary: Path) -> None:
    folder = Path(own_folder())
    (folder / "x").write_text("x")
    assert folder.parent == temporary
    drop(str(folder))
    assert not list(temporary.iterdir())


def test_what_a_killed_driver_left_is_removed_and_nothing_else(temporary: Path) -> None:
    child = os.fork()
    if child == 0:  # killed in the middle of its run
        own_folder()
        os._exit(9)
    os.waitpid(child, 0)
    [left] = temporary.glob(f"{PREFIX}*")
    (left / "x").write_text("x")
    (temporary / f"{PREFIX}young").mkdir()  # of a process that has not locked it yet
    (temporary / "of another program").mkdir()
    elsewhere = temporary / "target"
    elsewhere.mkdir()
    (elsewhere / OWNER).touch()
    (temporary / f"{PREFIX}link").symlink_to(elsewhere)
    folder = own_folder()
    sweep()  # of another run, while this one lives
    assert Path(folder).is_dir()
    assert not left.exists()
    drop(folder)
    names = {path.name for path in temporary.iterdir()}
    assert names == {f"{PREFIX}young", "of another program", "target", f"{PREFIX}link"}
    assert (elsewhere / OWNER).exists()
