"""The search's database while trials run: it may go away, and come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from hmtl_ablate.errors import RunLost, first_line
from hmtl_ablate.running.listener import ProgressListener

PAUSE = 60.0
"""Seconds without a new attempt after one that failed: a database that does not answer must not hold up the trials."""

T = TypeVar("T")


@contextmanager
def database_errors() -> Iterator[None]:
    """What SQLAlchemy and Optuna raise for a database that can't be used becomes RunLost."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        why = _said_by(error)
        raise RunLost(
            f"Optuna's database was lost: {why}; start it again: the same command resumes, with every finished trial"
        ) from error


class SearchDatabase:
    """Keeps a lost database from ending the run.

    While it is away nothing new is drawn, and no trial is stopped early. Those that run train to their end, and the
    study's variants go on. What could not be written is written when the database is back, or by the next run.
    """

    def __init__(
        self, progress: ProgressListener, probe: Callable[[], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """probe: any question to the database."""
        self._progress, self._probe, self._clock = progress, probe, clock
        self._lost: RunLost | None = None
        self._again = 0.0
        self._waiting: list[Callable[[], None]] = []

    def ask(self, question: Callable[[], T]) -> T | None:
        """The answer; None while the database is away."""
        if self._lost is not None and self._clock() < self._again:
            return None
        try:
            with database_errors():
                while self._waiting:
                    self._waiting[0]()
                    self._waiting.pop(0)
                answer = question()
        except RunLost as error:
            if self._lost is None:
                self._progress.warn(
                    f"{error}. Trials that run are trained to their end; the search starts no new ones."
                )
            self._lost, self._again = error, self._clock() + PAUSE
            return None
        if self._lost is not None:
            self._progress.say("Optuna's database answers again")
            self._lost = None
        return answer

    def deliver(self, news: Callable[[], None]) -> None:
        """Write something, now or when the database is back. It may be called twice if the first call failed."""
        self._waiting.append(news)
        self.ask(lambda: None)

    def recovered(self) -> bool:
        """Has a database that was away come back? What was waiting is then written."""
        if self._lost is None:
            return False
        self._again = 0.0
        self.ask(self._probe)
        return self._lost is None

    def close(self) -> None:
        """Raises RunLost when the database is away."""
        if self._lost is not None:
            raise self._lost


def _said_by(error: BaseException) -> str:
    """What the database's driver says, without the statement and the links that SQLAlchemy adds."""
    inner = getattr(error, "orig", None) or error.__cause__
    if inner is not None:
        return _said_by(inner)
    return first_line(error)
