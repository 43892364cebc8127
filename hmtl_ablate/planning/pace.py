"""From the work of a trial to seconds, by what a machine has been measured to do."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.planning.calibration import Calibration, Key, Measurement
from hmtl_ablate.planning.cost import Work, workload
from hmtl_ablate.study import Resources

FORWARD = 3.0
"""How many images go through a network in the time of one image pass of training, where only that was measured: the
forward pass is about a third of a step."""


@dataclass(frozen=True)
class Expected:
    """What one trial is expected to take."""

    start: float
    """Seconds of building, checkpoints and the like."""
    work: float
    """Seconds of training and evaluation."""
    measured: bool
    """Whether trials like it were measured; otherwise trials of the same network, size and precision were."""
    memory: float | None
    """MiB."""
    gpu_memory: float | None
    """MiB."""
    disk: float | None
    """MiB."""

    @property
    def seconds(self) -> float:
        """In all."""
        return self.start + self.work


def key_of(config: TrialConfig, resources: Resources, device: str, at_once: int) -> Key:
    """The key of a trial's rates. device: as `Machine.device` names it."""
    precision = config.training.precision
    if precision == "auto":
        precision = "bf16" if resources.gpus else "fp32"
    return Key(
        device=device,
        threads=max(1, int(resources.cpus)),
        workers=resources.workers,
        at_once=max(at_once, 1),
        precision=precision,
        workload=workload(config),
    )


def expected(calibration: Calibration, key: Key, work: Work) -> Expected | None:
    """What a trial of this work takes; None where neither it nor a similar one was measured."""
    found = calibration.find(key)
    if found is None:
        return None
    known, exact = found
    seconds = work_seconds(known, work)
    if seconds is None:
        return None
    return Expected(known.start or 0.0, seconds, exact, known.memory, known.gpu_memory, known.disk)


def work_seconds(known: Measurement, work: Work) -> float | None:
    """Seconds of training and evaluation at the measured rates; None where a rate that is needed was not measured.

    (passes + measured) / train_rate + evaluated / evaluation_rate.
    """
    train, forward = known.train_rate, known.evaluation_rate
    if forward is None and train is not None:
        forward = FORWARD * train
    if (work.passes and train is None) or (work.evaluated and forward is None):
        return None
    training = (work.passes + work.measured) / train if train else 0.0
    return training + (work.evaluated / forward if forward else 0.0)


def elapsed(seconds: Iterable[float], at_once: int) -> float:
    """Seconds until the last of these trials ends, started in this order, each when one of `at_once` places is free."""
    places = [0.0] * max(at_once, 1)
    for one in seconds:
        heapq.heapreplace(places, places[0] + one)
    return max(places)
