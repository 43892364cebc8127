"""Whatever a user gets wrong: one clear message, exit code 2, no traceback, and soon."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import SPACES, Cli  # type: ignore[import-not-found]


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_a_dead_cluster(cli: Cli, tiny: Path) -> None:
    port = closed_port()
    refused(cli("run", tiny, "--address", f"127.0.0.1:{port}", timeout=60), f"127.0.0.1:{port}", "ray start")


def test_a_dead_tracking_server(cli: Cli, tiny: Path) -> None:
    port = closed_port()
    refused(cli("run", tiny, "--tracking-uri", f"http://127.0.0.1:{port}", timeout=60), f"127.0.0.1:{port}")


def test_a_store_that_cannot_be_written(cli: Cli, tiny: Path) -> None:
    # A folder of /proc refuses everybody, root included; a mode of 0500 would not stop root.
    refused(cli("run", tiny, "--runs", "/proc/1/nowhere"), "--runs /proc/1/nowhere", "can't be written")


def test_a_storage_that_is_no_database(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    study = tmp_path / "s.yaml"
    study.write_text(
        "name: s\nbase: {data: {images: 96, size: 32}}\nsearch:\n  base: {pretext: {puzzling: {}}}\n"
        "  space: {pretext.puzzling.grid: {choice: [2, 3]}}\n  trials: 1\n"
    )
    refused(cli("run", study, "--storage", "redis://127.0.0.1"), "--storage", "sqlite:///")
    refused(cli("run", study, "--storage", f"postgresql://nobody@127.0.0.1:{closed_port()}/x"), "--storage")


def test_a_missing_study_file(cli: Cli) -> None:
    refused(cli("run", "nowhere.yaml"), "nowhere.yaml")


def test_a_malformed_study_names_place_and_offender(cli: Cli, tiny: Path) -> None:
    tiny.write_text(tiny.read_text().replace("batch_size", "batchsize"))
    refused(cli("plan", tiny), "tiny.yaml:5:", "batchsize", "batch_size")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--profile", "papr"), "papr"),
        (("--set", "training.epoch=3"), "epochs"),
        (("--seeds", "a,b"), "--seeds a,b"),
        (("--data", "ferplus=/nowhere/at/all"), "/nowhere/at/all"),
        (("--data", "ferpuls=/tmp"), "ferplus"),
        (("--set", "model.backbone=efficientnet_bo"), "efficientnet_b"),
        (("--import", "no_such_module_here"), "no_such_module_here"),
        (("--set", "resources.cpus=999"), "999"),
    ],
)
def test_wrong_options(cli: Cli, tiny: Path, words: tuple[str, str], expected: str) -> None:
    refused(cli("run", tiny, *words), expected)


def test_data_check_and_pack_of_a_wrong_path(cli: Cli) -> None:
    refused(cli("data", "check", "ferplus=/nowhere"), "/nowhere")
    refused(cli("data", "pack", "folder=/nowhere"), "/nowhere")


def test_data_pack_and_check_say_what_is_there(cli: Cli, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    for name in ("happiness", "sadness"):
        folder = tmp_path / "faces" / name
        folder.mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng([number, len(name)]).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{number}.png"), pixels)
    checked = cli("data", "check", "folder=faces", "--size", 32)
    assert checked.returncode == 0, checked.stderr
    assert "24 images" in checked.stdout
    packed = cli("data", "pack", "folder=faces", "--size", 32)
    assert packed.returncode == 0
    assert list((tmp_path / "runs" / "packs").glob("folder-32px-*/manifest.json"))
    (tmp_path / "faces" / "sadness" / "0.png").write_bytes(b"")
    broken = cli("data", "check", "folder=faces", "--size", 32)
    refused(broken, "1 %")
    assert "0.png" in broken.stdout + broken.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("task=[emotion,age]",), "'age' is no supervised task"),
        (("model.weights=package",), "set model.backbone: tf_efficientnet_lite0, or use imagenet"),
        (
            ("model.weights=imagenet", "model.backbone=resnet10t"),
            "other ways: package (of tf_efficientnet_lite0 alone)",
        ),
        (("model.weights=nowhere",), "use null, imagenet, package, file:PATH or trial:NAME"),
        (("data.leave_out=[contemt]",), "did you mean 'contempt'?"),
        (("probe.kind=linear", "probe.folds=200"), "less than or equal to 100"),
    ],
)
def test_methods_that_can_not_run_are_refused_before_any_trial(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], expected: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = tiny.read_text().split("  SL + puzzling")[0] + "seeds: [0]\n"
    tiny.write_text(text)
    done = cli("run", tiny, *(part for word in words for part in ("--set", word)))
    assert done.returncode == 2
    assert expected in done.stderr, done.stderr
    assert not (tmp_path / "runs" / "trials").exists()


def test_a_dataset_without_the_tasks_labels_is_refused_before_any_trial(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    for number in range(16):
        folder = tmp_path / "faces" / ("happy" if number % 2 else "sad")
        folder.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 255, (4, 4, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(coarse, (32, 32)))
    done = cli("run", tiny, "--data", "folder=faces", "--set", "task=pose")
    assert done.returncode == 2
    assert "has no labels for task 'pose'; it has: emotion" in done.stderr


def test_report_without_runs(cli: Cli, tmp_path: Path) -> None:
    done = cli("report")
    assert done.returncode == 0
    assert "no runs" in done.stdout.lower()
    assert done.stdout.count("Unverified") >= 9
    assert not (tmp_path / "runs").exists()


def test_ui_without_runs(cli: Cli) -> None:
    refused(cli("ui"), "hmtl-ablate run")


def test_schema_is_json_and_plan_lists_the_trials(cli: Cli, tiny: Path) -> None:
    assert json.loads(cli("schema").stdout)["type"] == "object"
    planned = cli("plan", tiny)
    assert planned.returncode == 0
    assert planned.stdout.count("start  ") == 4


def test_light_commands_import_nothing_heavy() -> None:
    code = (
        "import sys; import hmtl_ablate.cli, hmtl_ablate.study; "
        "print([m for m in ('torch', 'ray', 'mlflow', 'optuna', 'pandas', 'cv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_search_space_has_a_plan(cli: Cli) -> None:
    for path in sorted(SPACES.glob("*.yaml")):
        assert cli("plan", path).returncode == 0
