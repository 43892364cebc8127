from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.errors import StoreError
from hmtl_ablate.storage import address_of, bring, lease, mirror, mirror_of, opened, publish, store_folder
from hmtl_ablate.storage.lease import Lease
from hmtl_ablate.storage.mirror import Mirror, size_elsewhere
from hmtl_ablate.storage.objects import Objects, StoreAway


def machine(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From now on this process is on another machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
    monkeypatch.setattr(mirror, "_mirrors", {})


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith(".")}


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert store_folder(tmp_path) == store_folder(str(tmp_path)) == tmp_path
    assert mirror_of(tmp_path) is None
    assert address_of(tmp_path) == str(tmp_path)
    assert bring(tmp_path / "x") == tmp_path / "x"
    assert size_elsewhere(tmp_path / "x") is None
    publish(tmp_path, "packs")
    with opened(tmp_path, databases=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_new_is_brought_and_what_is_gone_goes(address: str) -> None:
    objects = Objects(address)
    objects.write("trials/aa/config.json", b"{}")
    objects.write("trials/aa/metrics.jsonl", b"1\n")
    folder = store_folder(address)
    assert address_of(folder) == address
    assert files(folder) == {"trials/aa/config.json", "trials/aa/metrics.jsonl"}
    objects.write("trials/aa/metrics.jsonl", b"1\n2\n")
    objects.delete(["trials/aa/config.json"])
    (folder / "own.txt").write_text("not of the store")
    assert store_folder(address) == folder
    assert files(folder) == {"trials/aa/metrics.jsonl", "own.txt"}
    assert (folder / "trials/aa/metrics.jsonl").read_text() == "1\n2\n"


def test_weights_and_packs_are_brought_when_they_are_needed(address: str) -> None:
    objects = Objects(address)
    for key in (
        "trials/aa/best.safetensors",
        "trials/aa/last.safetensors",
        "packs/p/images.npy",
        "packs/p/manifest.json",
    ):
        objects.write(key, b"12345")
    folder = store_folder(address)
    assert files(folder) == set()
    assert size_elsewhere(folder / "trials/aa/best.safetensors") == 5
    assert size_elsewhere(folder / "trials/aa/other.safetensors") is None
    assert bring(folder / "trials/aa/best.safetensors").read_bytes() == b"12345"
    bring(folder / "packs/p")
    assert files(folder) == {"trials/aa/best.safetensors", "packs/p/images.npy", "packs/p/manifest.json"}


def test_keys_that_would_leave_the_folder_or_are_the_folders_own_are_not_brought(address: str) -> None:
    objects = Objects(address)
    for key in (".mirror.json", "trials/aa/.lease", "trials/aa/lock", "trials/aa/prune", "a\\b", "mlflow.db-wal"):
        objects.write(key, b"x")
    folder = store_folder(address)
    assert files(folder) == set()
    assert not (folder / ".mirror.json").exists() or (folder / ".mirror.json").read_bytes() != b"x"


def test_what_a_command_writes_is_on_the_other_machine(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store_folder(address)
    with opened(folder, databases=True):
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            database.execute("create table runs (name text)")
            database.execute("insert into runs values ('puzzling')")
            database.commit()
        (folder / "artifacts/study").mkdir(parents=True)
        (folder / "artifacts/study/study.yaml").write_text("name: study")
        (folder / "study.html").write_text("<p>")
        (folder / "packs/p").mkdir(parents=True)
        (folder / "packs/p/manifest.json").write_text("{}")
        publish(folder, "packs")
    machine("other", monkeypatch, tmp_path)
    other = store_folder(address)
    assert other != folder
    assert files(other) == {"mlflow.db", "artifacts/study/study.yaml", "study.html"}
    with closing(sqlite3.connect(other / "mlflow.db")) as database:
        assert database.execute("select name from runs").fetchall() == [("puzzling",)]
    bring(other / "packs/p")
    assert (other / "packs/p/manifest.json").read_text() == "{}"


def test_one_command_at_a_time_writes_the_databases(address: str) -> None:
    folder = store_folder(address)
    said = r"another command \(.+, process \d+\) has MLflow's and Optuna's databases"
    with opened(folder, databases=True):
        with opened(folder, databases=False):  # they are on a server
            pass
        with pytest.raises(StoreError, match=said), opened(folder, databases=True):
            pass
    with opened(folder, databases=True):
        pass


def test_the_leases_of_a_machine_that_is_gone_expire_together(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of its trials, which other processes take."""
    monkeypatch.setattr(mirror, "EXPIRY", 1.0)
    monkeypatch.setattr(lease, "_own_process", lambda: {"host": "gone", "space": "x", "pid": 1, "start": "0"})
    objects, folder = Objects(address), store_folder(address)
    keys = (".databases.lease", ".study@quick.lease", "trials/aa/.lease")
    dead = [Lease(objects, key, beat=1e6) for key in keys]
    assert all(one.take() for one in dead)
    found = mirror_of(folder)
    assert found is not None
    found._look_at_leases()
    time.sleep(1.2)
    found._end_dead_leases()
    with found.lease("databases", "these"), found.lease("study@quick", "those"):
        assert Lease(objects, "trials/aa/.lease").take()


def test_databases_in_use_are_not_replaced(address: str, tmp_path: Path) -> None:
    folder = store_folder(address)
    with opened(folder, databases=True):
        (folder / "mlflow.db").write_bytes(b"newer, not sent yet")
        Objects(address).write("mlflow.db", b"older")
        store_folder(address)  # such as `report` while a study runs
        assert (folder / "mlflow.db").read_bytes() == b"newer, not sent yet"
        (folder / "mlflow.db").unlink()
    store_folder(address)
    assert (folder / "mlflow.db").read_bytes() == b"older"


def test_a_service_that_is_away_is_said_at_once(address: str, proxy: Any, tmp_path: Path) -> None:
    folder = store_folder(address)
    proxy.cut()
    with pytest.raises(StoreAway, match=f"--runs {address}: the service does not answer"):
        store_folder(address)
    with pytest.raises(StoreAway), opened(folder, databases=True):
        pass


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(StoreError, match=r"pip install 'hmtl-ablate\[cloud\]'"):
        store_folder("s3://bucket/runs")


def test_an_address_given_as_a_path_is_refused() -> None:
    with pytest.raises(StoreError, match="pass the address of a store as text"):
        store_folder(Path("s3://bucket/runs"))


def test_a_local_copy_that_can_not_be_made(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StoreError, match=r"Not a directory; the local copy of .* set XDG_CACHE_HOME to another place"):
        Mirror.at(address)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mirror, "has_flock", lambda folder: False)
    with pytest.raises(StoreError, match=r"has no file locks .* set XDG_CACHE_HOME to another place"):
        Mirror.at(address)
