"""How fast a machine trains: what finished trials and `plan --calibrate` have measured, in `<store>/calibration.json`.

A rate belongs to a key: the device, how it is shared (threads, workers, trials at once), the precision, and the
workload (network, size, batch size, views, feeds, tasks). A file that is damaged, or of another version, counts as
empty; an entry that can't be read is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any

from pydantic import Field, ValidationError

from hmtl_ablate.config import Frozen
from hmtl_ablate.planning.cost import Work
from hmtl_ablate.storage.files import write_atomically
from hmtl_ablate.storage.lease import lock

FILE = "calibration.json"
VERSION = 1
REMEMBERED = 5
"""A new measurement of a key weighs at least 1 / REMEMBERED: old ones may be of another state of the machine."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Key(Frozen):
    """What a rate depends on."""

    device: str
    """Name of the GPU, or of the processor with its number of cores."""
    threads: int = 1
    """CPU threads of a worker."""
    workers: int = 1
    at_once: int = 1
    """Trials that ran on the machine at the same time."""
    precision: str = "fp32"
    workload: dict[str, Any] = {}
    """`cost.workload`."""

    @property
    def name(self) -> str:
        """Equal for equal keys."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @property
    def kin(self) -> str:
        """Equal for keys of one network, size, precision and device, whose image passes take a similar time."""
        of = {name: self.workload.get(name) for name in ("model.backbone", "data.size")}
        return json.dumps([self.device, self.precision, of], sort_keys=True)


class Measurement(Frozen):
    """What was measured with one key; None where it was not."""

    key: Key
    train_rate: Positive | None = None
    """Image passes of training per second."""
    evaluation_rate: Positive | None = None
    """Images per second through the network without training."""
    start: NotNegative | None = None
    """Seconds of a trial that are neither: building, checkpoints, the measurement of its best weights."""
    memory: Positive | None = None
    """Peak memory of a process, MiB."""
    gpu_memory: Positive | None = None
    """Peak memory of the GPU, MiB."""
    disk: Positive | None = None
    """A finished trial's files in the store, MiB: its folder, and the copies in MLflow's."""
    count: Annotated[int, Field(ge=1)] = 1
    """Number of trials it is a mean of."""

    def joined(self, new: Measurement) -> Measurement:
        """The mean with a new measurement of the same key; the larger one of memory and disk."""
        share = 1 / min(self.count + 1, REMEMBERED)

        def mean(old: float | None, value: float | None) -> float | None:
            return value if old is None else old if value is None else old + (value - old) * share

        def most(old: float | None, value: float | None) -> float | None:
            return max((one for one in (old, value) if one is not None), default=None)

        return Measurement(
            key=self.key,
            train_rate=mean(self.train_rate, new.train_rate),
            evaluation_rate=mean(self.evaluation_rate, new.evaluation_rate),
            start=mean(self.start, new.start),
            memory=most(self.memory, new.memory),
            gpu_memory=most(self.gpu_memory, new.gpu_memory),
            disk=most(self.disk, new.disk),
            count=self.count + new.count,
        )


@dataclass(frozen=True)
class Calibration:
    """All that is known, by the name of its key."""

    known: Mapping[str, Measurement] = field(default_factory=dict)
    launch: Mapping[str, float] = field(default_factory=dict)
    """"engine on device" → seconds of the first trials of a run in addition to those of later ones: processes start
    and libraries load."""

    def find(self, key: Key) -> tuple[Measurement, bool] | None:
        """The measurement of this key, True; or one of similar trials, False: the medians over keys of the same
        network, size, precision and device, of as many trials at once where there are any. None without either."""
        if key.name in self.known:
            return self.known[key.name], True
        kin = [one for one in self.known.values() if one.key.kin == key.kin]
        for alike in (lambda one: _placed(one) == _placed(key) and _probed(one) == _probed(key), _trained):
            if chosen := [one for one in kin if alike(one.key)]:
                return _middle(key, chosen), False
        return None

    def adding(self, new: Measurement) -> Calibration:
        """With one more measurement."""
        name = new.key.name
        joined = self.known[name].joined(new) if name in self.known else new
        return Calibration({**self.known, name: joined}, self.launch)

    def launching(self, name: str, seconds: float) -> Calibration:
        """With one more measurement of the first trials of a run."""
        old = self.launch.get(name, seconds)
        return Calibration(self.known, {**self.launch, name: (old + seconds) / 2})


def _placed(key: Key) -> tuple[int, int, int]:
    return key.threads, key.workers, key.at_once


def _probed(key: Key) -> bool:
    return "probe.kind" in key.workload


def _trained(key: Key) -> bool:
    return not _probed(key)


def _middle(key: Key, kin: Sequence[Measurement]) -> Measurement:
    def of(name: str) -> float | None:
        values = [value for one in kin if (value := getattr(one, name)) is not None]
        return median(values) if values else None

    names = ("train_rate", "evaluation_rate", "start", "memory", "gpu_memory", "disk")
    return Measurement.model_validate({"key": key, **{name: of(name) for name in names}})


def read_calibration(store: Path) -> Calibration:
    """What the store knows; empty without a file, or with one that is damaged."""
    try:
        content = json.loads((store / FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return Calibration()
    if not isinstance(content, dict) or content.get("version") != VERSION:
        return Calibration()
    known: dict[str, Measurement] = {}
    for raw in content.get("measurements", ()) if isinstance(content.get("measurements"), list) else ():
        try:
            one = Measurement.model_validate(raw)
        except ValidationError:
            continue
        known[one.key.name] = one
    launch = content.get("launch")
    pairs = launch.items() if isinstance(launch, dict) else ()
    return Calibration(
        known, {name: float(value) for name, value in pairs if isinstance(value, int | float) and 0 <= value < 1e9}
    )


def write_calibration(store: Path, calibration: Calibration) -> None:
    """Replace the store's file at once. Raises OSError."""
    content = {
        "version": VERSION,
        "measurements": [one.model_dump(mode="json", exclude_none=True) for one in calibration.known.values()],
        "launch": dict(calibration.launch),
    }
    write_atomically(store / FILE, (json.dumps(content, indent=1) + "\n").encode())


def record(store: Path, new: Sequence[Measurement], launch: Mapping[str, float] = {}) -> Calibration:
    """Add measurements to the store's file, which other runs may write too. Raises OSError."""
    with lock(store / f".{FILE}.lock"):
        found = read_calibration(store)
        for one in new:
            found = found.adding(one)
        for name, seconds in launch.items():
            found = found.launching(name, seconds)
        write_calibration(store, found)
    return found


def rates_of(history: Sequence[Mapping[str, float]], work: Work) -> tuple[float | None, float | None]:
    """Image passes per second of training, and images per second of evaluation, from a trial's epochs.

    history: rows of metrics.jsonl, whose `seconds` counts from the trial's start, `image_passes` too, and whose
    `images_per_second` is of the epoch's training alone. The first epoch is left out where there are others: libraries
    load in it. What an epoch takes in addition to its training is the gradients that are logged, at the rate of
    training, and the evaluation. An epoch after a stop has only the rest's seconds, so a ratio below 0 is left out.
    """
    trained = passes = rest = 0.0
    epochs = 0
    for before, row in pairwise(history):
        speed = row.get("images_per_second", 0.0)
        own = row.get("image_passes", 0.0) - before.get("image_passes", 0.0)
        took = row.get("seconds", 0.0) - before.get("seconds", 0.0)
        if speed > 0 and own > 0 and took > 0:
            passes, trained, rest, epochs = passes + own, trained + own / speed, rest + took - own / speed, epochs + 1
    if not epochs:  # one epoch alone
        row = history[0] if len(history) == 1 else {}
        speed = row.get("images_per_second", 0.0)
        own = work.passes / max(work.epochs, 1)
        if speed <= 0 or own <= 0:
            return None, None
        passes, trained, rest, epochs = own, own / speed, row.get("seconds", 0.0) - own / speed, 1
    rate = passes / trained
    rest -= work.measured / max(work.epochs, 1) * epochs / rate
    images = work.validated / max(work.epochs, 1) * epochs
    return rate, images / rest if rest > 0 and images > 0 else None
