"""A store at an address, and the local folder that commands work in.

The objects are the store; the folder is a copy of them. A command brings what has changed, works in the folder as in
any other store, and sends what it has written. Where a trial trains, its folder is brought and sent by
`running/away.py`.
Checkpoints, weights and packs are brought when they are needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hmtl_ablate.errors import StoreError
from hmtl_ablate.storage.files import replacing, write_atomically
from hmtl_ablate.storage.lease import EXPIRY, GIVEN_BACK, Lease, has_flock
from hmtl_ablate.storage.objects import SCHEMES, Entry, Objects, StoreAway, Taken, is_address

ADDRESS_FILE, STATE = ".address.json", ".mirror.json"
"""In the folder: the store's address; what was brought or sent, and how the local files were then."""
IN_USE = ".in-use.lock"
"""In the folder: locked while a command writes the databases."""
DATABASES = ("mlflow.db", "optuna.db")
HEAVY = ("last.safetensors", "best.safetensors")
"""Files of a trial's folder that are brought when they are needed."""
OWN = ("lock", "prune")
"""Files of a trial's folder that are of one machine."""
AT_ONCE = 8
"""Transfers at once."""
OFTEN, SELDOM = 5.0, 30.0
"""Seconds between two looks at Optuna's database, and at MLflow's and all else."""
PATIENCE, OUTAGE = 120.0, 1800.0
"""Seconds that the end of a command, and a run or a trial, wait for a service that is away."""

Say = Callable[[str], None]
"""Shows the user a sentence."""


def store_folder(store: str | Path) -> Path:
    """The folder of a store: itself or, of one at an address, the local copy, brought up to date.

    Raises StoreError for an address that no store can have, or whose service can't be reached.
    """
    text = str(store)
    if not is_address(text):
        if text.split("/")[0].removesuffix(":") in SCHEMES and isinstance(store, Path):
            raise StoreError(f"{text}: pass the address of a store as text; a Path has lost one of its slashes")
        return Path(text)
    mirror = Mirror.at(text)
    mirror.bring()
    return mirror.folder


def address_of(store: Path) -> str:
    """How the user names a store: its address or its folder."""
    mirror = mirror_of(store)
    return str(store) if mirror is None else mirror.address


def mirror_of(store: Path) -> Mirror | None:
    """What brings and sends the files of a store; None for one that is a folder alone."""
    key = str(store.absolute())
    if key not in _mirrors:
        try:
            address = json.loads((store / ADDRESS_FILE).read_text())["address"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        _mirrors[key] = Mirror(address, store)
    return _mirrors[key]


def bring(path: Path) -> Path:
    """Bring what a store at an address has of a file or folder in it, heavy files too. Does nothing elsewhere.

    Raises StoreError when the service can't be reached.
    """
    for parent in path.absolute().parents:
        if (mirror := mirror_of(parent)) is not None:
            mirror.bring(path.absolute().relative_to(parent).as_posix(), heavy=True)
            break
    return path


def size_elsewhere(path: Path) -> int | None:
    """Size in bytes of a file that the store at an address has, and its local folder has not; None for any other."""
    for parent in path.absolute().parents[:3]:
        if (mirror := mirror_of(parent)) is not None:
            found = mirror.known(path.absolute().relative_to(parent).as_posix())
            return None if found is None else found.size
    return None


def publish(store: Path, *prefixes: str) -> None:
    """Send what was written below these folders of a store at an address. Does nothing elsewhere."""
    if (mirror := mirror_of(store)) is not None:
        for prefix in prefixes:
            mirror.send(prefix)
        mirror.save()


@contextmanager
def opened(store: Path, *, databases: bool, say: Say = lambda text: None) -> Iterator[None]:
    """Work in a store: one at an address is brought up to date, and gets what is written while the block runs.

    databases: whether its SQLite databases are written; then no other command that does may run. say: shows a sentence.
    Raises StoreError.
    """
    mirror = mirror_of(store)
    if mirror is None:
        yield
        return
    mirror.objects.check()
    with ExitStack() as stack:
        if databases:
            what = "MLflow's and Optuna's databases, which one command at a time can write"
            advice = "put them on a server with --tracking-uri and --storage"
            stack.enter_context(mirror.lease("databases", f"{what}: wait for it, or {advice}", say))
        mirror.bring()
        stack.enter_context(mirror.in_use())
        stack.enter_context(_Courier(mirror))
        yield


@dataclass(frozen=True)
class _Known:
    """An object as it was brought or sent last, and the local file then."""

    entry: Entry
    changed: int
    """Time of change in nanoseconds; 0 for one that was seen, and not brought."""
    size: int


class Mirror:
    """The objects of an address and a local folder. Safe to use from several threads."""

    def __init__(self, address: str, folder: Path) -> None:
        self.objects = Objects(address)
        self.address, self.folder = self.objects.address, folder
        self._bringing, self._lock = threading.Lock(), threading.Lock()
        """One thread brings at a time; the other one is for what is known."""
        self._leases: dict[str, tuple[str, float]] = {}
        """Key of a lease → its tag, and since when it has been seen with it."""
        self._known: dict[str, _Known] = {}
        with suppress(OSError, ValueError, TypeError):
            for key, (tag, length, changed, size) in json.loads((folder / STATE).read_text()).items():
                self._known[key] = _Known(Entry(tag, length), changed, size)

    @classmethod
    def at(cls, address: str) -> Mirror:
        """That of an address, in the user's cache folder. Raises StoreError."""
        address = Objects(address).address
        name = re.sub(r"[^A-Za-z0-9]+", "-", address)[:60] + hashlib.sha256(address.encode()).hexdigest()[:8]
        base = Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache") / "hmtl-ablate" / "stores"
        folder = base / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / ADDRESS_FILE, json.dumps({"address": address}).encode())
            problem = "" if has_flock(folder) else "its file system has no file locks (flock)"
        except OSError as error:
            problem = str(error.strerror)
        if problem:
            raise StoreError(
                f"{folder}: {problem}; the local copy of {address} is there, set XDG_CACHE_HOME to another place"
            )
        found = mirror_of(folder)
        if found is None:
            raise StoreError(f"{folder}: the local copy of {address} can't be read")
        return found

    def known(self, key: str) -> Entry | None:
        """An object as it was seen last."""
        found = self._known.get(key)
        return None if found is None else found.entry

    def bring(self, prefix: str = "", *, heavy: bool = False) -> None:
        """Bring what is new or changed below a prefix, and remove what is no longer there. Raises StoreError.

        heavy: checkpoints, weights and packs, too.
        """
        with self._lock:  # what is sent from here on may be missing in the list that is asked for next
            before = [key for key in self._known if _below(key, prefix)]
        entries = {key: entry for key, entry in self.objects.entries(prefix).items() if _is_safe(key)}
        if not entries and prefix and (entry := self.objects.entry(prefix)) is not None:
            entries = {prefix: entry}
        with self._bringing, self._alone():
            wanted = {key: entry for key, entry in entries.items() if heavy or not _is_heavy(key)}
            if not self._databases_are_free():
                wanted = {key: entry for key, entry in wanted.items() if key not in DATABASES}
            with self._lock:
                for key, entry in entries.items():
                    if key not in wanted and self.known(key) != entry:
                        self._known[key] = _Known(entry, 0, 0)
            stale = [key for key, entry in wanted.items() if self._is_stale(key, entry)]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(self._bring_one, stale))
            for key in [key for key in before if key not in entries]:
                self._known.pop(key, None)
                (self.folder / key).unlink(missing_ok=True)
            if stale and not prefix:
                self.save()

    def send(self, prefix: str) -> None:
        """Send the files below a folder, or the one file, that have changed since they were brought or sent."""
        top = self.folder / prefix
        files = [top] if top.is_file() else [path for path in sorted(top.rglob("*")) if path.is_file()]
        keys = [path.relative_to(self.folder).as_posix() for path in files if not path.is_symlink()]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._send_one, [key for key in keys if is_sent(key)]))

    def send_database(self, name: str) -> None:
        """Send a copy of a SQLite database that may be in use, if it has changed."""
        path = self.folder / name
        changed = max((one.stat().st_mtime_ns for one in self.folder.glob(f"{name}*") if one.is_file()), default=0)
        found = self._known.get(name)
        if not path.is_file() or (found is not None and found.changed >= changed):
            return
        with tempfile.TemporaryDirectory(prefix="hmtl-ablate-") as place:
            copy = Path(place) / name
            with closing(sqlite3.connect(path, timeout=60)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            entry = self.objects.write(name, copy.read_bytes())
        with self._lock:
            self._known[name] = _Known(entry, changed, path.stat().st_size)

    def save(self) -> None:
        """Write down what was brought and sent."""
        with self._lock, suppress(OSError):  # without it everything is compared anew
            known = {key: [k.entry.tag, k.entry.size, k.changed, k.size] for key, k in self._known.items()}
            write_atomically(self.folder / STATE, json.dumps(known).encode())

    @contextmanager
    def lease(self, name: str, what: str, say: Say = lambda text: None) -> Iterator[Lease]:
        """A lease of the store, for a block. what: what another command has, and what to do; say: shows a sentence.

        Raises StoreError.
        """
        key = f".{name}.lease"
        lease = Lease(self.objects, key, seen=self._leases.get(key))
        if not lease.take():
            self._look_at_leases()
            if not lease.wait(EXPIRY + 15, say):
                raise StoreError(f"--runs {self.address}: another command ({lease.holder}) has {what}")
        with lease:
            self._end_dead_leases()
            yield lease

    def _look_at_leases(self) -> None:
        """Note how all leases are, so that those of one dead machine are waited for at the same time."""
        found = {key: entry.tag for key, entry in self.objects.entries().items() if key.endswith(".lease")}
        now = time.monotonic()
        for key, tag in found.items():
            if self._leases.get(key, ("", 0.0))[0] != tag:
                self._leases[key] = (tag, now)
        for key in self._leases.keys() - found.keys():
            del self._leases[key]

    def _end_dead_leases(self) -> None:
        """Give back the leases that were seen unchanged for as long as none can be: nobody has to wait for them."""
        for key, (tag, since) in list(self._leases.items()):
            if time.monotonic() - since > EXPIRY:
                with suppress(Taken):
                    self.objects.replace(key, GIVEN_BACK, tag)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The databases of the folder are written for the time of the block: no command replaces them."""
        with (self.folder / IN_USE).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield

    def _databases_are_free(self) -> bool:
        with (self.folder / IN_USE).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Commands of this machine bring one after another."""
        with (self.folder / f"{STATE}.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _is_stale(self, key: str, entry: Entry) -> bool:
        found = self._known.get(key)
        return found is None or found.entry != entry or not found.changed or not (self.folder / key).exists()

    def _bring_one(self, key: str) -> None:
        path = self.folder / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as new:
                entry = self.objects.download(key, new)
        except FileNotFoundError:  # it was removed a moment ago
            return
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}; the local copy of {self.address} can't be written") from error
        self._note(key, entry)

    def _send_one(self, key: str) -> None:
        path, found = self.folder / key, self._known.get(key)
        with suppress(FileNotFoundError):  # replaced or removed while it was looked at
            status = path.stat()
            if found is not None and (found.changed, found.size) == (status.st_mtime_ns, status.st_size):
                return
            entry = self.objects.write(key, path)
            with self._lock:
                self._known[key] = _Known(entry, status.st_mtime_ns, status.st_size)

    def _note(self, key: str, entry: Entry) -> None:
        status = (self.folder / key).stat()
        with self._lock:
            self._known[key] = _Known(entry, status.st_mtime_ns, status.st_size)


class _Courier:
    """Sends what a command writes, while it runs and at its end. The service may be away meanwhile."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror, self._over = mirror, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="hmtl-ablate-courier")
        self._stops: set[str] = set()
        """Requests to stop that the store has."""

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        """Raises StoreError when something could not be sent."""
        self._over.set()
        self._thread.join()
        patiently(self._all, PATIENCE)

    def _run(self) -> None:
        often = seldom = time.monotonic()
        while not self._over.wait(1.0):
            now = time.monotonic()
            with suppress(StoreError, OSError, sqlite3.Error):
                self._signal_stops()
                if now - often > OFTEN:
                    often = now
                    self._mirror.send_database("optuna.db")
                if now - seldom > SELDOM:
                    seldom = now
                    self._all()

    def _signal_stops(self) -> None:
        """Files that ask the trials of a study to stop: the trials see the objects alone."""
        present = {path.name for path in self._mirror.folder.glob(".*.stop")}
        for name in present - self._stops:
            self._mirror.objects.write(name, b"")
            self._stops.add(name)
        for name in self._stops - present:
            self._mirror.objects.delete([name])
            self._stops.remove(name)

    def _all(self) -> None:
        self._signal_stops()
        for name in DATABASES:
            self._mirror.send_database(name)
        for path in sorted(self._mirror.folder.iterdir()):
            if path.is_file() and path.name not in DATABASES:
                self._mirror.send(path.name)
        self._mirror.send("artifacts")
        self._mirror.save()


def patiently(do: Callable[[], None], seconds: float, stop: Callable[[], bool] = lambda: False) -> None:
    """Do something that a service which is away prevents: again and again. Raises StoreAway after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return do()
        except StoreAway:
            if stop() or time.monotonic() > deadline:
                raise
            time.sleep(2.0)


def _is_heavy(key: str) -> bool:
    return key.startswith("packs/") or key.rpartition("/")[2] in HEAVY


def is_sent(key: str) -> bool:
    """Whether a file of the folder is one of the store: no lock, no half-written file, none of this machine's own."""
    parts = key.split("/")
    side = parts[-1].startswith(tuple(f"{name}-" for name in DATABASES))
    return not (any(part.startswith(".") for part in parts) or parts[-1] in OWN or side)


def _is_safe(key: str) -> bool:
    """Whether an object's key is the path of a file in the folder, and none that the folder has for itself."""
    return is_sent(key) and "\\" not in key and "\0" not in key and ".." not in key.split("/") and key[:1] != "/"


def _below(key: str, prefix: str) -> bool:
    prefix = prefix.rstrip("/")
    return not prefix or key == prefix or key.startswith(f"{prefix}/")


_mirrors: dict[str, Mirror] = {}
