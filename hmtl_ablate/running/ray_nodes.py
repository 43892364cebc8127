"""The nodes of a Ray cluster: which ones can hold trials, how many at once, and whether they are fit for it."""

from __future__ import annotations

import importlib
import platform
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import hmtl_ablate
from hmtl_ablate.config import NUMERICS_VERSION
from hmtl_ablate.errors import ClusterError, StoreError, first_line
from hmtl_ablate.storage import address_of, mirror_of
from hmtl_ablate.storage.objects import Objects, is_address
from hmtl_ablate.study import Resources

Node = Mapping[str, Any]
"""As `ray.nodes()` gives it: NodeID, NodeManagerHostname, NodeManagerAddress, Alive, Resources."""
PATIENCE = 180.0
"""Seconds in which every node must have been examined: it loads PyTorch, and may have to read it over a network."""
STEP = 1.0
"""Seconds between two looks at whether that is still of use."""
FAULTS = 3
"""Faults of a machine after which it is left out."""
TRAINING = "hmtl_ablate.training.loop"
"""The module that trains, which imports all libraries that a node needs."""
NODE_LABEL = "ray.io/node-id"
"""A label that Ray gives each node."""


def needs_of(resources: Resources) -> dict[str, float]:
    """What a node must have for one worker of a trial."""
    needs = {"CPU": float(resources.cpus), "GPU": float(resources.gpus)}
    return {name: need for name, need in needs.items() if need > 0}


def workers_on(held: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """Workers that a node with these resources holds at once."""
    return min((int(held.get(name, 0.0) / need + 1e-9) for name, need in needs.items()), default=0)


def room(nodes: Sequence[Node], resources: Resources, without: Collection[str] = ()) -> int:
    """Trials that the live nodes hold at once.

    without: ids of nodes that are left out.
    """
    needs = needs_of(resources)
    live = [node for node in nodes if node["Alive"] and node["NodeID"] not in without]
    return sum(workers_on(node["Resources"], needs) for node in live) // resources.workers


def elsewhere(left_out: Collection[str]) -> dict[str, str]:
    """A label selector for all nodes but those with these ids; {} for all nodes."""
    return {NODE_LABEL: f"!in({','.join(left_out)})"} if left_out else {}


class Arrivals:
    """Nodes that join a run. They get trials once they are examined, in a thread of its own, and found fit."""

    def __init__(
        self,
        resources: Resources,
        examined: Collection[str],
        examine: Callable[[Sequence[Node], Callable[[], bool]], Mapping[str, str]],
    ) -> None:
        """examined: ids of the nodes that are known to be fit; examine: gives the ids of nodes, each with why it can't
        train, "" for one that is fit, and gives up when its second argument says so; a node without an answer is asked
        again."""
        self._needs, self._examine = needs_of(resources), examine
        self._fit, self._asked, self._waiting = set(examined), set[str](), set[str]()
        self._refused: dict[str, None] = {}  # a set that keeps its order
        self._news: list[str] = []
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def ids(self) -> list[str]:
        """Ids of the nodes that get no trials: refused, or not examined yet."""
        with self._lock:
            return [*self._refused, *sorted(self._waiting)]

    @property
    def examining(self) -> bool:
        """Whether a node may be found fit soon."""
        with self._lock:
            return bool(self._waiting)

    def hear(self, nodes: Sequence[Node]) -> None:
        """Examine those that are new; returns at once."""
        if self._closed.is_set():
            return
        with self._lock:
            new = [node for node in nodes if node["Alive"] and self._is_new(node)]
            self._waiting = {node["NodeID"] for node in new}
            unasked = [node for node in new if node["NodeID"] not in self._asked]
            self._asked |= self._waiting
        if unasked:
            thread = threading.Thread(target=self._ask, args=(unasked,), daemon=True, name="hmtl-ablate-ray-examine")
            self._threads = [*(one for one in self._threads if one.is_alive()), thread]
            thread.start()

    def close(self) -> None:
        """Examine nothing any more: the run is over, and Ray may end."""
        self._closed.set()
        for thread in self._threads:
            thread.join(2 * STEP)

    def news(self) -> list[str]:
        """A sentence for each node that was refused since the last call."""
        with self._lock:
            said, self._news = self._news, []
        return said

    def _is_new(self, node: Node) -> bool:
        known = node["NodeID"] in self._fit or node["NodeID"] in self._refused
        return not known and workers_on(node["Resources"], self._needs) > 0

    def _ask(self, nodes: Sequence[Node]) -> None:
        try:
            faults = self._examine(nodes, self._closed.is_set)
        except Exception:  # Ray's, of a lost cluster, which the watch will say; or the store can't be written just now
            faults = {}
        with self._lock:
            for node in nodes:
                name = node["NodeID"]
                self._asked.discard(name)
                if name in faults:
                    self._waiting.discard(name)
                    self._judge(node, faults[name])

    def _judge(self, node: Node, fault: str) -> None:
        if not fault:
            self._fit.add(node["NodeID"])
            return
        self._refused[node["NodeID"]] = None
        self._news.append(f"{named(node)} has joined and is left out: {fault}")


class Unfit:
    """Nodes that are left out, because the processes of their trials died FAULTS times, or as `arrivals` says."""

    def __init__(self, resources: Resources, arrivals: Arrivals | None = None) -> None:
        self.arrivals = arrivals
        self._resources, self._faults = resources, Counter[str]()
        self._faulty: list[str] = []

    @property
    def ids(self) -> list[str]:
        """Ids of the nodes that are left out."""
        return [*self._faulty, *(self.arrivals.ids if self.arrivals else ())]

    @property
    def examining(self) -> bool:
        """Whether one of them may be found fit soon."""
        return self.arrivals is not None and self.arrivals.examining

    def room(self, nodes: Sequence[Node]) -> int:
        """Trials that the others hold at once; nodes among them that have joined are examined first."""
        if self.arrivals:
            self.arrivals.hear(nodes)
        return room(nodes, self._resources, self.ids)

    def count(self, address: str, nodes: Sequence[Node]) -> str:
        """Count a fault of the node at an IP address. A sentence when it is left out from now on; "" when it is not:
        the last node that a trial fits on stays."""
        self._faults[address] += 1
        found = [node for node in nodes if node["Alive"] and node["NodeManagerAddress"] == address]
        ids = [node["NodeID"] for node in found if node["NodeID"] not in self.ids]
        if self._faults[address] < FAULTS or not ids or not room(nodes, self._resources, (*self.ids, *ids)):
            return ""
        self._faulty += ids
        return f"{named(found[0])} is left out from now on: processes of trials have died there {FAULTS} times"


def named(node: Node) -> str:
    """A node's name and address, for people."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


@dataclass(frozen=True)
class Finding:
    """What a node, or this machine, says of itself."""

    versions: Mapping[str, str]
    """Of Python, Ray, this package and PyTorch."""
    numerics: int = NUMERICS_VERSION
    sees_store: bool = True
    """Whether it can read what this machine writes into the store, and write there."""
    fault: str = ""
    """Why it can't train, e.g. because a library is missing."""


def own_finding() -> Finding:
    """That of this machine."""
    found = {"Python": platform.python_version(), "Ray": ray.__version__, "hmtl-ablate": hmtl_ablate.__version__}
    with suppress(PackageNotFoundError):
        found["PyTorch"] = version("torch").partition("+")[0]  # +cpu and +cu130 may be mixed
    return Finding(found)


def check_nodes(store: Path, resources: Resources, imports: Sequence[str]) -> Arrivals:
    """Examine every node that may hold a trial, all at once; returns what examines those that join later.

    Raises ClusterError, with a line per node that can't train, or that would train something else than this machine.
    """
    needs = needs_of(resources)
    nodes = [node for node in ray.nodes() if node["Alive"] and workers_on(node["Resources"], needs)]
    faults = examine(nodes, store, imports)
    lines = [f"  {named(node)}: {faults[node['NodeID']]}" for node in nodes if faults.get(node["NodeID"])]
    if lines:
        raise ClusterError(
            f"{len(lines)} of the cluster's {len(nodes)} nodes that a trial fits on can't be used:\n" + "\n".join(lines)
        )
    return Arrivals(resources, set(faults), lambda joined, over: examine(joined, store, imports, over))


def examine(
    nodes: Sequence[Node], store: Path, imports: Sequence[str], over: Callable[[], bool] = lambda: False
) -> dict[str, str]:
    """Why nodes can't train, or should not, by their ids; "" for one that is fit. One that is gone has no entry, and
    none has when `over` says that nobody waits for it any more."""
    with _marked(store) as (marker, secret):
        waiting = {
            _examine.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                marker, secret, tuple(imports)
            ): node["NodeID"]
            for node in nodes
        }
        left, end = list(waiting), time.monotonic() + PATIENCE
        while left and not over() and time.monotonic() < end:
            _, left = ray.wait(left, num_returns=len(left), timeout=STEP)
        if over():
            return {}
        faults = {name: fault_of(_answer(answer), own_finding(), store) for answer, name in waiting.items()}
    if any(faults.values()):
        live = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        faults = {name: fault for name, fault in faults.items() if name in live}
    return faults


def fault_of(found: Finding, own: Finding, store: Path) -> str:
    """Why a node can't train, or should not; "" for one that is fit."""
    if found.fault:
        return found.fault
    differing = [
        f"{name} {text} instead of {own.versions[name]}"
        for name, text in found.versions.items()
        if text != own.versions.get(name, text)
    ]
    if found.numerics != own.numerics:
        differing.append(f"another version of the numerics, {found.numerics} instead of {own.numerics}")
    if differing:
        return f"it has {', '.join(differing)}; install the same versions on all nodes"
    if not found.sees_store and mirror_of(store) is not None:
        return f"it reaches another store than {address_of(store)} of this machine; set the same AWS_ENDPOINT_URL there"
    if not found.sees_store:
        return (
            f"it can't write the folder {store.resolve()} of this machine; name a folder that all nodes share with "
            "--runs, at the same path on each"
        )
    return ""


def _answer(reference: Any) -> Finding:
    try:
        return Finding(**ray.get(reference, timeout=0))
    except GetTimeoutError:
        return Finding({}, fault=f"it has not answered for {PATIENCE:.0f} s; restart Ray there")
    except RayError as error:
        text = " ".join(str(error).split())
        if "runtime" in text and "env" in text:
            return Finding({}, fault=f"it can't set up the package: install ray[default] there ({text[-300:]})")
        return Finding({}, fault=f"{first_line(error)}; see its Ray logs")


@contextmanager
def _marked(store: Path) -> Iterator[tuple[str, str]]:
    """A file, or the address of an object, in the store that a node must find, and its content."""
    secret = secrets.token_hex(8)
    if (mirror := mirror_of(store)) is not None:
        mirror.objects.write(f".nodes-{secret}", secret.encode())
        try:
            yield f"{mirror.address}/.nodes-{secret}", secret
        finally:
            mirror.objects.delete([f".nodes-{secret}"])
        return
    marker = store.resolve() / f".nodes-{secret}"
    marker.write_text(secret)
    try:
        yield str(marker), secret
    finally:
        for path in marker.parent.glob(f"{marker.name}*"):
            path.unlink(missing_ok=True)


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def _examine(marker: str, secret: str, imports: tuple[str, ...]) -> dict[str, Any]:
    """The fields of the node's Finding, as plain data."""
    try:
        for name in (TRAINING, *imports):
            importlib.import_module(name)
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        return {"versions": {}, "fault": f"{what}; install the libraries of requirements.lock on it"}
    found = own_finding()
    try:
        sees = _reaches(marker, secret) if is_address(marker) else _sees(Path(marker), secret)
    except StoreError as error:
        return {"versions": {}, "fault": str(error)}
    return {"versions": dict(found.versions), "numerics": found.numerics, "sees_store": sees}


def _reaches(marker: str, secret: str) -> bool:
    """Whether this node reads and writes the store at an address. Raises StoreError where it says why not."""
    address, _, key = marker.rpartition("/")
    objects, own = Objects(address), f"{key}-{secrets.token_hex(8)}"
    objects.write(own, b"")
    objects.delete([own])
    try:
        return objects.read(key)[0] == secret.encode()
    except FileNotFoundError:
        return False


def _sees(marker: Path, secret: str) -> bool:
    own = marker.with_name(f"{marker.name}-{secrets.token_hex(8)}")
    try:
        own.touch()
        own.unlink()
        return marker.read_text() == secret
    except OSError:
        return False
