"""Controls (`answers`) of every pretext task, feed and loss combination: the arm's images, without its answers."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from hmtl_ablate import register_pretext_task
from hmtl_ablate.config import PretextOptions, TrialConfig, parse_config
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import ConfigError
from hmtl_ablate.pretext import PRETEXT_TASKS, FeatureShape, PretextTask
from hmtl_ablate.training import feeds
from hmtl_ablate.training.folder import TrialFolder
from hmtl_ablate.training.parts import Parts, build_parts
from hmtl_ablate.training.step import TrainingStep
from hmtl_ablate.training.workers import Workers
from tests.training.test_workers import _train, spawn  # type: ignore[import-not-found]

FEEDS = ("shared", "siamese", "mixed")
COMBINATIONS = ("sum", "geometric", "focused", "uncertainty", "dwa", "pcgrad")


class BrightnessOptions(PretextOptions):
    """How bright was the image?"""


class Brightness(PretextTask):
    """A task of another's, whose answer is in the image and not in the draw; it says nothing of that."""

    metric = "l2"
    regression = True

    def __init__(self, options: PretextOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.head = nn.Linear(features.pooled, 1)

    def draw(self, count: int, generator: Generator) -> Tensor:
        return torch.rand(count, generator=generator)

    def change(self, images: Tensor, draw: Tensor) -> Tensor:
        return images + draw.view(-1, 1, 1, 1)

    def forward(self, maps: Tensor, pooled: Tensor) -> Tensor:
        return self.head(pooled)[:, 0]

    def loss(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        return F.mse_loss(output, images.mean(dim=(1, 2, 3)), reduction="none")

    def score(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        return self.loss(output, images, draw)

    def rebuilt(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        return images


TASKS = (*PRETEXT_TASKS, "brightness")
MATRIX = list(itertools.product(TASKS, FEEDS, COMBINATIONS))


def quick(task: str, feed: str, combine: str) -> bool:
    """Cases of the fast tier: each combination with puzzling, and a task of another's."""
    return (task == "puzzling" and feed == "mixed") or (task == "brightness" and (feed, combine) == ("siamese", "sum"))


CASES = [pytest.param(*case, marks=() if quick(*case) else pytest.mark.slow) for case in MATRIX]


def config_of(task: str, feed: str, combine: str, answers: str, **options: Any) -> TrialConfig:
    return parse_config(
        {
            "data": {"images": 96, "size": 16},
            "training": {"optimizer": "adamw", "lookahead": False, "batch_size": 16, "epochs": 2, "warmup_epochs": 0},
            "loss": {"combine": combine},
            "pretext": {task: {"feed": feed, "answers": answers, **options}},
        }
    )


@pytest.fixture(autouse=True)
def _brightness(registries: None) -> Iterator[None]:
    register_pretext_task("brightness", BrightnessOptions, Brightness)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # steps of 16 small images
    yield
    torch.set_num_threads(threads)


class Stepped:
    """One step of a config: what it logged, and the model before and after."""

    def __init__(self, config: TrialConfig, pack: Pack, folder: Path, weight: float | None = None) -> None:
        self.parts: Parts = build_parts(config, pack, TrialFolder(folder), Workers())
        if weight is not None:
            self.parts.weights.update(dict.fromkeys(config.pretext, weight))
        self.before = state(self.parts)
        step = TrainingStep(self.parts)
        batch = self.parts.batches[self.parts.batches.steps - 1]  # on which an epoch's gradients are measured
        losses = {"train/supervised": 1.5, **{f"train/{name}": 2.5 for name in config.pretext}}
        history = [losses, {name: value - 0.5 for name, value in losses.items()}]  # of which dwa computes its weights
        self.terms = {name: float(value) for name, value in step(batch, history).items()}
        self.measured = step.gradients(batch)
        self.inputs = step._inputs(batch, 7, slice(None))

    def changed(self, part: str) -> bool:
        after = state(self.parts)
        return any(not torch.equal(self.before[name], after[name]) for name in after if name.startswith(part))


def state(parts: Parts) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in parts.model.state_dict().items()}


def same(one: Stepped, other: Stepped, part: str) -> bool:
    first, second = state(one.parts), state(other.parts)
    return all(torch.equal(first[name], second[name]) for name in first if name.startswith(part))


@pytest.mark.parametrize(("task", "feed", "combine"), CASES)
def test_ignored_answers_train_nothing(task: str, feed: str, combine: str, pack: Pack, tmp_path: Path) -> None:
    own = Stepped(config_of(task, feed, combine, "own"), pack, tmp_path)
    ignored = Stepped(config_of(task, feed, combine, "ignored"), pack, tmp_path)
    assert same_images(own, ignored)
    assert ignored.terms["supervised"] == own.terms["supervised"], "images, weights and dropout are those of the arm"
    assert ignored.terms[task] == own.terms[task], "the loss is logged"
    assert ignored.changed("inference.backbone")
    assert not ignored.changed(f"pretext.{task}"), "no gradient, and no weight decay either"
    assert set(ignored.parts.model.learned.keys()) == ({"emotion"} if combine == "uncertainty" else set())
    assert [name for name in ignored.measured if task in name] == []
    assert f"train/gradient/{task}" in own.measured
    assert not same(own, ignored, "inference.backbone")
    heavy = Stepped(config_of(task, feed, combine, "ignored"), pack, tmp_path, weight=500.0)
    assert same(heavy, ignored, "inference")
    expected = ignored.terms["supervised"] ** (2 if combine == "focused" else 1)  # focused: a mean times a mean
    assert ignored.terms["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("task", "feed", "combine"), CASES)
def test_random_answers_train_as_the_arm_does(task: str, feed: str, combine: str, pack: Pack, tmp_path: Path) -> None:
    own = Stepped(config_of(task, feed, combine, "own"), pack, tmp_path)
    random = Stepped(config_of(task, feed, combine, "random"), pack, tmp_path)
    assert same_images(own, random)
    assert random.terms["supervised"] == own.terms["supervised"]
    assert random.terms[task] != own.terms[task]
    assert random.terms["loss"] != own.terms["loss"]
    assert random.changed("inference.backbone")
    assert random.changed(f"pretext.{task}")
    assert random.measured.keys() == own.measured.keys()
    assert not same(own, random, "inference.backbone")


def same_images(one: Stepped, other: Stepped) -> bool:
    pairs = zip(one.inputs, other.inputs, strict=True)
    return all(torch.equal(a.images, b.images) and torch.equal(a.weights, b.weights) for a, b in pairs)


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("task", TASKS)
def test_random_answers_say_nothing_of_the_image(task: str, feed: str, pack: Pack, tmp_path: Path) -> None:
    """Another draw, unless it is in-painting's mask; never the image's own pixels."""
    own, random = (
        TrainingStep(build_parts(config_of(task, feed, "sum", answers), pack, TrialFolder(tmp_path), Workers()))
        for answers in ("own", "random")
    )
    batch = own.parts.batches[0]
    (real,), (fresh,), (later,) = (
        own._inputs(batch, 7, slice(None)),
        *(random._inputs(batch, seed, slice(None)) for seed in (7, 8)),
    )
    truth, answers = real.queries[task], fresh.queries[task]
    assert torch.equal(truth.rows, answers.rows)
    assert torch.equal(truth.draw, answers.draw) == (task == "inpainting")
    for one, other in zip(truth.before, answers.before, strict=True):
        assert not torch.equal(one, other)
    if feed != "mixed":  # the same images, each with another's
        assert torch.equal(answers.before, torch.cat([truth.before[1:], truth.before[:1]]))
    assert not torch.equal(answers.draw, later.queries[task].draw), "drawn anew at every step"


def test_a_random_draw_is_independent_of_the_real_one() -> None:
    """Of 4,000 images rotated by one of four angles, a quarter have the angle of their random answer."""
    config = parse_config({"data": {"size": 16}, "pretext": {"rotation": {"feed": "shared"}}})
    task = PRETEXT_TASKS["rotation"](config.pretext["rotation"], FeatureShape(16, 4, 1, 1, 4))
    plan, count = feeds.streams(config, 4000), 4000
    views, rows = torch.zeros(1, count, 3, 16, 16), torch.arange(count)
    real, random = (
        feeds.build_inputs(plan, {"rotation": task}, views, rows, count, Generator().manual_seed(0), redrawn)[0]
        for redrawn in ({}, {"rotation": Generator().manual_seed(1)})
    )
    equal = (real.queries["rotation"].draw == random.queries["rotation"].draw).float().mean()
    assert 0.22 < float(equal) < 0.28


def test_the_answer_of_a_lone_changed_image_is_the_next_whole_image() -> None:
    """Of a mixed share of one image there is no other changed one; in-painting's mask stays its own."""
    config = parse_config({"data": {"size": 16}, "pretext": {"inpainting": {"feed": "mixed", "share": 0.1}}})
    task = PRETEXT_TASKS["inpainting"](config.pretext["inpainting"], FeatureShape(16, 4, 1, 1, 4))
    plan, views = feeds.streams(config, 8), torch.rand(1, 8, 3, 16, 16)
    redrawn = {"inpainting": Generator().manual_seed(1)}
    found = {}
    for rows in (torch.arange(8), torch.tensor([1, 3]), torch.tensor([0])):  # one worker; no changed image; one image
        shown = views[:, rows]
        (group,) = feeds.build_inputs(plan, {"inpainting": task}, shown, rows, 8, Generator().manual_seed(0), redrawn)
        found[len(rows)] = group.queries["inpainting"].before
    assert torch.equal(found[8], views[0, 1:2])
    assert found[2].shape == (0, 3, 16, 16)
    assert torch.equal(found[1], views[0, :1])


def test_joined_tasks_have_controls_of_their_own(pack: Pack, tmp_path: Path) -> None:
    """Rotation of the puzzled images ignored, puzzling random; both see the images of the arm."""

    def raw(**answers: str) -> TrialConfig:
        options = {
            "puzzling": {"answers": answers.get("puzzling", "own")},
            "inpainting": {"joins": "puzzling", "answers": answers.get("inpainting", "own")},
        }
        base = config_of("puzzling", "siamese", "sum", "own").model_dump(mode="json", exclude_defaults=True)
        return parse_config({**base, "pretext": options})

    own = Stepped(raw(), pack, tmp_path)
    mixed = Stepped(raw(puzzling="random", inpainting="ignored"), pack, tmp_path)
    assert same_images(own, mixed)
    assert mixed.terms["inpainting"] == own.terms["inpainting"]
    assert mixed.terms["puzzling"] != own.terms["puzzling"]
    assert (mixed.changed("pretext.inpainting"), mixed.changed("pretext.puzzling")) == (False, True)
    swapped = Stepped(raw(puzzling="ignored", inpainting="random"), pack, tmp_path)
    assert swapped.terms["inpainting"] != own.terms["inpainting"]
    truth, answers = (one.inputs[0].queries["inpainting"].before for one in (own, swapped))
    assert torch.equal(answers, torch.cat([truth[1:], truth[:1]])), "the puzzled image of another face"


def test_ignored_is_bit_by_bit_a_weight_of_zero(make: Any, pack: Pack, tmp_path: Path) -> None:
    """Three steps with the authors' optimiser: backbone and supervised head have the same bits. Without clipping, whose
    norm is a sum over fewer tensors, with another rounding."""
    trained = []
    for answers, weight in (("own", 0.0), ("ignored", None)):
        config = make(pretext={"puzzling": {"answers": answers}}, training__clip=None, training__batch_size=16)
        config = config.replaced({("training", "optimizer"): "adabelief", ("training", "lookahead"): True})
        parts = build_parts(config, pack, TrialFolder(tmp_path), Workers())
        if weight is not None:
            parts.weights["puzzling"] = weight
        step = TrainingStep(parts)
        terms = [step(parts.batches[number], []) for number in range(3)]
        trained.append((state(parts), [float(one["supervised"]) for one in terms]))
    (zero, curve), (ignored, other) = trained
    assert curve == other
    own = [name for name in zero if name.startswith("inference")]
    assert all(torch.equal(zero[name], ignored[name]) for name in own)
    assert len(own) > 10


def test_a_loss_that_is_ignored_and_infinite_harms_nothing(
    pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Brightness, "loss", lambda self, output, images, draw: output * float("inf"))
    for combine in ("sum", "pcgrad"):
        found = Stepped(config_of("brightness", "shared", combine, "ignored"), pack, tmp_path)
        assert torch.isfinite(torch.tensor(found.terms["loss"]))
        assert all(bool(value.isfinite().all()) for value in state(found.parts).values() if value.is_floating_point())


@pytest.mark.slow
def test_scores_of_the_validation_split_are_of_real_answers(make: Any, run: Any, tmp_path: Path) -> None:
    """The head of an ignored task is never trained: its score after an epoch differs from the arm's, and is finite."""
    rows = {}
    for answers in ("ignored", "random"):
        config = make(data__size=16, training__epochs=1, pretext={"rotation": {"answers": answers}})
        run(config, answers)
        (rows[answers],) = TrialFolder(tmp_path / answers).history()
        assert 0 <= rows[answers]["val/rotation/accuracy"] <= 1
        assert rows[answers]["train/rotation"] > 0
    assert "train/cosine/rotation" in rows["random"]
    assert "train/cosine/rotation" not in rows["ignored"]


def test_pre_training_whose_answers_are_ignored_is_refused() -> None:
    raw: dict[str, Any] = {
        "training": {"supervised": False},
        "pretext": {"puzzling": {"answers": "ignored"}, "rotation": {"joins": "puzzling", "answers": "ignored"}},
    }
    with pytest.raises(ConfigError, match=r"nothing to train.*own or random") as caught:
        parse_config(raw)
    assert [fault.path for fault in caught.value.faults] == [("pretext", "puzzling", "answers")]
    raw["pretext"]["rotation"]["answers"] = "random"
    assert parse_config(raw).combined == ("rotation",)


@pytest.mark.slow
@pytest.mark.parametrize(("combine", "pieces"), [("sum", 1), ("uncertainty", 1), ("geometric", 2), ("pcgrad", 1)])
def test_two_workers_train_controls_as_one_does(
    make: Any, run: Any, pack: Pack, tmp_path: Path, combine: str, pieces: int
) -> None:
    """Also where a worker's share of a batch has no changed image."""
    answers = {"puzzling": "random", "rotation": "own", "inpainting": "ignored"}
    config = make(
        model={"backbone": "test_convnext", "dropout": 0.0},
        loss={"combine": combine},
        pretext={
            name: {"feed": "mixed", "share": 0.1, "dropout": 0.0, "answers": how} for name, how in answers.items()
        },
        training__batch_size=4,
        training__epochs=1,
        training__lr=0.001,
    )
    run(config, "one")
    raw = config.model_dump(mode="json", exclude_defaults=True)
    spawn(_train, raw, str(pack.folder), str(tmp_path / "two"), pieces)
    (one,), (two,) = (TrialFolder(tmp_path / name).history() for name in ("one", "two"))
    for name in ("train/loss", "train/supervised", *(f"train/{task}" for task in answers), "val/loss"):
        assert two[name] == pytest.approx(one[name], rel=2e-3), name


@pytest.mark.slow
@pytest.mark.parametrize("combine", COMBINATIONS)
def test_controls_in_pieces_have_the_gradient_of_the_whole_batch(
    make: Any, pack: Pack, tmp_path: Path, combine: str
) -> None:
    config = make(
        model={"backbone": "test_convnext", "dropout": 0.0},
        loss={"combine": combine},
        pretext={
            "puzzling": {"dropout": 0.0, "answers": "ignored"},
            "rotation": {"dropout": 0.0, "answers": "random", "joins": "puzzling"},
        },
        training={"optimizer": "sgd", "lookahead": False, "clip": None, "batch_size": 8, "warmup_epochs": 0},
    )
    found = []
    for pieces in (1, 2):
        parts = build_parts(config, pack, TrialFolder(tmp_path), Workers())
        step = TrainingStep(parts)
        step.pieces = pieces
        step(parts.batches[0], [])
        found.append(state(parts))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-5)
