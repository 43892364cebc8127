"""hmtl_ablate.load_model: a trial's network on new images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import hmtl_ablate as ha
from hmtl_ablate.api.models import TrainedModel
from hmtl_ablate.config import parse_config
from hmtl_ablate.data.pack import Pack, load_pack
from hmtl_ablate.errors import CheckpointError, DataError, StoreError
from hmtl_ablate.model import InferenceModel
from hmtl_ablate.training.folder import TrialFolder, TrialResult

from .conftest import CONFIG


@pytest.fixture
def pack(workplace: Path, trial: ha.TrainedTrial) -> Pack:
    return load_pack(next((workplace / "runs" / "packs").iterdir()))


def test_it_predicts_what_the_trial_saved(trial: ha.TrainedTrial, pack: Pack) -> None:
    model = ha.load_model(trial)
    saved = np.load(trial.folder / "predictions.npz")
    images = torch.stack([model.preprocess(pack.images[row]) for row in saved["val_index"]])
    with torch.inference_mode():
        probabilities = model(images).softmax(dim=1)
    assert not model.training
    np.testing.assert_allclose(probabilities.numpy(), saved["val_probability"], atol=1e-5)
    row, expected = saved["val_index"][0], saved["val_probability"][0]
    prediction = model.predict(pack.images[row])["emotion"]
    assert prediction.label == model.classes["emotion"][expected.argmax()]
    assert list(prediction.values) == list(pack.classes["emotion"])
    np.testing.assert_allclose(list(prediction.values.values()), expected, atol=1e-5)


def test_a_file_an_array_and_a_grey_array_of_one_face_are_one(
    trial: ha.TrainedTrial, pack: Pack, tmp_path: Path
) -> None:
    model = ha.load_model(trial.folder)
    grey = np.array(pack.images[0]).mean(axis=-1).astype(np.uint8)
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    cv2.imwrite(str(tmp_path / "face.png"), rgb)
    for image in (grey, grey[..., None], tmp_path / "face.png", str(tmp_path / "face.png")):
        assert torch.equal(model.preprocess(image), model.preprocess(rgb))


def test_colours_of_a_file_are_red_green_blue(trial: ha.TrainedTrial, tmp_path: Path) -> None:
    model = ha.load_model(trial)
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    cv2.imwrite(str(tmp_path / "red.png"), red[..., ::-1])
    assert torch.equal(model.preprocess(tmp_path / "red.png"), model.preprocess(red))
    whole = model.preprocess(red) * model.std + model.mean
    torch.testing.assert_close(whole[:, 16, 16], torch.tensor([1.0, 0.0, 0.0]), atol=1e-5, rtol=0)


def test_each_task_reads_its_own_outputs() -> None:
    config = parse_config({**CONFIG, "task": ["pose", "gender"]})
    network = InferenceModel(config.model, 5, 32)
    model = TrainedModel(config, network, {"pose": (), "gender": ("male", "female")})
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([0.5, -1.0, 0.0, 0.0, np.log(3.0)]))
    found = model.predict(np.zeros((32, 32, 3), np.uint8))
    assert found["pose"].label is None
    assert found["pose"].values == pytest.approx({"yaw": 22.5, "pitch": -45.0, "roll": 0.0})  # in units of 45°
    assert found["gender"].label == "female"
    assert found["gender"].values == pytest.approx({"male": 0.25, "female": 0.75})


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((8, 8, 3), np.float32), "not float32"),
        (np.zeros((8, 8, 4), np.uint8), r"not uint8 \[8, 8, 4\]"),
        ("nowhere.png", "nowhere.png: file is missing"),
    ],
)
def test_what_is_no_image_is_refused(trial: ha.TrainedTrial, image: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        ha.load_model(trial).preprocess(image)  # type: ignore[arg-type]


def test_a_trial_by_its_id(trial: ha.TrainedTrial, workplace: Path) -> None:
    assert ha.load_model(trial.trial_id, workplace / "runs").config == trial.config
    with pytest.raises(StoreError, match="there is no such trial"):
        ha.load_model("0" * 16, workplace / "runs")


def made(folder: Path, config: dict[str, object], status: str = "finished", tasks: object = None) -> Path:
    """A trial's folder without weights."""
    place = TrialFolder(folder)
    place.write_config(parse_config(config))
    if status:
        place.write_result(
            TrialResult.model_validate(
                {
                    "trial_id": folder.name,
                    "status": status,
                    "epochs": 1,
                    "best_epoch": 1,
                    "image_passes": 1,
                    "seconds": 1.0,
                    "classes": ["male", "female"],
                    "task_classes": tasks or {},
                }
            )
        )
    return folder


@pytest.mark.parametrize(
    ("config", "status", "error", "words"),
    [
        ({}, "", StoreError, "is not finished"),
        ({}, "failed", StoreError, "failed"),
        ({"probe": {"kind": "linear"}}, "finished", CheckpointError, "a linear probe"),
        ({"training": {"supervised": False}, "pretext": {"puzzling": {}}}, "finished", CheckpointError, "pre-training"),
        ({"task": ["gender", "emotion"]}, "finished", CheckpointError, "older version"),
        ({"task": "gender"}, "finished", CheckpointError, "best.safetensors"),
    ],
)
def test_a_trial_without_a_model_is_refused(
    tmp_path: Path, config: dict[str, object], status: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ha.load_model(made(tmp_path / "trial", config, status))
