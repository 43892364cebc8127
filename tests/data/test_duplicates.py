"""Exact and near duplicates: what is found, what is not, and who stays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_ablate.data.duplicates import NEAR_BITS, THUMB, judge, near_pairs, perceptual_hash

TRAIN, VALID, TEST = 0, 1, 2


def pictures(count: int, side: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        cv2.resize(rng.integers(0, 256, (8, 8), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
        for _ in range(count)
    ]


def thumbs(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([cv2.resize(image, (THUMB, THUMB), interpolation=cv2.INTER_AREA) for image in images])


def brute_pairs(shown: np.ndarray) -> set[tuple[int, int]]:
    hashes = perceptual_hash(shown)
    flat = shown.reshape(len(shown), -1).astype(float)
    return {
        (i, j)
        for i in range(len(shown))
        for j in range(i + 1, len(shown))
        if int(hashes[i] ^ hashes[j]).bit_count() <= NEAR_BITS and np.corrcoef(flat[i], flat[j])[0, 1] >= 0.95
    }


def test_altered_copies_are_near_and_others_are_not() -> None:
    base = pictures(40)
    altered = []
    for image in base[:4]:
        recompressed = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 0)
        smaller = cv2.resize(image, (40, 40), interpolation=cv2.INTER_AREA)
        brighter = np.clip(image.astype(int) * 0.8 + 20, 0, 255).astype(np.uint8)
        altered += [recompressed, smaller, brighter]
    pairs = near_pairs(thumbs(base + altered))
    groups = [{i, *(40 + 3 * i + k for k in range(3))} for i in range(4)]
    assert {tuple(pair) for pair in pairs.tolist()} == {
        (i, j) for group in groups for i in group for j in group if i < j
    }


def test_pairs_are_those_of_brute_force_over_chunks_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    base = thumbs(pictures(30))
    noisy = np.clip(base.astype(int) + np.random.default_rng(1).integers(-6, 7, base.shape), 0, 255).astype(np.uint8)
    shown = np.concatenate([base, noisy])
    monkeypatch.setattr("hmtl_ablate.data.duplicates.CHUNK", 200)
    found = near_pairs(shown, threads=2)
    assert {tuple(pair) for pair in found.tolist()} == brute_pairs(shown)
    assert len(found) == 30


def test_flat_images_are_not_near_duplicates() -> None:
    flat = np.stack([np.full((THUMB, THUMB), value, np.uint8) for value in (10, 11, 200)])
    assert len(near_pairs(flat)) == 0


def test_rendered_faces_are_not_duplicates() -> None:
    from hmtl_ablate.data.renderer import render_faces

    images, _ = render_faces(300, 48, 0)
    shown = np.stack([cv2.resize(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), (THUMB, THUMB)) for i in images])
    assert len(near_pairs(shown)) == 0


def verdict(names: list[str], split: list[int], labels: list[int]) -> tuple[list[bool], list[tuple[int, int, str]]]:
    """Images with equal first letters are copies; a trailing ' marks a near one."""
    distinct = dict(zip(sorted({name[0] for name in names}), pictures(26), strict=False))
    rng = np.random.default_rng(2)
    shown = thumbs([distinct[name[0]] for name in names]).astype(int)
    for position, name in enumerate(names):
        if name.endswith("'"):
            shown[position] += rng.integers(-4, 5, shown[position].shape)
    result = judge(
        [name.encode() for name in names],
        np.clip(shown, 0, 255).astype(np.uint8),
        np.array(split, np.int8),
        [{"emotion": label} if label >= 0 else {} for label in labels],
    )
    assert all(
        (result.group[i] == result.group[j]) == (names[i][0] == names[j][0])
        for i in range(len(names))
        for j in range(len(names))
    )
    assert sorted(d.dropped for d in result.duplicates) == np.flatnonzero(~result.keep).tolist()
    return result.keep.tolist(), [(d.dropped, d.kept, d.kind) for d in result.duplicates]


def test_across_splits_the_later_split_keeps() -> None:
    split = [TRAIN, TEST, VALID, TRAIN, TEST, VALID, TRAIN]
    keep, found = verdict(["a", "a", "b", "b", "c", "c'", "d"], split, [0] * 7)
    assert keep == [False, True, True, False, True, False, True]
    assert found == [(0, 1, "exact"), (3, 2, "exact"), (5, 4, "near")]


def test_inside_one_split() -> None:
    names = ["a", "a", "a", "b", "b", "c", "c'", "d", "d"]
    keep, found = verdict(names, [TRAIN] * 9, [0, 0, 0, 1, 2, 0, 3, 4, -1])
    assert keep == [True, False, False, False, False, True, True, True, False]  # near ones stay, in one group
    assert found == [(1, 0, "exact"), (2, 0, "exact"), (3, 4, "exact"), (4, 3, "exact"), (8, 7, "exact")]


def test_labels_that_differ_across_splits_cost_only_the_earlier_split() -> None:
    assert verdict(["a", "a"], [TRAIN, VALID], [0, 5])[0] == [False, True]


def test_without_official_splits_only_copies_are_dropped() -> None:
    assert verdict(["a", "a'", "b", "b"], [-1] * 4, [0, 1, 2, 2])[0] == [True, True, True, False]


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from([TRAIN, VALID, TEST]), st.integers(0, 1)),
        min_size=1,
        max_size=20,
    )
)
def test_no_image_is_left_in_two_splits_and_no_copy_twice(rows: list[tuple[str, int, int]]) -> None:
    keep, _ = verdict([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])
    left = [row for row, stays in zip(rows, keep, strict=True) if stays]
    assert len({name for name, _, _ in left}) == len(left)
    for name, split, label in rows:
        alone = [row[2] for row in rows if row[:2] == (name, split)]
        last = max(row[1] for row in rows if row[0] == name)
        if split == last and len(set(alone)) == 1:
            assert (name, split, label) in left
