"""Runs in a real MLflow store: found again, never doubled, served from wherever the store lies."""

from __future__ import annotations

import logging
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from hmtl_ablate.errors import TrackingError
from hmtl_ablate.tracking import Tracking, open_tracking, serve_ui

SERVE = (
    "import sys; from pathlib import Path; from hmtl_ablate.tracking import serve_ui; "
    "serve_ui(None, Path(sys.argv[1]), int(sys.argv[2]), lambda address: print(address, flush=True))"
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's schema takes seconds to create, so it is created once and copied."""
    folder = tmp_path_factory.mktemp("template")
    open_tracking(None, folder)
    return folder / "mlflow.db"


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(template, folder / "mlflow.db")
    return folder


@pytest.fixture
def tracking(store: Path) -> Tracking:
    return open_tracking(None, store)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def study(tracking: Tracking, data: str = "rendered", question: str = "Does it help?", text: str = "name: p\n") -> str:
    return tracking.study_run("it's", "quick", data, tags={"hmtl.question": question}, study_text=text)


def trial(tracking: Tracking, parent: str, variant: str = "sl", **tags: str) -> str:
    return tracking.trial_run(
        parent,
        f"{variant} · seed 0",
        trial_id="abc",
        variant=variant,
        tags={f"hmtl.{key}": value for key, value in tags.items()},
        params={"training.epochs": 2, "model.long": "x" * 900},
    )


def epochs(count: int) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "val/loss": 1 / epoch, "val/recall/a(b)": 0.5, "seconds": 2.0 * epoch}
        for epoch in range(1, count + 1)
    ]


def steps(tracking: Tracking, run_id: str, metric: str) -> list[int]:
    return [point.step for point in tracking.client.get_metric_history(run_id, metric)]


def test_parent_is_found_again_and_brought_up_to_date(tracking: Tracking, store: Path) -> None:
    parent = study(tracking)
    tracking.finish_study(parent, "FAILED", {"hmtl.reason": "oops"})
    assert tracking.client.get_run(parent).info.status == "FAILED"

    again = open_tracking(None, store)
    assert study(again, question="Really?", text="name: q\n") == parent
    run = again.client.get_run(parent)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "it's (quick, rendered)"
    assert run.data.tags["hmtl.question"] == "Really?"
    assert [file.read_text() for file in store.rglob("study.yaml")] == ["name: q\n"]
    assert study(again, data="ferplus") != parent


def test_child_is_found_again_by_parent_trial_and_variant(tracking: Tracking) -> None:
    parent = study(tracking)
    child = trial(tracking, parent, seed="0")
    assert trial(tracking, parent, device="cpu") == child
    assert trial(tracking, parent, variant="other") != child
    assert trial(tracking, study(tracking, data="ferplus")) != child

    run = tracking.client.get_run(child)
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert (run.data.tags["hmtl.seed"], run.data.tags["hmtl.device"]) == ("0", "cpu")
    assert run.data.tags["hmtl.status"] == "running"
    assert run.data.params == {"training.epochs": "2", "model.long": "x" * 500}


def test_a_failed_trial_that_is_tried_again_counts_as_running(tracking: Tracking) -> None:
    parent = study(tracking)
    child = trial(tracking, parent)
    tracking.finish_trial(child, status="failed", metrics={}, tags={"hmtl.reason": "NaN"}, artifacts={})
    trial(tracking, parent)
    assert tracking.client.get_run(child).info.status == "FAILED"
    trial(tracking, parent, status="running")
    assert tracking.client.get_run(child).info.status == "RUNNING"


def test_a_run_is_there_with_its_tags_or_not_at_all(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking.client, "log_batch", killed)  # what follows a run's creation
    with pytest.raises(KeyboardInterrupt):
        trial(tracking, "parent", seed="0")
    [run] = tracking.client.search_runs([tracking.experiment_id])
    assert run.data.tags["hmtl.seed"] == "0"
    assert run.data.tags["hmtl.variant"] == "sl"


def test_epochs_are_written_once(tracking: Tracking, store: Path) -> None:
    child = trial(tracking, study(tracking))
    tracking.log_epochs(child, epochs(1))
    tracking.log_epochs(child, epochs(2))
    again = open_tracking(None, store)
    again.log_epochs(child, epochs(3))
    again.log_epochs(child, epochs(3))
    assert steps(again, child, "val/loss") == [1, 2, 3]
    assert steps(again, child, "val/recall/a_b_") == [1, 2, 3]


def test_values_that_are_not_finite_are_left_out(tracking: Tracking) -> None:
    child = trial(tracking, study(tracking))
    tracking.log_epochs(child, [{"epoch": 1, "val/loss": float("nan"), "lr": 0.1}])
    tracking.log_epochs(child, [{"epoch": 1, "val/loss": 1.0, "lr": 0.1}])
    assert tracking.client.get_run(child).data.metrics == {"epoch": 1, "lr": 0.1}
    assert steps(tracking, child, "lr") == [1]


@pytest.mark.parametrize(("status", "end"), [("finished", "FINISHED"), ("pruned", "KILLED"), ("failed", "FAILED")])
def test_finishing_twice_writes_nothing_twice(tracking: Tracking, tmp_path: Path, status: str, end: str) -> None:
    child = trial(tracking, study(tracking))
    tracking.log_epochs(child, epochs(2))
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"png")
    values = {"test/accuracy": 0.7, "seconds": 5.0, "best/val/loss": float("inf")}
    for _ in range(2):
        tracking.finish_trial(
            child,
            status=status,
            metrics=values,  # type: ignore[arg-type]
            tags={"hmtl.device": "cpu"},
            artifacts={"pictures/first.png": picture},
        )

    run = tracking.client.get_run(child)
    assert run.info.status == end
    assert (run.data.tags["hmtl.status"], run.data.tags["hmtl.device"]) == (status, "cpu")
    assert run.data.metrics["seconds"] == 5.0
    assert "best/val/loss" not in run.data.metrics
    assert steps(tracking, child, "test/accuracy") == [2]
    assert steps(tracking, child, "seconds") == [1, 2, 2]

    tracking.finish_trial(
        child,
        status=status,
        metrics=values | {"test/accuracy": 0.6},  # type: ignore[arg-type]
        tags={},
        artifacts={},
    )
    assert tracking.client.get_run(child).data.metrics["test/accuracy"] == 0.6


def test_the_environment_of_another_run_does_not_leak_in(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracking = open_tracking(None, store)
    parent = study(tracking)
    assert parent != "0" * 32
    assert tracking.client.get_experiment(tracking.client.get_run(parent).info.experiment_id).name == "hmtl-ablate"


def test_a_new_store_is_made_quietly_and_holds_no_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tracking = open_tracking(None, tmp_path / "deep" / "runs")
    study(tracking)
    assert logging.getLogger("mlflow").level == logging.WARNING
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    for experiment in tracking.client.search_experiments():
        assert experiment.artifact_location.startswith("mlflow-artifacts:/")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://127.0.0.1:{port}", "can't be used"),
        ("postgresql://me:secret@127.0.0.1:{port}/db", "can't be reached"),
        ("sqlite:///{file}/below/mlflow.db", "can't be opened"),
        ("sqlite:///{file}", "can't be opened"),
        ("sqlite://", "no file is named"),
        ("file:///{file}", "use sqlite:///"),
        ("{file}", "use sqlite:///"),
        ("ftp://host/x", "use sqlite:///"),
    ],
)
@pytest.mark.timeout(60)
def test_an_address_that_cannot_be_used_is_told(tmp_path: Path, uri: str, said: str) -> None:
    file = tmp_path / "file"
    file.write_text("not a database, just some text that is longer than a header of SQLite would be " * 20)
    with pytest.raises(TrackingError) as caught:
        open_tracking(uri.format(port=free_port(), file=file), tmp_path)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_mlflow_refuses_becomes_a_tracking_error(tracking: Tracking) -> None:
    with pytest.raises(TrackingError, match="no-such-run"):
        tracking.log_epochs("no-such-run", epochs(1))
    tracking.client.delete_experiment(tracking.experiment_id)
    with pytest.raises(TrackingError, match="does not take the results"):
        study(tracking)


def test_a_deleted_experiment_is_told(tracking: Tracking, store: Path) -> None:
    tracking.client.delete_experiment(tracking.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        open_tracking(None, store)


@pytest.fixture
def served(tracking: Tracking, store: Path, tmp_path: Path) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """A finished trial in a store that was moved, and the server of its pages: (address, trial's run_id, process)."""
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"png")
    child = trial(tracking, study(tracking))
    tracking.finish_trial(
        child, status="finished", metrics={"test/accuracy": 0.7}, tags={}, artifacts={"pictures/first.png": picture}
    )
    tracking.client._tracking_client.store.engine.dispose()
    moved = tmp_path / "moved here"
    store.rename(moved)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(moved), str(free_port())], text=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), child, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


@pytest.mark.timeout(180)
def test_a_moved_store_is_served_with_its_artifacts(
    served: tuple[str, str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    address, child, process = served
    root, _, page = address.partition("/#/")
    assert page.startswith("experiments/")
    assert "/runs?" in page
    with urllib.request.urlopen(root) as answer:
        assert b"<html" in answer.read()
    client = MlflowClient(root)
    assert client.get_run(child).data.metrics["test/accuracy"] == 0.7
    assert [file.path for file in client.list_artifacts(child, "pictures")] == ["pictures/first.png"]
    assert Path(client.download_artifacts(child, "pictures/first.png", str(tmp_path))).read_bytes() == b"png"

    remote = open_tracking(root, tmp_path)  # the same server as tracking address: files go through it
    assert study(remote) == client.get_run(child).data.tags["mlflow.parentRunId"]
    other = trial(remote, study(remote), variant="remote")
    for _ in range(2):
        remote.log_epochs(other, epochs(2))
        remote.finish_trial(
            other,
            status="finished",
            metrics={"test/accuracy": 0.8},
            tags={},
            artifacts={"pictures/second.png": tmp_path / "picture.png"},
        )
    assert steps(remote, other, "test/accuracy") == [2]
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


def test_a_store_without_runs_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="no runs yet"):
        serve_ui(None, tmp_path, free_port(), print)
    assert not list(tmp_path.iterdir())


def test_a_server_that_dies_is_told_with_its_last_words(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmtl_ablate.tracking.sys.executable", shutil.which("false") or "false")
    with pytest.raises(TrackingError, match="does not start"):
        serve_ui(None, store, free_port(), print)
