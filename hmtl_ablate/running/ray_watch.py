"""Is the Ray cluster still there? Ray and Tune wait for a lost one for ever, or end the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import ray

from hmtl_ablate.errors import ClusterError

PERIOD = 2.0
"""Seconds between two questions to the cluster."""
SILENCE = 30.0
"""Seconds without an answer after which the cluster counts as lost. Ray's driver process aborts after 60."""
ROOMLESS = 30.0
"""Seconds without room for one trial, after which the run ends."""
GROWTH = 1800.0
"""The same on a cluster that starts nodes on demand: machines may have to be found, and images to be pulled."""
PAUSED = 5.0
"""Seconds between two looks, after which this process itself must have been stopped, and the silence was its own."""

T = TypeVar("T")
Nodes = Sequence[Mapping[str, Any]]
"""As `ray.nodes()` gives them: NodeID, Alive, Resources."""


def answered(call: Callable[[], T], seconds: float) -> T:
    """The answer of a call to Ray. Raises ClusterError when it takes longer than `seconds`."""
    found: list[T] = []
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            found.append(call())
        except BaseException as error:  # for the caller
            failed.append(error)

    thread = threading.Thread(target=ask, daemon=True, name="hmtl-ablate-ray-call")
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not found and thread.is_alive():
        raise ClusterError(f"Ray has not answered for {seconds:.0f} s; run the same command again")
    return found[0]


def resources_of(nodes: Nodes) -> dict[str, float]:
    """The resources of all live nodes together."""
    total: dict[str, float] = {}
    for node in nodes:
        if node["Alive"]:
            for name, amount in node["Resources"].items():
                total[name] = total.get(name, 0.0) + amount
    return total


class Liveness:
    """What is known of the cluster, from the answers heard so far.

    home: the id of the node that this process belongs to. count: trials that nodes hold at once.
    patience: seconds without room for one trial, after which the cluster counts as lost. coming: whether a node that
    has joined may have room soon.
    """

    def __init__(
        self,
        home: str,
        count: Callable[[Nodes], int],
        patience: float = ROOMLESS,
        clock: Callable[[], float] = time.monotonic,
        coming: Callable[[], bool] = lambda: False,
    ) -> None:
        self._home, self._count, self._patience, self._clock = home, count, patience, clock
        self._coming = coming
        self._heard = self._roomy = self._looked = clock()
        self._home_lost = False
        self.room: int | None = None
        """Trials that the cluster holds at once, as far as is known."""

    def hear(self, nodes: Nodes) -> None:
        """The cluster has answered."""
        now = self._heard = self._clock()
        self._home_lost = any(node["NodeID"] == self._home and not node["Alive"] for node in nodes)
        self.room = self._count(nodes)
        if self.room or self._coming():
            self._roomy = now

    def lost(self) -> str:
        """Why the run can't continue; "" while it can."""
        now = self._clock()
        if now - self._looked > PAUSED:
            self._heard = self._roomy = now
        self._looked = now
        if self._home_lost:
            return "the Ray node of this machine has died (its raylet was killed, or hung)"
        if now - self._heard > SILENCE:
            return f"Ray has not answered for {SILENCE:.0f} s (its head node is gone, or hangs)"
        if now - self._roomy > self._patience:
            return "nodes of the cluster are gone, and what is left has no room for a trial"
        return ""


class Watch:
    """Asks the cluster every PERIOD seconds, in a thread of its own: a question to a lost one may never return."""

    def __init__(
        self,
        count: Callable[[Nodes], int],
        patience: float = ROOMLESS,
        coming: Callable[[], bool] = lambda: False,
    ) -> None:
        home = answered(lambda: ray.get_runtime_context().get_node_id(), SILENCE)
        self._liveness = Liveness(home, count, patience, coming=coming)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True, name="hmtl-ablate-ray-watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()

    def lost(self) -> str:
        """Why the run can't continue; "" while it can."""
        return self._liveness.lost()

    @property
    def room(self) -> int | None:
        """Trials that the cluster holds at once, as far as is known: nodes come and go."""
        return self._liveness.room

    def _listen(self) -> None:
        while not self._closed.wait(PERIOD):
            try:
                nodes = ray.nodes()
            except Exception:  # no answer either; Ray raises several kinds
                continue
            self._liveness.hear(nodes)
