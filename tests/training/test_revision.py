"""The recorded commit (fault C17): of this package's own checkout, with what was changed since."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hmtl_ablate.training.folder import TrialFolder
from hmtl_ablate.training.revision import Revision, revision


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a repository of its own, committed."""
    folder = tmp_path / "own" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("A = 1\n")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-q", "-m", "x")
    revision.cache_clear()
    return folder


def test_a_clean_checkout(package: Path) -> None:
    (package.parent / "notes.txt").write_text("not part of the package")
    assert revision(package) == Revision(git(package, "rev-parse", "HEAD"), "")


def test_what_was_changed_is_said_and_kept(package: Path) -> None:
    (package / "__init__.py").write_text("A = 2\n")
    (package / "new.py").write_text("B = 3\n")
    found = revision(package)
    assert found.commit == git(package, "rev-parse", "HEAD") + "+dirty"
    assert {"-A = 1", "+A = 2", "+B = 3"} <= set(found.diff.splitlines())


def test_the_repository_that_an_environment_lies_in_is_another_s(package: Path) -> None:
    installed = package.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("A = 1\n")
    assert revision(installed) == Revision()
    (package.parent / ".gitignore").write_text(".venv\n")
    revision.cache_clear()
    assert revision(installed) == Revision()


def test_an_environment_that_a_project_has_committed_is_not_its_own(package: Path) -> None:
    vendored = package.parent / "lib" / "site-packages" / "package"
    vendored.mkdir(parents=True)
    (vendored / "__init__.py").write_text("A = 1\n")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "environment")
    assert revision(vendored) == Revision()


def test_the_working_folder_plays_no_part(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "x")
    installed = tmp_path / "nowhere" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("A = 1\n")
    monkeypatch.chdir(other)
    assert revision(installed) == Revision()
    assert revision(package).commit == git(package, "rev-parse", "HEAD") != git(other, "rev-parse", "HEAD")


def test_without_git(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert revision(package) == Revision()


def test_a_trial_keeps_the_difference(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    folder.write_diff("+A = 2\n")
    assert (tmp_path / "uncommitted.diff").read_text() == "+A = 2\n"
    folder.write_diff("")
    assert not (tmp_path / "uncommitted.diff").exists()
