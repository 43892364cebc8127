"""A store of a lab's own tasks and dataset: with `--import` every command works on it; without, it works too, or says
in one message that a module is missing."""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hmtl_ablate import cli
from hmtl_ablate.reporting.formats import TEXT_FORMATS
from tests.cli.test_examples import COMMANDS, EXAMPLES  # type: ignore[import-not-found]
from tests.conftest import ROOT  # type: ignore[import-not-found]

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))
LAB = f"""{BLOCKS["mirror"]}
{BLOCKS["ages"]}
from hmtl_ablate.reporting.formats import register_text

register_text("titles", lambda sections, width: "".join(f"{{section.heading}}\\n" for section in sections))
"""
STUDY = """\
name: puzzling
base:
  task: age
  data: {name: ages, size: 32}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 1, warmup_epochs: 0}
variants:
  SL: {}
  SL + puzzling: {pretext: {mirror: {feed: siamese}}}
seeds: [0, 1]
"""
DATA = ("--data", "ages=ages")
MORE = [
    ("report", "hmtl-ablate report --evidence mirror"),
    ("report", "hmtl-ablate report --format titles"),
    ("data check", "hmtl-ablate data check ages=ages"),
    ("data pack", "hmtl-ablate data pack ages=ages"),
    ("import", "hmtl-ablate import puzzling.hmtl.zip --runs elsewhere"),
    ("plan", "hmtl-ablate plan search_spaces/puzzling.yaml --profile quick --set pretext.mirror.weight=0.5"),
]
LINES = [*EXAMPLES, *((name, shlex.split(line)[1:]) for name, line in MORE)]
LINES = [
    (name, [*words, *(DATA if name in ("run", "plan") else ())])
    for name, words in LINES
    if name != "ui"  # MLflow knows nothing of tasks
]


def forget() -> None:
    """The module is not imported yet, as at the start of a command."""
    sys.modules.pop("edge_lab", None)
    TEXT_FORMATS.pop("titles", None)


@pytest.fixture(autouse=True)
def fresh(registries: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    forget()
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    forget()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder as the examples expect one, but for the task, the pretext task and the dataset."""
    from hmtl_ablate.config import PRETEXT_OPTIONS
    from hmtl_ablate.data.registry import DATASETS
    from hmtl_ablate.pretext import PRETEXT_TASKS
    from hmtl_ablate.supervised import SUPERVISED_TASKS

    registries: list[dict[str, Any]] = [PRETEXT_OPTIONS, PRETEXT_TASKS, SUPERVISED_TASKS, DATASETS]
    known = [(registry, registry.copy()) for registry in registries]
    place = tmp_path_factory.mktemp("lab")
    (place / "edge_lab.py").write_text(LAB)
    draw = np.random.default_rng(0)
    for folder in ("ages", "faces/anger", "faces/fear"):
        (place / folder).mkdir(parents=True)
        for number in range(96):
            image = draw.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            cv2.imwrite(str(place / folder / f"{20 + number % 50}_{number}.png"), image)
    (place / "search_spaces").mkdir()
    (place / "search_spaces" / "puzzling.yaml").write_text(STUDY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "path", [*sys.path])
        lab = ("--import", "edge_lab")
        study = "search_spaces/puzzling.yaml"
        assert cli.main(["run", study, "--engine", "local", "--quiet", "--no-pictures", *DATA, *lab]) == 0
        assert cli.main(["bundle", "puzzling", *lab]) == 0
        assert cli.main(["export", "best:puzzling", "--to", "model.onnx", *lab]) == 0
        for trial in (place / "runs" / "trials").iterdir():
            shutil.copytree(trial, place / "gpu-machine" / "runs" / "trials" / trial.name)
    for registry, entries in known:
        registry.clear()
        registry.update(entries)
    forget()
    return place


@pytest.mark.slow
@pytest.mark.parametrize(("name", "words"), LINES, ids=[" ".join(words) for _, words in LINES])
def test_with_the_module_it_works_and_without_it_at_least_says_so(
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
    code = cli.main(words)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    if code:
        assert code == 2
        assert "--import MODULE" in err
    takes = "--import" in {option for one in COMMANDS[name].params for option in one.opts}
    code = cli.main([*words, *(["--import", "edge_lab"] if takes else [])])
    out, err = capsys.readouterr()
    assert code == 0, out + err
    if takes:
        assert "is registered here" not in err  # and nothing was guessed


@pytest.mark.slow
def test_a_report_without_the_module_warns_that_it_guesses(
    trained: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    assert cli.main(["report"]) == 0
    [record] = caplog.records
    assert record.getMessage().startswith("no supervised task 'age' is registered here: higher is taken for better")
    assert "Lower is better." not in capsys.readouterr().out
    caplog.clear()
    assert cli.main(["report", "--import", "edge_lab"]) == 0
    assert "Lower is better." in capsys.readouterr().out
    assert not caplog.records
