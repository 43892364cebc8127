"""`show` and `compare`, in this process."""

import json
from pathlib import Path
from typing import Any

import pytest

import hmtl_ablate as ha
from hmtl_ablate.cli import main
from hmtl_ablate.cli.trials import curve

BASE: dict[str, Any] = {"data": {"images": 120, "size": 32}, "training": {"epochs": 2, "warmup_epochs": 0}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a store of two trials."""
    folder = tmp_path_factory.mktemp("trials")
    for seed in (0, 1):
        ha.train(BASE, seed=seed, store=folder / "runs", progress=False)
    return folder


@pytest.fixture
def ids(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(place)
    return sorted(path.name for path in (place / "runs" / "trials").iterdir())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_tables_fit_the_terminal(
    ids: list[str], width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for words in (["show", ids[0]], ["compare", *ids]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert max(len(line) for line in shown.splitlines()) <= width
        assert "balanced" in shown


def test_show_has_options_results_and_curves(ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", ids[0][:6]]) == 0
    shown = capsys.readouterr().out
    trial = ha.load_trial(ids[0], "runs")
    for words in (["data.images", "120"], ["status", "finished"], ["epochs", "2 of 2"]):
        assert any(line.split()[0] == words[0] and words[1] in line for line in shown.splitlines() if line.strip())
    assert f"{100 * trial.metrics['test/accuracy']:.2f} %" in shown
    assert main(["show", ids[0], "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["result"]["metrics"] == trial.metrics
    assert len(found["history"]) == 2


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([1, 2, 3], "▁▅█"), ([2, 2], "▁▁"), ([0, float("nan"), 7], "▁ █"), (range(100), "▁▁▂▂▂▃▃▃▃▄▄▄▅▅▅▆▆▆▆▇▇▇██")],
)
def test_a_curve_goes_from_its_lowest_to_its_highest_value(values: Any, drawn: str) -> None:
    assert curve(list(values)) == drawn


def test_compare_names_what_differs(ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *ids]) == 0
    shown = capsys.readouterr().out
    assert "seed" in shown
    assert "McNemar" in shown
    assert main(["compare", *ids, "--format", "json"]) == 0
    [paired] = json.loads(capsys.readouterr().out)["images"]
    assert sum(paired[key] for key in ("both", "only_first", "only_second", "neither")) == paired["images"]
    assert main(["compare", ids[0], ids[0]]) == 0
    assert "Their options are the same." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "zzz"], "zzz: there is no such trial"),
        (["best", "puzzling", "--runs", "elsewhere"], "name the --runs folder that a run has written"),
        (["compare", "{}", "best:nothing"], "best:nothing: there is no such trial"),
    ],
)
def test_what_can_t_be_done_is_one_message(
    ids: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(ids[0]) for word in words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "Traceback" not in shown.err
