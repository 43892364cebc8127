"""Where trials train: what a worker gets, and what the driver says of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import OutOfMemory
from hmtl_ablate.running import actor
from hmtl_ablate.running.placement import placement_in_words
from hmtl_ablate.running.task import TrialTask
from hmtl_ablate.running.trainer import train_task
from hmtl_ablate.study import Resources
from hmtl_ablate.training import loop


@pytest.fixture
def task(pack: Pack, tmp_path: Path) -> TrialTask:
    return TrialTask({"seed": 0}, pack.folder, tmp_path / "trial", True, tmp_path / "stop")


@pytest.mark.parametrize(
    ("gpus", "device", "share"), [(0, "cpu", 1.0), (0.25, "cuda", 0.25), (1, "cuda", 1.0), (2, "cuda", 1.0)]
)
def test_a_task_carries_its_device(
    task: TrialTask, monkeypatch: pytest.MonkeyPatch, gpus: float, device: str, share: float
) -> None:
    """Fault B2: the device was whatever the worker's process saw; B6: a pack's budget is of the trial's share."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(loop, "train", lambda *given, **options: seen.append(options))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    train_task(replace(task, gpus=gpus, pieces=2), lambda metrics: None)
    assert [(one["device"], one["share"], one["pieces"]) for one in seen] == [(device, share, 2)]


@pytest.mark.parametrize(
    ("resources", "count", "words"),
    [
        (Resources(), 0, "each trial: 1 CPU"),
        (Resources(), 1, "each trial: 1 CPU; the GPU of this machine: unused (resources.gpus: 0)"),
        (Resources(cpus=2), 8, "each trial: 2 CPU; the GPUs of this machine: unused (resources.gpus: 0)"),
        (Resources(gpus=0.5), 1, "each trial: 1 CPU and 0.5 GPU"),
        (Resources(workers=2, gpus=1), 0, "each trial: 2 workers with 1 CPU and 1 GPU each"),
    ],
)
def test_the_driver_opens_no_gpu_to_say_where_trials_train(
    monkeypatch: pytest.MonkeyPatch, resources: Resources, count: int, words: str
) -> None:
    """Fault B2: it asked GPU 0 for its name, and held a CUDA context there for as long as the run."""

    def opened(*given: object) -> None:
        raise AssertionError("a CUDA context was opened")

    for name in ("_lazy_init", "get_device_name", "get_device_properties", "current_device"):
        monkeypatch.setattr(torch.cuda, name, opened)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert placement_in_words(resources) == words


class Wrapped(Exception):
    """As Ray wraps what a worker raised."""

    def __init__(self, inner: BaseException) -> None:
        super().__init__("wrapped")
        self._base_exc = inner


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [lambda error: error, Wrapped])
def test_workers_start_again_once_with_half_batches(
    task: TrialTask, monkeypatch: pytest.MonkeyPatch, wrap: Callable[[BaseException], BaseException]
) -> None:
    """Out of a GPU's memory in one of several workers."""
    from ray.train import TrainingFailedError, WorkerGroupError

    tried: list[int] = []
    error: BaseException = OutOfMemory("the GPU's memory ran out")

    def fit(task: TrialTask, trainer: object) -> None:
        tried.append(task.pieces)
        if len(tried) < most:
            raise WorkerGroupError("two failed", {0: RuntimeError("connection closed"), 1: wrap(error)})

    monkeypatch.setattr(actor, "_fit", fit)
    most = 2
    actor._train_over_workers(task, train_task)
    assert tried == [1, 2]
    tried, most = [], 3
    with pytest.raises(TrainingFailedError):
        actor._train_over_workers(task, train_task)
    assert tried == [1, 2]
    tried, error = [], RuntimeError("boom")
    with pytest.raises(TrainingFailedError):
        actor._train_over_workers(task, train_task)
    assert tried == [1]
