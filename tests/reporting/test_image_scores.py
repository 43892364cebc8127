"""Scores per image: their mean is the metric, and their spread is that of the jackknife."""

from typing import Any

import numpy as np
import pytest
import torch

from hmtl_ablate.reporting.image_scores import SCORES, image_scores
from hmtl_ablate.supervised.affect import concordance, root_mean_square_error
from hmtl_ablate.supervised.classification import binary_metrics, classification_metrics
from hmtl_ablate.supervised.pose import pose_metrics

N = 120


def arrays(kind: str, classes: int = 5) -> dict[str, Any]:
    """What a task with such outputs saves of N images, in an order that is not that of their index."""
    rng = np.random.default_rng(0)
    index = rng.permutation(1000)[:N]
    if kind == "probability":
        labels = rng.integers(0, max(2, classes - 1), N)  # of five, the last class has no image
        logits = torch.tensor(rng.normal(size=(N, classes)) + 2 * np.eye(classes)[labels])
        return {"test_index": index, "test_label": labels, "test_probability": logits.softmax(dim=1).float().numpy()}
    truth = rng.uniform(-0.9, 0.9, (N, 3 if kind == "angles" else 2)) * (170 if kind == "angles" else 1)
    outputs = truth + rng.normal(size=truth.shape) * (30 if kind == "angles" else 0.4)
    return {"test_index": index, "test_label": truth.astype("f4"), f"test_{kind}": outputs.astype("f4")}


def by_task(kind: str, labels: Any, outputs: Any) -> dict[str, float]:
    """The metrics as training computes them."""
    targets, predicted = torch.tensor(labels), torch.tensor(outputs)
    if kind == "probability":
        logits, classes = predicted.log(), [str(k) for k in range(predicted.shape[1])]
        of_two = binary_metrics(logits, targets) if len(classes) == 2 else {}
        return classification_metrics(logits, targets, classes) | of_two
    if kind == "angles":
        return pose_metrics(predicted, targets)
    found = {"ccc": concordance(predicted, targets), "rmse": root_mean_square_error(predicted, targets)}
    return {
        name: float(value)
        for key, both in found.items()
        for name, value in {key: both.mean(), f"{key}_valence": both[0], f"{key}_arousal": both[1]}.items()
    }


@pytest.mark.parametrize(("kind", "metric"), SCORES)
def test_the_mean_is_the_metric_and_the_spread_the_jackknifes(kind: str, metric: str) -> None:
    """Jackknife: the pseudo-values n θ − (n − 1) θ₋ᵢ have the variance of the influences, up to order 1/n."""
    given = arrays(kind, classes=2 if metric == "auc" else 5)
    labels, outputs = given["test_label"], given[f"test_{kind}"]
    found = image_scores(given, f"test/{metric}")
    assert found is not None
    assert found.scores is not None
    assert found.scores.shape == (N,)
    assert found.scores.mean() == pytest.approx(by_task(kind, labels, outputs)[metric], rel=1e-4)
    own = SCORES[kind, metric]
    without = [own(np.delete(labels, k, axis=0), np.delete(outputs, k, axis=0)).mean() for k in range(N)]
    pseudo = N * found.scores.mean() - (N - 1) * np.array(without)
    assert found.scores.std() == pytest.approx(pseudo.std(), rel=0.06)


def test_macro_f1_by_hand() -> None:
    """Labels 0 0 1 1, predicted 0 1 1 1: F 2/3 and 4/5, mean 11/15. Influences of class 0: 4 (2 − 4/3) / 3 = 8/9 and
    −8/9; of class 1: 4 (0 − 4/5) / 5 = −0.64, and twice 4 (2 − 8/5) / 5 = 0.32."""
    found = image_scores(
        {
            "test_index": np.arange(4),
            "test_label": np.array([0, 0, 1, 1]),
            "test_probability": np.eye(2)[[0, 1, 1, 1]],
        },
        "test/macro_f1",
    )
    assert found is not None
    assert found.scores == pytest.approx(11 / 15 + np.array([4 / 9, -4 / 9 - 0.32, 0.16, 0.16]))
    assert found.correct is not None
    assert found.correct.tolist() == [True, False, True, True]
    assert found.majority == 0.5


def test_images_are_in_the_order_of_their_index_without_those_without_a_label() -> None:
    found = image_scores(
        {
            "test_index": np.array([7, 3, 5]),
            "test_emotion_label": np.array([1, -1, 0]),
            "test_emotion_probability": np.array([[0.4, 0.6], [1, 0], [0.3, 0.7]]),
        },
        "test/emotion/accuracy",
    )
    assert found is not None
    assert found.index.tolist() == [5, 7]
    assert found.scores is not None
    assert found.scores.tolist() == [0, 1]


def test_a_full_turn_is_no_error_and_a_pose_has_no_majority() -> None:
    found = image_scores(
        {
            "test_index": np.arange(1),
            "test_label": np.array([[179.0, 0, 0]]),
            "test_angles": np.array([[-179.0, 0, 4]]),
        },
        "test/mae",
    )
    assert found is not None
    assert found.scores == pytest.approx([2.0])
    assert (found.correct, found.majority) == (None, None)


@pytest.mark.parametrize(
    "broken",
    [
        {"test_label": np.array([0.5, 1.0])},
        {"test_label": np.array([0, 2])},
        {"test_label": np.array([0])},
        {"test_label": np.array([-1, -1])},
        {"test_label": np.zeros((2, 3))},
        {"test_probability": np.array([0.1, 0.9])},
        {"test_index": np.zeros((2, 2))},
    ],
)
def test_arrays_that_no_task_saves_are_none(broken: dict[str, Any]) -> None:
    sound = {"test_index": np.arange(2), "test_label": np.array([0, 1]), "test_probability": np.eye(2)}
    assert image_scores(sound, "test/accuracy") is not None
    assert image_scores(sound, "test/gender/accuracy") is None
    assert image_scores({}, "test/accuracy") is None
    assert image_scores(sound | broken, "test/accuracy") is None


def test_a_metric_that_is_no_mean_has_no_scores() -> None:
    found = image_scores(arrays("probability"), "test/recall/0")
    assert found is not None
    assert found.scores is None
    assert found.correct is not None


def test_the_calibration_error_by_hand() -> None:
    """Bins of a fifteenth: 0.95 right and 0.95 wrong, sum 0.05 − 0.95 < 0; 0.6 right and 0.65 right (0.6 to 0.667),
    sum 0.35 + (0.6, the upper end of the bin before) 0.4 > 0. Signed: −0.05, 0.95, 0.4, 0.35; mean 1.65 / 4."""
    first = np.array([0.95, 0.95, 0.6, 0.65])
    found = image_scores(
        {
            "test_index": np.arange(4),
            "test_label": np.array([0, 1, 0, 0]),
            "test_probability": np.stack([first, 1 - first], axis=1),
        },
        "test/ece",
    )
    assert found is not None
    assert found.scores == pytest.approx([-0.05, 0.95, 0.4, 0.35])


def test_the_area_under_the_curve_by_hand() -> None:
    """Ones 0.9, 0.4; zeros 0.4, 0.1, 0.2: of six pairs one is a tie, so that the area is 5.5 / 6. Placements: 1 and
    2.5 / 3 of the ones, 0.75, 1 and 1 of the zeros; influence 5 (p − area) / 2 and / 3."""
    second = np.array([0.9, 0.4, 0.4, 0.1, 0.2])
    given = {
        "test_index": np.arange(5),
        "test_label": np.array([1, 1, 0, 0, 0]),
        "test_probability": np.stack([1 - second, second], axis=1),
    }
    found = image_scores(given, "test/auc")
    assert found is not None
    area = 5.5 / 6
    influence = [5 / 24, -5 / 24, -5 / 18, 5 / 36, 5 / 36]
    assert found.scores == pytest.approx(area + np.array(influence))
    one_class = image_scores(given | {"test_label": np.ones(5, dtype=int)}, "test/auc")
    assert one_class is not None
    assert one_class.scores is not None
    assert np.isnan(one_class.scores).all()
