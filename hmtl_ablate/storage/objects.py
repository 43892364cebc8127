"""The objects below an address such as s3://BUCKET/PREFIX. The package obstore talks to the service.

Credentials are those of the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …), or of the machine's role. None is
ever part of a message.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hmtl_ablate.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")
"""Services with conditional writes, which leases need."""
ADDRESS = re.compile(rf"({'|'.join(SCHEMES)})://([A-Za-z0-9][A-Za-z0-9._-]*)((?:/[A-Za-z0-9._=@+-]+)*)/?")
CONNECT, ANSWER = "5s", "60s"
"""Longest waits for a connection, and for the whole of a request."""
RETRIES, AGAIN = 2, timedelta(seconds=10)
"""How often, and for how long, one request is sent again; whoever can wait longer asks again."""
BLOCK = 2**20
Value = TypeVar("Value")


class StoreAway(StoreError):
    """The service can't be reached at the moment, or does not answer; asking again later may help."""


class Taken(Exception):
    """A conditional write was refused: the object exists, or is not the one that was named."""


@dataclass(frozen=True)
class Entry:
    """An object, without its content."""

    tag: str
    """The service's entity tag: another content has another one."""
    size: int
    """Bytes."""


def is_address(text: str) -> bool:
    """Whether a store is named by an address, not by a folder."""
    return "://" in text


class Objects:
    """Reads and writes objects by key, which is relative to the address. Safe to use from several threads.

    Every method raises StoreAway when the service does not answer, and StoreError when it refuses.
    """

    settle = 0.0
    """A conditional write is certain at once (`lease.Records`)."""

    def __init__(self, address: str) -> None:
        """Raises StoreError for an address that no store can have, or without the package obstore. Asks no one yet."""
        if ADDRESS.fullmatch(address) is None or any(part in (".", "..") for part in address.split("/")):
            hidden = re.sub(r"//[^/]*@", "//…@", address)
            raise StoreError(
                f"--runs {hidden}: a store is a folder, or an address such as s3://BUCKET/PREFIX, gs://… or az://… "
                "without credentials in it; those of the environment are used"
            )
        self.address = address.rstrip("/")
        try:
            from obstore.store import from_url
        except ImportError:
            raise StoreError(
                f"--runs {address}: install obstore, which reads and writes object storage: "
                "pip install 'hmtl-ablate[cloud]'"
            ) from None
        plain = os.environ.get("AWS_ENDPOINT_URL", os.environ.get("AWS_ENDPOINT", "")).startswith("http://")
        options: Any = {"timeout": ANSWER, "connect_timeout": CONNECT, "allow_http": plain}
        self._store: ObjectStore = self._asked(
            lambda: from_url(
                self.address, client_options=options, retry_config={"max_retries": RETRIES, "retry_timeout": AGAIN}
            )
        )

    def check(self) -> None:
        """Write, read and remove an object. Raises StoreError when the service does not keep conditional writes apart:
        two commands would take the same lease."""
        key = f".check-{secrets.token_hex(8)}"
        self.create(key, b"1")
        try:
            self.create(key, b"2")
        except Taken:
            return
        finally:
            with suppress(StoreError):
                self.delete([key])
        raise StoreError(
            f"--runs {self.address}: the service ignores If-None-Match, so nothing keeps two commands from training "
            "the same trial; use one that honours it (Amazon S3, MinIO, Ceph, R2, GCS, Azure), or a shared folder"
        )

    def entries(self, prefix: str = "") -> dict[str, Entry]:
        """Key → object, of all whose key begins with a folder's `prefix`, e.g. "trials/0123/"."""
        import obstore

        def ask() -> dict[str, Entry]:
            listed = obstore.list(self._store, prefix.rstrip("/") or None)
            found = (one for chunk in listed for one in chunk)
            return {one["path"]: Entry(one["e_tag"] or "", one["size"]) for one in found}

        return self._asked(ask)

    def entry(self, key: str) -> Entry | None:
        """The object; None when there is none."""
        import obstore

        try:
            found = self._asked(lambda: obstore.head(self._store, key))
        except FileNotFoundError:
            return None
        return Entry(found["e_tag"] or "", found["size"])

    def read(self, key: str) -> tuple[bytes, str]:
        """Content and tag. Raises FileNotFoundError."""
        import obstore

        def ask() -> tuple[bytes, str]:
            found = obstore.get(self._store, key)
            return bytes(found.bytes()), found.meta["e_tag"] or ""

        return self._asked(ask)

    def download(self, key: str, path: Path) -> Entry:
        """Write an object's content to a new file. Raises FileNotFoundError, and OSError when it can't be written."""
        import obstore

        def ask() -> Entry:
            found = obstore.get(self._store, key)
            with path.open("wb") as file:
                for block in found.stream(min_chunk_size=BLOCK):
                    file.write(block)
            return Entry(found.meta["e_tag"] or "", found.meta["size"])

        return self._asked(ask)

    def write(self, key: str, content: bytes | Path) -> Entry:
        """Write an object: it is there as a whole, or unchanged. content: its bytes, or a file that has them."""
        import obstore

        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        return Entry(self._asked(lambda: obstore.put(self._store, key, content))["e_tag"] or "", size)

    def create(self, key: str, content: bytes) -> str:
        """Write an object that does not exist, and return its tag. Raises Taken when it does."""
        return self._conditional(key, content, "create")

    def replace(self, key: str, content: bytes, tag: str) -> str:
        """Write an object whose tag is still this one, and return the new tag. Raises Taken when it is not."""
        return self._conditional(key, content, {"e_tag": tag})

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that do not exist are none."""
        import obstore

        for key in keys:
            with suppress(FileNotFoundError):
                self._asked(lambda key=key: obstore.delete(self._store, key))  # type: ignore[misc]

    def _conditional(self, key: str, content: bytes, mode: Any) -> str:
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

        try:
            return self._asked(lambda: obstore.put(self._store, key, content, mode=mode))["e_tag"] or ""
        except (AlreadyExistsError, PreconditionError, NotFoundError, FileNotFoundError):
            pass
        # A request that was sent again, because its answer was lost, finds the object that it has written itself.
        with suppress(FileNotFoundError):
            found, tag = self.read(key)
            if found == content:
                return tag
        raise Taken(key)

    def _asked(self, ask: Callable[[], Value]) -> Value:
        """The answer to a request, with obstore's errors as ours."""
        from obstore import exceptions as theirs

        try:
            return ask()
        except (theirs.AlreadyExistsError, theirs.PreconditionError):
            raise
        except (theirs.NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error):
                raise StoreError(f"--runs {self.address}: there is no such bucket; make it first") from error
            raise
        except (theirs.PermissionDeniedError, theirs.UnauthenticatedError) as error:
            raise StoreError(
                f"--runs {self.address}: the service refuses ({_reason(error)}); check the credentials of the "
                "environment and what they may do: list, read, write and delete"
            ) from error
        except theirs.BaseError as error:
            what = _reason(error)
            if "404" in what:
                raise StoreError(f"--runs {self.address}: there is no such bucket; make it first") from error
            if "400" in what:
                raise StoreError(f"--runs {self.address}: {what}; check the address and the environment") from error
            raise StoreAway(f"--runs {self.address}: the service does not answer ({what})") from error


def _reason(error: Exception) -> str:
    """What went wrong, in one line, without what the service says at length."""
    text = " ".join(str(error).split())
    status = re.search(r"status code: (\d{3} [A-Za-z ]+)", text)
    if status:
        return status[1].strip()
    found = re.search(r"HTTP error: ([^.\n]{1,80}?)(?: Debug| after|$)", text)
    return found[1].strip() if found else text.partition(" Debug source")[0][:160]
