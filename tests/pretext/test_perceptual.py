"""The perceptual distance."""

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


def test_vgg_has_the_usual_layers() -> None:
    vgg = PerceptualNetwork("vgg16", None)
    maps = vgg._features(torch.rand(1, 3, 32, 32))
    assert [tuple(layer.shape[1:]) for layer in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8)]
    with pytest.raises(ConfigError, match="relu2_2"):
        PerceptualNetwork("vgg16", ("relu2_1",))


def test_the_frozen_network_stays_out_of_the_task_but_moves_with_it() -> None:
    options = InpaintingOptions(perceptual="test_resnet", perceptual_weights=None)
    task = Inpainting(options, FeatureShape(32, 8, 2, 2, 8))
    plain = Inpainting(InpaintingOptions(), FeatureShape(32, 8, 2, 2, 8))
    assert task.state_dict().keys() == plain.state_dict().keys()
    assert len(list(task.parameters())) == len(list(plain.parameters()))
    task.to(torch.float64)
    assert {p.dtype for network in task._networks for p in network.parameters()} == {torch.float64}
