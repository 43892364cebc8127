"""One trial against itself: its id, its curves, and its metrics recomputed from its predictions."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hmtl_ablate.bundles.layout import CONFIG, DIFF, HISTORY, PREDICTIONS, RESULT, Difference
from hmtl_ablate.bundles.rebuilding import Content
from hmtl_ablate.config import id_of, short_hash
from hmtl_ablate.errors import first_line
from hmtl_ablate.supervised.classification import confusion_matrix
from hmtl_ablate.tracking.records import TrialRecord
from hmtl_ablate.training.folder import RECORDED, TrialResult
from hmtl_ablate.training.revision import DIRTY
from hmtl_ablate.training.supervised import named, task_of

CLOSE = 1e-5
"""Largest difference of a recomputed metric, absolute and as a share: float32 probabilities are rounded."""
CLOSE_ON_GPU = 5e-3
"""The same for `best/val/…` of a trial from a GPU: it was measured in its epoch, the predictions once more at the end,
and a GPU's sums differ from one time to the next."""
EDGE = 1e-5
"""How near to an edge of a bin of the calibration error a confidence may be before rounding may move it over."""
BINS = 15


@dataclass(frozen=True)
class Measured:
    """What the predictions of one split say."""

    metrics: dict[str, float]
    confusion: dict[str, list[list[int]]]
    loose: dict[str, float]
    """Metric → the difference that rounding can make, where that is more than CLOSE."""


def differences(content: Content, record: TrialRecord, identity: str) -> Iterator[Difference]:
    """What does not fit in a trial's folder. identity: what its id depends on of the data (`Pack.identity`)."""
    place = f"trials/{content.trial_id}"
    result = content.result
    if result is None:
        return
    yield from _checksums(content, result, place)
    yield from _named(content, result, record, identity, place)
    if content.history:
        yield from _curves(content, result, place)
    if result.status == "finished" and content.config.training.supervised:
        yield from _predictions(content, result, place)
    if result.tags.get("git_commit", "").endswith(DIRTY) and not (content.folder.path / DIFF).exists():
        yield Difference(f"{place}/{DIFF}", "", "is missing: the code was not that of its commit")


def _checksums(content: Content, result: TrialResult, place: str) -> Iterator[Difference]:
    raw = json.loads((content.folder.path / RESULT).read_bytes())
    checksum = raw.pop("crc32", None)
    if checksum != zlib.crc32((json.dumps(raw, indent=2) + "\n").encode()):
        yield Difference(f"{place}/{RESULT}", "", "was changed: its own checksum is another")
    for name in RECORDED:
        path = content.folder.path / name
        if path.exists() != (name in result.files):
            yield Difference(f"{place}/{name}", "", f"is {'not ' if path.exists() else ''}listed in {RESULT}")
        elif path.exists() and result.files[name].crc32 != zlib.crc32(path.read_bytes()):
            yield Difference(f"{place}/{name}", "", f"was changed: {RESULT} has another checksum of it")


def _named(
    content: Content, result: TrialResult, record: TrialRecord, identity: str, place: str
) -> Iterator[Difference]:
    """The id is a hash of config and data, and the variant's key one of the config without its seed."""
    config, file = content.config, f"{place}/{CONFIG}"
    declared, numerics = config.declared(), result.tags.get("numerics", "0")
    found = id_of(declared, config.seed, identity, int(numerics) if numerics.isdecimal() else 0)
    if not content.trial_id == result.trial_id == found:
        yield Difference(
            file, "", f"config, data and numerics version are those of trial {found}, not of {result.trial_id}"
        )
    if record.variant_key and not config.weight_sources:
        key = config.replaced({("seed",): 0}).declared()
        if short_hash(key) != record.variant_key:
            yield Difference(file, "", f"is not the config of the variant {record.variant!r}")


def _curves(content: Content, result: TrialResult, place: str) -> Iterator[Difference]:
    """The best epoch, its metrics, and the totals, against the curves."""
    history, config, file = content.history, content.config, f"{place}/{HISTORY}"
    if config.probe.kind == "none":
        best, epochs = _best(content), len(history)
        if (best, epochs) != (result.best_epoch, result.epochs):
            yield Difference(
                file,
                "best epoch",
                f"{best} of {epochs} by the curves, {result.best_epoch} of {result.epochs} in {RESULT}",
            )
    row = next((row for row in history if row["epoch"] == result.best_epoch), {})
    own = {f"best/{name}": value for name, value in row.items() if name.startswith("val/") and math.isfinite(value)}
    stated = {name: value for name, value in result.metrics.items() if name.startswith("best/")}
    for name in sorted({*own, *stated}):
        if own.get(name) != stated.get(name):
            yield Difference(
                file,
                f"{name}, epoch {result.best_epoch}",
                f"{_shown(own.get(name))} by the curves, {_shown(stated.get(name))} in {RESULT}",
            )
    for name, total in (("image_passes", result.image_passes), ("seconds", result.seconds)):
        if name in history[-1] and not math.isclose(history[-1][name], total, abs_tol=2e-3):
            yield Difference(file, name, f"{_shown(history[-1][name])} by the curves, {_shown(total)} in {RESULT}")


def _best(content: Content) -> int:
    """Number of the best epoch by the curves, 0 without one."""
    metric, best, epoch = content.config.selects_by, -math.inf, 0
    for row in content.history:
        value = row.get(metric, math.nan) if metric else row["epoch"]
        if metric and content.config.metrics[metric.removeprefix("val/")] == "min":
            value = -value
        if value > best:
            best, epoch = value, int(row["epoch"])
    return epoch


def _predictions(content: Content, result: TrialResult, place: str) -> Iterator[Difference]:
    """Metrics and confusion matrices, against the predictions."""
    file = f"{place}/{PREDICTIONS}"
    on_gpu = result.tags.get("device", "cpu") != "cpu"
    for part, prefix in (("val", "best/val/"), ("test", "test/")):
        own = _pretext_free(content, {k: v for k, v in result.metrics.items() if k.startswith(prefix)}, prefix)
        if f"{part}_index" not in content.predictions:
            if own:
                yield Difference(file, "", f"has no predictions of {part}, so {prefix}… can't be recomputed")
            continue
        try:
            measured = measure(content, result, part)
        except (KeyError, ValueError, IndexError, RuntimeError, TypeError) as error:
            yield Difference(file, part, f"its arrays don't fit the trial's tasks: {first_line(error)[:200]}")
            continue
        close = CLOSE_ON_GPU if on_gpu and part == "val" else CLOSE
        for name in sorted({*own, *(f"{prefix}{name}" for name in measured.metrics)}):
            found, stated = measured.metrics.get(name.removeprefix(prefix)), own.get(name)
            if not _equal(found, stated, max(close, measured.loose.get(name.removeprefix(prefix), 0.0))):
                yield Difference(
                    file, name, f"{_shown(found)} recomputed from the predictions, {_shown(stated)} in {RESULT}"
                )
        for label, counts in measured.confusion.items():
            if result.confusion.get(label) != counts and not (on_gpu and part == "val"):
                yield Difference(file, f"confusion matrix of {label}", f"recomputed, it is not that of {RESULT}")


def _pretext_free(content: Content, metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    """The metrics of supervised tasks: those of pretext tasks have no predictions."""
    return {
        name: value
        for name, value in metrics.items()
        if name.removeprefix(prefix).partition("/")[0] not in content.config.pretext
    }


def measure(content: Content, result: TrialResult, part: str) -> Measured:
    """Metrics of a split, as training computes them (`training.measure`), from the arrays saved per image.

    Raises KeyError, ValueError and the like for arrays that are not those of the trial's tasks.
    """
    tasks, arrays = content.config.tasks, content.predictions
    alone = len(tasks) == 1
    metrics: dict[str, float] = {}
    confusion: dict[str, list[list[int]]] = {}
    loose: dict[str, float] = {}
    for name in tasks:
        classes = result.task_classes.get(name) or (result.classes if name == tasks[0] else [])
        task = task_of(name, content.config, tuple(classes))
        start = f"{part}_" if alone else f"{part}_{name}_"
        own = {key.removeprefix(start): torch.from_numpy(arrays[key]) for key in arrays if key.startswith(start)}
        targets = own["label"]
        outputs = task.outputs(own)
        count = len(arrays[f"{part}_index"])
        if not len(targets) == len(outputs) == count or outputs.shape[1:] != (task.width,):
            raise ValueError(f"{start}label and the predictions are not of {count} images and {task.width} outputs")
        present = task.present(targets)
        if not present.any():
            continue
        metrics |= named(name, task.metrics(outputs[present], targets[present]), alone)
        if task.classes:
            label = part if alone else f"{part}/{name}"
            confusion[label] = confusion_matrix(outputs[present], targets[present], task.classes)
            loose |= named(name, _loose(own["probability"][present], targets[present]), alone)
    metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return Measured(metrics, confusion, loose)


def _loose(probability: Tensor, targets: Tensor) -> dict[str, float]:
    """What rounding may change: a confidence near to a bin's edge, and the logarithm of a probability near 0."""
    confidence = probability.double().max(dim=1).values * BINS
    near = int(((confidence - confidence.round()).abs() < EDGE * BINS).sum())
    lost = bool((probability.gather(1, targets[:, None]) < 1e-30).any())
    return {"ece": 2 * near / len(targets)} | ({"loss": math.inf} if lost else {})


def _equal(one: float | None, other: float | None, close: float) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=close, abs_tol=close)


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"
