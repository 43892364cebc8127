"""The scripts in analysis/: a few calls each, run as people run them."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ANALYSIS = Path(__file__).parents[2] / "analysis"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ANALYSIS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_claims_table(store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("claims_table").main(["--runs", str(tmp_path / "none")]) == 0
    assert "No runs yet" in capsys.readouterr().out
    parent = store.study({"SL": "a"}, [0])
    store.trial(parent, "SL", "a", 0, 0.5)
    target = tmp_path / "claims.md"
    assert script("claims_table").main(
        ["--runs", str(store.path), "--format", "markdown", "--output", str(target)]) == 0
    text = target.read_text(encoding="utf-8")
    assert text.count("| AffectNet |") == 8
    assert "Studies" not in text


def test_low_data_figure(store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "figure.png"
    arguments = ["--runs", str(store.path), "--output", str(target)]
    assert script("low_data_figure").main(arguments) == 2
    assert "low_data.yaml" in capsys.readouterr().err
    parent = store.study({"SL": "a"}, [0], name="low_data")
    store.trial(parent, "SL", "a", 0, 0.5)
    assert script("low_data_figure").main(arguments) == 0
    assert target.read_bytes().startswith(b"\x89PNG")


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--runs", str(tmp_path), "--output", str(tmp_path / "no folder" / "claims.md")]
    assert script("claims_table").main(arguments) == 2
    assert "no folder" in capsys.readouterr().err
