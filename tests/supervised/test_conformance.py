"""What every supervised task must do, whatever it is."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hmtl_ablate.config import parse_config
from hmtl_ablate.supervised import SUPERVISED_TASKS, Labels, SupervisedTask
from tests.waits import META, counted  # type: ignore[import-not-found]

COUNT = 12
CLASSES = {"emotion": ("neutral", "happiness", "sadness"), "gender": ("male", "female")}
SPREADS = {"pose": 40.0, "affect": 0.4}
"""Task without classes → standard deviation of its labels."""
WIDTHS = {"pose": 3, "affect": 2}
CASES = [
    ("emotion", {}),
    ("gender", {}),
    ("pose", {}),
    ("pose", {"model": {"pose_head": "rotation6d"}}),
    ("affect", {}),
]
MISSING = [2, 5]


def labels_of(name: str, missing: list[int]) -> NDArray[np.generic]:
    rng = np.random.default_rng(0)
    if name in CLASSES:
        values = np.arange(COUNT) % len(CLASSES[name])
        values[missing] = -1
        return values
    numbers = (rng.standard_normal((COUNT, WIDTHS[name])) * SPREADS[name]).astype(np.float32)
    numbers[missing] = np.nan
    return numbers


Build = Callable[[list[int]], SupervisedTask]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[str, Build]:
    name, options = request.param

    def build(missing: list[int]) -> SupervisedTask:
        labels = Labels(labels_of(name, missing), CLASSES.get(name, ()), np.arange(COUNT))
        return SUPERVISED_TASKS[name].task.build(labels, parse_config({"task": name, **options}))

    return name, build


def outputs_of(task: SupervisedTask) -> torch.Tensor:
    return torch.randn(COUNT, task.width, generator=torch.Generator().manual_seed(1)).requires_grad_()


def test_every_task_is_tested() -> None:
    assert {name for name, _ in CASES} == set(SUPERVISED_TASKS)


def test_a_missing_label_has_no_loss_and_no_gradient(case: tuple[str, Build]) -> None:
    task = case[1](MISSING)
    targets, outputs = task.targets(np.arange(COUNT)), outputs_of(task)
    there = torch.ones(COUNT, dtype=torch.bool)
    there[MISSING] = False
    assert torch.equal(task.present(targets), there)
    loss = task.loss(outputs, targets)
    assert loss.shape == (COUNT,)
    assert bool((loss[there] > 0).all() and torch.isfinite(loss).all())
    assert loss[~there].tolist() == [0.0, 0.0]
    loss.sum().backward()
    assert outputs.grad is not None
    assert bool(torch.isfinite(outputs.grad).all())
    assert bool((outputs.grad[there].abs().sum(dim=1) > 0).all())
    assert float(outputs.grad[~there].abs().sum()) == 0


@pytest.mark.parametrize("rows", [0, COUNT])
def test_a_share_without_labels_has_no_loss_and_no_gradient(case: tuple[str, Build], rows: int) -> None:
    """Fault B3: one worker's share of a batch may have no labelled image, or be empty."""
    task = case[1](list(range(1, COUNT)))  # the first image alone has a label
    outputs = outputs_of(task)
    loss = task.loss(outputs[1:rows], task.targets(np.arange(COUNT))[1:rows])
    assert loss.tolist() == [0.0] * len(outputs[1:rows])
    loss.sum().backward()
    assert outputs.grad is not None
    assert float(outputs.grad.abs().sum()) == 0


def test_an_image_has_the_same_loss_alone_and_in_a_batch(case: tuple[str, Build]) -> None:
    task = case[1]([])
    targets, outputs = task.targets(np.arange(COUNT)), outputs_of(task)
    torch.testing.assert_close(task.loss(outputs, targets)[3:4], task.loss(outputs[3:4], targets[3:4]))


def test_the_metrics_are_those_it_is_registered_with(case: tuple[str, Build]) -> None:
    name, build = case
    task, entry = build([]), SUPERVISED_TASKS[case[0]]
    with torch.inference_mode():
        found = task.metrics(outputs_of(task).detach(), task.targets(np.arange(COUNT)))
    by_class = {f"{metric}/{label}" for metric in entry.class_metrics for label in CLASSES.get(name, ())}
    assert found.keys() == {*entry.metrics, *by_class}
    assert all(math.isfinite(value) for value in found.values())
    assert task.has_classes == bool(task.classes) == (name in CLASSES)


def test_predictions_are_an_array_row_per_image(case: tuple[str, Build]) -> None:
    task = case[1](MISSING)
    targets = task.targets(np.arange(COUNT))
    saved = task.predictions(outputs_of(task).detach(), targets)
    assert torch.equal(torch.nan_to_num(saved["label"]), torch.nan_to_num(targets))
    assert len(saved) > 1
    assert all(len(array) == COUNT for array in saved.values())


def test_flipping_twice_gives_the_label_again(case: tuple[str, Build]) -> None:
    task = case[1](MISSING)
    targets = task.targets(np.arange(COUNT))
    flipped = task.flip(targets)
    assert torch.equal(task.present(flipped), task.present(targets))
    assert torch.equal(task.flip(flipped)[task.present(targets)], targets[task.present(targets)])


def test_the_loss_waits_for_no_gpu(case: tuple[str, Build], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault B4, of every task; whole steps are in tests/training/test_waits.py."""
    task = case[1](MISSING)
    outputs, targets = (value.detach().to(META) for value in (outputs_of(task), task.targets(np.arange(COUNT))))
    outputs.requires_grad_()
    task.loss(outputs, targets)  # constants, such as class weights, are copied at their first use
    with counted(monkeypatch) as copies:
        task.loss(outputs, targets).sum().backward()
        task.present(targets)
        if task.classes:
            task.class_targets(targets)
    assert copies == {"asynchronous": 0, "blocking": 0}
