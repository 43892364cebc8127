"""MLflow's own pages, served from wherever the store is."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.errors import TrackingError
from hmtl_ablate.tracking import Tracking, open_tracking, serve_ui

SERVE = (
    "import sys; from pathlib import Path; from hmtl_ablate.tracking import serve_ui; "
    "serve_ui(None, Path(sys.argv[1]), int(sys.argv[2]), lambda address: print(address, flush=True))"
)
Maker = Callable[..., Any]
Steps = Callable[[Tracking, str, str], list[int]]


@pytest.fixture
def served(
    tracking: Tracking, store: Path, tmp_path: Path, study: Maker, trial: Maker, free_port: int
) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """A finished trial in a store that was moved, and the server of its pages: (address, trial's run_id, process)."""
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"png")
    record = trial(tracking.study_run(study(), "name: p\n"))
    child = tracking.trial_run(record)
    ended = replace(record, status="finished", metrics={"test/accuracy": 0.7})
    tracking.finish_trial(child, ended, {"pictures/first.png": picture})
    tracking.client._tracking_client.store.engine.dispose()
    moved = tmp_path / "moved here"
    store.rename(moved)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(moved), str(free_port)], text=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), child, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_moved_store_is_served_with_its_artifacts(
    served: tuple[str, str, subprocess.Popen[str]], tmp_path: Path, study: Maker, trial: Maker, steps: Steps
) -> None:
    address, child, process = served
    root, _, page = address.partition("/#/")
    assert page.startswith("experiments/")
    assert "/runs?" in page
    with urllib.request.urlopen(root) as answer:
        assert b"<html" in answer.read()
    from mlflow import MlflowClient

    client = MlflowClient(root)
    assert client.get_run(child).data.metrics["test/accuracy"] == 0.7
    assert [file.path for file in client.list_artifacts(child, "pictures")] == ["pictures/first.png"]
    assert Path(client.download_artifacts(child, "pictures/first.png", str(tmp_path))).read_bytes() == b"png"

    remote = open_tracking(root, tmp_path)  # the same server as tracking address: files go through it
    parent = remote.study_run(study(), "name: p\n")
    assert parent == client.get_run(child).data.tags["mlflow.parentRunId"]
    record = trial(parent, variant="remote " + "x" * 9000)
    other = remote.trial_run(record)
    ended = replace(record, status="finished", metrics={"test/accuracy": 0.8})
    for _ in range(2):
        remote.log_epochs(other, [{"epoch": 1, "lr": 0.1}, {"epoch": 2, "lr": 0.1}])
        remote.finish_trial(other, ended, {"pictures/second.png": tmp_path / "picture.png"})
    assert remote.trial_run(record) == other
    assert {one.run_id: one for one in remote.trials()}[other].variant == record.variant
    assert steps(remote, other, "test/accuracy") == [0]
    assert (tmp_path / "moved here").joinpath(
        "artifacts", "hmtl-ablate", other, "artifacts", "pictures", "second.png"
    ).read_bytes() == b"png"

    port = int(root.rpartition(":")[2])
    with pytest.raises(TrackingError, match="--port"):
        serve_ui(None, tmp_path / "moved here", port, print)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    time.sleep(0.2)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_store_without_runs_is_not_served(tmp_path: Path, free_port: int) -> None:
    with pytest.raises(TrackingError, match="no runs yet"):
        serve_ui(None, tmp_path, free_port, print)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_server_that_dies_is_reported_with_its_last_words(
    store: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmtl_ablate.tracking.server.sys.executable", shutil.which("false") or "false")
    with pytest.raises(TrackingError, match="does not start"):
        serve_ui(None, store, free_port, print)


def test_a_server_has_its_own_pages(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"me:\*\*\*@host is a server already"):
        serve_ui("http://me:secret@host", tmp_path, 5000, print)


def test_a_busy_port(store: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        with pytest.raises(TrackingError, match="--port"):
            serve_ui(None, store, busy.getsockname()[1], print)
