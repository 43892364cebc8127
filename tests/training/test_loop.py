import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing.spawn import spawn

from hmtl_ablate.config import parse_config
from hmtl_ablate.data.augment import training_view
from hmtl_ablate.data.pack import Pack, load_pack
from hmtl_ablate.errors import TrialInterrupted
from hmtl_ablate.training.batches import TrainingBatches, seed_of
from hmtl_ablate.training.folder import TrialFolder, TrialResult
from hmtl_ablate.training.loop import train
from hmtl_ablate.training.revision import revision
from hmtl_ablate.training.supervised import build_tasks

HMTL = {"puzzling": {"feed": "siamese", "supervised_weight": 0.5}, "inpainting": {"feed": "mixed", "share": 0.25}}


def curve(folder: Path) -> list[dict[str, float]]:
    timed = {"seconds", "images_per_second"}
    return [{k: v for k, v in row.items() if k not in timed} for row in TrialFolder(folder).history()]


def test_golden_loss_curve(make, run, tmp_path: Path) -> None:
    """Pins the numerics: when this moves, NUMERICS_VERSION must be bumped and the reason written down.

    The tolerance covers other processors' rounding, not another algorithm.
    """
    run(make(pretext=HMTL), "golden")
    golden = json.loads((Path(__file__).parent / "golden.json").read_text())
    for row, expected in zip(curve(tmp_path / "golden"), golden, strict=True):
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=2e-3, abs=2e-3), (row["epoch"], name)


@pytest.mark.slow
def test_the_same_config_gives_the_same_numbers(make, run, tmp_path: Path) -> None:
    config = make(pretext=HMTL, training__epochs=2)
    run(config, "a")
    run(config, "b")
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    a, b = (load_file(tmp_path / name / "best.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)
    run(make(pretext=HMTL, training__epochs=2, seed=1), "c")
    assert curve(tmp_path / "a") != curve(tmp_path / "c")


def test_shares_of_votes_train_and_are_measured_by_the_label(make, pack: Pack, tmp_path: Path) -> None:
    """Fault A1: votes that all agree train exactly as the labels do."""
    whole = np.eye(8, dtype=np.float32)[pack.labels["emotion"]]
    for name, shares in (("label", {}), ("shares", {"emotion.shares": whole})):
        own = replace(pack, labels=pack.labels | shares)
        train(make(training__epochs=1), own, tmp_path / name, evaluate_test=False)
    [row], [expected] = curve(tmp_path / "shares"), curve(tmp_path / "label")
    assert row == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("after", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
def test_a_stopped_trial_continues_as_if_it_never_stopped(make, run, tmp_path: Path, after: int) -> None:
    config = make(pretext=HMTL, training__epochs=2, training__optimizer="adabelief", training__lookahead=True)
    run(config, "whole")
    calls = iter(range(100))
    with pytest.raises(TrialInterrupted):
        run(config, "parts", stop=lambda: next(calls) >= after - 1)
    assert TrialFolder(tmp_path / "parts").result() is None
    result = run(config, "parts")
    for row, expected in zip(curve(tmp_path / "parts"), curve(tmp_path / "whole"), strict=True):
        assert row == pytest.approx(expected, rel=1e-9)  # an epoch's mean is summed in two parts
    a, b = (load_file(tmp_path / name / "best.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert result.status == "finished"


def test_a_finished_trial_is_not_trained_again(make, run, tmp_path: Path) -> None:
    config = make(training__epochs=1)
    first = run(config, "x")
    assert run(config, "x") == first


def test_the_checkpoint_of_a_finished_trial_is_removed_unless_it_is_kept(make, run, tmp_path: Path) -> None:
    config = make(training__epochs=1)
    kept = run(config, "x", evaluate_test=False, keep_last=True)
    last = tmp_path / "x" / "last.safetensors"
    assert last.exists()
    assert run(config, "x", evaluate_test=False, keep_last=True) == kept
    assert last.exists()
    assert run(config, "x", evaluate_test=False) == kept  # as after a crash between result.json and the removal
    assert not last.exists()


@pytest.mark.parametrize(("status", "kept"), [("finished", False), ("failed", False), ("pruned", True)])
def test_only_a_pruned_trial_keeps_its_checkpoint(tmp_path: Path, status: str, kept: bool) -> None:
    folder = TrialFolder(tmp_path)
    (tmp_path / "last.safetensors").write_bytes(b"x")
    folder.drop_checkpoint(
        TrialResult.model_validate(
            {"trial_id": "0" * 16, "status": status, "epochs": 1, "best_epoch": 1, "image_passes": 0, "seconds": 1}
        )
    )
    assert (tmp_path / "last.safetensors").exists() == kept


def test_test_is_measured_once_and_only_when_asked(make, run, tmp_path: Path) -> None:
    config = make(training__epochs=1)
    search = run(config, "x", evaluate_test=False)
    assert not any(name.startswith("test/") for name in search.metrics)
    variant = run(config, "x")
    assert "test/accuracy" in variant.metrics
    assert variant.metrics["best/val/accuracy"] == search.metrics["best/val/accuracy"]
    assert len(curve(tmp_path / "x")) == 1


def test_pruning_ends_after_the_epoch_and_can_go_on(make, run, tmp_path: Path) -> None:
    config = make(training__epochs=3)
    pruned = run(config, "x", on_epoch=lambda metrics: metrics["epoch"] == 2)
    assert (pruned.status, pruned.epochs) == ("pruned", 2)
    assert run(config, "x").epochs == 3


def test_passes_results_and_predictions(make, run, pack: Pack, tmp_path: Path) -> None:
    result = run(make(pretext={"puzzling": {"feed": "siamese"}}, training__epochs=2), "x")
    train_images = int((pack.split == 0).sum())
    assert result.image_passes == 2 * (train_images // 32) * 32 * 2
    assert result.epochs == 2
    assert result.tags["git_commit"] == revision().commit  # of what trained it, whoever reports it later
    with np.load(tmp_path / "x" / "predictions.npz", allow_pickle=False) as saved:
        correct = saved["test_probability"].argmax(axis=1) == saved["test_label"]
        assert correct.mean() == pytest.approx(result.metrics["test/accuracy"])
        assert np.allclose(saved["test_probability"].sum(axis=1), 1, atol=1e-5)
    assert sum(map(sum, result.confusion["test"])) == int((pack.split == 2).sum())
    assert {path.name for path in (tmp_path / "x" / "pictures").iterdir()} >= {
        "puzzling-epoch-0001.png",
        "puzzling-epoch-0002.png",
        "confusion-test.png",
    }


def test_best_epoch_is_the_earliest_of_the_best(make, run, tmp_path: Path) -> None:
    result = run(make(training__epochs=3), "x")
    values = [row["val/accuracy"] for row in curve(tmp_path / "x")]
    assert result.best_epoch == values.index(max(values)) + 1
    assert result.metrics["best/val/accuracy"] == max(values)


def test_a_diverged_trial_ends_with_its_reason(make, run) -> None:
    result = run(
        make(
            training__optimizer="sgd",
            training__lr=10.0,
            training__weight_decay=1.0,
            training__clip=None,
            training__epochs=40,
        ),
        "x",
    )
    assert result.status == "failed"
    assert "NaN or infinite" in result.reason


@pytest.mark.parametrize(("feed", "combine"), [("shared", "sum"), ("mixed", "geometric"), ("siamese", "geometric")])
def test_every_feed_and_combination_trains(make, run, tmp_path: Path, feed: str, combine: str) -> None:
    result = run(
        make(
            pretext={"inpainting": {"feed": feed}},
            loss={"combine": combine, "class_weights": "inverse"},
            training__epochs=1,
        ),
        "x",
    )
    assert result.status == "finished"
    assert math.isfinite(curve(tmp_path / "x")[0]["train/inpainting"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "combine",
    [
        "dwa",
        "sum",
        "geometric",
        "focused",
        "uncertainty",
        "pcgrad",
    ],
)
def test_every_combination_continues_as_if_it_never_stopped(make, run, tmp_path: Path, combine: str) -> None:
    options = {"puzzling": {"feed": "shared"}, "rotation": {"feed": "shared", "grid": 2}}
    config = make(pretext=options, loss={"combine": combine}, data__size=16, training__batch_size=16)
    run(config, "whole")
    calls = iter(range(100))
    with pytest.raises(TrialInterrupted):
        run(config, "parts", stop=lambda: next(calls) >= 4)
    run(config, "parts")
    for row, expected in zip(curve(tmp_path / "parts"), curve(tmp_path / "whole"), strict=True):
        assert row == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["test_vit", "test_mambaout"])
def test_backbones_without_a_convolutional_map_train(make, run, tmp_path: Path, backbone: str) -> None:
    views = {"feed": "siamese", "changed_views": [[0.6, 1.0]]}
    config = make(model__backbone=backbone, pretext={"puzzling": views, "inpainting": views}, training__epochs=8)
    result = run(config, "x")
    rows = curve(tmp_path / "x")
    assert result.status == "finished"
    for name in ("train/loss", "train/supervised", "train/inpainting"):
        assert rows[-1][name] < rows[0][name], name
    assert (tmp_path / "x" / "pictures" / "inpainting-epoch-0008.png").exists()


@pytest.mark.slow
def test_combinations_differ(make, run, tmp_path: Path) -> None:
    last = {}
    for combine in ("sum", "geometric", "focused", "uncertainty", "dwa", "pcgrad"):
        run(make(pretext={"puzzling": {"feed": "siamese"}}, loss={"combine": combine}, data__size=16), combine)
        last[combine] = curve(tmp_path / combine)[-1]["train/puzzling"]
    assert len(set(last.values())) == 6, last


def test_the_views_losses_combine_by_their_geometric_mean(make, run, tmp_path: Path) -> None:
    """Fault A5: the authors add the pretext loss to a geometric mean over the views, which is at most their mean."""
    puzzling = {"weight": 2.0, "same_augmentation": True, "same_draw": True, "supervised_weight": 1.0}
    for views in ("mean", "geometric"):
        run(make(pretext={"puzzling": puzzling}, loss={"views": views}, training__epochs=1, data__size=16), views)
    mean, geometric = (curve(tmp_path / views)[0] for views in ("mean", "geometric"))
    assert geometric["train/supervised"] < mean["train/supervised"]
    assert geometric["train/loss"] == pytest.approx(geometric["train/supervised"] + 2 * geometric["train/puzzling"])


def test_views_of_one_augmentation_show_the_same_pixels(make, pack: Pack) -> None:
    """Fault A9: pixels, mirror and targets of the changed view are those of the whole one."""
    rows = np.flatnonzero(pack.split == 0)
    for same in (True, False):
        config = make(task="pose", pretext={"puzzling": {"same_augmentation": same}})
        batch = TrainingBatches(config, pack, rows, build_tasks(config, pack, rows), 0, 1)[0]
        assert torch.equal(batch.views[0], batch.views[1]) == same
        assert torch.equal(batch.targets["pose"][0], batch.targets["pose"][1]) == same


def test_several_tasks_are_trained_and_measured_side_by_side(make, run, pack: Pack, tmp_path: Path) -> None:
    result = run(make(task=["emotion", "gender", "pose"], loss={"pose_weight": 0.5}, training__epochs=2), "x")
    assert {"test/emotion/accuracy", "test/gender/auc", "test/pose/mae", "best/val/emotion/accuracy"} <= set(
        result.metrics
    )
    assert result.classes == list(pack.classes["emotion"])
    row = curve(tmp_path / "x")[-1]
    assert row["train/loss"] == pytest.approx(
        row["train/emotion"] + row["train/gender"] + 0.5 * row["train/pose"], rel=1e-5
    )
    with np.load(tmp_path / "x" / "predictions.npz") as saved:
        assert saved["test_pose_angles"].shape == (int((pack.split == 2).sum()), 3)
        correct = saved["test_gender_probability"].argmax(axis=1) == saved["test_gender_label"]
    assert correct.mean() == pytest.approx(result.metrics["test/gender/accuracy"])
    assert {path.name for path in (tmp_path / "x" / "pictures").iterdir()} >= {
        "confusion-test-emotion.png",
        "confusion-test-gender.png",
    }


def test_images_without_a_tasks_label_count_for_the_others_only(make, run, pack: Pack, tmp_path: Path) -> None:
    labels = {**pack.labels, "gender": np.where(np.arange(len(pack.split)) // 10 % 2, -1, pack.labels["gender"])}
    half = replace(pack, labels=labels)
    config = make(task=["emotion", "gender"], training__epochs=2)
    result = train(config, half, tmp_path / "half", evaluate_test=True)
    labelled = (half.split == 2) & (half.labels["gender"] >= 0)
    assert 0 < sum(map(sum, result.confusion["test/gender"])) == int(labelled.sum())
    assert sum(map(sum, result.confusion["test/emotion"])) == int((half.split == 2).sum())
    run(config, "all")
    assert curve(tmp_path / "half")[0]["train/emotion"] != curve(tmp_path / "all")[0]["train/emotion"]


@pytest.mark.parametrize("head", ["regression", pytest.param("rotation6d", marks=pytest.mark.slow)])
def test_pose_is_learned_and_the_lowest_error_selects(make, run, tmp_path: Path, head: str) -> None:
    result = run(make(task="pose", model__pose_head=head, training__epochs=8), "x")
    rows = curve(tmp_path / "x")
    assert rows[-1]["train/supervised"] < 0.7 * rows[0]["train/supervised"]
    assert result.metrics["best/val/mae"] == min(row["val/mae"] for row in rows)
    assert {"test/mae", "test/mae_yaw", "test/mae_pitch", "test/mae_roll", "test/geodesic"} <= result.metrics.keys()


def test_a_mirrored_face_has_its_yaw_and_roll_negated(make, pack: Pack) -> None:
    config = make(task="pose", data__augment="none")
    rows = np.flatnonzero(pack.split == 0)
    batches = TrainingBatches(config, pack, rows, build_tasks(config, pack, rows), 0, 1)
    first = batches[0]
    order = batches._ordered(1)[:32]
    signs = first.targets["pose"][0] / torch.from_numpy(pack.labels["pose"][order])
    flipped = signs[:, 0] < 0
    assert 4 < int(flipped.sum()) < 28
    assert torch.equal(signs[:, 1], torch.ones(32))
    assert torch.equal(signs[:, 0], signs[:, 2])
    for place in (int(flipped.nonzero()[0]), int((~flipped).nonzero()[0])):
        view = training_view("none", 32, 32, 3)
        image = view(pack.images[order[place]], seed_of(config.seed, 1, int(order[place]), 0))
        assert view.flipped == bool(flipped[place])
        assert np.array_equal(image, first.views[0, place].numpy())


def test_perceptual_in_painting_looks_through_a_frozen_network(make, run, tmp_path: Path) -> None:
    options = {"mask_ratio": 0.3, "perceptual": "test_resnet", "perceptual_weights": None}
    result = run(make(pretext={"inpainting": options}, training__epochs=1), "pl")
    run(make(pretext={"inpainting": {"mask_ratio": 0.3}}, training__epochs=1), "pixels")
    assert result.status == "finished"
    pl, pixels = curve(tmp_path / "pl")[0], curve(tmp_path / "pixels")[0]
    assert pl["train/inpainting"] > pixels["train/inpainting"]
    names = [load_file(tmp_path / name / "best.safetensors").keys() for name in ("pl", "pixels")]
    assert names[0] == names[1]  # neither checkpoint nor model holds the frozen network


def test_a_folder_that_another_run_trains_in_is_waited_for(
    make, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault C7: busy is not failure. The other's result is taken; a stop ends the waiting."""
    config = make(training__epochs=1)
    first = run(config, "x")
    folder = TrialFolder(tmp_path / "x")
    monkeypatch.setattr("hmtl_ablate.training.loop.WAIT", 0.01)
    looks = iter(range(10))
    with folder.lock(), pytest.raises(TrialInterrupted):
        run(config, "x", stop=lambda: next(looks) == 3)
    with ThreadPoolExecutor(1) as pool:
        with folder.lock():
            waiting = pool.submit(run, config, "x")
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
        assert waiting.result(timeout=30) == first


def _worker(rank: int, raw: dict, pack_folder: str, folder: str, port: int) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    train(parse_config(raw), load_pack(Path(pack_folder)), Path(folder), evaluate_test=True, rank=rank, world_size=2)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("combine", ["sum", "geometric", "uncertainty", "pcgrad"])
def test_two_workers_equal_one(make, run, pack: Pack, tmp_path: Path, combine: str) -> None:
    """At equal global batch, for a net without batch norm and dropout: the same curve within float tolerance."""
    import socket

    still = {"feed": "mixed", "share": 0.4, "dropout": 0.0}
    config = make(
        model={"backbone": "test_convnext", "dropout": 0.0},
        loss={"combine": combine},
        pretext={"puzzling": still, "inpainting": {**still, "share": 0.3}},
        training__epochs=2,
        training__lr=0.001,
    )
    run(config, "one")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    raw = config.model_dump(mode="json", exclude_defaults=True)
    spawn(_worker, args=(raw, str(pack.folder), str(tmp_path / "two"), port), nprocs=2)
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    for a, b in zip(one, two, strict=True):
        for name in ("train/loss", "train/supervised", "train/puzzling", "train/inpainting", "val/loss"):
            assert b[name] == pytest.approx(a[name], rel=1e-3), name
    both: list[Any] = [TrialFolder(tmp_path / name).result() for name in ("one", "two")]
    assert both[0].image_passes == both[1].image_passes
    assert sum(map(sum, both[1].confusion["test"])) == sum(map(sum, both[0].confusion["test"]))
