"""Nothing in the working folder is run, but a module that `--import` names is found there (fault C10)."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from hmtl_ablate import checks
from hmtl_ablate.errors import HmtlError
from tests.conftest import PROGRAM, environment  # type: ignore[import-not-found]

TRAPS = ("cv2", "numpy", "torch", "typer", "rich", "yaml", "pydantic", "timm", "ray", "mlflow", "optuna", "secrets")
ENTRIES = pytest.mark.parametrize(
    "entry", [(str(PROGRAM),), (sys.executable, "-m", "hmtl_ablate")], ids=["script", "-m"]
)


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A folder of faces with files that have the names of libraries, and leave a mark when one of them is run."""
    for name in TRAPS:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'a').write('{name} ')\n")
    for number in range(12):
        folder = tmp_path / "faces" / ("happy" if number % 2 else "sad")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    return tmp_path


def call(entry: tuple[str, ...], folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*entry, *map(str, words)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


LIGHT = (("--version",), ("plan", "tiny.yaml"), ("data", "check", "folder=faces", "--size", 32))
HEAVY = (("run", "tiny.yaml", "--set", "training.epochs=1", "--seeds", 0), ("report",))


@pytest.mark.parametrize(
    ("entry", "commands"),
    [((str(PROGRAM),), (*LIGHT, *HEAVY)), ((sys.executable, "-m", "hmtl_ablate"), LIGHT)],
    ids=["script", "-m"],
)
@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_no_command_runs_a_file_of_the_working_folder(
    entry: tuple[str, ...], commands: tuple[tuple[object, ...], ...], trapped: Path
) -> None:
    """Nor does any worker that Ray starts for it."""
    for words in commands:
        done = call(entry, trapped, *words)
        assert done.returncode == 0, (words, done.stdout + done.stderr)
        assert not (trapped / "mark").exists(), (words, (trapped / "mark").read_text())


@ENTRIES
@pytest.mark.slow
def test_a_module_that_is_named_is_found_there_after_the_libraries(
    entry: tuple[str, ...], trapped: Path, tiny: Path
) -> None:
    (trapped / "my_lab.py").write_text("import cv2\nprint('my_lab', hasattr(cv2, 'resize'))\n")
    done = call(entry, trapped, "plan", tiny, "--import", "my_lab")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("my_lab True\n")
    assert not (trapped / "mark").exists()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    return tmp_path


def test_the_path_is_left_alone_without_a_module(here: Path) -> None:
    before = [*sys.path]
    checks.import_modules(())
    assert sys.path == before


def test_the_working_folder_is_searched_last(here: Path) -> None:
    before = [*sys.path]
    (here / "edge_lab_module.py").write_text("VALUE = 3\n")
    checks.import_modules(["edge_lab_module"])
    assert sys.path == [*before, str(here)]
    assert sys.modules.pop("edge_lab_module").VALUE == 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("my_lab.py", "without .py or folders: --import my_lab"),
        ("labs/my_lab.py", "without .py or folders: --import labs.my_lab"),
        ("./my_lab.py", "without .py or folders: --import my_lab"),
        ("labs/my_lab", "without .py or folders: --import labs.my_lab"),
        ("", "is not the name of a module"),
        (".my_lab", "is not the name of a module"),
        ("my-lab", "is not the name of a module"),
        ("../my_lab.py", "is not the name of a module"),
        ("no_such_module_here", "No module named 'no_such_module_here'; name a module that Python finds from here"),
    ],
)
def test_a_wrong_name_says_what_to_write(here: Path, name: str, hint: str) -> None:
    """Fault D: `--import my_lab.py`."""
    (here / "my_lab.py").write_text("raise AssertionError('was run')\n")
    with pytest.raises(HmtlError) as caught:
        checks.import_modules([name])
    assert str(caught.value).startswith(f"--import {name}: ")
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x = 1\ny = 1 / 0\n", "ZeroDivisionError: division by zero (edge_bad_module.py, line 2)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3 (edge_bad_module.py, line 2)"),
        ("def f(:\n", "SyntaxError"),
        ("from hmtl_ablate import nothing_like_it\n", "ImportError: cannot import name 'nothing_like_it'"),
    ],
)
def test_a_module_that_fails_is_named_with_its_line(here: Path, text: str, fault: str) -> None:
    (here / "edge_bad_module.py").write_text(text)
    with pytest.raises(HmtlError) as caught:
        checks.import_modules(["edge_bad_module"])
    assert fault in str(caught.value)
