"""Predictions and pretext scores on a split, and the selection of the best epoch."""

import numpy as np
import pytest
import torch
from torch import Generator

from hmtl_ablate.data.pack import Pack
from hmtl_ablate.model import HMTLModel, normalisation
from hmtl_ablate.supervised.classification import classification_metrics, confusion_matrix
from hmtl_ablate.training import evaluate
from hmtl_ablate.training.batches import EvaluationImages
from hmtl_ablate.training.device import Setup
from hmtl_ablate.training.loop import best_metrics, selection_value

CPU = Setup(torch.device("cpu"), False, True, "CPU")


@pytest.fixture
def parts(make, pack: Pack):
    config = make(pretext={"puzzling": {"feed": "shared"}, "inpainting": {"feed": "shared"}})
    torch.manual_seed(0)
    model = HMTLModel(config, 8).eval()
    images = EvaluationImages(config, pack, np.flatnonzero(pack.split == 0)[:10])
    return config, model, images, normalisation(model.inference)


def test_predictions_are_those_of_the_model_image_by_image(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model, images, norm = parts
    monkeypatch.setattr(evaluate, "BATCH", 4)  # 4 + 4 + 2
    found = evaluate.predict(model.inference, images, CPU, norm)
    assert found.shape == (10, 8)
    with torch.inference_mode():
        expected = [model.inference(CPU.images(images.take(np.array([k])), *norm)) for k in range(10)]
    torch.testing.assert_close(found, torch.cat(expected))


def test_a_chain_changes_images_in_turn(parts) -> None:
    config, model, images, norm = parts
    whole = CPU.images(images.take(np.arange(4)), *norm)
    with torch.inference_mode():
        found, changed = evaluate.attempts(model, config.chains[0], whole, CPU, Generator().manual_seed(5))
    puzzled, masked = found["puzzling"][1], found["inpainting"][1]
    assert torch.equal(puzzled.before, whole)
    assert torch.equal(masked.before, model.pretext["puzzling"].change(whole, puzzled.draw))
    assert torch.equal(changed, model.pretext["inpainting"].change(masked.before, masked.draw))
    with torch.inference_mode():
        expected = model.pretext["puzzling"](*model.inference.features(changed))
    torch.testing.assert_close(found["puzzling"][0], expected)


def test_scores_are_means_and_repeat(parts) -> None:
    config, model, images, norm = parts
    first, second = (evaluate.score_pretext(model, config.chains, images, 64, CPU, norm, 7) for _ in range(2))
    assert first == second
    assert first.keys() == {"puzzling/accuracy", "inpainting/l1"}
    whole = CPU.images(images.take(np.arange(10)), *norm)
    with torch.inference_mode():
        found, _ = evaluate.attempts(model, config.chains[0], whole, CPU, Generator().manual_seed(7))
    output, query = found["puzzling"]
    assert first["puzzling/accuracy"] == pytest.approx(float((output.argmax(2) == query.draw).float().mean()))


def test_selection_is_higher_is_better(make) -> None:
    assert selection_value(make(), {"epoch": 1, "val/accuracy": 0.25}) == 0.25
    assert selection_value(make(task="pose"), {"epoch": 1, "val/mae": 7.0}) == -7.0
    alone = make(training__supervised=False, pretext={"puzzling": {}})
    assert selection_value(alone, {"epoch": 3}) == 3


def test_best_metrics_are_those_of_val_at_the_best_epoch() -> None:
    history = [{"epoch": k, "val/accuracy": k / 10, "train/loss": 1.0} for k in (1, 2, 3)]
    assert best_metrics(history, 2) == {"best/val/accuracy": 0.2}
    assert best_metrics([], 0) == {}


def test_classification_metrics_by_hand() -> None:
    logits = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 2, 0], [2, 0, 0]])  # predicted 0, 1, 1, 0
    targets = torch.tensor([0, 1, 0, 0])
    found = classification_metrics(logits, targets, ["a", "b", "c"])
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)  # a: P 1, R 2/3; b: P 1/2, R 1; c does not occur
    assert (found["recall/a"], found["recall/b"]) == pytest.approx((2 / 3, 1.0))
    assert "recall/c" not in found
    assert confusion_matrix(logits, targets, ["a", "b", "c"]) == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
