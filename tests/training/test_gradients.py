"""Gradients of the losses on the backbone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hmtl_ablate.data.pack import Pack
from hmtl_ablate.training.batches import TrainingBatches
from hmtl_ablate.training.folder import TrialFolder
from hmtl_ablate.training.gradients import MOST, measure_gradients, untouched
from hmtl_ablate.training.parts import build_parts
from hmtl_ablate.training.step import TrainingStep
from hmtl_ablate.training.workers import Workers

HMTL = {"puzzling": {"supervised_weight": 0.5}, "inpainting": {"feed": "mixed", "share": 0.25}}


def lone(name: str) -> str:
    return "supervised" if name == "emotion" else name


def test_norms_and_cosines_by_hand() -> None:
    """Fault A8: w = (3, 4) has 3a + 4b with gradient (3, 4) and norm 5, −2a with (−2, 0): cosine −0.6."""
    backbone = nn.Linear(2, 1, bias=False)
    a, b = backbone.weight[0]
    losses = {"emotion": 3 * a + 4 * b, "puzzling": -2 * a, "rotation": 0.5 * b}
    found = measure_gradients([losses], ("emotion",), backbone, lambda value: value, lone)
    assert found == pytest.approx(
        {
            "train/gradient/supervised": 5.0,
            "train/gradient/puzzling": 2.0,
            "train/gradient/rotation": 0.5,
            "train/cosine/puzzling": -0.6,
            "train/cosine/rotation": 0.8,
        }
    )
    assert backbone.weight.grad is None


def test_the_gradients_of_pieces_add_up() -> None:
    backbone = nn.Linear(2, 1, bias=False)
    a, b = backbone.weight[0]
    pieces = [{"emotion": 3 * a, "puzzling": 1.0 * a}, {"emotion": 4 * b, "puzzling": -1.0 * a}]
    found = measure_gradients(iter(pieces), ("emotion",), backbone, lambda value: value, lone)
    assert found == {"train/gradient/supervised": 5.0, "train/gradient/puzzling": 0.0}


def test_the_cosine_is_with_all_supervised_losses_together() -> None:
    backbone = nn.Linear(2, 1, bias=False)
    a, b = backbone.weight[0]
    losses = {"emotion": 1.0 * a, "pose": 1.0 * b, "puzzling": 2 * a + 2 * b, "rotation": 0 * a}
    found = measure_gradients([losses], ("emotion", "pose"), backbone, lambda value: value, str)
    assert found["train/cosine/puzzling"] == pytest.approx(1.0)
    assert found["train/gradient/pose"] == 1.0
    assert found["train/gradient/rotation"] == 0.0
    assert "train/cosine/rotation" not in found, "0 has no direction"


def test_more_losses_than_three_steps_allow_are_measured_together() -> None:
    backbone = nn.Linear(2, 1, bias=False)
    a, b = backbone.weight[0]
    losses = {"emotion": 3 * a, "pose": 4 * b, "gender": 0 * b, "puzzling": 1.0 * a, "rotation": 1.0 * b}
    assert len(losses) > MOST
    found = measure_gradients([losses], ("emotion", "pose", "gender"), backbone, lambda value: value, str)
    assert found["train/gradient/supervised"] == 5.0
    assert "train/gradient/pose" not in found


def test_buffers_and_random_numbers_are_restored() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with untouched(model, torch.device("cpu")):
        torch.manual_seed(9)
        model(torch.rand(4, 2))
        assert not torch.equal(model.state_dict()["0.running_mean"], before["0.running_mean"])
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_training_goes_on_with_the_same_bits(make, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault A8, gradient measurement: weights and curve with it are bit for bit those without it."""
    config = make(pretext=HMTL, training__epochs=2, training__optimizer="adabelief", training__lookahead=True)
    run(config, "with", keep_last=True)
    monkeypatch.setattr(TrainingStep, "gradients", lambda self, batch: {})
    run(config, "without", keep_last=True)
    measured, plain = (TrialFolder(tmp_path / name).history() for name in ("with", "without"))
    extra = {"train/gradient/supervised", "train/gradient/puzzling", "train/gradient/inpainting"}
    extra |= {"train/cosine/puzzling", "train/cosine/inpainting"}
    timed = {"seconds", "images_per_second"}
    for row, other in zip(measured, plain, strict=True):
        assert row.keys() - other.keys() == extra
        assert {k: v for k, v in row.items() if k not in extra | timed} == {
            k: v for k, v in other.items() if k not in timed
        }
        assert row["train/gradient/puzzling"] > 0
        assert -1 <= row["train/cosine/inpainting"] <= 1
    for file in ("best.safetensors", "last.safetensors"):
        one, two = (load_file(tmp_path / name / file) for name in ("with", "without"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one), file
    json.dumps(measured)  # plain numbers


def test_a_measurement_runs_the_model_once(make, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most three training steps: one forward pass, and a backward pass for each of at most four losses."""
    from hmtl_ablate.training import gradients, step

    calls = {"batches": 0, "backward": 0}
    losses, backward = step.TrainingStep._losses, gradients._gradient

    def counted(self, *args):
        calls["batches"] += 1
        return losses(self, *args)

    def counted_backward(*args, **options):
        calls["backward"] += 1
        return backward(*args, **options)

    monkeypatch.setattr(step.TrainingStep, "_losses", counted)
    monkeypatch.setattr(gradients, "_gradient", counted_backward)
    steps: list[int] = []

    def twice(self: TrainingBatches) -> int:
        steps.append(self.steps)
        return self.steps * 2

    monkeypatch.setattr(TrainingBatches, "__len__", twice)
    run(make(pretext=HMTL, training__epochs=2), "x")
    assert calls == {"batches": 2 * (steps[0] + 1), "backward": 2 * 3}


@pytest.mark.parametrize(
    "options",
    [
        {"training__clip": 1e-3},
        {"pretext": {"rotation": {"weight": 3.0}}, "training__supervised": False},
        {"loss": {"combine": "dwa"}},
    ],
    ids=["clipped", "pretext", "dwa"],
)
def test_a_lone_loss_has_the_gradient_of_its_own_step(make, pack: Pack, tmp_path: Path, options) -> None:
    """At the weights before the step, and before it is clipped: what a measurement of its own finds there."""
    parts = build_parts(make(**options), pack, TrialFolder(tmp_path), Workers())
    step, batch = TrainingStep(parts), parts.batches[parts.batches.steps - 1]
    lone, step._lone = step._lone, ""
    expected = step.gradients(batch)
    step._lone = lone
    step(batch, [])
    assert len(expected) == 1
    assert step.gradients(batch) == pytest.approx(expected, rel=1e-4)


def test_a_lone_loss_is_measured_without_another_pass(make, run, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    forward = TrainingStep._forward

    def counted(self: TrainingStep, *args: Any) -> Any:
        passes.append(self.parts.batches.steps)
        return forward(self, *args)

    monkeypatch.setattr(TrainingStep, "_forward", counted)
    run(make(training__epochs=2), "x")
    assert len(passes) == 2 * passes[0]
