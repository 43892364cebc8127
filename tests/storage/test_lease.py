from __future__ import annotations

import errno
import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.storage import lease as module
from hmtl_ablate.storage.lease import FolderRecords, Lease, Records, has_flock, locked
from hmtl_ablate.storage.objects import Objects, StoreAway

BEAT, EXPIRY = 0.1, 1.0


@pytest.fixture(params=["objects", "folder"])
def records(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Records:
    if request.param == "objects":
        return Objects(request.getfixturevalue("address"))
    found = FolderRecords(tmp_path)
    monkeypatch.setattr(FolderRecords, "settle", 0.2)
    return found


def lease(records: Records) -> Lease:
    return Lease(records, "trial.lease", beat=BEAT, expiry=EXPIRY)


class Asleep:
    """Records that can't be reached while it sleeps, as by a process that is stopped."""

    def __init__(self, records: Records) -> None:
        self._records, self.sleeps, self.settle = records, False, records.settle

    def __getattr__(self, name: str) -> Any:
        if self.sleeps:
            raise StoreAway("asleep")
        return getattr(self._records, name)


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on leases are of a machine of which nothing is known."""
    monkeypatch.setattr(module, "_own_process", lambda: {"host": "another", "space": "x", "pid": 1, "start": "0"})


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without flock, where leases beat and expire sooner."""

    def refuse(*words: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(FolderRecords, "settle", 0.1)
    monkeypatch.setattr(module, "BEAT", BEAT)
    monkeypatch.setattr(module, "EXPIRY", EXPIRY)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_at_a_time_and_the_next_when_it_is_given_back(records: Records) -> None:
    first, second = lease(records), lease(records)
    assert first.take()
    assert not second.take()
    first.close()
    assert second.take()
    second.close()
    with pytest.raises(FileNotFoundError):
        records.read("trial.lease")


def test_it_is_kept_as_long_as_the_heart_beats(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch)
    with lease(records) as first:
        assert first.take()
        other = lease(records)
        until(lambda: not other.take() and other._alive)
        assert not other.wait(patience=30)  # it shows signs of life, so nobody waits for its end
        assert "another, process 1" in other.holder
        assert not first.lost


def test_without_a_heartbeat_it_is_taken_over_and_the_old_holder_learns_of_it(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch)
    asleep = Asleep(records)
    with lease(asleep) as first, lease(records) as second:
        assert first.take()
        asleep.sleeps = True
        assert not second.take()
        until(second.take)
        asleep.sleeps = False
        until(lambda: first.lost)
        first.close()
        assert json.loads(records.read("trial.lease")[0])["owner"] == second._owner


def test_time_in_which_the_service_was_away_does_not_count(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor could the holder give a sign of life: it does so as soon as the service is back."""
    elsewhere(monkeypatch)
    theirs, ours = Asleep(records), Asleep(records)
    with lease(theirs) as first, lease(ours) as second:
        assert first.take()
        assert not second.take()
        theirs.sleeps = ours.sleeps = True
        deadline = time.monotonic() + 2 * EXPIRY
        while time.monotonic() < deadline:
            with pytest.raises(StoreAway):
                second.take()
            time.sleep(BEAT)
        ours.sleeps = False
        assert not second.take()
        theirs.sleeps = False
        until(lambda: not second.take() and second._alive)
        assert not first.lost


def test_a_process_of_this_machine_that_has_ended_is_not_waited_for(records: Records) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    own = module._own_process() | {"pid": ended.pid, "start": module._start_of(ended.pid)}
    records.create("trial.lease", json.dumps({"owner": "x", "beat": 1, **own}).encode())
    with lease(records) as other:
        if own["start"]:
            ended.wait()
        assert other.take()


def test_a_damaged_record_is_taken_over_after_the_same_time(records: Records) -> None:
    records.create("trial.lease", b"\0 no json")
    with lease(records) as other:
        assert not other.take()
        until(other.take)


def test_a_service_that_is_away_for_a_while_costs_nothing(address: str, proxy: Any) -> None:
    with Lease(Objects(address), "trial.lease", beat=BEAT, expiry=60) as held:
        assert held.take()
        proxy.cut()
        with pytest.raises(StoreAway):
            Lease(Objects(address), "trial.lease").take()
        proxy.mend()
        before = held._tag
        until(lambda: held._tag != before)
        assert not held.lost


def test_where_there_is_no_flock_a_lease_locks(tmp_path: Path, no_flock: None) -> None:
    assert not has_flock(tmp_path)
    first = locked(tmp_path / "lock")
    assert isinstance(first, Lease)
    assert locked(tmp_path / "lock") is None
    first.close()
    second = locked(tmp_path / "lock")
    assert second is not None
    second.close()


def test_a_lock_that_one_process_takes_again_is_kept_again(tmp_path: Path, no_flock: None) -> None:
    """Otherwise another command takes the folder over, and this one does not notice."""
    record = tmp_path / "lock.lease"
    for _ in range(2):
        held = locked(tmp_path / "lock")
        assert isinstance(held, Lease)
        first = record.read_bytes()
        until(lambda before=first: record.read_bytes() != before)  # type: ignore[misc]
        assert not held.lost
        held.close()
    held = locked(tmp_path / "lock")
    assert isinstance(held, Lease)
    record.write_text("of another")
    until(lambda: held.lost)
    held.close()


def test_flock_locks_where_there_is_one(tmp_path: Path) -> None:
    assert has_flock(tmp_path)
    first = locked(tmp_path / "lock")
    assert first is not None
    assert locked(tmp_path / "lock") is None
    first.close()
    assert not list(tmp_path.glob("*.lease"))
    again = locked(tmp_path / "lock")
    assert again is not None
    again.close()
