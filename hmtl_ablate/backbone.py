"""timm networks as backbones: built for an image size, with feature maps of one layout.

timm's networks take sizes and give features in different ways. Convolutional networks take any size and give maps
[B, C, h, w]. Vision transformers and MLPs are built for one size and give tokens [B, N, C], some of which (class and
register tokens) have no place in the image. Swin-like networks give maps [B, h, w, C].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from hmtl_ablate.errors import ConfigError, Fault, first_line
from hmtl_ablate.weights import check_network


@dataclass(frozen=True)
class Layout:
    """How a network's features are turned into maps [B, C, h, w]."""

    kind: Literal["channels_first", "channels_last", "tokens"]
    prefix: int = 0
    """tokens: number of class and register tokens, which come first and have no place in the image."""

    def maps(self, features: Tensor) -> Tensor:
        """Feature maps [B, C, h, w] of square images; channels-first features are returned as they are."""
        if self.kind == "channels_first":
            return features
        if self.kind == "channels_last":
            return features.permute(0, 3, 1, 2)
        tokens = features[:, self.prefix :]
        side = _root(tokens.shape[1])
        return tokens.transpose(1, 2).unflatten(2, (side, side))


def build_backbone(name: str, size: int) -> nn.Module:
    """timm's network `name` without its classifier, with random weights, for images of `size` × `size` px.

    A network of a fixed input size is built for `size`, and takes other sizes too where timm can do that. Raises
    ConfigError when timm has no such network or it can't be built for this size.
    """
    return build_network(name, size, 0)[0]


def build_network(name: str, size: int, outputs: int) -> tuple[nn.Module, dict[str, Any]]:
    """timm's network as `build_backbone` gives it, and the arguments of its size that `timm.create_model` got.

    outputs: those of timm's own classifier; 0: no classifier. Raises ConfigError.
    """
    check_network(name, ("model", "backbone"))
    settings = timm.models.get_pretrained_cfg(name)
    options: list[dict[str, Any]] = [{}]
    if settings is None or settings.fixed_input_size:  # None: registered by a user, so its arguments are unknown
        sized, flexible = {"img_size": size}, {"dynamic_img_size": True}
        options = [{**sized, **flexible, "dynamic_img_pad": True}, {**sized, **flexible}, sized, {}]
    state = torch.get_rng_state()
    for chosen in options:
        torch.set_rng_state(state)  # an attempt that fails must not change the weights
        try:
            network: nn.Module = timm.create_model(name, num_classes=outputs, **chosen)
        except TypeError:  # an argument that the network does not take
            if chosen:
                continue
            raise
        except Exception as error:  # the network's own checks of its size: of any class
            raise _unsuitable(name, size, error) from error
        break
    _check_patches(network, name, size)
    return network, chosen


def example_features(network: Any, name: str, size: int) -> tuple[Any, Tensor]:
    """Features, as the network gives them, and pooled features [1, P] of one blank image of `size` × `size` px.

    Raises ConfigError when the network can't process this size.
    """
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            features = network.forward_features(torch.zeros(1, 3, size, size))
            pooled = network.forward_head(features, pre_logits=True)
    except Exception as error:  # a network may fail in any way at a size that it was not made for
        raise _unsuitable(name, size, error) from error
    finally:
        network.train(training)
    if not isinstance(pooled, Tensor) or pooled.ndim != 2:
        raise ConfigError(
            [Fault(("model", "backbone"), f"{name} gives no pooled features [P]", name, "choose another backbone")]
        )
    return features, pooled


def check_size(name: str, size: int) -> None:
    """Raise ConfigError when timm has no network `name`, or it can't process images of `size` × `size` px.

    The network is built without memory for its weights, on PyTorch's meta device; one that needs their values to be
    built or used is built as it is.
    """
    try:
        with torch.device("meta"):
            example_features(build_backbone(name, size), name, size)
    except ConfigError as error:
        if "meta" not in str(error.__cause__):
            raise
        example_features(build_backbone(name, size), name, size)


def find_layout(network: Any, features: Any, size: int) -> Layout | None:
    """The layout of `features`, of one image of `size` px; None when they hold no square map of the last stage."""
    channels = network.num_features
    if not isinstance(features, Tensor):
        return None
    if features.ndim == 4:
        if getattr(network, "output_fmt", None) != "NHWC" and features.shape[1] == channels:
            return Layout("channels_first")
        return Layout("channels_last") if features.shape[3] == channels else None
    if features.ndim != 3 or features.shape[2] != channels:
        return None
    prefix = getattr(network, "num_prefix_tokens", None) or 0
    side = _root(features.shape[1] - prefix)
    stages = getattr(network, "feature_info", None)
    expected = -(-size // stages[-1]["reduction"]) if stages else side
    return Layout("tokens", prefix) if side == expected > 0 and side**2 == features.shape[1] - prefix else None


def check_views(
    network: Any, name: str, size: int, scales: Iterable[tuple[float, float]], path: tuple[str, ...]
) -> None:
    """Raise ConfigError, at the option `path`, when a changed view may have a side that the network can't process.

    scales: ranges of the sides relative to `size`. Only networks of a fixed input size are checked.
    """
    settings = timm.models.get_pretrained_cfg(name)
    padded = getattr(getattr(network, "patch_embed", None), "dynamic_img_pad", False)
    if padded or (settings is not None and not settings.fixed_input_size):
        return
    sides = {side for low, high in scales for side in range(round(low * size), round(high * size) + 1)}
    for side in sorted(sides - {size}):
        try:
            example_features(network, name, side)
        except ConfigError as error:
            raise ConfigError(
                [Fault(path, f"{name} takes images of {size} px only, not {side} px", side, "use [[1, 1]]")]
            ) from error


def _check_patches(network: Any, name: str, size: int) -> None:
    embed = getattr(network, "patch_embed", None)
    if isinstance(embed, PatchEmbed):
        patch = embed.patch_size[0]
        if size % patch:
            near = max(round(size / patch), 1) * patch
            raise ConfigError(
                [
                    Fault(
                        ("data", "size"),
                        f"{size} px can't be cut into the patches of {patch} px of {name}",
                        size,
                        f"use a multiple of {patch}, e.g. {near}",
                    )
                ]
            )


def _unsuitable(name: str, size: int, error: Exception) -> ConfigError:
    first = first_line(error)
    return ConfigError(
        [
            Fault(
                ("model", "backbone"),
                f"{name} can't process images of {size} px: {first}",
                name,
                "choose another backbone or data.size",
            )
        ]
    )


def _root(count: int) -> int:
    return int(max(count, 0) ** 0.5)
