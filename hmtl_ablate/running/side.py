"""Calls into a service that may be slow, hang or be gone, without holding up the run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from hmtl_ablate.errors import TrackingError

T = TypeVar("T")


class Side:
    """One thread that makes all calls into a service, in their order; each is waited for at most `limit` seconds.

    A call that takes longer is not given up: it ends when the service answers, and no other call overtakes it.
    """

    def __init__(self, name: str, limit: float) -> None:
        self._name, self._limit = name, limit
        self._calls: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        self._last: _Call[Any] | None = None

    def __call__(self, function: Callable[[], T], limit: float | None = None) -> T:
        """The function's result, or its exception. Raises TrackingError when this or an earlier call takes too long.

        limit: seconds, in place of the usual ones.
        """
        limit = self._limit if limit is None else limit
        if self._last is None:  # a daemon, so that a call that hangs does not keep the process alive
            threading.Thread(target=self._work, name=f"hmtl-ablate {self._name}", daemon=True).start()
        elif not self._last.done.wait(limit):
            raise TrackingError(f"{self._name} still does not answer")
        call = self._last = _Call(function)
        self._calls.put(call)
        if not call.done.wait(limit):
            raise TrackingError(f"{self._name} does not answer within {limit:g} s")
        return call.result()

    def close(self) -> None:
        """End the thread after its last call."""
        self._calls.put(None)
        self._last = None

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()


class _Call(Generic[T]):
    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._value: list[T] = []
        self._error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        try:
            self._value.append(self._function())
        except BaseException as error:  # handed to the caller
            self._error = error
        finally:
            self.done.set()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._value[0]
