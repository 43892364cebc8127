"""Completion, as a shell asks for it: words of a command line in the environment, an answer on stdout."""

import json
import os
import pty
import select
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hmtl_ablate import cli
from hmtl_ablate.cli import completing
from hmtl_ablate.tracking import StudyRecord, TrialRecord
from tests.conftest import PROGRAM, ROOT  # type: ignore[import-not-found]

ONE, OTHER = "0123456789abcdef", "01fedcba98765432"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a study file, a module, and a store of two studies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text("name: tiny\nprofiles: {quick: {}, paper: {}}\n")
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "other.yml").write_text("name: other\n")
    (tmp_path / "mirror.py").write_text("raise SystemExit('completion imports no module')\n")
    for trial in (ONE, OTHER):
        (tmp_path / "runs" / "trials" / trial).mkdir(parents=True)
    (tmp_path / "runs" / "mlflow.db").touch()
    common: dict[str, Any] = {"trial_id": ONE, "config": {}, "parent": "1"}
    studies = [
        StudyRecord(name=name, profile=profile, metric="test/accuracy", variants={}, seeds=(0,))
        for name, profile in (("tiny", "quick"), ("twice", "quick"), ("twice", "paper"))
    ]
    trials = [
        TrialRecord(study="tiny", profile="quick", variant="SL + puzzling", seed=0, **common),
        TrialRecord(study="tiny", profile="quick", variant="SL", seed=0, **common),
        TrialRecord(study="tiny", profile="quick", variant="search", seed=0, draw="random", **common),
        TrialRecord(study="tiny", profile="quick", variant="pre-training", seed=0, stage=True, **common),
        TrialRecord(study="twice", profile="paper", variant="SL", seed=1, **common),
    ]
    monkeypatch.setattr("hmtl_ablate.tracking.reading.read_records", lambda file: (studies, trials))
    return tmp_path


@pytest.fixture
def complete(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The completions of the last word, as bash gives words: split at : and = too."""

    def call(*words: str) -> list[str]:
        monkeypatch.setenv("_HMTL_ABLATE_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", "\n".join(["hmtl-ablate", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        before = sorted(place.rglob("*"))
        assert cli.main([]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert sorted(place.rglob("*")) == before
        return [line for line in out.splitlines() if line]

    return call


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pl"], ["plan"]),
        (["data", ""], ["pack", "check"]),
        (["run", ""], ["spaces/other.yml", "tiny.yaml"]),
        (["run", "spa"], ["spaces/other.yml"]),
        (["run", "./t"], ["./tiny.yaml"]),
        (["run", "tiny.yaml", "--profile", ""], ["quick", "paper"]),
        (["run", "tiny.yaml", "--profile", "p"], ["paper"]),
        (["run", "--profile", "=", "p"], []),  # of which file?
        (["run", "spaces/other.yml", "--profile", ""], ["quick"]),
        (["run", "tiny.yaml", "--engine", ""], ["ray", "local"]),
        (["run", "tiny.yaml", "--engine", "=", "l"], ["local"]),
        (["run", "tiny.yaml", "--import", ""], ["mirror"]),
        (["run", "tiny.yaml", "--import", "mirror", "--set", "training.ep"], ["training.epochs=20"]),
        (["run", "tiny.yaml", "--set", "training.epochs", "="], ["20"]),
        (["run", "tiny.yaml", "--set", "=", "training.optimizer", "=", "ad"], ["adabelief"]),
        (["report", "--format", "la"], ["latex"]),
        (["report", "--evidence", ""], ["puzzling", "rotation", "inpainting"]),
        (["report", "--study", ""], ["tiny", "twice"]),
        (["report", "--output", ""], []),  # bash itself offers files
        (["bundle", "ti"], ["tiny"]),
        (["export", "x", "--precision", "f"], ["fp32", "fp16"]),
        (["export", "best"], ["best:tiny", "best:twice@paper", "best:twice@quick"]),
        (["export", "best", ":"], ["tiny", "twice@paper", "twice@quick"]),
        (["export", "best", ":", "twice", "@", "p"], ["paper"]),
        (["export", "tiny/"], [r"tiny/SL\ +\ puzzling/0", "tiny/SL/0"]),
        (["export", r"tiny/SL\ +"], [r"tiny/SL\ +\ puzzling/0"]),
        (["export", "'tiny/SL +"], ["tiny/SL + puzzling/0"]),
        (["export", "twice", "@"], ["paper/SL/1"]),
        (["export", "0"], [ONE, OTHER]),
        (["predict", "012"], [ONE]),
        (["predict", "tiny/SL/"], ["tiny/SL/0"]),
        (["export", "--runs", "elsewhere", "0"], []),
    ],
)
def test_what_is_offered(complete: Any, words: list[str], expected: list[str]) -> None:
    assert complete(*words) == expected


def test_a_faulty_file_or_store_has_no_completions(
    complete: Any, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "tiny.yaml").write_text("{")
    monkeypatch.undo()
    monkeypatch.chdir(place)
    (place / "runs" / "mlflow.db").write_bytes(b"no database")
    ctx: Any = SimpleNamespace(params={"file": place / "tiny.yaml", "runs": place / "runs"}, args=[])
    assert completing.profiles(ctx, "") == []
    assert completing.studies(ctx, "") == []
    assert completing.trials(ctx, "0") == [ONE, OTHER]
    ctx.params = {"file": place, "runs": place / "nowhere"}
    assert completing.profiles(ctx, "") == []
    assert completing.trials(ctx, "") == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["p", "a", "b"], (["p", "a", "b"], "")),
        (["p", "best", ":", "x"], (["p", "best:x"], "best:")),
        (["p", "best", ":"], (["p", "best:"], "best:")),
        (["p", "best", ":", ""], (["p", "best:", ""], "")),  # after a space
        (["p", "--data", "=", "a", "=", "/b"], (["p", "--data=a=/b"], "--data=a=")),
        (["p", r"a\ b", "@", "c"], (["p", "a\\ b@c"], "a b@")),
        (["p", ":", "x"], (["p", ":x"], ":")),
    ],
)
def test_bash_words_are_joined(words: list[str], expected: tuple[list[str], str]) -> None:
    assert completing.joined(words) == expected


def test_every_option_with_a_plain_default_is_offered_with_it() -> None:
    found = dict(pair.split("=", 1) for pair in completing.settings(""))
    assert json.loads(found["model.weights"]) is None
    assert found["training.optimizer"] == "adabelief"
    assert all(found)


@pytest.mark.slow
def test_in_bash(tmp_path: Path) -> None:
    """An interactive bash on a terminal of its own: what is typed after Tab."""
    (tmp_path / "tiny.yaml").write_text("name: tiny\nprofiles: {paper: {}}\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.environ |= {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "PS1": "$ "}
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    read_until(terminal, "$ ")
    os.write(terminal, b"source <(hmtl-ablate --show-completion bash); echo rea''dy\n")
    read_until(terminal, "ready")
    os.write(terminal, b"hmtl-ablate run ti\t")
    read_until(terminal, "run tiny.yaml ")
    os.write(terminal, b"--set=training.epo\t")
    read_until(terminal, "training.epochs=20 ")
    os.write(terminal, b"--profile \t")
    read_until(terminal, "--profile paper ")
    os.write(terminal, b"\x15exit\n")
    os.close(terminal)
    os.waitpid(pid, 0)


def read_until(terminal: int, text: str) -> None:
    found, end = "", time.monotonic() + 30
    while text not in found:
        assert time.monotonic() < end, found
        if select.select([terminal], [], [], 0.2)[0]:
            found += os.read(terminal, 65536).decode(errors="replace")
