"""The example in each command's help works as it is written."""

import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer

from hmtl_ablate import cli
from hmtl_ablate.cli.root import EXAMPLE
from hmtl_ablate.data.pack import load_pack
from tests.conftest import start  # type: ignore[import-not-found]

STUDY = """\
name: puzzling
question: Does puzzling help?
base:
  data: {images: 160, size: 32}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 1, warmup_epochs: 0}
variants:
  SL: {}
  SL, 2 views: {data.views: 2}
  SL + puzzling: {pretext: {puzzling: {feed: siamese}}}
seeds: [0, 1]
"""


def commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Words and command of each command below a group."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        if hasattr(command, "list_commands"):
            yield from commands(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


def examples_of(command: Any) -> list[list[str]]:
    """The words of each example in a command's help, without the program's name."""
    found = re.findall(rf"^{EXAMPLE}hmtl-ablate (.+)$", command.help or "", re.M)
    return [shlex.split(line) for line in found]


EXAMPLES = [(name, words) for name, command in COMMANDS.items() for words in examples_of(command)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_of_itself(name: str) -> None:
    examples = examples_of(COMMANDS[name])
    assert examples, f"{name} --help has no line `{EXAMPLE}hmtl-ablate {name} …`"
    own = name.split()
    for words in examples:
        assert words[: len(own)] == own
        COMMANDS[name].make_context(name, words[len(own) :])  # its options exist


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_is_one_line_of_the_help_in_a_narrow_terminal(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for _ in range(2):  # the same every time
        assert cli.main([*name.split(), "--help"]) == 0
        shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
        for words in examples_of(COMMANDS[name]):
            assert [shlex.split(line.removeprefix(EXAMPLE))[1:] for line in shown if line.startswith(EXAMPLE)] == [
                words
            ]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_word_of_a_help_is_broken_in_a_narrow_terminal(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out.split()
    texts = [COMMANDS[name].help, *(one.help or "" for one in COMMANDS[name].params)]
    assert {word for text in texts for word in text.replace("\b", "").split()} <= set(shown)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as the examples expect one: a study, its store, a folder of faces by class, a bundle, a model,
    and another machine's store."""
    place = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        (place / "search_spaces").mkdir()
        (place / "search_spaces" / "puzzling.yaml").write_text(STUDY)
        shutil.copy(place / "search_spaces" / "puzzling.yaml", place / "study.yaml")
        assert cli.main(["run", "study.yaml", "--engine", "local", "--quiet", "--no-pictures"]) == 0
        pack = load_pack(next((place / "runs" / "packs").iterdir()))
        for number in range(120):
            label = pack.classes["emotion"][int(pack.labels["emotion"][number])]
            (place / "faces" / label).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place / "faces" / label / f"{number}.png"), np.array(pack.images[number])[..., ::-1])
        assert cli.main(["bundle", "puzzling"]) == 0
        assert cli.main(["export", "best:puzzling", "--to", "model.onnx"]) == 0
        [first, *_] = sorted((place / "runs" / "trials").iterdir())
        shutil.copytree(first, place / "gpu-machine" / "runs" / "trials" / first.name)
    return place


@pytest.mark.slow
@pytest.mark.parametrize(("name", "words"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_example_runs(
    name: str,
    words: list[str],
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "work"
    shutil.copytree(trained, place)
    monkeypatch.chdir(place)
    if name == "ui":
        serve(words, place)
        return
    code = cli.main(words)
    out, err = capsys.readouterr()
    assert code == 0, out + err
    assert "Traceback" not in out + err


def serve(words: list[str], place: Path) -> None:
    """Start what answers until it is stopped, wait for its address, stop it with Ctrl-C."""
    server = start(words, place, subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert any("http://127.0.0.1:" in line for line in iter(server.stdout.readline, ""))
    finally:
        server.send_signal(signal.SIGINT)
    assert server.wait(timeout=60) == 0
