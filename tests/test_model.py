"""Backbones of every layout, and the model around them."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.swin_transformer import SwinTransformer
from torch.utils.flop_counter import FlopCounterMode

from hmtl_ablate import weights
from hmtl_ablate.backbone import Layout, build_backbone, check_views, example_features, find_layout
from hmtl_ablate.config import TrialConfig, parse_config
from hmtl_ablate.errors import CheckpointError, ConfigError
from hmtl_ablate.model import HMTLModel, InferenceModel

HMTL = {"puzzling": {"feed": "siamese", "supervised_weight": 0.5}, "inpainting": {"feed": "mixed", "share": 0.25}}
TINY = ["test_resnet", "test_vit", "test_vit2", "test_vit_relpos", "test_mambaout", "toy_swin"]
LARGE = ["efficientnet_b0", "efficientnet_b2", "resnet50", "resnet10t"]


@register_model  # type: ignore[untyped-decorator]
def toy_swin(pretrained: bool = False, **options: Any) -> SwinTransformer:
    options.pop("pretrained_cfg", None)
    options.pop("pretrained_cfg_overlay", None)
    options.pop("cache_dir", None)
    return SwinTransformer(patch_size=4, embed_dim=16, depths=(1, 1), num_heads=(2, 2), window_size=4, **options)


def config(backbone: str, size: int = 32, **raw: Any) -> TrialConfig:
    return parse_config({"model": {"backbone": backbone}, "data": {"size": size}, **raw})


def test_tokens_become_a_map_row_by_row_without_their_prefix() -> None:
    tokens = torch.tensor([[[9.0, 9.0], [0, 1], [2, 3], [4, 5], [6, 7]]])
    maps = Layout("tokens", prefix=1).maps(tokens)
    assert maps.tolist() == [[[[0, 2], [4, 6]], [[1, 3], [5, 7]]]]


def test_channels_last_features_are_permuted_and_channels_first_ones_are_untouched() -> None:
    features = torch.rand(2, 3, 3, 8)
    maps = Layout("channels_last").maps(features)
    assert maps.shape == (2, 8, 3, 3)
    assert torch.equal(maps[0, :, 1, 2], features[0, 1, 2])
    assert Layout("channels_first").maps(features) is features


@pytest.mark.parametrize(
    ("backbone", "layout", "side"),
    [
        ("test_resnet", Layout("channels_first"), 2),
        ("test_vit", Layout("tokens", 1), 3),  # one class token, patches of 16 px
        ("test_vit2", Layout("tokens", 1), 3),  # one register token
        ("test_vit_relpos", Layout("tokens", 0), 3),
        ("test_mambaout", Layout("channels_last"), 2),
        ("toy_swin", Layout("channels_last"), 6),
    ],
)
def test_the_layout_of_each_kind_of_network(backbone: str, layout: Layout, side: int) -> None:
    model = InferenceModel(config(backbone).model, 8, 48)
    assert model.layout == layout
    maps, pooled = model.eval().features(torch.randn(2, 3, 48, 48))
    assert maps.shape == (2, model.backbone.num_features, side, side)
    assert pooled.shape == (2, model.head.in_features)


def test_a_map_of_tokens_keeps_their_places() -> None:
    """A vit's final norm is of each token alone, so its tokens are those of forward_intermediates' own map."""
    model = InferenceModel(config("test_vit").model, 8, 48).eval()
    images = torch.randn(2, 3, 48, 48)
    expected = model.backbone.forward_intermediates(images, norm=True, intermediates_only=True)[-1]
    torch.testing.assert_close(model.features(images)[0], expected)


@pytest.mark.parametrize("backbone", [*TINY, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_every_weight_gets_a_gradient(backbone: str) -> None:
    model = HMTLModel(config(backbone, 48, pretext=HMTL), 8)
    ((logits, outputs),) = model([(torch.randn(2, 3, 48, 48), {name: torch.arange(2) for name in HMTL})])
    assert logits.shape == (2, 8)
    assert outputs["puzzling"].shape == (2, 4, 4)
    (logits.sum() + sum(output.sum() for output in outputs.values())).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_the_inference_model_is_the_sl_model(backbone: str) -> None:
    """Equal outputs and equal cost (parameters and operations), whatever the pretext tasks."""
    sl, hmtl = config(backbone), config(backbone, pretext=HMTL)
    models = []
    for one in (sl, hmtl):
        torch.manual_seed(0)
        models.append(HMTLModel(one, 8).inference.eval())
    alone = InferenceModel(hmtl.model, 8, 32).eval()
    alone.load_state_dict(models[1].state_dict())
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(alone(images), models[1](images))
    assert torch.equal(models[0](images), models[1](images))  # one seed gives both equal initial weights
    costs = []
    for model in models:
        with FlopCounterMode(display=False) as counter:
            model(images)
        costs.append((counter.get_total_flops(), sum(p.numel() for p in model.parameters())))
    assert costs[0] == costs[1]
    assert costs[0][0] > 0


def test_convolutional_networks_are_built_as_timm_builds_them() -> None:
    torch.manual_seed(3)
    own = build_backbone("test_resnet", 48).state_dict()
    torch.manual_seed(3)
    expected = timm.create_model("test_resnet", num_classes=0).state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], expected[name]) for name in own)


def test_an_argument_that_a_network_does_not_take_leaves_its_weights_alone() -> None:
    torch.manual_seed(3)
    own = build_backbone("test_vit_relpos", 48).state_dict()  # takes img_size, not dynamic_img_size
    torch.manual_seed(3)
    expected = timm.create_model("test_vit_relpos", num_classes=0, img_size=48).state_dict()
    assert all(torch.equal(own[name], expected[name]) for name in own)


def test_convolutional_maps_keep_channels_last() -> None:
    model = InferenceModel(config("test_resnet").model, 8, 64).to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    assert model.features(images)[0].is_contiguous(memory_format=torch.channels_last)


def test_a_size_that_the_patch_does_not_divide_is_refused_with_both() -> None:
    with pytest.raises(ConfigError, match=r"data\.size: 50 px can't be cut into the patches of 16 px of test_vit.*48"):
        HMTLModel(config("test_vit", 50), 8)


def test_a_network_that_can_not_take_the_size_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.backbone: test_coatnet can't process images of 48 px"):
        HMTLModel(config("test_coatnet", 48), 8)


class Odd(torch.nn.Module):
    """Tokens that are no square: 1 class token that it does not declare, and 4 patches."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(8))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return images.new_zeros(len(images), 5, 8) + self.weight

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return features[:, 0]


@register_model  # type: ignore[untyped-decorator]
def toy_odd(pretrained: bool = False, **options: Any) -> Odd:
    return Odd()


def test_a_network_without_a_square_map_trains_supervised_only() -> None:
    model = HMTLModel(config("toy_odd"), 8)
    assert model.inference.layout is None
    assert model.inference(torch.zeros(2, 3, 32, 32)).shape == (2, 8)
    with pytest.raises(ConfigError, match="toy_odd gives no square feature map"):
        HMTLModel(config("toy_odd", pretext={"puzzling": {}}), 8)


def test_a_single_class_token_is_no_map() -> None:
    """A pooling network that gives its class token alone has 1 = 1² tokens, but no map of its stride."""

    class Pooled(Odd):
        feature_info = ({"reduction": 16},)

    assert find_layout(Pooled(), torch.zeros(1, 1, 8), 32) is None
    assert find_layout(Pooled(), torch.zeros(1, 4, 8), 32) == Layout("tokens")
    assert find_layout(Pooled(), [torch.zeros(1, 4, 8)], 32) is None


def test_changed_views_of_other_sizes() -> None:
    views = {"puzzling": {"feed": "siamese", "changed_views": [[0.5, 1.0]]}}
    model = HMTLModel(config("test_vit", pretext=views), 8).eval()
    maps, _ = model.inference.features(torch.randn(1, 3, 27, 27))  # padded to 32 px
    assert maps.shape == (1, 64, 2, 2)
    with pytest.raises(ConfigError, match=r"pretext\.puzzling\.changed_views: test_vit_relpos takes images of 32 px"):
        HMTLModel(config("test_vit_relpos", pretext=views), 8)


def test_equal_sizes_of_views_need_no_check() -> None:
    network = build_backbone("test_vit_relpos", 32)
    check_views(network, "test_vit_relpos", 32, [(1.0, 1.0)], ("x",))
    with pytest.raises(ConfigError, match="16 px"):
        check_views(network, "test_vit_relpos", 32, [(0.5, 0.5)], ("x",))


def test_an_example_does_not_change_the_network() -> None:
    network = build_backbone("test_resnet", 32).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    example_features(network, "test_resnet", 32)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_position_embeddings_of_another_size_are_resampled(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = build_backbone("test_vit", 64), build_backbone("test_vit", 32)
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    weights.load(target, "test_vit", f"file:{tmp_path / 'vit.safetensors'}", tmp_path)
    own, expected = target.state_dict(), source.state_dict()
    assert own["pos_embed"].shape == (1, 5, 64)  # a class token and 2 × 2 patches, from 4 × 4
    assert torch.equal(own["pos_embed"][:, 0], expected["pos_embed"][:, 0])
    grid = timm.layers.resample_abs_pos_embed(expected["pos_embed"], [2, 2], num_prefix_tokens=1)
    torch.testing.assert_close(own["pos_embed"], grid)
    assert all(torch.equal(own[name], expected[name]) for name in own if name != "pos_embed")


def test_weights_of_another_token_network_change_nothing(tmp_path: Path) -> None:
    save_file(build_backbone("test_vit3", 32).state_dict(), tmp_path / "w.safetensors")
    model = build_backbone("test_vit", 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="do not fit test_vit"):
        weights.load(model, "test_vit", f"file:{tmp_path / 'w.safetensors'}", tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
