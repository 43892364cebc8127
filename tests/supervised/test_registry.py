"""Tasks that a lab registers, and the training of tasks that are new."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hmtl_ablate.config import metric_info, metric_names, parse_config, trial_id
from hmtl_ablate.data import augment
from hmtl_ablate.data.pack import Pack, open_pack
from hmtl_ablate.errors import ConfigError, HmtlError
from hmtl_ablate.study.declaration import objectives, table_metrics
from hmtl_ablate.supervised import SUPERVISED_TASKS, Metric, SupervisedTask, register_supervised_task
from hmtl_ablate.training.batches import TrainingBatches
from hmtl_ablate.training.loop import train
from hmtl_ablate.training.supervised import build_tasks

TINY: dict[str, Any] = {
    "data": {"images": 96, "size": 32},
    "training": {"optimizer": "adamw", "lookahead": False, "batch_size": 32, "epochs": 1, "warmup_epochs": 0},
}


class Brightness(SupervisedTask):
    """A toy: the mean pixel of the image."""

    regression = True
    width = 1

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        there = self.present(targets)
        return torch.where(there, (outputs - targets.nan_to_num(0.0)).abs().mean(dim=1), 0.0)

    def metrics(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        return {"brightness_error": float(self.loss(outputs, targets).mean())}


ERROR = {"brightness_error": Metric("min", "brightness error")}


@pytest.fixture
def registry() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    before = dict(SUPERVISED_TASKS)
    yield
    SUPERVISED_TASKS.clear()
    SUPERVISED_TASKS.update(before)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Rendered faces with affect (of the emotion, a third missing) and brightness labels."""
    drawn = open_pack(parse_config(TINY).data, None, tmp_path_factory.mktemp("store"))
    angle = drawn.labels["emotion"] * (2 * math.pi / 8)
    affect = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    affect[::3] = np.nan
    brightness = drawn.images.mean(axis=(1, 2, 3), dtype=np.float64)[:, None].astype(np.float32) / 255
    return replace(drawn, labels={**drawn.labels, "affect": affect, "brightness": brightness})


def test_a_new_task_is_trained_from_its_one_registration(registry: None, pack: Pack, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'brightness' is no supervised task"):
        parse_config({"task": "brightness"})
    register_supervised_task("brightness", Brightness, ERROR)
    config = parse_config({**TINY, "task": "brightness", "loss": {"task_weights": {"brightness": 3.0}}})
    assert config.selects_by == "val/brightness_error"
    assert {"brightness_error", "brightness/brightness_error"} <= set(metric_names())
    assert "val/brightness_error" in objectives()
    assert "best/val/brightness/brightness_error" in table_metrics()
    result = train(config, pack, tmp_path / "x", evaluate_test=True)
    assert result.status == "finished"
    assert {"best/val/brightness_error", "test/brightness_error"} <= result.metrics.keys()
    (row,) = (json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines())
    assert row["train/loss"] == pytest.approx(3 * row["train/supervised"], rel=1e-5)
    with np.load(tmp_path / "x" / "predictions.npz") as saved:
        error = np.abs(saved["test_prediction"] - saved["test_label"]).mean()
    assert error == pytest.approx(result.metrics["test/brightness_error"], rel=1e-4)


def test_affect_alone_is_trained_where_it_is_labelled(pack: Pack, tmp_path: Path) -> None:
    config = parse_config({**TINY, "task": "affect", "data": {**TINY["data"], "augment": "strong"}})
    result = train(config, pack, tmp_path / "x", evaluate_test=True)
    assert (result.status, result.classes, result.confusion) == ("finished", [], {})
    assert {"best/val/ccc", "test/ccc", "test/rmse_arousal", "test/pearson_valence"} <= result.metrics.keys()
    with np.load(tmp_path / "x" / "predictions.npz") as saved:
        assert not np.isnan(saved["test_label"]).any()
        assert saved["test_prediction"].shape == saved["test_label"].shape
    assert not list((tmp_path / "x" / "pictures").glob("confusion-*"))


def test_a_trained_head_of_affect_is_measured_on_all_images(pack: Pack, tmp_path: Path) -> None:
    config = parse_config({**TINY, "task": "affect"})
    source = trial_id(config, pack.fingerprint)
    trained = train(config, pack, tmp_path / source, evaluate_test=True)
    direct = config.replaced({("model", "weights"): f"trial:{source}", ("probe", "kind"): "direct"})
    result = train(direct, pack, tmp_path / "direct", evaluate_test=True)
    assert (result.classes, result.confusion, result.image_passes) == ([], {}, trained.image_passes)
    with (
        np.load(tmp_path / source / "predictions.npz") as before,
        np.load(tmp_path / "direct" / "predictions.npz") as saved,
    ):
        assert saved["test_index"].tolist() == np.flatnonzero(~np.isnan(pack.labels["affect"][:, 0])).tolist()
        rows = np.searchsorted(saved["test_index"], before["test_index"])
        assert np.allclose(saved["test_prediction"][rows], before["test_prediction"], atol=1e-4)


@pytest.mark.parametrize(
    ("tasks", "rotates"), [(["emotion", "affect"], True), (["emotion", "pose"], False), (["tilt"], False)]
)
def test_images_are_rotated_where_every_label_stays_true(
    registry: None, pack: Pack, monkeypatch: pytest.MonkeyPatch, tasks: list[str], rotates: bool
) -> None:
    class Tilt(Brightness):
        rotation_safe = False

        def flip(self, targets: torch.Tensor) -> torch.Tensor:
            return -targets

    register_supervised_task("tilt", Tilt, ERROR)
    labelled = replace(pack, labels={**pack.labels, "tilt": pack.labels["brightness"]})
    asked: list[bool] = []
    original = augment.training_view

    def spy(*arguments: object, turn: bool) -> augment.View:
        asked.append(turn)
        return original(*arguments, turn=turn)  # type: ignore[arg-type, misc]

    monkeypatch.setattr(augment, "training_view", spy)
    config, rows = parse_config({**TINY, "task": tasks}), np.flatnonzero(pack.split == 0)
    batches = TrainingBatches(config, labelled, rows, build_tasks(config, labelled, rows), 0, 1)
    assert asked == [rotates]
    if tasks == ["tilt"]:  # its own rule for mirrored images is used as well
        order = batches._ordered(1)[:32]
        signs = batches[0].targets["tilt"][0] / torch.from_numpy(labelled.labels["tilt"][order])
        assert set(signs.flatten().tolist()) == {1.0, -1.0}


def test_affect_with_emotion_has_its_own_columns_and_weight(pack: Pack, tmp_path: Path) -> None:
    weights = {"task_weights": {"affect": 0.5}}
    result = train(
        parse_config({**TINY, "task": ["emotion", "affect"], "loss": weights}), pack, tmp_path / "x", evaluate_test=True
    )
    assert result.classes == list(pack.classes["emotion"])
    assert result.confusion.keys() == {"val/emotion", "test/emotion"}
    assert {"test/emotion/accuracy", "test/affect/ccc", "best/val/affect/rmse"} <= result.metrics.keys()
    (row,) = (json.loads(line) for line in (tmp_path / "x" / "metrics.jsonl").read_text().splitlines())
    assert row["train/loss"] == pytest.approx(row["train/emotion"] + 0.5 * row["train/affect"], rel=1e-5)
    with np.load(tmp_path / "x" / "predictions.npz") as saved:
        missing = np.isnan(saved["test_affect_label"]).any(axis=1)
        assert 0 < missing.sum() < len(missing) == len(saved["test_emotion_label"])


def test_a_name_is_registered_once(registry: None) -> None:
    register_supervised_task("brightness", Brightness, ERROR)
    register_supervised_task("brightness", Brightness, ERROR)  # a module that is imported again
    with pytest.raises(HmtlError, match="'pose' is registered already"):
        register_supervised_task("pose", Brightness, ERROR)
    with pytest.raises(HmtlError, match="'Mean pixel': use lower-case letters"):
        register_supervised_task("Mean pixel", Brightness, ERROR)
    with pytest.raises(HmtlError, match="at least one metric"):
        register_supervised_task("pixels", Brightness, {})


def test_one_metric_name_has_one_meaning(registry: None) -> None:
    with pytest.raises(HmtlError, match="'pose' has a metric 'mae' of another direction or unit"):
        register_supervised_task("brightness", Brightness, {"mae": Metric("min", "MAE")})
    register_supervised_task("tilt", Brightness, {"mae": Metric("min", "MAE of the tilt", "°")})
    assert metric_info("test/mae").title == "MAE"
    assert metric_info("test/tilt/mae").title == "tilt MAE of the tilt"


def test_the_order_of_the_tasks_is_fixed() -> None:
    assert list(SUPERVISED_TASKS) == ["emotion", "gender", "pose", "affect"]
    assert table_metrics()[0] == "test/accuracy"  # of a study that measures nothing


@pytest.mark.slow
def test_tasks_are_declared_without_torch() -> None:
    code = "import sys; import hmtl_ablate.supervised; print({'torch', 'numpy', 'torchmetrics'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
