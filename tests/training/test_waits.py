"""No step waits for the GPU (fault B4): every task, feed, combination of losses, optimiser and way to draw views."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from hmtl_ablate.config import PRETEXT_OPTIONS, Feed, LossConfig, TrainingConfig, TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import TrialInterrupted
from hmtl_ablate.pretext import PRETEXT_TASKS
from hmtl_ablate.training import batches, loop, parts
from hmtl_ablate.training.batches import Batch
from hmtl_ablate.training.device import Setup
from hmtl_ablate.training.folder import TrialFolder
from hmtl_ablate.training.parts import Parts, build_parts
from hmtl_ablate.training.step import TrainingStep
from hmtl_ablate.training.workers import Workers
from tests.waits import META, VALUELESS, counted  # type: ignore[import-not-found]

PERCEPTUAL = {"perceptual": "test_resnet", "perceptual_weights": None}
SMALL = {"model__backbone": "test_convnext", "data__size": 32}
LATER: list[Mapping[str, float]] = [
    {f"train/{name}": 1.0 for name in ("supervised", "emotion", "pose", *PRETEXT_TASKS)}
] * 2
"""A history from which dynamic weight averaging computes weights."""


class NoNoise:
    """In the place of the generator of the device's noise, which the meta device does not have."""

    def manual_seed(self, seed: int) -> None:
        """None: torch's own generator."""


def place_on_meta(monkeypatch: pytest.MonkeyPatch, draws_views: bool = False) -> None:
    setup = Setup(META, False, True, "meta", draws_views=draws_views)
    monkeypatch.setattr(parts, "select_device", lambda *given: setup)
    monkeypatch.setattr(batches, "fits", lambda size, setup: False)
    cpu = torch.Generator
    monkeypatch.setattr(batches, "Generator", lambda *device: NoNoise() if device else cpu())


def count_of_a_step(built: Parts, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Copies of the second step and of the batch it is given; what stays on the device is copied in the first."""
    train = TrainingStep(built)
    train(built.batches[0], LATER)
    copies: dict[str, int]
    with counted(monkeypatch) as copies:
        terms = train(built.batches[1], LATER)
    assert terms["loss"].device == META
    return copies


def options_of(field: Any) -> tuple[str, ...]:
    """The words that a field of the config may have."""
    return get_args(field.annotation)


COMBINATIONS = options_of(LossConfig.model_fields["combine"])
OPTIMISERS = options_of(TrainingConfig.model_fields["optimizer"])
EVERY_TASK: dict[str, Any] = {
    name: {"feed": "mixed", "share": 0.3, **(PERCEPTUAL if name == "inpainting" else {})} for name in PRETEXT_TASKS
}
CASES: dict[str, dict[str, Any]] = {
    **{
        f"{name} {feed}": {"pretext": {name: {"feed": feed, **(PERCEPTUAL if name == "inpainting" else {})}}}
        for name in PRETEXT_TASKS
        for feed in get_args(Feed)
    },
    **{f"combine {how}": {"loss": {"combine": how}} for how in COMBINATIONS},
    **{
        f"optimizer {name}, lookahead {ahead}": {"training__optimizer": name, "training__lookahead": ahead}
        for name in OPTIMISERS
        for ahead in (False, True)
    },
    "patches": {"pretext": {"inpainting": {"mask": "patches", "feed": "mixed"}}},
    "views": {"data__views": 2, "loss": {"views": "geometric"}},
    "sizes": {"pretext": {"puzzling": {"changed_views": [[1.0, 1.0], [1.0, 1.4]], "same_draw": True}}},
    "joined": {"pretext": {"puzzling": {"grid": 3}, "rotation": {"joins": "puzzling", "grid": 2}}},
    **{
        f"answers {how}": {"pretext": {name: {"answers": how} for name in PRETEXT_TASKS}}
        for how in ("random", "ignored")
    },
    "one task": {"task": "emotion", "loss": {"class_weights": "effective", "label_smoothing": 0.1}},
    "pose": {"pretext": {"puzzling": {}}, "loss": {"class_weights": "inverse"}},
    "rotation6d": {"pretext": {"puzzling": {}}, "model__pose_head": "rotation6d"},
    "no clipping": {"training__clip": None},
    "batch norm": {"model__backbone": "test_resnet"},
    "pre-training": {"training__supervised": False, "pretext": {"puzzling": {}, "rotation": {"grid": 2}}},
    "supervised alone": {"pretext": {}},
}


def configure(make: Any, changes: Mapping[str, Any]) -> TrialConfig:
    """All pretext tasks with `changes`; emotion, and pose where no face is rotated."""
    options = {"pretext": EVERY_TASK, **SMALL, **changes}
    tasks = ["emotion"] if "rotation" in options["pretext"] else ["emotion", "pose"]
    config: TrialConfig = make(**{"task": tasks, **options})
    return config


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_nothing(
    make: Any, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    place_on_meta(monkeypatch)
    built = build_parts(configure(make, CASES[case]), pack, TrialFolder(tmp_path), Workers())
    copies = count_of_a_step(built, monkeypatch)
    assert copies["blocking"] == 0
    assert 0 < copies["asynchronous"] <= 40


def test_every_pretext_task_is_in_the_cases() -> None:
    """Of this package; one that `--import` adds is the responsibility of its author."""
    assert set(PRETEXT_OPTIONS) == set(PRETEXT_TASKS) == set(EVERY_TASK)


@pytest.mark.parametrize("augment", ["none", "weak", "strong"])
@pytest.mark.parametrize("resident", [False, True])
def test_views_are_drawn_without_waiting(
    make: Any, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: str, resident: bool
) -> None:
    """The augmentation of whole batches on the device, from a pack that is there, or is not."""
    place_on_meta(monkeypatch, draws_views=True)
    if resident:
        monkeypatch.setattr(batches, "fits", lambda size, setup: True)
        monkeypatch.setattr(batches, "RESIDENT_PACK", batches.ResidentPack())
    config = configure(make, {"data__augment": augment, "data__views": 2, "pretext": {"puzzling": {}}})
    built = build_parts(config, pack, TrialFolder(tmp_path), Workers())
    copies = count_of_a_step(built, monkeypatch)
    assert copies["blocking"] == 0


@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_step_of_several_workers_waits_for_nothing(
    make: Any, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, combine: str, pieces: int
) -> None:
    """But for what the workers exchange."""
    place_on_meta(monkeypatch)
    monkeypatch.setattr(Workers, "mean", lambda self, value: value / self.count)
    monkeypatch.setattr("hmtl_ablate.training.step.DistributedDataParallel", _Alone)
    mixed = {"puzzling": {"feed": "mixed", "share": 0.3}}
    config = configure(make, {"loss": {"combine": combine, "views": "geometric"}, "data__views": 2, "pretext": mixed})
    built = build_parts(config, pack, TrialFolder(tmp_path), Workers(1, 2))
    train = TrainingStep(built)
    train.pieces = pieces
    train(built.batches[0], LATER)
    with counted(monkeypatch) as copies:
        train(built.batches[1], LATER)
    assert copies["blocking"] == 0


class _Alone(torch.nn.Module):
    """In the place of DDP, which needs a process group."""

    def __init__(self, model: torch.nn.Module, **options: object) -> None:
        super().__init__()
        self.module = model

    def forward(self, *given: Any) -> Any:
        return self.module(*given)

    def no_sync(self) -> Any:
        return torch.enable_grad()


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_a_step_of_a_resumed_trial_waits_for_nothing(
    make: Any, run: Any, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """AdamW counts its steps in a tensor of the CPU for each weight. Once it was loaded to the GPU, so that each step
    of a resumed trial waited for the GPU as often as the model has weights."""
    config = configure(make, {"training__optimizer": optimizer, "training__lookahead": True, "pretext": {}})
    calls = iter(range(100))
    with pytest.raises(TrialInterrupted):
        run(config, "x", stop=lambda: next(calls) == 1)
    place_on_meta(monkeypatch)
    built = build_parts(config, pack, TrialFolder(tmp_path / "x"), Workers())
    trial = loop._Trial(built, "x", threads=1, pieces=1)
    assert trial.resume(None)
    assert trial.progress.passes > 0
    assert count_of_a_step(built, monkeypatch)["blocking"] == 0


def test_an_epoch_waits_once(make: Any, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the sums of its losses, at its end."""
    place_on_meta(monkeypatch)
    config = configure(make, {"training__batch_size": 8, "training__epochs": 1, "pretext": {"puzzling": {}}})
    built = build_parts(config, pack, TrialFolder(tmp_path), Workers())
    assert built.batches.steps > 5
    waited: list[int] = []
    trial = loop._Trial(built, "x", threads=1, pieces=1)

    def collect(sums: Mapping[str, torch.Tensor]) -> None:
        with pytest.raises(VALUELESS):
            loop._Trial._collect(trial, sums)
        waited.append(trial.progress.step)

    def end_epoch(batch: Batch, on_epoch: Any, started: float) -> bool:
        return True

    monkeypatch.setattr(trial, "_collect", collect)
    monkeypatch.setattr(trial, "_end_epoch", end_epoch)
    trial._train(lambda row: False, lambda: False)
    assert waited == [built.batches.steps]


# What would be seen ---------------------------------------------------------------------------------------------------


def test_the_count_sees_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    from hmtl_ablate.training import step

    images = torch.ones(3, device=META)
    with counted(monkeypatch) as copies:
        torch.ones(3).to(META)
        torch.ones(()).to(META)
        images.new_tensor([1.0, 2.0])
        torch.tensor([1.0], device=META)
        images[torch.tensor([0])]
        step.to_device(torch.ones(3), META)  # type: ignore[attr-defined]
        images * torch.ones(())  # a scalar that the kernel is given
    assert copies == {"asynchronous": 1, "blocking": 5}


@pytest.mark.parametrize(
    "ask",
    [
        torch.Tensor.item,
        torch.Tensor.tolist,
        torch.Tensor.cpu,
        torch.Tensor.nonzero,
        bool,
        float,
        lambda value: value.view(1)[value.view(1) > 0],
        lambda value: value.view(1).masked_select(value.view(1) > 0),
        lambda value: torch.equal(value, value),
    ],
)
def test_a_value_that_is_asked_for_is_an_error(ask: Any) -> None:
    with pytest.raises(VALUELESS):
        ask(torch.ones((), device=META))
