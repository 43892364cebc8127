"""The audit: one trial of a bundle trained again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hmtl_ablate.bundles.layout import BundleError, Difference
from hmtl_ablate.bundles.reading import Bundle
from hmtl_ablate.bundles.rebuilding import Content, read_content
from hmtl_ablate.config import in_percent, trial_id
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import DataError

SAME = ("device", "cpu", "precision", "threads", "workers", "pieces", "numerics", "version.torch")
"""Tags of a trial that are equal on the same kind of machine."""
TOLERANCE = 0.03
"""Largest difference of the study's metric on another kind of machine: 3 points of an accuracy, F1 or the like."""
SHARE = 0.1
"""The same as a share of the value, for a metric that is no percentage."""
CLOCK = ("seconds", "images_per_second")
"""Columns of the curves that no two trainings share."""


@dataclass(frozen=True)
class Drawn:
    """The trial to train again."""

    content: Content
    variant: str
    metric: str
    """The study's."""

    @property
    def threads(self) -> int:
        """CPU threads that it was trained with."""
        found = self.content.result.tags.get("threads", "1") if self.content.result else "1"
        return min(max(int(found), 1), 1024) if found.isdecimal() else 1


@dataclass(frozen=True)
class Retrained:
    """A trial that was trained again."""

    trial_id: str
    variant: str
    seed: int
    """Of the draw."""
    exact: bool
    """Whether it was compared bit for bit, because both machines are of one kind."""
    differences: tuple[Difference, ...]
    other: tuple[str, ...]
    """In what the machines differ, e.g. "version.torch 2.14.0, here 2.15.0"."""

    @property
    def agrees(self) -> bool:
        """Whether nothing differs, within the tolerance on another kind of machine."""
        return not self.differences


def drawn(bundle: Bundle, seed: int) -> Drawn:
    """One finished trial that a table counts and that starts from no other one, each equally likely.

    Raises BundleError when there is none.
    """
    studies = {study.run_id: study for study in bundle.records.studies}
    found: dict[str, Drawn] = {}
    for record in bundle.records.trials:
        content, study = bundle.contents.get(record.trial_id), studies.get(record.parent)
        if content is None or content.result is None or study is None or content.result.status != "finished":
            continue
        if study.variants.get(record.variant) == record.variant_key and not content.config.weight_sources:
            found[record.trial_id] = Drawn(content, record.variant, study.metric)
    if not found:
        raise BundleError("no trial of this bundle can be trained by itself: each starts from weights that it has not")
    return found[random.Random(seed).choice(sorted(found))]


def require_identity(trial: Drawn, pack: Pack) -> None:
    """Raise DataError when one's own data is not that of the trial, or this version's numbers are other ones."""
    config = trial.content.config
    if trial_id(config, pack.identity(config.tasks)) != trial.content.trial_id:
        raise DataError(
            f"trial {trial.content.trial_id} can't be trained again here: the data {config.data.name!r} "
            f"(fingerprint {pack.fingerprint}) or the numerics version is not that of the bundle\n"
            f"give its own data: --data {config.data.name}=PATH; data.json of the bundle has its fingerprint"
        )


def compared(trial: Drawn, folder: Path, seed: int) -> Retrained:
    """folder: of the trial that was trained again."""
    theirs, ours = trial.content, read_content(folder)
    assert theirs.result is not None
    tags = ours.result.tags if ours.result else {}
    other = tuple(
        f"{name} {theirs.result.tags.get(name, 'unknown')}, here {tags.get(name, 'unknown')}"
        for name in SAME
        if theirs.result.tags.get(name) != tags.get(name)
    )
    found = _within(trial, ours) if other else _exactly(theirs, ours)
    return Retrained(theirs.trial_id, trial.variant, seed, not other, tuple(found), other)


def _exactly(theirs: Content, ours: Content) -> list[Difference]:
    place = f"trials/{theirs.trial_id}"
    found = []
    for name in sorted({*theirs.predictions, *ours.predictions}):
        one, other = theirs.predictions.get(name), ours.predictions.get(name)
        same = one is not None and other is not None and one.dtype == other.dtype and one.tobytes() == other.tobytes()
        if not same:
            found.append(Difference(f"{place}/predictions.npz", name, "trained again, it is not the same bit for bit"))
    if [_timeless(row) for row in theirs.history] != [_timeless(row) for row in ours.history]:
        found.append(Difference(f"{place}/metrics.jsonl", "", "trained again, the curves are other ones"))
    return found


def _timeless(row: dict[str, float]) -> dict[str, Any]:
    return {name: repr(value) for name, value in row.items() if name not in CLOCK}


def _within(trial: Drawn, ours: Content) -> list[Difference]:
    theirs = trial.content.result
    one = theirs.metrics.get(trial.metric, np.nan) if theirs else np.nan
    other = ours.result.metrics.get(trial.metric, np.nan) if ours.result else np.nan
    most = TOLERANCE if in_percent(trial.metric) else SHARE * abs(one)
    if abs(one - other) <= most:
        return []
    return [
        Difference(
            f"trials/{trial.content.trial_id}/result.json",
            trial.metric,
            f"{one:.4g} in the bundle, {other:.4g} trained again; the tolerance is {most:.2g}",
        )
    ]
