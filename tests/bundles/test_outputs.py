"""What is saved per image gives the metrics of the outputs that it was made from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hmtl_ablate.config import parse_config
from hmtl_ablate.supervised import SUPERVISED_TASKS, Labels


@pytest.mark.parametrize(
    ("name", "head"), [("emotion", ""), ("gender", ""), ("affect", ""), ("pose", ""), ("pose", "6")]
)
def test_metrics_follow_from_the_predictions(name: str, head: str) -> None:
    entry = SUPERVISED_TASKS[name].task
    classes = ("a", "b") if entry.has_classes else ()
    config = parse_config({"task": name, "model": {"pose_head": "rotation6d" if head else "regression"}})
    labels = np.arange(2) if classes else np.zeros((0, 1), np.float32)
    task = entry.build(Labels(labels, classes, np.arange(len(classes))), config)
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(50, task.width, generator=draw)
    targets = torch.arange(50) % 2 if classes else torch.randn(50, len(task.value_names), generator=draw)
    found = task.metrics(task.outputs(task.predictions(outputs, targets)), targets)
    assert found == pytest.approx(task.metrics(outputs, targets), abs=1e-5, rel=1e-5)
