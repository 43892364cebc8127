"""MLflow addresses: parsed, shown without their password, probed before MLflow uses them."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

from hmtl_ablate.errors import TrackingError

SQLITE = "sqlite:///"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Address:
    """A usable MLflow address; made by `parse_address`. Its text has no password."""

    uri: str = field(repr=False)
    """With the password, as MLflow takes it; a SQLite file as an absolute path."""

    def __str__(self) -> str:
        return shown(self.uri)

    def hidden(self, text: str) -> str:
        """A message without the address's password."""
        return hidden(text, self.uri)

    @property
    def is_database(self) -> bool:
        """A database, not an MLflow server."""
        return not self.uri.startswith(("http://", "https://"))

    @property
    def sqlite_file(self) -> Path | None:
        """The SQLite file, None for any other address."""
        return Path(self.uri.removeprefix(SQLITE)) if self.uri.startswith(SQLITE) else None

    def probe(self) -> None:
        """Open the database before MLflow does, which retries a dead one ten times, for many minutes.

        A SQLite file's folder is made when missing. Raises TrackingError within about 10 s. A server is not probed.
        """
        if self.sqlite_file is not None:
            _probe_sqlite(self.sqlite_file)
        elif self.is_database:
            _probe_database(self)


def parse_address(uri: str | None, store: Path) -> Address:
    """The address that `uri` means, the SQLite file <store>/mlflow.db when it is None.

    Raises TrackingError for an address that MLflow or this package can't use.
    """
    if uri is None:
        return Address(f"{SQLITE}{store.resolve() / 'mlflow.db'}")
    scheme = uri.partition("://")[0].partition("+")[0].lower() if "://" in uri else ""
    advice = f"use sqlite:///FILE (the default is {SQLITE}{store / 'mlflow.db'}), postgresql://… or http(s)://…"
    if scheme == "sqlite":
        name = uri.removeprefix(SQLITE)
        if not uri.startswith(SQLITE) or name in ("", ":memory:"):
            raise TrackingError(f"tracking address {shown(uri)!r}: no file is named\n{advice}")
        return Address(f"{SQLITE}{Path(name).resolve()}")
    if scheme in ("http", "https"):
        return Address(uri)
    if scheme in DATABASES:
        if uri.startswith("postgresql://") and find_spec("psycopg2") is None:
            # the driver of the extra `postgres`
            return Address(uri.replace("postgresql://", "postgresql+psycopg://", 1))
        return Address(uri)
    what = "MLflow's file store is not supported" if scheme in ("", "file") else f"unknown scheme {scheme!r}"
    raise TrackingError(f"tracking address {shown(uri) if '://' in uri else uri!r}: {what}\n{advice}")


def note_environment(uri: str | None) -> None:
    """Warn that MLFLOW_TRACKING_URI is not used when no address is named: a store would be read from elsewhere in
    another terminal."""
    if uri is None and (found := os.environ.get("MLFLOW_TRACKING_URI")):
        logging.getLogger("hmtl_ablate").warning(
            "MLFLOW_TRACKING_URI (%s) is not used; to use it, name it with --tracking-uri", shown(found)
        )


def shown(uri: str) -> str:
    """The URL of a database or server as SQLAlchemy shows it: without its password, also one in the query."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    if uri.startswith(SQLITE):  # a path, of which SQLAlchemy would escape some characters
        return uri
    try:
        url = make_url(uri)
        if "@" in (url.host or ""):
            raise ValueError("a password with an @")
        masked = {key: "***" if _is_secret(key) else value for key, value in url.query.items()}
        return url.set(query=masked).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")
    except (ArgumentError, ValueError):  # nobody knows which part of it is the password
        scheme = re.match(r"\w*", uri.partition(":")[0])
        return f"{scheme[0] if scheme else ''}://***{uri[uri.rindex('@') :] if '@' in uri else ''}".partition("?")[0]


def hidden(text: str, *uris: str) -> str:
    """A message, often of a driver, in which no password of these URLs, or of another URL in it, can be read."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    for uri in uris:
        if uri.startswith(SQLITE):
            continue
        text = text.replace(uri, shown(uri))
        secrets = {uri.partition("://")[2].rpartition("@")[0].partition(":")[2]}
        try:
            url = make_url(uri)
            secrets |= {url.password or "", *(str(value) for key, value in url.query.items() if _is_secret(key))}
        except (ArgumentError, ValueError):
            pass
        for secret in sorted(secrets, key=len, reverse=True):
            for spelling in {secret, quote(secret), quote_plus(secret), unquote(secret)}:
                if len(spelling) > 2:
                    text = text.replace(spelling, "***")
    return re.sub(r"(://[^/@:\s]*):[^/\s]*@", r"\1:***@", text)


def _is_secret(key: str) -> bool:
    return any(word in key.lower() for word in ("pass", "pwd", "secret", "token"))


def _probe_database(address: Address) -> None:
    import sqlalchemy

    try:
        seconds = {"timeout": 10} if address.uri.startswith("mssql") else {"connect_timeout": 10}
        engine = sqlalchemy.create_engine(address.uri, connect_args=seconds)
        with engine.connect():
            pass
        engine.dispose()
    except ImportError as error:
        raise TrackingError(
            f"{address}: the database's driver is not installed ({address.hidden(str(error))})\n"
            "for PostgreSQL: pip install 'hmtl-ablate[postgres]'"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, ValueError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip()
        raise TrackingError(
            f"MLflow's database {address} can't be reached: {address.hidden(reason)}\n"
            "check --tracking-uri and that the database is up"
        ) from error


def _probe_sqlite(file: Path) -> None:
    try:
        exists = file.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file, timeout=10)) as connection:
            # an existing file is only read, so that the report works on a store that may not be written
            connection.execute("SELECT count(*) FROM sqlite_master" if exists else "BEGIN IMMEDIATE")
    except (OSError, sqlite3.Error) as error:
        raise TrackingError(
            f"MLflow's file {file} can't be opened: {error}\n"
            "check that the folder may be written and the file is MLflow's, or name another with "
            "--runs or --tracking-uri sqlite:///FILE"
        ) from error
