"""A cluster of three nodes as the place where the command runs, see tests/cluster/nodes.py: root and namespaces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import psutil

from tests.chaos.processes import TARGETS, Family, title
from tests.cluster.nodes import Cluster, Node  # type: ignore[import-not-found]

CPUS = (0, 1, 1)
"""Cores of the nodes; the head trains nothing."""
OF_A_TRIAL = ("ray::ImplicitFunc", "RayTrainWorker", "TrainController")
"""What the titles of a trial's processes have in them."""


class ClusterFamily(Family):
    """A command on the head, and the processes of its trials on the nodes."""

    patience = 300.0
    """More than the examination of the nodes may take, during which nothing else happens."""

    def __init__(self, cluster: Cluster, words: Iterable[object], folder: Path, output: Path) -> None:
        inside = cluster.nodes[0].inside(["env", "--chdir", folder, *words])
        super().__init__(inside, folder, output, cluster.driver_variables())
        self.cluster = cluster

    def members(self) -> list[psutil.Process]:
        of_trials = [one for node in self.cluster.live for one in _processes(node) if _trains(one)]
        return sorted({*super().members(), *of_trials}, key=lambda process: process.pid)

    def find(self, target: str) -> list[psutil.Process]:
        """As for one machine, but: driver is what `nsenter` has started; node is the first process of a node's
        namespaces, and raylet that of a node, both not of the head; head is Ray's own processes there."""
        head, *others = self.cluster.live
        if target == "driver":
            return _children(self.driver.pid)
        if target == "node":
            return [psutil.Process(node.process.pid) for node in others]
        if target == "raylet":
            return [one for node in others for one in _processes(node) if TARGETS["raylet"](one, self)]
        if target == "head":
            return [one for one in _processes(head) if any(TARGETS[name](one, self) for name in ("gcs", "raylet"))]
        return super().find(target)

    def recover(self, target: str) -> str:
        """A node in the place of one that was struck, while the command runs."""
        if target not in ("node", "raylet"):
            return ""
        lost = [node for node in self.cluster.live[1:] if not any(TARGETS["raylet"](p, self) for p in _processes(node))]
        for node in lost:
            node.kill()
        for _ in range(len(CPUS) - len(self.cluster.live)):
            self.cluster.add(1)
        return f"; {self.cluster.nodes[-1].address} joined"


class Nodes:
    """Starts commands on a cluster, and keeps it whole between them."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None

    def start(self, words: Iterable[object], folder: Path, output: Path) -> Family:
        """`words`, with the cluster's address."""
        cluster = self._whole()
        return ClusterFamily(cluster, [*words, "--address", cluster.address], folder, output)

    def end(self) -> None:
        """End all nodes."""
        if self._cluster is not None:
            self._cluster.end()
        self._cluster = None

    def _whole(self) -> Cluster:
        """The cluster as it was, or, without its head, another one."""
        if self._cluster is not None and not _has_ray(self._cluster.nodes[0]):
            self.end()
        if self._cluster is None:
            self._cluster = Cluster()
            for cpus in CPUS:
                self._cluster.add(cpus)
        for node in self._cluster.live[1:]:
            if not _has_ray(node):
                node.kill()
        for _ in range(len(CPUS) - len(self._cluster.live)):
            self._cluster.add(1)
        return self._cluster


def _has_ray(node: Node) -> bool:
    return any(Path(title(one).partition(" ")[0]).name == "raylet" for one in _processes(node))


def _trains(process: psutil.Process) -> bool:
    return any(name in title(process) for name in OF_A_TRIAL)


def _processes(node: Node) -> list[psutil.Process]:
    """Those of a node that live."""
    with contextlib.suppress(psutil.NoSuchProcess):
        found: list[psutil.Process] = psutil.Process(node.process.pid).children(recursive=True)
        return found
    return []


def _children(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        found: list[psutil.Process] = psutil.Process(pid).children()
        return found
    return []
