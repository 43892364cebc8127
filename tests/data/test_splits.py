"""Protocols, and fractions that are stratified, nested and drawn by data.seed alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.pack import Manifest, Pack
from hmtl_ablate.data.splits import Splits, folds, labels_of, split
from hmtl_ablate.errors import DataError

CLASSES = ("a", "b", "c", "d")


def pack(
    official: np.ndarray,
    labels: np.ndarray | None = None,
    group: np.ndarray | None = None,
    subject: np.ndarray | None = None,
) -> Pack:
    count = len(official)
    labels = np.arange(count) % 4 if labels is None else labels
    manifest = Manifest(
        format=2,
        name="made",
        source="",
        stored=16,
        channels=1,
        count=count,
        splits={},
        classes={"emotion": CLASSES},
        histogram={},
        labelled={},
        rows=count,
        left_out={},
        dropped=(),
        duplicates=(),
        fingerprint="0" * 16,
        label_digests={},
    )
    return Pack(
        Path("made"),
        manifest,
        np.zeros((count, 16, 16, 1), np.uint8),
        {"emotion": labels.astype(np.int64)},
        official.astype(np.int8),
        np.arange(count) if group is None else group,
        np.full(count, -1) if subject is None else subject,
        {"emotion": CLASSES},
        "0" * 16,
    )


def of(made: Pack, **data: Any) -> Splits:
    return split(made, DataConfig(name="folder", **data), ("emotion",))


def official(train: int, valid: int, test: int) -> np.ndarray:
    return np.repeat([0, 1, 2], [train, valid, test])


def counts(made: Pack, rows: np.ndarray) -> list[int]:
    return np.bincount(made.labels["emotion"][rows], minlength=4).tolist()


def test_official_splits_are_used_as_they_are() -> None:
    made = pack(official(100, 20, 30))
    for protocol in ("selection", "paper"):
        found = of(made, protocol=protocol)
        assert (found.train.tolist(), found.val.tolist(), found.test.tolist()) == (
            list(range(100)),
            list(range(100, 120)),
            list(range(120, 150)),
        )
        assert found.train.dtype == np.int64


def test_without_a_test_set_valid_tests_and_a_tenth_of_train_selects() -> None:
    made = pack(official(200, 40, 0))
    found = of(made)
    assert found.test.tolist() == list(range(200, 240))
    assert counts(made, found.val) == [5, 5, 5, 5]
    assert sorted([*found.train, *found.val]) == list(range(200))


def test_paper_selects_on_the_validation_set_that_also_tests() -> None:
    found = of(pack(official(200, 40, 0)), protocol="paper")
    assert found.val.tolist() == found.test.tolist() == list(range(200, 240))
    assert found.train.tolist() == list(range(200))


def test_paper_needs_an_official_validation_set() -> None:
    with pytest.raises(DataError, match="no official validation set"):
        of(pack(np.full(40, -1)), protocol="paper")


def test_a_test_set_alone_leaves_a_tenth_of_train_to_select() -> None:
    found = of(pack(official(200, 0, 40)))
    assert (len(found.train), len(found.val), found.test.tolist()) == (180, 20, list(range(200, 240)))


def test_no_official_split_is_80_10_10_by_the_data_seed() -> None:
    made = pack(np.full(400, -1))
    found, again, other = of(made), of(made), of(made, seed=1)
    assert [counts(made, rows) for rows in (found.train, found.val, found.test)] == [[80] * 4, [10] * 4, [10] * 4]
    assert sorted([*found.train, *found.val, *found.test]) == list(range(400))
    for name in ("train", "val", "test"):
        rows = getattr(found, name)
        assert rows.tolist() == getattr(again, name).tolist() == sorted(rows.tolist())
        assert rows.tolist() != getattr(other, name).tolist()


def test_groups_never_stand_on_both_sides() -> None:
    group = np.arange(400)
    group[1::2] = group[::2]  # pairs of near duplicates
    for official_split in (np.full(400, -1), official(400, 0, 0), official(300, 100, 0)):
        made = pack(official_split, group=group)
        found = of(made)
        sides = [set(group[rows].tolist()) for rows in (found.train, found.val, found.test)]
        assert all(len(side) for side in sides)
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]


def test_rows_without_a_label_are_left_out() -> None:
    labels = np.arange(150) % 4
    labels[::3] = -1
    made = pack(official(100, 20, 30), labels)
    found = of(made)
    assert all(made.labels["emotion"][rows].min() >= 0 for rows in (found.train, found.val, found.test))
    assert len(found.train) == 66


def test_labels_of_any_width_are_missing_when_one_number_is() -> None:
    made = pack(official(60, 20, 20))
    affect = np.zeros((100, 2), np.float32)
    affect[:5, 0] = affect[60:63, 1] = np.nan
    made.labels["affect"] = affect
    found = split(made, DataConfig(name="folder"), ("affect",))
    assert (len(found.train), len(found.val), len(found.test)) == (55, 17, 20)
    labels, classes = labels_of(made, DataConfig(name="folder"), "affect")
    assert classes == ()
    np.testing.assert_array_equal(labels, affect)


def test_pose_is_drawn_without_strata() -> None:
    made = pack(np.full(100, -1))
    pose = np.zeros((100, 3), np.float32)
    pose[:10, 1] = np.nan
    made.labels["pose"] = pose
    found = split(made, DataConfig(name="folder", fraction=0.5), ("pose",))
    assert (len(found.train), len(found.val), len(found.test)) == (36, 9, 9)
    assert min(found.train) >= 10


def test_a_task_without_labels() -> None:
    with pytest.raises(DataError, match="no labels for task 'gender'; it has: emotion"):
        split(pack(official(10, 10, 10)), DataConfig(name="folder"), ("gender",))


@settings(max_examples=60)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=200),
    seed=st.integers(0, 5),
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_fractions_are_nested_and_stratified(labels: list[int], seed: int, shares: tuple[float, float]) -> None:
    made = pack(np.r_[np.zeros(len(labels)), [1, 2]], np.r_[labels, [0, 0]])
    small, large = (of(made, fraction=share, seed=seed) for share in sorted(shares))
    assert set(small.train) <= set(large.train)
    for share, found in zip(sorted(shares), (small, large), strict=True):
        assert (found.val.tolist(), found.test.tolist()) == ([len(labels)], [len(labels) + 1])
        for whole, taken in zip(np.bincount(labels, minlength=4), counts(made, found.train), strict=True):
            assert abs(taken - share * whole) <= 1
            assert taken >= 1 or whole == 0


def test_fraction_changes_neither_val_nor_test_and_depends_on_the_data_seed() -> None:
    made = pack(official(200, 40, 0))
    whole, part, other = of(made), of(made, fraction=0.2), of(made, fraction=0.2, seed=1)
    assert whole.val.tolist() == part.val.tolist()
    assert whole.test.tolist() == part.test.tolist()
    assert len(part.train) == 36
    assert part.train.tolist() != other.train.tolist()


def test_drawn_splits_keep_a_subject_together() -> None:
    made = pack(np.full(200, -1), subject=np.arange(200) // 10)
    found = of(made)
    parts = [set(made.subject[rows].tolist()) for rows in (found.train, found.val, found.test)]
    assert sum(map(len, parts)) == 20
    assert set.union(*parts) == set(range(20))
    assert [len(rows) for rows in (found.val, found.test)] == [20, 20]


@settings(deadline=None)
@given(st.integers(2, 10), st.integers(10, 40), st.integers(0, 5))
def test_folds_part_all_rows_by_subject(count: int, subjects: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    more = rng.integers(0, subjects, 120 - subjects)
    made = pack(np.full(120, -1), subject=np.concatenate([np.arange(subjects), more]))
    parts = folds(made, np.arange(120), count, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(120))
    seen = [set(made.subject[rows].tolist()) for rows in parts]
    assert sum(map(len, seen)) == subjects


def test_more_folds_than_subjects_are_refused() -> None:
    with pytest.raises(DataError, match="3 subjects"):
        folds(pack(np.full(12, -1), subject=np.arange(12) % 3), np.arange(12), 4, 0)


def test_emotions_that_are_left_out_close_up_and_leave_the_splits() -> None:
    made = pack(official(40, 8, 8))
    data = DataConfig(name="folder", leave_out=("b",))
    labels, classes = labels_of(made, data, "emotion")
    assert classes == ("a", "c", "d")
    assert labels[:4].tolist() == [0, -1, 1, 2]
    assert not (np.concatenate([*vars(split(made, data, ("emotion",))).values()]) % 4 == 1).any()
    with pytest.raises(DataError, match="did you mean"):
        labels_of(made, DataConfig(name="folder", leave_out=("dd",)), "emotion")


def test_pre_training_takes_unlabelled_images_and_holds_out_what_the_task_does() -> None:
    labels = np.where(np.arange(200) % 3 == 0, -1, np.arange(200) % 4)
    made = pack(np.full(200, -1), labels)
    own, more = of(made), split(made, DataConfig(name="folder"), ("emotion",), unlabelled=True)
    assert (own.val.tolist(), own.test.tolist()) == (more.val.tolist(), more.test.tolist())
    assert set(more.train) - set(own.train) == set(np.flatnonzero(labels < 0).tolist())
    assert len(split(made, DataConfig(name="folder"), ("gender",), unlabelled=True).train) == 160
