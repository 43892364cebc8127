"""Trials of a store in object storage, with a stand-in for the training itself."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.errors import StoreError, TrialInterrupted
from hmtl_ablate.running import away
from hmtl_ablate.running.away import train_away
from hmtl_ablate.running.task import Report, TrialTask
from hmtl_ablate.running.trainer import attempt
from hmtl_ablate.storage.lease import Lease
from hmtl_ablate.storage.objects import Objects, Taken

TRIAL, SOURCE = "0123456789abcdef", "fedcba9876543210"
OTHERS = b'{"owner": "another"}'
"""The record of a lease that another process has."""
Train = Callable[[TrialTask, Report], None]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of the node."""
    folder = tmp_path / "node"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(away, "LOOK", 0.2)
    return folder


@pytest.fixture
def task(address: str, tmp_path: Path) -> TrialTask:
    """As a command sends it, with paths that this node has not."""
    copy = tmp_path / "of-the-command"
    return TrialTask(
        config={"seed": 0, "model": {"weights": f"trial:{SOURCE}"}},
        pack=copy / "packs" / "rendered-32px",
        folder=copy / "trials" / TRIAL,
        evaluate_test=True,
        stop=copy / ".study@quick.stop",
        remote=address,
    )


@pytest.fixture
def objects(address: str) -> Objects:
    """The store, with a pack."""
    found = Objects(address)
    found.write("packs/rendered-32px/manifest.json", b"{}")
    found.write("packs/rendered-32px/images.npy", b"pixels")
    return found


def run(task: TrialTask, train: Train, report: Report = lambda metrics: None) -> None:
    train_away(task, report, train, rank=0)


def of_the_trial(objects: Objects) -> dict[str, bytes]:
    keys = objects.entries(f"trials/{TRIAL}")
    return {key.removeprefix(f"trials/{TRIAL}/"): objects.read(key)[0] for key in keys}


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_a_trial_writes_is_sent_and_what_it_removes_goes(
    task: TrialTask, objects: Objects, temporary: Path
) -> None:
    objects.write(f"trials/{TRIAL}/last.safetensors", b"epoch 1")
    objects.write(f"trials/{TRIAL}/failure.txt", b"of before")
    seen: dict[str, Any] = {}

    def train(here: TrialTask, report: Report) -> None:
        seen["checkpoint"] = (here.folder / "last.safetensors").read_bytes()
        seen["pack"] = {path.name: path.read_bytes() for path in here.pack.iterdir()}
        (here.folder / "pictures").mkdir()
        (here.folder / "pictures/faces.png").write_bytes(b"png")
        (here.folder / "metrics.jsonl").write_text('{"epoch": 2}\n')
        (here.folder / "lock").write_text("")
        (here.folder / ".metrics.jsonl.half").write_text("")
        report({"epoch": 2})
        seen["sent"] = of_the_trial(objects)
        for name in ("last.safetensors", "failure.txt"):
            (here.folder / name).unlink()
        (here.folder / "result.json").write_text("{}")

    heard: list[Any] = []
    run(task, train, heard.append)
    assert seen["checkpoint"] == b"epoch 1"
    assert seen["pack"] == {"manifest.json": b"{}", "images.npy": b"pixels"}
    assert seen["sent"]["metrics.jsonl"] == b'{"epoch": 2}\n'  # before the command hears of the epoch
    assert heard == [{"epoch": 2}]
    expected = {"pictures/faces.png": b"png", "metrics.jsonl": b'{"epoch": 2}\n', "result.json": b"{}"}
    assert of_the_trial(objects) == expected
    assert not list(temporary.glob("hmtl-ablate-run-*"))


def test_trials_that_it_starts_from_are_brought_without_their_checkpoints(task: TrialTask, objects: Objects) -> None:
    for name in ("best.safetensors", "last.safetensors", "result.json"):
        objects.write(f"trials/{SOURCE}/{name}", name.encode())
    found = []

    def train(here: TrialTask, report: Report) -> None:
        found.extend(sorted(path.name for path in (here.folder.parent / SOURCE).iterdir()))

    run(task, train)
    assert found == ["best.safetensors", "result.json"]


def test_a_pack_comes_to_a_node_once(task: TrialTask, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    packs: list[Path] = []
    for _ in range(2):
        run(task, lambda here, report: packs.append(here.pack))
        objects.delete(["packs/rendered-32px/images.npy"])  # it is not asked for again
    assert packs[0] == packs[1]
    assert (packs[0] / "images.npy").read_bytes() == b"pixels"
    task.pack.mkdir(parents=True)
    (task.pack / "manifest.json").write_text("{}")
    run(task, lambda here, report: packs.append(here.pack))
    assert packs[2] == task.pack  # the machine of the command has it


def test_a_pack_that_is_not_in_the_store_is_said(task: TrialTask, objects: Objects) -> None:
    with pytest.raises(StoreError, match="packs/other: the pack is not in the store"):
        run(replace(task, pack=task.pack.with_name("other")), lambda here, report: None)


def test_requests_to_prune_and_to_stop_reach_it(task: TrialTask, objects: Objects) -> None:
    seen: list[bool] = []

    def train(here: TrialTask, report: Report) -> None:
        report({"epoch": 1})
        seen.append((here.folder / "prune").exists())
        objects.write(f"trials/{TRIAL}/prune", b"")
        report({"epoch": 2})
        seen.append((here.folder / "prune").exists())
        objects.write(task.stop.name, b"")
        until(here.stop.exists)
        (here.folder / "last.safetensors").write_text("epoch 2")
        raise TrialInterrupted("stopped")

    with pytest.raises(TrialInterrupted):
        run(task, train)
    assert seen == [False, True]
    assert of_the_trial(objects) == {"last.safetensors": b"epoch 2"}
    with Lease(objects, f"trials/{TRIAL}/.lease") as other:
        assert other.take()
        with pytest.raises(TrialInterrupted, match="stopped before it started"):
            run(task, train)


def test_of_a_trial_that_fails_the_reason_is_in_the_store(task: TrialTask, objects: Objects) -> None:
    def train(here: TrialTask, report: Report) -> None:
        (here.folder / "log.txt").write_text("so far")
        raise ValueError("no such face")

    failure = attempt(task, lambda: run(task, train))
    assert failure is not None
    found = of_the_trial(objects)
    assert found.keys() == {"log.txt", "failure.txt"}
    assert b"no such face" in found["failure.txt"]
    assert not task.folder.exists()


def test_it_trains_on_while_the_service_is_away(task: TrialTask, objects: Objects, proxy: Any) -> None:
    def train(here: TrialTask, report: Report) -> None:
        proxy.cut()
        for epoch in (1, 2):
            with (here.folder / "metrics.jsonl").open("a") as file:
                file.write(f"{epoch}\n")
            report({"epoch": epoch})
        threading.Timer(1.0, proxy.mend).start()  # the end of the trial waits for it

    run(task, train)
    assert of_the_trial(objects) == {"metrics.jsonl": b"1\n2\n"}


@pytest.mark.parametrize("ends", [TrialInterrupted, None])
def test_one_that_another_process_has_taken_over_sends_nothing_more(
    task: TrialTask, objects: Objects, monkeypatch: pytest.MonkeyPatch, ends: type[Exception] | None
) -> None:
    """It was asleep for so long that it counted as dead."""
    monkeypatch.setattr(away, "Lease", lambda records, key: Lease(records, key, beat=0.1))

    def train(here: TrialTask, report: Report) -> None:
        key = f"trials/{TRIAL}/.lease"
        while objects.read(key)[0] != OTHERS:
            with suppress(Taken):  # its heart has just beaten
                objects.replace(key, OTHERS, objects.read(key)[1])
        until(here.stop.exists)
        (here.folder / "result.json").write_text("{}")
        if ends is not None:
            raise ends("stopped")

    with pytest.raises(StoreError, match="another process has taken the trial over"):
        run(task, train)
    assert of_the_trial(objects) == {".lease": OTHERS}


def test_best_weights_are_never_older_than_the_checkpoint_that_counts_on_them(
    task: TrialTask, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the node dies: what is in the store then can be resumed from."""
    state: dict[str, int] = {}
    faults: list[dict[str, int]] = []
    write = Objects.write

    def noted(self: Objects, key: str, content: bytes | Path) -> Any:
        entry = write(self, key, content)
        name = key.rpartition("/")[2]
        if name in ("best.safetensors", "last.safetensors"):
            state[name] = int(bytes(content))  # type: ignore[arg-type]
            if state.get("best.safetensors", -1) < state.get("last.safetensors", -1):
                faults.append(dict(state))
        elif name == "result.json" and state != {"best.safetensors": 60, "last.safetensors": 60}:
            faults.append(dict(state))
        return entry

    def put(path: Path, number: int) -> None:
        new = path.with_name(f".{path.name}")
        new.write_text(str(number))
        os.replace(new, path)

    def train(here: TrialTask, report: Report) -> None:
        for number in range(61):
            put(here.folder / "best.safetensors", number)
            put(here.folder / "last.safetensors", number)
            if number % 3 == 0:
                report({"epoch": number})
            time.sleep(0.01)
        put(here.folder / "result.json", 1)

    monkeypatch.setattr(Objects, "write", noted)
    monkeypatch.setattr(away, "LOOK", 0.01)
    run(task, train)
    assert state == {"best.safetensors": 60, "last.safetensors": 60}
    assert faults == []
