"""Which images of a pack train, select and test, by DESIGN's protocols. All draws follow from `data.seed` alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.formats import NO_SPLIT, TEST, TRAIN, VALID
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import DataError

HELD_OUT = 0.1
"""Share that selects, and share that tests, where the data has no official split for it."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Splits:
    """Sorted int64 positions in the pack. With `protocol: paper` and no official test set, val and test are equal."""

    train: Rows
    val: Rows
    test: Rows


def split(pack: Pack, data: DataConfig, task: str) -> Splits:
    """Splits of `pack` for `task`; raises `DataError` when the pack can't serve the task or the protocol.

    - Official valid and test sets are used as they are.
    - An official validation set without a test set is the test split, and a stratified tenth of train selects;
      with `protocol: paper` it selects too.
    - A test set alone: a stratified tenth of train selects.
    - No official split: stratified 80/10/10.
    Rows without a label for the task are left out; so are rows of train whose group is in val or test, and rows of a
    drawn val whose group is in test. `fraction` then takes a stratified, nested share of train.
    """
    name = pack.manifest.name
    if task not in pack.labels:
        raise DataError(f"dataset {name!r} has no labels for task {task!r}; it has: {', '.join(sorted(pack.labels))}")
    labels = pack.labels[task]
    if np.issubdtype(labels.dtype, np.integer):
        labelled, strata = labels >= 0, labels
    else:
        labelled, strata = ~np.isnan(labels).any(axis=1), np.zeros(len(labels), np.int64)
    rows = np.flatnonzero(labelled).astype(np.int64)
    official = pack.split[rows]
    train, valid, test = rows[(official == TRAIN) | (official == NO_SPLIT)], rows[official == VALID], rows[
        official == TEST]
    if data.protocol == "paper" and not len(valid):
        raise DataError(f"dataset {name!r} has no official validation set for data.protocol: paper; use selection")
    if len(valid) and not len(test):
        test = valid
        if data.protocol != "paper":
            valid = _drawn(train, strata, HELD_OUT, data.seed, "val")
    elif not len(valid):
        if not len(test):
            test = _drawn(train, strata, HELD_OUT, data.seed, "test")
            train = np.setdiff1d(train, test)
            valid = _drawn(train, strata, HELD_OUT / (1 - HELD_OUT), data.seed, "val")
        else:
            valid = _drawn(train, strata, HELD_OUT, data.seed, "val")
    train = np.setdiff1d(train, valid)
    if data.protocol != "paper":
        valid = valid[~np.isin(pack.group[valid], pack.group[test])]
    train = train[~np.isin(pack.group[train], pack.group[np.concatenate([valid, test])])]
    if data.fraction < 1:
        train = _drawn(train, strata, data.fraction, data.seed, "fraction")
    return Splits(train, valid, test)


def _drawn(rows: Rows, strata: NDArray[Any], share: float, seed: int, purpose: str) -> Rows:
    """A share of `rows`, the same share of each stratum, at least one row of each; nested in `share`; sorted."""
    draw = {"test": 0, "val": 1, "fraction": 2}[purpose]
    taken: list[Rows] = [np.zeros(0, np.int64)]
    for stratum in np.unique(strata[rows]).tolist():
        members = rows[strata[rows] == stratum]
        order = np.random.default_rng([seed, draw, stratum]).permutation(len(members))
        # Not below one: a class that a small share loses would be another problem, not a smaller one.
        taken.append(members[order[:max(1, int(share * len(members) + 0.5))]])
    return np.sort(np.concatenate(taken))
