"""What is sent to a cluster's nodes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import hmtl_ablate
from hmtl_ablate.errors import ClusterError
from hmtl_ablate.running.ray_shipping import shipped, tracked
from hmtl_ablate.training.revision import SENT, revision


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a package that --import could name."""
    (tmp_path / "own_lab" / "tasks").mkdir(parents=True)
    for name in ("__init__.py", "tasks/__init__.py", "faces.npy", "notes.txt"):
        (tmp_path / "own_lab" / name).write_text(name)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_package_and_the_modules_are_sent(lab: Path) -> None:
    (lab / "single_lab.py").write_text("X = 1\n")
    with shipped(["own_lab.tasks", "single_lab", "own_lab"]) as modules:
        sent = {path.name: path for path in map(Path, modules["py_modules"])}
        assert sorted(sent) == ["hmtl_ablate", "own_lab", "single_lab.py"]
        assert sent["single_lab.py"].read_text() == "X = 1\n"
        assert files(sent["own_lab"]) == {"__init__.py", "tasks/__init__.py", "faces.npy", "notes.txt"}
        own = Path(hmtl_ablate.__file__).parent
        assert {"__init__.py", "training/loop.py", "reporting/claims.yaml"} <= files(sent["hmtl_ablate"])
        assert not [name for name in files(sent["hmtl_ablate"]) if name.endswith(".pyc")]
        assert {name for name in files(sent["hmtl_ablate"]) if not (own / name).exists()} == {SENT}
        assert revision(sent["hmtl_ablate"]) == revision()
    assert not sent["own_lab"].exists()


def test_what_git_ignores_stays(lab: Path) -> None:
    """Even where the rule is in a folder above, which Ray itself does not read."""
    subprocess.run(["git", "init", "-q", str(lab)], check=True)
    (lab / ".gitignore").write_text("*.npy\n__pycache__/\n")
    (lab / "own_lab" / "__pycache__").mkdir()
    (lab / "own_lab" / "__pycache__" / "x.pyc").touch()
    assert [str(name) for name in tracked(lab / "own_lab")] == ["__init__.py", "notes.txt", "tasks/__init__.py"]


def test_a_module_with_data_in_it_is_refused(lab: Path) -> None:
    with (lab / "own_lab" / "faces.npy").open("wb") as file:
        file.truncate(65 * 2**20)
    said = r"own_lab: this module .* 65 MiB of at most 64; move data out of it"
    with pytest.raises(ClusterError, match=said), shipped(["own_lab"]):
        pass


def test_compiled_and_unknown_modules_are_left_to_the_nodes() -> None:
    with shipped(["math", "no_such_module"]) as modules:
        assert [Path(path).name for path in modules["py_modules"]] == ["hmtl_ablate"]
