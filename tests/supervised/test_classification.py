"""Classification: losses, metrics and class weights by hand."""

import math

import numpy as np
import pytest
import torch

from hmtl_ablate.config import parse_config
from hmtl_ablate.supervised import Labels
from hmtl_ablate.supervised.classification import (
    Classification,
    binary_metrics,
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


def test_auc_and_balanced_accuracy_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0]])  # predicted 0, 1, 0, 1
    found = binary_metrics(logits, torch.tensor([0, 0, 0, 1]))
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["auc"] == pytest.approx(1.0)
    assert binary_metrics(logits, torch.zeros(4, dtype=torch.int64)) == {}


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
