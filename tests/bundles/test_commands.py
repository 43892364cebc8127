"""`bundle`, `verify`, `import` of a bundle, as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hmtl_ablate import cli
from tests.conftest import Cli  # type: ignore[import-not-found]


def test_exit_codes(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(bundle)]) == 0
    assert "4 trials: all consistent\nThis proves that" in capsys.readouterr().out
    assert cli.main(["verify", str(tmp_path / "none.zip")]) == 2
    assert "there is no file" in capsys.readouterr().err
    assert cli.main(["verify", str(bundle), "--retrain", "--data", "ferplus"]) == 2
    assert "write NAME=PATH" in capsys.readouterr().err


def test_a_tampered_bundle_ends_with_1(tamper: object, capsys: pytest.CaptureFixture[str]) -> None:
    path = tamper({"report.md": lambda text: text.replace(b"42.50", b"92.50")})  # type: ignore[operator]
    assert cli.main(["verify", str(path)]) == 1
    assert "differs: report.md: line" in capsys.readouterr().out


def test_a_bundle_s_trials_come_into_a_store_without_weights(
    bundle: Path, tmp_path: Path, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["import", str(bundle), "--runs", str(tmp_path / "new")]) == 0
    assert "trials: 4 imported, 0 already finished here, 0 refused" in capsys.readouterr().out
    assert (tmp_path / "new" / first / "result.json").is_file()
    assert not (tmp_path / "new" / first / "best.safetensors").exists()


@pytest.mark.slow
def test_a_study_from_its_run_to_the_audit(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    assert cli("run", tiny, "--engine", "local", "--seeds", "0").returncode == 0
    assert cli("bundle", "tiny", "--output", "tiny.zip").returncode == 0
    done = cli("verify", "tiny.zip", "--retrain", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 trials: all consistent" in done.stdout
    assert "drawn with --seed 1; compared bit for bit\nit agrees" in done.stdout
    assert cli("import", "tiny.zip", "--runs", "elsewhere").returncode == 0
    again = cli("run", tiny, "--engine", "local", "--seeds", "0", "--runs", "elsewhere")
    assert "2 finished before" in again.stdout
    assert cli("bundle", "tiny", "--runs", "elsewhere", "--output", "again.zip").returncode == 0
    assert "all consistent" in cli("verify", "again.zip").stdout
