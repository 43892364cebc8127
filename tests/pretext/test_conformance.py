"""What every pretext task must do, whatever it is."""

from typing import Any

import pytest
import torch

from hmtl_ablate.config import PRETEXT_OPTIONS, parse_config
from hmtl_ablate.model import HMTLModel
from hmtl_ablate.pretext import PRETEXT_TASKS, FeatureShape, PretextTask, build
from hmtl_ablate.training import feeds

CASES: list[tuple[str, dict[str, Any]]] = [
    ("puzzling", {"grid": 2}),
    ("puzzling", {"grid": 3}),
    ("puzzling", {"grid": 5}),
    ("rotation", {}),
    ("rotation", {"grid": 2}),
    ("rotation", {"grid": 5}),
    ("inpainting", {"perceptual": "vgg16", "perceptual_weights": None, "perceptual_layers": ("relu1_2",)}),
    ("inpainting", {"perceptual": "test_resnet", "perceptual_weights": None}),
    ("inpainting", {"regions": 3}),
    ("inpainting", {"mask": "patches", "patches": 7, "mask_ratio": 0.6}),
]
SIZE, BATCH = 48, 6


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            (name, options),
            id=f"{name}-{options}",
            marks=[pytest.mark.slow] if "vgg16" in options.values() else [],  # 138 million random weights take 4 s
        )
        for name, options in CASES
    ],
)
def task(request: pytest.FixtureRequest) -> PretextTask:
    name, options = request.param
    torch.manual_seed(0)
    return build(name, PRETEXT_OPTIONS[name](**options), FeatureShape(SIZE, 32, 3, 3, 16)).eval()


def run(task: PretextTask, seed: int = 0, side: int = SIZE) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(BATCH, 3, side, side, generator=generator) * 2 - 1
    draw = task.draw(BATCH, generator)
    output = task(torch.randn(BATCH, 32, 3, 3, generator=generator), torch.randn(BATCH, 16, generator=generator))
    return images, draw, output


def test_every_task_is_tested() -> None:
    assert {name for name, _ in CASES} == set(PRETEXT_TASKS) == set(PRETEXT_OPTIONS)


@pytest.mark.parametrize("side", [SIZE, 37])
def test_change_keeps_the_shape_and_changes_the_image(task: PretextTask, side: int) -> None:
    images, draw, _ = run(task, side=side)
    changed = task.change(images, draw)
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)


def test_draw_follows_the_generator_alone(task: PretextTask) -> None:
    first = task.draw(BATCH, torch.Generator().manual_seed(7))
    torch.rand(5)
    assert torch.equal(first, task.draw(BATCH, torch.Generator().manual_seed(7)))
    assert not torch.equal(first, task.draw(BATCH, torch.Generator().manual_seed(8)))


def test_loss_and_score_are_finite_numbers_an_image(task: PretextTask) -> None:
    images, draw, output = run(task)
    loss, score = task.loss(output, images, draw), task.score(output, images, draw)
    assert loss.shape == score.shape == (BATCH,)
    assert bool((loss > 0).all() and torch.isfinite(loss).all() and torch.isfinite(score).all())


def test_an_image_is_treated_alike_alone_and_in_a_batch(task: PretextTask) -> None:
    images, draw, output = run(task)
    assert torch.equal(task.change(images, draw)[2:3], task.change(images[2:3], draw[2:3]))
    torch.testing.assert_close(task.loss(output, images, draw)[2:3], task.loss(output[2:3], images[2:3], draw[2:3]))


def test_every_weight_of_the_head_gets_a_gradient(task: PretextTask) -> None:
    images, draw, output = run(task)
    task.loss(output, images, draw).sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in task.parameters())


def test_rebuilt_has_the_images_shape(task: PretextTask) -> None:
    images, draw, output = run(task)
    assert task.rebuilt(output, images, draw).shape == images.shape


@pytest.mark.parametrize("name", PRETEXT_TASKS)
@pytest.mark.parametrize("feed", ["shared", "siamese", "mixed"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_vit2", "test_vit_relpos", "test_mambaout"])
def test_every_task_trains_a_backbone_with_every_feed(name: str, feed: str, backbone: str) -> None:
    """One step's inputs, outputs and gradients: convolutional maps, tokens with and without prefix, and NHWC maps."""
    config = parse_config({"data": {"size": 32}, "model": {"backbone": backbone}, "pretext": {name: {"feed": feed}}})
    torch.manual_seed(0)
    model = HMTLModel(config, 2)
    tasks = {key: task for key, task in model.pretext.items() if isinstance(task, PretextTask)}
    plan = feeds.streams(config, BATCH)
    views = torch.randn(len(plan), BATCH, 3, 32, 32)
    (group,) = feeds.build_inputs(plan, tasks, views, torch.arange(BATCH), BATCH, torch.Generator().manual_seed(0))
    query = group.queries[name]
    ((outputs, answers),) = model([(group.images, {name: query.rows})])
    loss, score = (way(answers[name], query.before, query.draw) for way in (tasks[name].loss, tasks[name].score))
    assert outputs.shape == (BATCH * len(plan), 2)
    assert loss.shape == score.shape == (feeds.changed_total(plan)[name],)
    loss.sum().backward()
    head = list(tasks[name].parameters())
    assert all(parameter.grad is not None and bool(parameter.grad.abs().sum() > 0) for parameter in head)
    assert any(bool(p.grad.abs().sum() > 0) for p in model.inference.backbone.parameters() if p.grad is not None)
    assert tasks[name].rebuilt(answers[name], query.before, query.draw).shape == query.before.shape
