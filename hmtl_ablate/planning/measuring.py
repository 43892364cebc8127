"""Measuring how fast a machine trains: from a finished trial, or by training for some seconds (`plan --calibrate`).

PyTorch is imported in the processes that train alone.
"""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.errors import HmtlError, first_line
from hmtl_ablate.planning.calibration import Measurement, rates_of, record
from hmtl_ablate.planning.cost import Work, counts_in, work_of
from hmtl_ablate.planning.estimate import Place, launch_name
from hmtl_ablate.planning.pace import key_of, work_seconds
from hmtl_ablate.study import Resources
from hmtl_ablate.training.folder import TrialFolder, TrialResult

if TYPE_CHECKING:
    from hmtl_ablate.data.pack import Pack

SECONDS = 5.0
"""How long each kind of trial trains, at least three epochs."""
LEAST_EPOCHS = 3
BATCHES = 4
"""Batches in an epoch of a calibration."""
MOST_IMAGES = 4_096
PATIENCE = 600.0
"""Seconds that trials which are measured together wait for each other."""
PRECISIONS = ("fp32", "bf16")
COPIED = ("log.txt",)
"""What MLflow gets a copy of, not a hard link."""


def measurement_of(
    config: TrialConfig, result: TrialResult, folder: TrialFolder, work: Work, at_once: int
) -> Measurement:
    """What a finished trial says of its machine: rates, memory and disk; not the seconds of its start."""
    tags = result.tags
    cpu = tags.get("device", "cpu") == "cpu"
    key = key_of(config, Resources(), tags.get("cpu", "unknown processor") if cpu else tags["device"], at_once)
    key = key.model_copy(
        update={
            "threads": int(tags.get("threads", "1")),
            "workers": int(tags.get("workers", "1")),
            "precision": tags.get("precision", "fp32"),
        }
    )
    if config.probe.kind != "none":
        train, evaluation = None, work.last / result.seconds if result.seconds > 0 and work.last else None
    else:
        train, evaluation = rates_of(folder.history(), work)
    return Measurement(
        key=key,
        train_rate=train,
        evaluation_rate=evaluation,
        memory=float(tags["memory_mib"]) if tags.get("memory_mib", "0") != "0" else None,
        gpu_memory=float(tags["gpu_memory_mib"]) if tags.get("gpu_memory_mib", "0") != "0" else None,
        disk=disk_of(folder.path),
    )


def disk_of(folder: Path) -> float | None:
    """MiB of a trial's files in the store: its folder, and MLflow's copy of the log; None without any."""
    size = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            if file.is_file():
                copied = file.relative_to(folder).parts[0] in COPIED
                size += file.stat().st_size * (2 if copied else 1)
    return size / 2**20 or None


@dataclass(frozen=True)
class Shot:
    """One kind of trial to measure, as plain data that another process can unpickle."""

    config: dict[str, object]
    resources: Resources
    device: str
    at_once: int
    scratch: Path
    imports: tuple[str, ...]


def calibrate(
    configs: Sequence[TrialConfig],
    resources: Resources,
    place: Place,
    store: Path,
    imports: Sequence[str],
    say: Callable[[str], None],
    seconds: float = SECONDS,
) -> None:
    """Measure each kind of trial among `configs` with each precision, and add that to the store's calibration.

    Each trains for `seconds`, in as many processes at once as trials will run at once, on rendered faces of its size,
    in a folder of the store that is removed. say: gets one line for each. A kind that can't be measured is said and
    left out. Raises OSError when the store can't be written.
    """
    kinds: dict[str, TrialConfig] = {}
    for config in configs:
        for precision in PRECISIONS if config.probe.kind == "none" else ():
            chosen = config.replaced({("training", "precision"): precision})
            kinds.setdefault(key_of(chosen, resources, place.device, place.at_once).name, chosen)
    with tempfile.TemporaryDirectory(prefix=".calibration-", dir=store) as scratch:
        for number, config in enumerate(kinds.values(), 1):
            shot = Shot(
                _rendered(config), resources, place.device, max(place.at_once, 1), Path(scratch), tuple(imports)
            )
            what = f"[{number}/{len(kinds)}] {_named(config)}"
            try:
                found, launch = _measured(shot, seconds)
            except HmtlError as error:
                say(f"{what}: can't be calibrated: {first_line(error)}")
                continue
            record(store, found, {launch_name("local", place.device): launch} if place.engine == "local" else {})
            rates = [one.train_rate for one in found if one.train_rate is not None]
            say(f"{what}: {sum(rates) / len(rates):,.0f} image passes/s" if rates else f"{what}: nothing measured")


def _named(config: TrialConfig) -> str:
    pretext = " + ".join(f"{name} ({options.feed})" for name, options in config.pretext.items()) or "no pretext task"
    views = f", {config.data.views} views" if config.data.views > 1 else ""
    return f"{config.model.backbone}, {config.data.size} px, {config.training.precision}, {pretext}{views}"


def _rendered(config: TrialConfig) -> dict[str, object]:
    """The config on rendered faces, with random weights, as long as it takes; its workload stays the same."""
    images = min(max(round(BATCHES * config.training.batch_size / 0.8), 64), MOST_IMAGES)
    data = {name: getattr(config.data, name) for name in ("size", "stored", "augment", "views")}
    weights = dict.fromkeys(config.weight_sources)
    changed = config.replaced(
        {
            ("data",): {**data, "name": "rendered", "images": images},
            ("training", "epochs"): 10_000,
            ("training", "warmup_epochs"): 0.0,
            ("loss", "class_weights"): "none",
            **weights,
        }
    )
    return changed.declared() | {"seed": 0}


def _measured(shot: Shot, seconds: float) -> tuple[list[Measurement], float]:
    """Measure in as many processes at once as trials will run. Raises HmtlError when it can't be trained."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(shot.at_once)
    with ProcessPoolExecutor(shot.at_once, context, _meet, (barrier, shot.imports, tuple(sys.path))) as pool:
        waiting = [pool.submit(_train, shot, seconds, number) for number in range(shot.at_once)]
        found = [one.result() for one in waiting]
    faults = [one for one in found if isinstance(one, str)]
    if faults:
        raise HmtlError(faults[0])
    pairs = [one for one in found if not isinstance(one, str)]
    return [measurement for measurement, _ in pairs], sum(launch for _, launch in pairs) / len(pairs)


def _meet(barrier: threading.Barrier, imports: Sequence[str], path: Sequence[str]) -> None:
    """Prepare a process that measures."""
    global _barrier
    _barrier = barrier
    sys.path += [entry for entry in path if entry not in sys.path]
    for name in imports:
        importlib.import_module(name)


_barrier: threading.Barrier


def _train(shot: Shot, seconds: float, number: int) -> tuple[Measurement, float] | str:
    """In a process of its own: train one epoch, in which libraries load, and then for `seconds`. Returns what was
    measured and the seconds that loading took, or why nothing was."""
    try:
        return _both(shot, seconds, number)
    except Exception as error:  # of any kind: a network may fail in any way
        with suppress(threading.BrokenBarrierError):
            _barrier.abort()
        return first_line(error)


def _both(shot: Shot, seconds: float, number: int) -> tuple[Measurement, float]:
    from hmtl_ablate.config import parse_config
    from hmtl_ablate.data.build import open_pack

    config = parse_config(shot.config)
    pack = open_pack(config.data, None, shot.scratch)
    counts = counts_in(pack, config)
    begun = time.monotonic()
    _once(config, pack, shot, shot.scratch / f"{number}-warm", 0.0, 1)
    loaded = time.monotonic() - begun
    _barrier.wait(PATIENCE)
    begun = time.monotonic()
    folder = shot.scratch / f"{number}-{begun:.0f}"
    result, epochs = _once(config, pack, shot, folder, seconds, LEAST_EPOCHS)
    took = time.monotonic() - begun
    work = _of(work_of(config, counts, False), epochs)
    place = TrialFolder(folder)
    found = measurement_of(config, result, place, work, shot.at_once)
    train, evaluation = rates_of(place.history(), work)
    found = found.model_copy(
        update={
            "key": key_of(config, shot.resources, shot.device, shot.at_once),
            "train_rate": train,
            "evaluation_rate": evaluation,
        }
    )
    spent = work_seconds(found, work)
    start = None if spent is None else max(took - spent, 0.0)
    one_epoch = work_seconds(found, _of(work, 1)) or 0.0
    return found.model_copy(update={"start": start}), max(loaded - one_epoch - (start or 0.0), 0.0)


def _once(
    config: TrialConfig, pack: Pack, shot: Shot, folder: Path, seconds: float, least: int
) -> tuple[TrialResult, int]:
    """Train through the real loop for `seconds`, and `least` epochs at least."""
    from hmtl_ablate.training.loop import train

    end = time.monotonic() + seconds
    seen = 0

    def over(row: dict[str, float]) -> bool:
        nonlocal seen
        seen = int(row["epoch"])
        return seen >= least and time.monotonic() >= end

    result = train(
        config,
        pack,
        folder,
        evaluate_test=False,
        on_epoch=over,
        threads=max(1, int(shot.resources.cpus)),
        device="cuda" if shot.resources.gpus else "cpu",
        share=min(shot.resources.gpus, 1.0) or 1.0,
    )
    return result, seen


def _of(work: Work, epochs: int) -> Work:
    """The part of so many epochs, without the end of the trial."""
    share = epochs / max(work.epochs, 1)
    whole = (round(value * share) for value in (work.passes, work.steps))
    passes, steps = whole
    return Work(passes, steps, epochs, round(work.measured * share), round(work.validated * share), 0)
