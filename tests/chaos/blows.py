"""What is done to a run, and when: drawn from the seed and the number of the blow alone."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass

STOPPED = 20.0
"""Seconds between SIGSTOP and SIGCONT."""
LATEST = 8.0
"""Seconds after its moment's event at which a blow falls at the latest."""
EVENTS = {"driver": ("driver", "gcs", "actor"), "group": ("driver", "gcs", "actor"), "all": ("gcs", "actor")} | {
    "actor": ("actor",),
    "worker": ("worker",),
    "raylet": ("raylet", "actor"),
    "gcs": ("gcs", "actor"),
}
"""Target → the processes whose first appearance is the event that a blow's moment counts from."""

ON_A_CLUSTER = {"node": ("actor",), "raylet": ("actor",), "driver": ("driver", "actor"), "head": ("actor",)}
"""The same for a cluster, where the targets take turns."""


@dataclass(frozen=True)
class Blow:
    """One blow. Its moment counts from an event, not in seconds of the run, which a busy machine stretches."""

    number: int
    study: str
    """Name of the study that runs, of `studies.STUDIES`."""
    target: str
    """Of `processes.TARGETS`, or of `cluster.ClusterFamily.find`."""
    signal: signal.Signals
    """SIGKILL, or SIGSTOP followed by SIGCONT after STOPPED seconds."""
    event: str
    """The moment counts from the first appearance of such a process."""
    delay: float
    """Seconds after the event."""
    pick: float
    """From 0 to 1: which one, when several processes are such targets."""

    def __str__(self) -> str:
        return f"{self.study:7} {self.signal.name} {self.target:6} {self.delay:3.1f} s after {self.event}"


def draw(seed: int, number: int) -> Blow:
    """Blow `number` of the run with this seed; the same one always. A fifth stop, the others kill."""
    dice = random.Random(f"{seed}/{number}")
    study = "workers" if dice.random() < 0.3 else "plain"
    targets = [target for target in EVENTS if target != "worker" or study == "workers"]
    target = dice.choice(targets)
    number_of = signal.SIGSTOP if dice.random() < 0.2 else signal.SIGKILL
    return Blow(
        number,
        study,
        target,
        number_of,
        dice.choice(EVENTS[target]),
        dice.uniform(0.0, LATEST),
        dice.random(),
    )


def draw_on_cluster(seed: int, number: int) -> Blow:
    """Blow `number` on a cluster: a node, the raylet of one, the driver, or the head, in turn, each killed."""
    dice = random.Random(f"cluster/{seed}/{number}")
    target = list(ON_A_CLUSTER)[(number - 1) % len(ON_A_CLUSTER)]
    study = "workers" if dice.random() < 0.3 else "plain"
    event = dice.choice(ON_A_CLUSTER[target])
    return Blow(number, study, target, signal.SIGKILL, event, dice.uniform(0.0, LATEST), dice.random())
