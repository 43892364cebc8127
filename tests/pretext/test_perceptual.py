"""The perceptual distance."""

from typing import Any

import pytest
import torch

from hmtl_ablate.config import InpaintingOptions
from hmtl_ablate.errors import ConfigError
from hmtl_ablate.pretext import FeatureShape
from hmtl_ablate.pretext.inpainting import Inpainting
from hmtl_ablate.pretext.perceptual import PerceptualNetwork


@pytest.fixture(scope="module")
def network() -> PerceptualNetwork:
    torch.manual_seed(0)
    return PerceptualNetwork("test_resnet", None)


def test_distance_is_zero_of_itself_symmetric_and_bounded(network: PerceptualNetwork) -> None:
    a, b = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32)
    assert network(a, a).abs().max() < 1e-6
    torch.testing.assert_close(network(a, b), network(b, a))
    assert bool(((network(a, b) > 0) & (network(a, b) <= 4)).all())


def test_nearer_images_are_nearer(network: PerceptualNetwork) -> None:
    a, noise = torch.rand(8, 3, 32, 32), torch.randn(8, 3, 32, 32)
    assert network(a + 0.02 * noise, a).mean() < network(a + 0.2 * noise, a).mean()


def test_gradients_reach_the_image_and_not_the_network(network: PerceptualNetwork) -> None:
    image = torch.rand(2, 3, 32, 32, requires_grad=True)
    network(image, torch.rand(2, 3, 32, 32)).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.train().training


@pytest.mark.slow
def test_vgg_has_the_usual_layers() -> None:
    vgg = PerceptualNetwork("vgg16", None)
    maps = vgg._features(torch.rand(1, 3, 32, 32))
    assert [tuple(layer.shape[1:]) for layer in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]
    with pytest.raises(ConfigError, match="relu2_2"):
        PerceptualNetwork("vgg16", ("relu2_1",))


def test_perceptual_loss_does_not_grow_with_the_mask() -> None:
    """Fault A8: of a blank decoder it was 0.21, 0.50 and 1.19 at mask 0.1, 0.25 and 0.6, the pixel loss the same."""
    torch.manual_seed(0)
    images = torch.nn.functional.interpolate(torch.randn(64, 3, 12, 12), size=(48, 48), mode="bilinear")
    found: dict[str, list[float]] = {"pixels": [], "perceptual": []}
    for ratio in (0.1, 0.25, 0.6):
        pixels = Inpainting(InpaintingOptions(mask_ratio=ratio), FeatureShape(48, 8, 2, 2, 8))
        options = InpaintingOptions(mask_ratio=ratio, perceptual="test_resnet", perceptual_weights=None)
        torch.manual_seed(1)
        both = Inpainting(options, FeatureShape(48, 8, 2, 2, 8))
        draw, blank = pixels.draw(64, torch.Generator().manual_seed(2)), torch.zeros_like(images)
        error = pixels.loss(blank, images, draw)
        found["pixels"].append(error.mean().item())
        found["perceptual"].append((both.loss(blank, images, draw) - error).mean().item())
    for name, losses in found.items():
        assert max(losses) < 1.25 * min(losses), (name, losses)


def test_perceptual_loss_by_hand() -> None:
    """A quarter masked: the pixel loss plus weight × distance / 0.25."""
    options: dict[str, Any] = {"mask": "patches", "patches": 4, "mask_ratio": 0.25, "perceptual": "test_resnet"}
    task = Inpainting(
        InpaintingOptions(**options, perceptual_weights=None, perceptual_weight=0.5), FeatureShape(32, 8, 1, 1, 8)
    )
    images, output = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    draw = task.draw(2, torch.Generator().manual_seed(0))
    networks: Any = task._networks
    before, after = (task.rebuilt(output, images, draw), images)
    distance = networks[0](before * task.std + task.mean, after * task.std + task.mean)
    torch.testing.assert_close(task.loss(output, images, draw), task.score(output, images, draw) + 2 * distance)


def test_the_frozen_network_stays_out_of_the_task_but_moves_with_it() -> None:
    options = InpaintingOptions(perceptual="test_resnet", perceptual_weights=None)
    task = Inpainting(options, FeatureShape(32, 8, 2, 2, 8))
    plain = Inpainting(InpaintingOptions(), FeatureShape(32, 8, 2, 2, 8))
    assert task.state_dict().keys() == plain.state_dict().keys()
    assert len(list(task.parameters())) == len(list(plain.parameters()))
    task.to(torch.float64)
    assert {p.dtype for network in task._networks for p in network.parameters()} == {torch.float64}
