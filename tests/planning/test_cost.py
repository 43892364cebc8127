"""The work of a trial, against hand-worked cases. Splits of 470 / 100 / 60 images, batches of 64: 7 steps of 448 images
an epoch, 22 images dropped."""

from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.config import TrialConfig, parse_config
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.planning.cost import Counts, Work, counts_in, search_configs, split_counts, work_of, workload
from hmtl_ablate.study import load_study

COUNTS = Counts(train=470, val=100, test=60, labelled=630)


def config(raw: dict[str, Any] | None = None) -> TrialConfig:
    raw = dict(raw or {})
    return parse_config({**raw, "training": {"epochs": 3, "batch_size": 64, **raw.get("training", {})}})


@pytest.mark.parametrize(
    ("raw", "passes", "measured", "validated"),
    [
        # a lone loss has its gradient from the step
        ({}, 448 * 3, 0, 100 * 3),
        ({"data": {"views": 2}}, 2 * 448 * 3, 0, 100 * 3),
        ({"task": ["emotion", "gender"]}, 448 * 3, 64 * 3, 100 * 3),
        # a shared or mixed feed costs what SL does; 64 images of val are scored (470 / 32 = 15 are too few)
        ({"pretext": {"puzzling": {"feed": "shared"}}}, 448 * 3, 64 * 2 * 3, (100 + 64) * 3),
        ({"pretext": {"puzzling": {"feed": "mixed"}}}, 448 * 3, 64 * 2 * 3, (100 + 64) * 3),
        # siamese: a whole view and one for each changed view
        ({"pretext": {"puzzling": {}}}, 2 * 448 * 3, 2 * 64 * 2 * 3, (100 + 64) * 3),
        (
            {"data": {"views": 2}, "pretext": {"puzzling": {"changed_views": [[1, 1], [0.5, 1]]}}},
            4 * 448 * 3,
            4 * 64 * 2 * 3,
            (100 + 64) * 3,
        ),
        # two tasks of their own: three views, two chains that are scored; joined: two views, one chain
        ({"pretext": {"puzzling": {}, "rotation": {}}}, 3 * 448 * 3, 3 * 64 * 2 * 3, (100 + 2 * 64) * 3),
        ({"pretext": {"puzzling": {}, "rotation": {"joins": "puzzling"}}}, 2 * 448 * 3, 2 * 64 * 2 * 3, 164 * 3),
    ],
)
def test_passes_by_feed_and_views(raw: dict[str, Any], passes: int, measured: int, validated: int) -> None:
    assert work_of(config(raw), COUNTS, True) == Work(passes, 21, 3, measured, validated, 160)


def test_a_search_s_trial_does_not_look_at_the_test_split() -> None:
    assert work_of(config(), COUNTS, False).last == 100


def test_pre_training_has_changed_views_only_and_no_validation() -> None:
    pre = config({"training": {"supervised": False}, "pretext": {"rotation": {}}})
    assert work_of(pre, COUNTS, False) == Work(448 * 3, 21, 3, 0, 64 * 3, 0)


@pytest.mark.parametrize("kind", ["linear", "knn"])
def test_an_evaluation_reads_every_labelled_image_once(kind: str) -> None:
    assert work_of(config({"probe": {"kind": kind}}), COUNTS, True) == Work(0, 0, 3, 0, 0, 630)


def test_a_batch_is_never_larger_than_the_split() -> None:
    assert work_of(config(), Counts(10, 4, 4, 18), True).passes == 10 * 3


@pytest.mark.parametrize(
    ("images", "fraction", "expected"),
    [(600, 1.0, (480, 60, 60)), (199, 1.0, (160, 20, 19)), (6000, 0.2, (960, 600, 600))],
)
def test_rendered_faces_without_a_pack(images: int, fraction: float, expected: tuple[int, int, int]) -> None:
    found = split_counts(images, fraction)
    assert (found.train, found.val, found.test, found.labelled, found.exact) == (*expected, images, False)


def test_images_are_counted_in_the_pack(tmp_path: Path) -> None:
    raw: dict[str, Any] = {"data": {"images": 70, "size": 16, "fraction": 0.5}}
    made = parse_config(raw)
    pack = open_pack(made.data, None, tmp_path)
    counted = counts_in(pack, made)
    assert (counted.val, counted.test, counted.labelled, counted.exact) == (7, 7, 70, True)
    assert counted.train == pytest.approx(28, abs=5)  # half of 56, rounded in each of 7 classes
    probe = counts_in(pack, parse_config({**raw, "probe": {"kind": "linear", "folds": 5}}))
    assert (probe.train, probe.labelled) == (0, 70)


def test_a_workload_is_what_changes_the_time_of_a_pass() -> None:
    base = config({"pretext": {"puzzling": {}}})
    for same in (
        {"pretext": {"puzzling": {"weight": 3.0, "grid": 3, "supervised_weight": 0.1, "answers": "random"}}},
        {"pretext": {"puzzling": {}}, "training": {"lr": 0.1, "epochs": 9}},
        {"pretext": {"puzzling": {}}, "data": {"fraction": 0.1}, "model": {"weights": "trial:x"}},
    ):
        assert workload(config(same)) == workload(base)
    for other in (
        {},
        {"pretext": {"puzzling": {"feed": "shared"}}},
        {"pretext": {"puzzling": {"changed_views": [[0.5, 1]]}}},
        {"pretext": {"puzzling": {}}, "training": {"batch_size": 32}},
        {"pretext": {"puzzling": {}}, "data": {"augment": "strong"}},
        {"pretext": {"puzzling": {}}, "model": {"backbone": "resnet10t"}},
        {"pretext": {"puzzling": {}}, "data": {"size": 64}},
    ):
        assert workload(config(other)) != workload(base)


def test_the_configs_of_a_search_cover_its_costs(tmp_path: Path) -> None:
    """Weights and grids change no cost; feeds, epochs and a share of the data do; a share is looked at at its ends."""
    (tmp_path / "s.yaml").write_text(
        "name: s\nbase: {data: {images: 640}, training: {batch_size: 64, warmup_epochs: 0}}\n"
        "search:\n  base: {pretext: {puzzling: {}}}\n  trials: 3\n  sampler: random\n  space:\n"
        "    pretext.puzzling.weight: {loguniform: [0.1, 10]}\n"
        "    pretext.puzzling.feed: {choice: [shared, siamese, mixed]}\n"
        "    pretext.puzzling.share: {uniform: [0.1, 0.6], when: {pretext.puzzling.feed: mixed}}\n"
        "    training.epochs: {int: [1, 3], step: 2}\n"
        "    data.fraction: {uniform: [0.5, 1.0]}\n"
    )
    search = load_study(tmp_path / "s.yaml").search
    assert search is not None
    found = search_configs(search, 0)
    assert len(found) == 3 * 2 * 2
    counts = [split_counts(640, one.data.fraction) for one in found]
    passes = [work_of(one, known, False).passes for one, known in zip(found, counts, strict=True)]
    assert (min(passes), max(passes)) == (256, 2 * 512 * 3)  # shared, 1 epoch, half; siamese, 3 epochs, all
