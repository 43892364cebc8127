"""The installed program, where Ray, MLflow or a process is involved: what a user gets wrong is one clear message, exit
code 2, no traceback, and soon. Everything else about the commands: test_main.py."""

import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import Cli  # type: ignore[import-not-found]

pytestmark = pytest.mark.slow


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_the_program_is_installed(cli: Cli) -> None:
    assert cli("--version").stdout.startswith("hmtl-ablate ")
    refused(cli("plan", "nowhere.yaml"), "nowhere.yaml")


def test_a_dead_cluster(cli: Cli, tiny: Path) -> None:
    port = closed_port()
    refused(cli("run", tiny, "--address", f"127.0.0.1:{port}", timeout=60), f"127.0.0.1:{port}", "ray start")


def test_a_dead_tracking_server(cli: Cli, tiny: Path) -> None:
    port = closed_port()
    refused(cli("run", tiny, "--tracking-uri", f"http://127.0.0.1:{port}", timeout=60), f"127.0.0.1:{port}")


def test_a_storage_that_is_no_database(cli: Cli, tmp_path: Path) -> None:
    study = tmp_path / "s.yaml"
    study.write_text(
        "name: s\nbase: {data: {images: 96, size: 32}}\nsearch:\n  base: {pretext: {puzzling: {}}}\n"
        "  space: {pretext.puzzling.grid: {choice: [2, 3]}}\n  trials: 1\n"
    )
    refused(cli("run", study, "--storage", "redis://127.0.0.1"), "--storage", "sqlite:///")
    refused(cli("run", study, "--storage", f"postgresql://nobody@127.0.0.1:{closed_port()}/x"), "--storage")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--data", "ferplus=/nowhere/at/all"), "/nowhere/at/all"),
        (("--data", "ferpuls=/tmp"), "ferplus"),
        (("--set", "resources.cpus=999"), "999"),
    ],
)
def test_wrong_options(cli: Cli, tiny: Path, words: tuple[str, str], expected: str) -> None:
    refused(cli("run", tiny, *words), expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("model.weights=imagenet", "model.backbone=resnet10t"),
            "other ways: package (of tf_efficientnet_lite0 alone)",
        ),
        (("data.leave_out=[contemt]",), "did you mean 'contempt'?"),
    ],
)
def test_methods_that_can_not_run_are_refused_before_any_trial(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], expected: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = tiny.read_text().split("  SL + puzzling")[0] + "seeds: [0]\n"
    tiny.write_text(text)
    refused(cli("run", tiny, *(part for word in words for part in ("--set", word))), expected)
    assert not (tmp_path / "runs" / "trials").exists()


def test_a_dataset_without_the_tasks_labels_is_refused_before_any_trial(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    for number in range(16):
        folder = tmp_path / "faces" / ("happy" if number % 2 else "sad")
        folder.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 255, (4, 4, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(coarse, (32, 32)))
    refused(
        cli("run", tiny, "--data", "folder=faces", "--set", "task=pose"),
        "has no labels for task 'pose'; it has: emotion",
    )


def test_report_without_runs(cli: Cli, tmp_path: Path) -> None:
    refused(cli("report"), "there is no folder runs", "hmtl-ablate run")
    assert not (tmp_path / "runs").exists()


def test_ui_without_runs(cli: Cli) -> None:
    refused(cli("ui"), "hmtl-ablate run")


def test_light_commands_import_nothing_heavy() -> None:
    code = (
        "import sys; import hmtl_ablate.cli, hmtl_ablate.checks, hmtl_ablate.study; "
        "print([m for m in ('torch', 'ray', 'mlflow', 'optuna', 'pandas', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
