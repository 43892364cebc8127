"""Opening a database that other processes may open for the first time, too: its tables are made by one of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hmtl_ablate.storage.lease import locked

PATIENCE = 120.0
"""Seconds; tables are made within 20 s. Whoever holds the lock for longer hangs, and is not waited for."""
ADVISORY_LOCK = 0x686D746C
"""Key of PostgreSQL's advisory lock."""


@contextmanager
def one_at_a_time(url: str) -> Iterator[None]:
    """For SQLite and PostgreSQL, the block of one process at a time; two that make a database's tables fail each other.

    url: as SQLAlchemy takes it. A folder that may not be written needs no lock: nothing is made there. Raises what
    SQLAlchemy raises for a database that can't be reached.
    """
    with ExitStack() as stack:
        if url.startswith("sqlite:///"):
            _lock_file(stack, Path(url.removeprefix("sqlite:///")))
        elif url.startswith("postgresql"):
            _lock_postgresql(stack, url)
        yield


def _lock_file(stack: ExitStack, database: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            held = locked(database.parent / f".{database.name}.lock")
        except OSError:
            return
        if held is not None:
            stack.enter_context(held)
            return
        time.sleep(0.1)


def _lock_postgresql(stack: ExitStack, url: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, connect_args={"connect_timeout": 10}, isolation_level="AUTOCOMMIT")
    stack.callback(engine.dispose)
    connection = stack.enter_context(engine.connect())
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if connection.scalar(sqlalchemy.text("SELECT pg_try_advisory_lock(:key)"), {"key": ADVISORY_LOCK}):
            return
        time.sleep(0.1)
