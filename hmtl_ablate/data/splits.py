"""Which images of a pack are for training, selection and testing; all draws depend on `data.seed` alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.data.reading import EMOTIONS, NO_SPLIT, SHARES, TEST, TRAIN, VALID
from hmtl_ablate.errors import DataError, nearest

HELD_OUT = 0.1
"""Share of the validation set, and of the test set, where the data has no official one."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Splits:
    """Sorted positions in the pack. With `protocol: paper` and no official test set, `val` and `test` are equal."""

    train: Rows
    val: Rows
    """Selects epochs and hyperparameters."""
    test: Rows


def labels_of(pack: Pack, data: DataConfig, task: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Labels of all images for `task`, as in `Pack.labels`, and its class names; () when labels are numbers.

    Emotions in `data.leave_out` count as missing, and the others are renumbered. Raises DataError when the pack has no
    labels for the task, or no such emotion as one that is left out.
    """
    name = pack.manifest.name
    if task not in pack.labels:
        raise DataError(
            f"dataset {name!r} has no labels for task {task!r}; it has: {', '.join(sorted(pack.labels)) or 'none'}"
        )
    labels, classes = pack.labels[task], pack.classes.get(task, ())
    if task != "emotion" or not data.leave_out:
        return labels, classes
    for emotion in data.leave_out:
        if emotion not in EMOTIONS and emotion not in classes:
            raise DataError(f"data.leave_out: dataset {name!r} has no emotion {emotion!r}; {nearest(emotion, classes)}")
    remaining = tuple(emotion for emotion in classes if emotion not in data.leave_out)
    numbers = np.array(
        [remaining.index(emotion) if emotion in remaining else -1 for emotion in classes] + [-1], np.int64
    )
    return numbers[labels], remaining  # the last number is for -1, a missing label


def shares_of(pack: Pack, data: DataConfig, task: str) -> NDArray[np.float32] | None:
    """Share of each class of `task` in its raters' votes, float32 [N, K], NaN where the label is missing, with the
    classes of `labels_of`; None when the pack has none. Votes for emotions in `data.leave_out` do not count."""
    shares: NDArray[np.float32] | None = pack.labels.get(f"{task}{SHARES}")
    if shares is None:
        return None
    labels, classes = labels_of(pack, data, task)
    columns = [number for number, name in enumerate(pack.classes[task]) if name in classes]
    own = shares[:, columns]
    totals = np.where(labels >= 0, own.sum(axis=1), np.nan)
    return (own / totals[:, None]).astype(np.float32)


def split(pack: Pack, data: DataConfig, tasks: tuple[str, ...], *, unlabelled: bool = False) -> Splits:
    """Splits of `pack` for `tasks`; raises `DataError` when the pack can't serve a task or the protocol.

    - Official valid and test sets are used as they are.
    - An official validation set without a test set is the test split, and a stratified tenth of train is val; with
      `protocol: paper` it is val too.
    - A test set alone: a stratified tenth of train is val.
    - No official split: stratified 80/10/10.

    Drawn splits take whole subjects, unstratified, where the data names subjects, so that no person is in two of them.
    Rows without a label for any of the tasks are left out or, with `unlabelled`, added to train, which changes neither
    val nor test. Rows of train whose group is in val or test are left out, as are rows of a drawn val whose group is in
    test. `fraction` then takes a stratified, nested share of train.
    """
    name = pack.manifest.name
    if unlabelled and tasks[0] not in pack.labels:
        labelled, strata = np.ones(len(pack.split), np.bool_), np.zeros(len(pack.split), np.int64)
    else:
        found = [labels_of(pack, data, task)[0] for task in tasks]
        labelled = np.any([present(labels) for labels in found], axis=0)
        strata = found[0] if found[0].ndim == 1 else np.zeros(len(labelled), np.int64)
    rows = np.flatnonzero(labelled).astype(np.int64)
    official = pack.split[rows]
    train, valid, test = (
        rows[(official == TRAIN) | (official == NO_SPLIT)],
        rows[official == VALID],
        rows[official == TEST],
    )
    if data.protocol == "paper" and not len(valid):
        raise DataError(f"dataset {name!r} has no official validation set for data.protocol: paper; use selection")

    def drawn(rows: Rows, share: float, purpose: str) -> Rows:
        if bool((pack.subject[rows] >= 0).any()):
            return _subjects(rows, pack.subject, share, data.seed, purpose)
        return _drawn(rows, strata, share, data.seed, purpose)

    if len(valid) and not len(test):
        test = valid
        if data.protocol != "paper":
            valid = drawn(train, HELD_OUT, "val")
    elif not len(valid):
        if not len(test):
            test = drawn(train, HELD_OUT, "test")
            train = np.setdiff1d(train, test)
            valid = drawn(train, HELD_OUT / (1 - HELD_OUT), "val")
        else:
            valid = drawn(train, HELD_OUT, "val")
    train = np.setdiff1d(train, valid)
    if unlabelled:
        more = np.flatnonzero(~labelled & np.isin(pack.split, (TRAIN, NO_SPLIT))).astype(np.int64)
        train = np.union1d(train, more)
    if data.protocol != "paper":
        valid = valid[~np.isin(pack.group[valid], pack.group[test])]
    train = train[~np.isin(pack.group[train], pack.group[np.concatenate([valid, test])])]
    if data.fraction < 1:
        train = _drawn(train, strata, data.fraction, data.seed, "fraction")
    return Splits(train, valid, test)


def folds(pack: Pack, rows: Rows, count: int, seed: int) -> list[Rows]:
    """`rows` in `count` parts of similar size; no subject, or without subjects no group of duplicates, is divided.

    Raises DataError when there are fewer subjects than folds.
    """
    own = pack.subject[rows]
    blocks = np.where(own >= 0, own, len(pack.subject) + pack.group[rows])
    names = np.unique(blocks)
    if len(names) < count:
        raise DataError(
            f"dataset {pack.manifest.name!r} has {len(names)} subjects, too few for {count} folds; "
            f"set probe.folds to {len(names)} or less"
        )
    order = np.random.default_rng([seed, _DRAWS["folds"]]).permutation(names)
    sizes, place = np.zeros(count, np.int64), {}
    for block in order.tolist():
        smallest = int(sizes.argmin())
        place[block] = smallest
        sizes[smallest] += int((blocks == block).sum())
    fold = np.array([place[block] for block in blocks.tolist()])
    return [rows[fold == number] for number in range(count)]


_DRAWS = {"test": 0, "val": 1, "fraction": 2, "folds": 3}


def present(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which labels are present, bool [N]; labels: int64 [N], -1 = missing, or float32 [N, width], NaN = missing."""
    return np.asarray(labels >= 0 if labels.ndim == 1 else ~np.isnan(labels).any(axis=1))


def _subjects(rows: Rows, subject: NDArray[np.int64], share: float, seed: int, purpose: str) -> Rows:
    """Whole subjects, drawn until they make up a share of `rows`; an image without one is its own subject."""
    blocks = np.where(subject[rows] >= 0, subject[rows], len(subject) + rows)
    names, counts = np.unique(blocks, return_counts=True)
    order = np.random.default_rng([seed, _DRAWS[purpose]]).permutation(len(names))
    needed = int(np.searchsorted(np.cumsum(counts[order]), share * len(rows))) + 1
    return np.sort(rows[np.isin(blocks, names[order[:needed]])])


def _drawn(rows: Rows, strata: NDArray[Any], share: float, seed: int, purpose: str) -> Rows:
    """A share of `rows`, sorted: the same share of each stratum, but at least one row; smaller shares are subsets."""
    taken: list[Rows] = [np.zeros(0, np.int64)]
    for stratum in np.unique(strata[rows]).tolist():
        members = rows[strata[rows] == stratum]
        number = stratum if stratum >= 0 else 2**31  # a missing label
        order = np.random.default_rng([seed, _DRAWS[purpose], number]).permutation(len(members))
        # At least one: without a class it would be another problem, not a smaller one.
        taken.append(members[order[: max(1, int(share * len(members) + 0.5))]])
    return np.sort(np.concatenate(taken))
