"""Classification: losses, metrics and class weights by hand."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from hmtl_ablate.config import parse_config
from hmtl_ablate.supervised import Labels
from hmtl_ablate.supervised.classification import (
    Classification,
    binary_metrics,
    calibration_error,
    classification_metrics,
    confusion_matrix,
)

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 3.0, 0.0]])  # predicted 0, 1, 0, 1
TARGETS = torch.tensor([0, 0, 0, 1])


def test_metrics_are_of_the_classes_that_occur() -> None:
    found = classification_metrics(LOGITS, TARGETS, ("a", "b", "c"))
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["recall/a"] == pytest.approx(2 / 3)
    assert found["recall/b"] == pytest.approx(1.0)
    assert "recall/c" not in found
    # F1: a 2·2 / (2·2 + 1), b 2·1 / (2·1 + 1), the mean of both
    assert found["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_the_confusion_matrix_has_true_rows_and_predicted_columns() -> None:
    assert confusion_matrix(LOGITS, TARGETS, ("a", "b", "c")) == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_occur() -> None:
    # recalls 2/3 and 1; the third class does not occur, whether it is predicted (second case: recall a 1/3) or not
    assert classification_metrics(LOGITS, TARGETS, ("a", "b", "c"))["balanced_accuracy"] == pytest.approx(5 / 6)
    third = LOGITS.clone()
    third[2] = torch.tensor([0.0, 0.0, 9.0])
    assert classification_metrics(third, TARGETS, ("a", "b", "c"))["balanced_accuracy"] == pytest.approx(
        (1 / 3 + 1) / 2
    )
    assert "balanced_accuracy" not in classification_metrics(LOGITS[:3], TARGETS[:3], ("a", "b", "c"))


def test_auc_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0]])
    assert binary_metrics(logits, torch.tensor([0, 0, 0, 1])) == {"auc": pytest.approx(1.0)}
    assert binary_metrics(logits, torch.zeros(4, dtype=torch.int64)) == {}


def test_the_calibration_error_by_hand() -> None:
    # Confidences 0.9, 0.9, 0.75 and 0.52, which are in the bins (13/15, 14/15], (11/15, 12/15] and (7/15, 8/15].
    # correct: yes, no, yes, yes → |1/2 - 0.9| · 2/4 + |1 - 0.75| / 4 + |1 - 0.52| / 4
    probability = torch.tensor([0.9, 0.9, 0.75, 0.52], dtype=torch.float64)
    logits = torch.stack([probability, 1 - probability], dim=1).log()
    found = calibration_error(logits, torch.tensor([0, 1, 0, 0]))
    assert found == pytest.approx(0.4 * 2 / 4 + 0.25 / 4 + 0.48 / 4)
    assert classification_metrics(logits, torch.tensor([0, 1, 0, 0]), ("a", "b"))["ece"] == pytest.approx(found)


def test_images_of_one_bin_balance_each_other_and_a_sure_network_is_in_the_last_bin() -> None:
    # 0.95, 0.95 and 1 are all in (14/15, 1]: |2/3 - 2.9/3|; in bins of their own, 0.95 and 1 would give 0.95/3 + 0.05/3
    probability = torch.tensor([0.95, 0.95, 1.0], dtype=torch.float64)
    logits = torch.stack([probability, 1 - probability], dim=1).log()
    assert calibration_error(logits, torch.tensor([0, 0, 1])) == pytest.approx(0.9 / 3)
    assert calibration_error(torch.tensor([[90.0, 0.0]]), torch.tensor([0])) == pytest.approx(0.0, abs=1e-12)


def test_the_upper_end_of_a_bin_belongs_to_it() -> None:
    # 0.5 is in (0, 0.5] and 0.7 in (0.5, 1]: two gaps of opposite signs, which one bin would add up
    logits = torch.tensor([[0.5, 0.5], [0.7, 0.3]], dtype=torch.float64).log()
    assert calibration_error(logits, torch.tensor([0, 1]), bins=2) == pytest.approx((0.5 + 0.7) / 2)


def test_the_calibration_error_is_that_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 7, generator=generator)
    targets = torch.randint(7, (500,), generator=generator)
    reference = multiclass_calibration_error(logits, targets, num_classes=7, n_bins=15, norm="l1")
    assert calibration_error(logits, targets) == pytest.approx(float(reference), abs=1e-6)


def test_a_missing_class_costs_nothing() -> None:
    task = Classification(np.zeros(3, np.int64), ("a", "b"), torch.tensor([1.0, 2.0]), 0.0)
    loss = task.loss(torch.zeros(3, 2), torch.tensor([0, 1, -1]))
    assert loss.tolist() == pytest.approx([math.log(2), 2 * math.log(2), 0.0])
    assert task.present(torch.tensor([0, 1, -1])).tolist() == [True, True, False]


def test_class_weights_count_the_training_images_alone() -> None:
    labels = Labels(np.array([0, 0, 0, 1, 1, 1, 1, -1]), ("a", "b"), np.array([0, 1, 2, 3, 7]))
    task = Classification.build(labels, parse_config({"loss": {"class_weights": "inverse"}}))
    assert task.weights.values.tolist() == pytest.approx([1.0, 3.0])
    assert task.classes == ("a", "b")
    assert task.width == 2


def test_soft_cross_entropy_by_hand() -> None:
    """Fault A1: shares of votes as training targets; the class index measures."""
    shares = np.array([[0.75, 0.25], [0.0, 1.0], [np.nan, np.nan]], np.float32)
    task = Classification(np.array([0, 1, -1]), ("a", "b"), torch.tensor([1.0, 3.0]), 0.0, shares)
    targets = task.training_targets(np.arange(3))
    outputs = torch.tensor([[math.log(3), 0.0], [0.0, 0.0], [5.0, 0.0]], requires_grad=True)  # p = 3/4, 1/4
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    loss = task.loss(outputs, targets)
    assert loss.tolist() == pytest.approx([entropy * (0.75 * 1 + 0.25 * 3), 3 * math.log(2), 0.0])
    loss.sum().backward()
    assert outputs.grad is not None
    assert outputs.grad[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)  # the outputs are the shares
    assert outputs.grad[2].tolist() == [0.0, 0.0]
    assert task.present(targets).tolist() == [True, True, False]
    assert task.class_targets(targets).tolist() == task.targets(np.arange(3)).tolist() == [0, 1, -1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_whole_votes_are_the_same_as_labels(smoothing: float) -> None:
    labels, weights = np.array([0, 1, 2, -1]), torch.tensor([1.0, 2.0, 0.5])
    shares = np.vstack([np.eye(3), np.full((1, 3), np.nan)]).astype(np.float32)
    hard = Classification(labels, ("a", "b", "c"), weights, smoothing)
    soft = Classification(labels, ("a", "b", "c"), weights, smoothing, shares)
    rows = np.arange(4)
    outputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    expected = hard.loss(outputs, hard.training_targets(rows))
    torch.testing.assert_close(soft.loss(outputs, soft.training_targets(rows)), expected)
    assert hard.class_targets(hard.training_targets(rows)).tolist() == labels.tolist()
