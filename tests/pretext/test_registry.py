"""A pretext task of a user: one file, registered, trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor, nn

from hmtl_ablate.config import PRETEXT_OPTIONS, PretextOptions, parse_config
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.errors import ConfigError, HmtlError
from hmtl_ablate.pretext import PRETEXT_TASKS, FeatureShape, PretextTask, build, register_pretext_task
from hmtl_ablate.pretext.rotation import Rotation
from hmtl_ablate.training.folder import TrialFolder
from hmtl_ablate.training.loop import train


class MirrorOptions(PretextOptions):
    """Mirror: predict whether the image is mirrored."""

    chance: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability of a mirrored image."""


class Mirror(PretextTask):
    metric = "accuracy"

    def __init__(self, options: MirrorOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.chance = options.chance
        self.head = nn.Linear(features.pooled, 1)

    def draw(self, count: int, generator: Generator) -> Tensor:
        return torch.rand(count, generator=generator) < self.chance

    def change(self, images: Tensor, draw: Tensor) -> Tensor:
        return torch.where(draw[:, None, None, None], images.flip(3), images)

    def forward(self, maps: Tensor, pooled: Tensor) -> Tensor:
        return self.head(pooled)[:, 0]

    def loss(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, draw.float(), reduction="none")

    def score(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        return ((output > 0) == draw).float()

    def rebuilt(self, output: Tensor, images: Tensor, draw: Tensor) -> Tensor:
        return self.change(self.change(images, draw), output > 0)


@pytest.fixture
def mirror() -> Iterator[None]:
    register_pretext_task("mirror", MirrorOptions, Mirror)
    yield
    del PRETEXT_TASKS["mirror"], PRETEXT_OPTIONS["mirror"]


@pytest.mark.usefixtures("mirror")
def test_a_registered_task_is_trained(tmp_path: Path) -> None:
    config = parse_config(
        {
            "data": {"images": 64, "size": 16},
            "pretext": {"mirror": {"chance": 0.4, "feed": "mixed"}, "puzzling": {"feed": "mixed"}},
            "training": {"epochs": 1, "batch_size": 16, "warmup_epochs": 0},
        }
    )
    assert list(config.pretext) == ["puzzling", "mirror"]  # the built-in ones first
    result = train(config, open_pack(config.data, None, tmp_path), tmp_path / "trial", evaluate_test=False)
    (row,) = TrialFolder(tmp_path / "trial").history()
    assert result.status == "finished"
    assert row["train/mirror"] > 0
    assert 0 <= row["val/mirror/accuracy"] <= 1
    assert (tmp_path / "trial" / "pictures" / "mirror-epoch-0001.png").exists()


@pytest.mark.usefixtures("mirror")
def test_its_options_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"pretext\.mirror\.chance"):
        parse_config({"pretext": {"mirror": {"chance": 1.5}}})
    with pytest.raises(ConfigError, match="did you mean 'mirror'"):
        parse_config({"pretext": {"mirrors": {}}})


@pytest.mark.usefixtures("mirror")
def test_build_gives_the_registered_class() -> None:
    assert isinstance(build("mirror", MirrorOptions(weight=2.0), FeatureShape(16, 4, 1, 1, 4)), Mirror)


def test_a_name_is_given_once() -> None:
    register_pretext_task("rotation", PRETEXT_OPTIONS["rotation"], Rotation)  # the same class again
    with pytest.raises(HmtlError, match="'rotation' is already registered"):
        register_pretext_task("rotation", MirrorOptions, Mirror)
    assert PRETEXT_TASKS["rotation"] is Rotation
