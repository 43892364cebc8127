"""A lock that its holder keeps by a heartbeat: for object storage, and for file systems that have no flock.

Clocks of different machines are never compared: whoever waits sees whether the record changes. One that has not changed
for EXPIRY seconds is taken over; at once when its holder was a process of this machine that has ended.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from hmtl_ablate.errors import StoreError
from hmtl_ablate.storage.files import write_atomically
from hmtl_ablate.storage.objects import StoreAway, Taken

BEAT, EXPIRY = 5.0, 60.0
"""Seconds between two heartbeats, and without one until the holder counts as dead."""
SETTLE = 1.0
"""Seconds after which two processes that took a record of a folder over at once see who has it."""
NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What file systems without flock answer."""


GIVEN_BACK = b'{"given_back": true}'
"""The record of a lease that nobody has."""


class Records(Protocol):
    """Small texts that are written on a condition."""

    settle: float
    """Seconds until a replaced record is certain to be ours."""

    def create(self, key: str, content: bytes) -> str: ...
    def replace(self, key: str, content: bytes, tag: str) -> str: ...
    def read(self, key: str) -> tuple[bytes, str]: ...
    def delete(self, keys: Iterable[str]) -> None: ...


class FolderRecords:
    """Records as files of a folder. `replace` is not atomic there, so a taken one has to settle."""

    settle = SETTLE

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self, key: str, content: bytes) -> str:
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=f".{key}.") as file:
            file.write(content)
            file.flush()
            try:
                os.link(file.name, self.folder / key)
            except FileExistsError:
                raise Taken(key) from None
        return _tag(content)

    def replace(self, key: str, content: bytes, tag: str) -> str:
        with suppress(FileNotFoundError):
            if self.read(key)[1] == tag:
                write_atomically(self.folder / key, content)
                return _tag(content)
        raise Taken(key)

    def read(self, key: str) -> tuple[bytes, str]:
        content = (self.folder / key).read_bytes()
        return content, _tag(content)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            (self.folder / key).unlink(missing_ok=True)


class Lease:
    """One lock. `take` it; a thread then keeps it until `close`. `lost` says that another process has it."""

    def __init__(
        self,
        records: Records,
        key: str,
        *,
        beat: float = BEAT,
        expiry: float = EXPIRY,
        seen: tuple[str, float] | None = None,
    ) -> None:
        """seen: a tag with which the record was seen before, and since when, by time.monotonic()."""
        self._records, self._key, self._beat, self._expiry = records, key, beat, expiry
        self._owner = secrets.token_hex(8)
        self._count, self._tag = 0, ""
        (self._seen, self._since), self._alive = seen or ("", 0.0), False
        """The record's tag when it was looked at last, since when it has had it, and whether it had another before."""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False
        """Another process has taken it over: it saw no heartbeat for too long."""
        self.holder = ""
        """Machine and process of whoever has it, as far as is known."""

    def take(self) -> bool:
        """Take it if it is free, or its holder is dead; call it again while it returns False.

        Raises StoreAway and StoreError when the records can't be written.
        """
        try:
            if not self._is_taken():
                return False
        except StoreAway:  # nor could the holder write: its time counts from the service's return
            self._since = time.monotonic()
            raise
        self._thread = threading.Thread(target=self._keep, daemon=True, name="hmtl-ablate-lease")
        self._thread.start()
        return True

    def wait(self, patience: float, say: Callable[[str], None] = lambda text: None) -> bool:
        """Take it as soon as its holder is known to be dead; False when it shows signs of life, or after `patience`
        seconds.

        say: called with a sentence if there is something to wait for.
        """
        deadline, said = time.monotonic() + patience, False
        while not self.take():
            if time.monotonic() > deadline or self._alive:
                return False
            if not said:
                said = True
                say(f"waiting for a sign of life of {self.holder}, or {self._expiry:.0f} s without one")
            time.sleep(min(self._beat / 5, 1.0))
        return True

    def close(self) -> None:
        """Give it back."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            with suppress(StoreError, OSError):  # else it expires
                if _parsed(self._records.read(self._key)[0]).get("owner") == self._owner:
                    self._records.delete([self._key])

    @property
    def seen(self) -> tuple[str, float]:
        """The tag that the record had when it was looked at last, and since when it has had it."""
        return self._seen, self._since

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_taken(self) -> bool:
        try:
            self._tag = self._records.create(self._key, self._content())
        except Taken:
            return self._take_over()
        return True

    def _take_over(self) -> bool:
        """Take over the record of a dead holder."""
        try:
            content, tag = self._records.read(self._key)
        except FileNotFoundError:
            return False  # it was given back a moment ago
        holder = _parsed(content)
        self.holder = f"{holder.get('host', 'unknown')}, process {holder.get('pid', 'unknown')}"
        self._alive = bool(self._seen) and tag != self._seen
        if tag != self._seen:
            self._seen, self._since = tag, time.monotonic()
        free = holder.get("given_back") or _has_ended(holder)
        if not free and time.monotonic() - self._since < self._expiry:
            return False
        try:
            self._tag = self._records.replace(self._key, self._content(), tag)
        except Taken:
            return False
        if self._records.settle:
            time.sleep(self._records.settle)
            with suppress(FileNotFoundError):
                return self._records.read(self._key)[1] == self._tag
            return False
        return True

    def _keep(self) -> None:
        while not self._over.wait(self._beat):
            content = self._content()
            try:
                self._tag = self._records.replace(self._key, content, self._tag)
            except Taken:
                self.lost = True
                return
            except (StoreAway, OSError):
                continue  # whether it was taken meanwhile shows when the records are back
            except StoreError:
                continue

    def _content(self) -> bytes:
        self._count += 1
        return json.dumps({"owner": self._owner, "beat": self._count, **_own_process()}).encode()


def locked(path: Path) -> IO[str] | Lease | None:
    """Lock a file against other processes, by flock, or by a lease next to it where there is no flock.

    The lock ends when what is returned is closed, or with this process. None when another has it. Raises OSError.
    """
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        if error.errno not in NO_FLOCK:
            raise
        return _leased(path)
    except BaseException:
        file.close()
        raise
    return file


def has_flock(folder: Path) -> bool:
    """Whether files of a folder can be locked by flock. Raises OSError when it can't be written."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_FLOCK:
                raise
            return False
    return True


@contextmanager
def lock(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Lock a file as `locked` does, for a block; waits for whoever has it. waiting: called once if there is one."""
    found = locked(path)
    if found is None:
        waiting()
    while found is None:
        time.sleep(0.1)
        found = locked(path)
    with found:
        yield


_seen: dict[str, tuple[str, float]] = {}
"""Path of a lock that this process has asked for in vain → its record's tag, and since when it has been that one."""


def _leased(path: Path) -> Lease | None:
    """A lease next to the file, taken; None when another has it. Each call has a lease of its own: one that was given
    back has no heartbeat any more."""
    key = str(path.absolute())
    lease = Lease(FolderRecords(path.parent), f"{path.name}.lease", beat=BEAT, expiry=EXPIRY, seen=_seen.get(key))
    if lease.take():
        _seen.pop(key, None)
        return lease
    _seen[key] = lease.seen
    return None


def _own_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "space": _space(), "pid": os.getpid(), "start": _start_of(os.getpid())}


def _has_ended(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine, and is over."""
    if holder.get("host") != socket.gethostname() or holder.get("space") != _space():
        return False
    return _start_of(int(holder.get("pid", 0))) != holder.get("start")


def _space() -> str:
    """This machine since its start, and the namespace of its process numbers; "" where neither is known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """When a process began, in the kernel's ticks; "" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _tag(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"
