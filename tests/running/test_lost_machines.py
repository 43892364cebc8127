"""Runs on real Ray whose parts die: raylet, GCS, memory, other nodes. What the user sees, and that the run resumes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PROGRAM, Cli, environment, start  # type: ignore[import-not-found]

pytestmark = pytest.mark.slow
EPOCHS = 40
"""So many that a trial takes seconds, and does not end before its machine does."""
WORDS = ("--seeds", "0", "--set", f"training.epochs={EPOCHS}", "--set", "data.images=200", "--max-concurrent", "1")


def wait_for(what: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def trained(store: Path) -> list[Path]:
    """The trials with a checkpoint or a result. A history has its line before the checkpoint is written, and a trial
    that dies between the two starts from nothing."""
    files = (*store.glob("trials/*/last.safetensors"), *store.glob("trials/*/result.json"))
    return sorted({path.parent for path in files})


def below(pid: int, name: str) -> list[int]:
    """Processes of this name (15 characters at most) that descend from another."""
    parents: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text()
        except OSError:
            continue
        words = text.rpartition(")")[2].split()
        parents[int(folder.name)] = (int(words[1]), text[text.index("(") + 1 : text.rindex(")")])
    found = []
    for one, (parent, own) in parents.items():
        while parent > 1 and parent != pid:
            parent = parents.get(parent, (0, ""))[0]
        if parent == pid and own == name:
            found.append(one)
    return found


def run(words: list[object], folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`hmtl-ablate …` with other environment variables."""
    return subprocess.run(
        [PROGRAM, *map(str, words)],
        cwd=folder,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def epochs_of(store: Path) -> list[list[int]]:
    return [
        [json.loads(line)["epoch"] for line in path.read_text().splitlines()]
        for path in sorted(store.glob("trials/*/metrics.jsonl"))
    ]


@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_a_run_ends_by_itself_when_ray_dies_and_the_same_command_resumes(
    tiny: Path, tmp_path: Path, cli: Cli, victim: str
) -> None:
    """fault C3: the driver waited for ever, and Ctrl-C did nothing."""
    words, store = ["run", tiny, *WORDS], tmp_path / "runs"
    driver = start(words, tmp_path, subprocess.PIPE)
    wait_for(lambda: trained(store))
    (process,) = below(driver.pid, victim)
    os.kill(process, signal.SIGKILL)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 75, out + err
    assert "the trials are at their last checkpoints: the same command resumes" in err
    assert "Traceback" not in out + err
    assert "failed" not in out
    done = cli(*words, timeout=450)
    assert done.returncode == 0, done.stdout + done.stderr
    assert epochs_of(store) == [list(range(1, EPOCHS + 1))] * 2
    assert any("resumes at epoch" in path.read_text() for path in store.glob("trials/*/log.txt"))


def test_ctrl_c_ends_a_run_whose_ray_has_died(tiny: Path, tmp_path: Path) -> None:
    """fault C3: two of them end it at once, whatever Tune waits for."""
    driver = start(["run", tiny, *WORDS], tmp_path, subprocess.PIPE)
    wait_for(lambda: trained(tmp_path / "runs"))
    os.kill(below(driver.pid, "raylet")[0], signal.SIGKILL)
    driver.send_signal(signal.SIGINT)
    time.sleep(1)
    driver.send_signal(signal.SIGINT)
    out, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, out + err
    assert "run the same command again to resume" in out + err


def test_trials_that_ray_ends_for_their_memory_fail_alone(tiny: Path, tmp_path: Path) -> None:
    """fault C1: the run ended with exit 70 and a page of Ray's text. Here every process is over the limit."""
    limits = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "200"}
    done = run(["run", tiny, *WORDS], tmp_path, limits)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if "ran out of memory" in line]
    assert sum("(out of memory (host), retry" in line for line in lines) == 4  # two trials, twice
    assert sum(": failed: its machine ran out of memory (" in line for line in lines) == 2
    assert "trials: 0 trained, 0 finished before, 2 failed" in done.stdout
    assert done.stderr == ""
    log = next((tmp_path / "runs").glob("trials/*/failure.txt")).read_text()
    assert log.startswith("out of memory (host): its machine ran out of memory (")
    assert "low on memory" in log


def test_no_cluster_is_joined_that_was_not_asked_for(tiny: Path, tmp_path: Path) -> None:
    """fault C2: RAY_ADDRESS, the file of a cluster that once ran here, and what else Ray and Tune read unasked."""
    with tempfile.TemporaryDirectory(prefix="r-") as folder:  # sockets lie in it: their paths must be short
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("192.0.2.1:6379")
        stale = {"RAY_ADDRESS": "192.0.2.1:6379", "RAY_TMPDIR": folder, "RAY_NAMESPACE": "other"}
        stale |= {"TUNE_RESULT_DIR": folder, "RAY_AIR_LOCAL_CACHE_DIR": folder, "RAY_CLIENT_MODE": "1"}
        done = run(["run", tiny, "--seeds", "0", "--set", "training.epochs=1"], tmp_path, stale)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trials: 2 trained" in done.stdout


def test_a_trial_whose_node_is_lost_resumes_on_another(tiny: Path, tmp_path: Path) -> None:
    """fault C8: the message named the wrong cause, and the trial failed."""
    from ray.cluster_utils import Cluster

    store = tmp_path / "runs"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        words = ["run", tiny, *WORDS[:-2], "--address", cluster.address]
        driver = start(words, tmp_path, subprocess.PIPE)
        wait_for(lambda: len(trained(store)) == 2 or driver.poll() is not None)
        cluster.remove_node(nodes[0], allow_graceful=False)
        out, err = driver.communicate(timeout=240)
    finally:
        cluster.shutdown()
    assert driver.returncode == 0, out + err
    # Ray may learn of the end of a node's processes before it learns of the node's.
    assert re.search(r"it resumes from its last checkpoint \((node lost|crashed), retry 1 of 2", out), out
    assert epochs_of(store) == [list(range(1, EPOCHS + 1))] * 2
