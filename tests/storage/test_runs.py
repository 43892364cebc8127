"""Studies whose store is in object storage, by the real command line."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.storage.objects import Objects
from tests.conftest import PROGRAM, Cli, environment, start  # type: ignore[import-not-found]

pytestmark = pytest.mark.slow
EPOCHS = 30
LONG = ("--seeds", "0", "--set", f"training.epochs={EPOCHS}", "--set", "data.images=200")
SEARCHED = """\
name: searched
base:
  data: {images: 96, size: 16}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 12, warmup_epochs: 0}
variants:
  SL: {}
seeds: [0, 1]
search:
  space: {training.lr: {choice: [0.004, 0.003, 1.0e-8, 2.0e-8, 3.0e-8, 4.0e-8]}}
  pruner: {name: successive_halving, grace_epochs: 2}
  sampler: grid
  trials: 6
  racing: null
"""


def on_another_machine(words: list[object], folder: Path) -> subprocess.CompletedProcess[str]:
    """`hmtl-ablate …` on a machine of another name that has nothing but the study file and the address."""
    own = environment() | {"XDG_CACHE_HOME": str(folder / "other-cache")}
    apart = ["unshare", "--uts", "sh", "-c", 'hostname other && exec "$@"', "sh"]
    return subprocess.run(
        [*apart, PROGRAM, *map(str, words)],
        cwd=folder,
        env=own,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def rows(objects: Objects) -> dict[str, list[int]]:
    """Id of a trial → the epochs of its history."""
    found = {}
    for key in objects.entries("trials"):
        if key.endswith("/metrics.jsonl"):
            lines = objects.read(key)[0].decode().splitlines()
            found[key.split("/")[1]] = [json.loads(line)["epoch"] for line in lines]
    return found


def results(objects: Objects) -> list[dict[str, Any]]:
    return [json.loads(objects.read(key)[0]) for key in objects.entries("trials") if key.endswith("/result.json")]


def checkpoints(objects: Objects) -> list[str]:
    return [key for key in objects.entries("trials") if key.endswith("/last.safetensors")]


def test_a_killed_driver_s_study_resumes_on_another_machine_from_the_objects_alone(
    address: str, tiny: Path, tmp_path: Path
) -> None:
    objects = Objects(address)
    words: list[object] = ["run", tiny, *LONG, "--runs", address, "--engine", "local"]
    driver = start(words, tmp_path)
    try:
        deadline = time.monotonic() + 300
        while not (checkpoints(objects) and results(objects)):
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        driver.kill()
        driver.wait()
    assert len(results(objects)) == 1
    done = on_another_machine(words, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trials: 1 trained, 1 finished before" in done.stdout
    assert f"store: {address}" in done.stdout
    assert list(rows(objects).values()) == [list(range(1, EPOCHS + 1))] * 2
    logs = [objects.read(key)[0].decode() for key in objects.entries("trials") if key.endswith("/log.txt")]
    assert any("resumes at epoch" in log for log in logs)
    assert checkpoints(objects) == []
    left = [key for key in objects.entries() if key.endswith((".lease", ".stop", "/prune", "/lock"))]
    assert left == []


def test_an_outage_in_the_middle_stops_nothing(address: str, tiny: Path, tmp_path: Path, proxy: Any, cli: Cli) -> None:
    """Trials train on, the run waits where it must, and all of it is in the store at the end."""
    objects = Objects(address)
    driver = start(["run", tiny, *LONG, "--runs", address], tmp_path, subprocess.PIPE)
    try:
        deadline = time.monotonic() + 300
        while len(checkpoints(objects)) + len(results(objects)) < 2:
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        proxy.cut()
        time.sleep(25)
        proxy.mend()
        out, err = driver.communicate(timeout=240)
    finally:
        driver.kill()
    assert driver.returncode == 0, out + err
    assert "Traceback" not in out + err
    assert "trials: 2 trained, 0 finished before" in out
    assert list(rows(objects).values()) == [list(range(1, EPOCHS + 1))] * 2
    assert "swan" not in out + err
    report = cli("report", "--runs", address)
    assert report.returncode == 0, report.stderr
    assert "SL + puzzling" in report.stdout


def test_a_search_is_pruned_and_resumes_and_models_are_taken_home(
    address: str, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna's database goes with the store; the pruner's request reaches a trial through it."""
    (tmp_path / "searched.yaml").write_text(SEARCHED)
    words = ["run", "searched.yaml", "--runs", address, "--engine", "local"]
    done = cli(*words, "--trials", 4)
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    done = cli(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 finished before" in done.stdout
    found = results(Objects(address))
    assert len(found) == 7  # six of the search, one of which is the variant's first seed, and its second
    assert {result["status"] for result in found} == {"finished", "pruned"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    done = cli("export", "best:searched", "--to", "model.onnx", "--runs", address)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.onnx").stat().st_size > 0
    weights = list((tmp_path / "third").rglob("*.safetensors"))
    assert len(weights) == 1  # those of the one trial that was asked for


def test_a_store_that_can_not_be_used_ends_the_command_with_a_line(
    address: str, tiny: Path, cli: Cli, proxy: Any
) -> None:
    for runs, said in (
        ("s3://no-such-bucket/runs", "there is no such bucket"),
        ("ftp://bucket/runs", "a store is a folder, or an address"),
    ):
        done = cli("run", tiny, "--runs", runs)
        assert done.returncode == 2
        assert said in done.stderr
    proxy.cut()
    for words in (("run", tiny), ("report",), ("show", "best:tiny")):
        done = cli(*words, "--runs", address)
        assert done.returncode == 2
        assert "the service does not answer" in done.stderr
