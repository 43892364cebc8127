from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hmtl_ablate.errors import StoreError
from hmtl_ablate.storage.objects import Entry, Objects, StoreAway, Taken


def test_objects_are_written_read_listed_and_removed(address: str, tmp_path: Path) -> None:
    objects = Objects(address)
    (tmp_path / "file").write_bytes(b"pixels")
    first, second = objects.write("trials/a/x", b"12"), objects.write("trials/b/y", tmp_path / "file")
    assert (first.size, second.size) == (2, 6)
    assert objects.entries("trials/a") == {"trials/a/x": first}
    assert objects.entries() == {"trials/a/x": first, "trials/b/y": second}
    assert objects.read("trials/a/x") == (b"12", first.tag)
    assert objects.download("trials/b/y", tmp_path / "copy") == second
    assert (tmp_path / "copy").read_bytes() == b"pixels"
    objects.delete(["trials/a/x", "never was"])
    assert objects.entry("trials/a/x") is None
    assert objects.entry("trials/b/y") == Entry(second.tag, 6)
    with pytest.raises(FileNotFoundError):
        objects.read("trials/a/x")


def test_conditional_writes(address: str) -> None:
    objects = Objects(address)
    tag = objects.create("lease", b"1")
    with pytest.raises(Taken):
        objects.create("lease", b"2")
    new = objects.replace("lease", b"3", tag)
    for stale in (tag, '"0"'):
        with pytest.raises(Taken):
            objects.replace("lease", b"4", stale)
    assert objects.read("lease") == (b"3", new)
    objects.delete(["lease"])
    with pytest.raises(Taken):
        objects.replace("lease", b"5", new)


def test_a_write_whose_answer_was_lost_is_known_as_ones_own(address: str) -> None:
    """obstore sends it again, and the service refuses the second one."""
    objects = Objects(address)
    tag = objects.create("lease", b"mine")
    assert objects.create("lease", b"mine") == tag
    assert objects.replace("lease", b"mine", '"of before"') == tag


def test_of_many_that_create_an_object_at_once_one_succeeds(address: str) -> None:
    won: list[int] = []

    def create(number: int) -> None:
        try:
            Objects(address).create("lease", str(number).encode())
            won.append(number)
        except Taken:
            pass

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert Objects(address).read("lease")[0] == str(won[0]).encode()


@pytest.mark.parametrize(
    "text", ["s3://", "s3://b/../c", "http://x/y", "s3://user:swan-7!lake@b/c", "s3://b/a b", "ftp://b", "s3://b//c"]
)
def test_an_address_that_no_store_can_have_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(StoreError, match=r"an address such as s3://BUCKET/PREFIX") as caught:
        Objects(text)
    assert "swan" not in str(caught.value)


def test_a_bucket_that_does_not_exist_and_a_server_that_does_not_answer(address: str, proxy: object) -> None:
    missing = Objects("s3://no-such-bucket/runs")
    for ask in (missing.check, missing.entries, lambda: missing.write("a", b""), lambda: missing.read("a")):
        with pytest.raises(StoreError, match="there is no such bucket; make it first"):
            ask()
    proxy.cut()  # type: ignore[attr-defined]
    with pytest.raises(StoreAway, match=rf"--runs {address}: the service does not answer"):
        Objects(address).entries()


def test_a_service_without_conditional_writes_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = Objects(address)
    objects.check()
    assert objects.entries() == {}
    monkeypatch.setattr(objects, "create", lambda key, content: objects.write(key, content).tag)
    with pytest.raises(StoreError, match="ignores If-None-Match"):
        objects.check()
