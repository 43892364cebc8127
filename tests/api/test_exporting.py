"""hmtl_ablate.export: a trial's network for other programs, and back."""

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch

import hmtl_ablate as ha
from hmtl_ablate.api import exporting
from hmtl_ablate.config import parse_config
from hmtl_ablate.data.pack import Pack, load_pack
from hmtl_ablate.errors import CheckpointError, HmtlError, StoreError
from hmtl_ablate.exporting import files
from hmtl_ablate.model import HMTLModel
from hmtl_ablate.training.checkpoint import load_tensors, save_tensors
from hmtl_ablate.training.folder import TrialFolder, TrialResult

PAGE = Path(__file__).parent.parent.parent / "docs" / "models.md"
FACE = np.random.default_rng(0).integers(0, 256, (40, 25, 3), np.uint8)


@pytest.fixture
def pack(workplace: Path, trial: ha.TrainedTrial) -> Pack:
    return load_pack(next((workplace / "runs" / "packs").iterdir()))


@pytest.fixture(scope="session")
def onnx_file(trial: ha.TrainedTrial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    ha.export(trial, path)
    return path


def untrained(folder: Path, tasks: dict[str, list[str]], **options: Any) -> Path:
    """The folder of a finished trial with random weights; tasks: supervised task → classes."""
    config = parse_config({"task": list(tasks), "data": {"images": 96, "size": 32}, **options})
    widths = {"pose": 6 if config.model.pose_head == "rotation6d" else 3, "affect": 2}
    torch.manual_seed(0)
    model = HMTLModel(config, sum(len(classes) or widths[name] for name, classes in tasks.items()))
    place = TrialFolder(folder)
    place.write_config(config)
    save_tensors(folder / "best.safetensors", {name: value.contiguous() for name, value in model.state_dict().items()})
    place.write_result(
        TrialResult(
            trial_id="0123456789abcdef",
            status="finished",
            epochs=3,
            best_epoch=2,
            image_passes=1,
            seconds=1.0,
            metrics={"test/accuracy": 0.25, "test/recall/male": 0.5, "val/loss": 1.0},
            task_classes=tasks,
            confusion={"test/gender": [[1, 1], [2, 3]]},
        )
    )
    return folder


FOUR = {"emotion": ["calm", "cross"], "pose": [], "gender": ["male", "female"], "affect": []}


def assert_same_answers(one: ha.TrainedModel, other: ha.TrainedModel) -> None:
    assert one.classes == other.classes
    torch.testing.assert_close(one.preprocess(FACE), other.preprocess(FACE), rtol=0, atol=0)
    ours, theirs = one.predict(FACE), other.predict(FACE)
    assert list(ours) == list(theirs)
    for task, prediction in ours.items():
        assert prediction.label == theirs[task].label
        assert prediction.values == pytest.approx(theirs[task].values, abs=1e-4)


def test_a_folder_is_what_timm_loads(trial: ha.TrainedTrial, tmp_path: Path) -> None:
    done = ha.export(trial, tmp_path / "model")
    assert done.differences == {"emotion": pytest.approx(0, abs=1e-5)}
    assert done.size == sum(file.stat().st_size for file in (tmp_path / "model").iterdir())
    model = ha.load_model(trial)
    images = torch.randn(3, 3, 32, 32)
    network = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    by_hand = timm.create_model("test_resnet", num_classes=8).eval()
    by_hand.load_state_dict(load_tensors(tmp_path / "model" / "model.safetensors"))
    with torch.no_grad():
        for other in (network, by_hand, ha.load_model(tmp_path / "model")):
            torch.testing.assert_close(other(images), model(images))
    assert list(network.pretrained_cfg["mean"]) == model.mean.flatten().tolist()
    assert_same_answers(ha.load_model(tmp_path / "model"), model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_folder_is_written_again_and_others_are_left_alone(trial: ha.TrainedTrial, tmp_path: Path) -> None:
    ha.export(trial, tmp_path / "model")
    (tmp_path / "model" / "head.safetensors").write_bytes(b"of an older export")
    ha.export(trial, tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    with pytest.raises(HmtlError, match="with other things in it"):
        ha.export(trial, tmp_path)


def test_the_card_has_metrics_with_their_numbers_of_images_and_the_trial(tmp_path: Path) -> None:
    folder = untrained(tmp_path / "trial", {"gender": ["male", "female"]}, data={"name": "ferplus", "size": 32})
    ha.export(folder, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| test | accuracy | 25.00% | not known |" in card
    assert "| test | recall male | 50.00% | not known |" in card  # the confusion matrix is of another trial's task
    assert "Licence: labels: MIT; images: the terms of Kaggle's FER2013." in card
    assert "`0123456789abcdef`" in card
    assert "weights of epoch 2 of 3" in card
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["label_names"] == ["male", "female"]
    assert "val/loss" not in config["hmtl_ablate"]["metrics"]


def test_the_card_of_a_trained_trial_counts_images(trial: ha.TrainedTrial, tmp_path: Path) -> None:
    ha.export(trial, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    test = len(np.load(trial.folder / "predictions.npz")["test_index"])
    assert f"| test | accuracy | {100 * trial.metrics['test/accuracy']:.2f}% | {test} |" in card
    counts = {name: sum(row) for name, row in zip(trial.result.classes, trial.result.confusion["test"], strict=True)}
    assert re.findall(r"\| test \| recall (\w+) \| [\d.]+% \| (\d+) \|", card) == [
        (name, str(count)) for name, count in counts.items() if count
    ]


@pytest.mark.parametrize("pose_head", ["regression", "rotation6d"])
def test_all_tasks_keep_their_columns(tmp_path: Path, pose_head: str) -> None:
    folder = untrained(tmp_path / "trial", FOUR, model={"backbone": "test_vit", "pose_head": pose_head})
    done = ha.export(folder, tmp_path / "model")
    assert list(done.differences) == list(FOUR)
    assert done.faithful
    model = ha.load_model(tmp_path / "model")
    assert_same_answers(model, ha.load_model(folder))
    assert model.config.model.pose_head == pose_head
    assert list(model.predict(FACE)["pose"].values) == ["yaw", "pitch", "roll"]


def test_a_network_whose_classifier_is_not_one_layer_has_its_head_apart(tmp_path: Path) -> None:
    folder = untrained(
        tmp_path / "trial", {"gender": ["male", "female"]}, model={"backbone": "deit_tiny_distilled_patch16_224"}
    )
    ha.export(folder, tmp_path / "model")
    head = load_tensors(tmp_path / "model" / "head.safetensors")
    assert {name: list(value.shape) for name, value in head.items()} == {"weight": [2, 192], "bias": [2]}
    network = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    model, images = ha.load_model(tmp_path / "model"), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        outputs = torch.nn.functional.linear(network(images), head["weight"], head["bias"])
        torch.testing.assert_close(outputs, model(images))
    assert_same_answers(model, ha.load_model(folder))


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [
        ("model.pth", "fp32", "no format of export"),
        ("model.safetensors", "fp32", r"a folder \(for safetensors\)"),
        ("model.onnx", "int4", "choose one of fp32, fp16, int8"),
        ("model", "int8", "name a .onnx file"),
        ("model.pt2", "fp16", "name a .onnx file"),
        ("nowhere/model", "fp32", "there is no folder"),
    ],
)
def test_what_can_t_be_written_is_said_first(tmp_path: Path, name: str, precision: str, words: str) -> None:
    with pytest.raises(HmtlError, match=words):
        ha.export("0" * 16, tmp_path / name, precision=precision, store=tmp_path)
    with pytest.raises(StoreError, match="there is no such trial"):
        ha.export("0" * 16, tmp_path / "model", store=tmp_path)


def test_a_file_that_answers_otherwise_is_not_written(
    trial: ha.TrainedTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def skewed(to: Path) -> torch.nn.Module:
        network = ha.load_model(trial).network
        with torch.no_grad():
            network.head.bias[0] += 1  # type: ignore[union-attr, operator, index]
        return network

    monkeypatch.setattr(files, "outside", skewed)
    with pytest.raises(CheckpointError, match="not written: its outputs differ"):
        ha.export(trial, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(exporting, "TOLERANCE", {"fp32": 1.0})
    assert 0.05 < ha.export(trial, tmp_path / "model").differences["emotion"] < 1


@pytest.mark.slow
def test_the_script_of_the_docs_gives_the_stored_predictions(
    trial: ha.TrainedTrial, pack: Pack, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.onnx").symlink_to(onnx_file)
    cv2.imwrite("face.png", FACE)
    (script,) = re.findall(r"^```python\n(import json.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(script, "models.md", "exec"), names)
    saved = np.load(trial.folder / "predictions.npz")
    for place, row in enumerate(saved["test_index"]):
        cv2.imwrite(f"{place}.png", np.array(pack.images[row])[..., ::-1])
    found = names["predict"]([f"{place}.png" for place in range(len(saved["test_index"]))])
    np.testing.assert_allclose(found["emotion"], saved["test_probability"], atol=1e-5)
    model = ha.load_model(trial)
    for height, width in ((40, 25), (25, 41), (33, 32), (31, 90), (64, 64), (20, 20)):
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        cv2.imwrite("odd.png", image[..., ::-1])
        np.testing.assert_allclose(names["preprocess"]("odd.png"), model.preprocess(image).numpy(), atol=1e-6)


@pytest.mark.slow
def test_an_onnx_file_is_a_model(trial: ha.TrainedTrial, onnx_file: Path) -> None:
    model = ha.load_model(onnx_file)
    assert_same_answers(model, ha.load_model(trial))
    assert [model(torch.zeros(count, 3, 32, 32)).shape for count in (1, 2, 7)] == [(1, 8), (2, 8), (7, 8)]
    content = onnx_file.read_bytes()
    assert b"site-packages" not in content
    assert str(PAGE.parent.parent).encode() not in content


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.6), ("int8", 0.35)])
def test_smaller_onnx_files(
    trial: ha.TrainedTrial, onnx_file: Path, tmp_path: Path, precision: str, share: float
) -> None:
    done = ha.export(trial, tmp_path / "small.onnx", precision=precision)
    assert 0 < done.differences["emotion"] <= done.tolerance
    assert done.size < share * onnx_file.stat().st_size
    assert ha.load_model(tmp_path / "small.onnx").predict(FACE)["emotion"].label


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
def test_all_tasks_keep_their_columns_in_a_file(tmp_path: Path, ending: str) -> None:
    folder = untrained(tmp_path / "trial", FOUR, model={"backbone": "test_vit"})
    path = tmp_path / f"model{ending}"
    assert ha.export(folder, path).faithful
    assert_same_answers(ha.load_model(path), ha.load_model(folder))


@pytest.mark.slow
def test_a_pt2_file_has_no_pickle_and_no_path_in_it(trial: ha.TrainedTrial, tmp_path: Path) -> None:
    ha.export(trial, tmp_path / "model.pt2")
    content = (tmp_path / "model.pt2").read_bytes()
    for word in (b"data.pkl", b'"use_pickle": true', b"site-packages", str(PAGE.parent.parent).encode()):
        assert word not in content
    extra = {"hmtl_ablate.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert json.loads(extra["hmtl_ablate.json"])["trial_id"] == trial.trial_id
    images, model = torch.randn(5, 3, 32, 32), ha.load_model(tmp_path / "model.pt2")
    torch.testing.assert_close(program.module()(images), model(images))
    assert_same_answers(model, ha.load_model(trial))
