"""Perceptual distance: the distance of two images in the features of a frozen network.

Features at several layers, each position's scaled to length 1 over the channels, their squared distance averaged over
positions and layers: LPIPS without its learned weights (Zhang et al. 2018, eq. 1; the idea: Johnson et al. 2016). The
distance is in 0 … 4 whatever the network and layers.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmtl_ablate.errors import ConfigError, Fault, nearest

VGG_NAMES = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
"""The usual names of the last activation before each pooling of vgg16: timm's stages 0 … 4."""
DEFAULT_STAGES = 3


class PerceptualNetwork(nn.Module):
    """The frozen network up to the last requested layer; its weights are random until loaded."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, layers: tuple[str, ...] | None) -> None:
        super().__init__()
        # Built here and not through `features_only`, which renames the tensors, so that no weights file would fit.
        network: Any = timm.create_model(name, num_classes=0)
        stages = [info["module"] for info in network.feature_info]
        if name == "vgg16":
            stages[: len(VGG_NAMES)] = VGG_NAMES
        for layer in layers or ():
            if layer not in stages:
                raise ConfigError(
                    [
                        Fault(
                            ("pretext", "inpainting", "perceptual_layers"),
                            f"{name} has no stage {layer!r}",
                            layer,
                            nearest(layer, stages),
                        )
                    ]
                )
        chosen = sorted({stages.index(layer) for layer in layers or stages[:DEFAULT_STAGES]})
        self.name = name
        self.indices = network.prune_intermediate_layers(chosen, prune_norm=True, prune_head=True)
        self.network = network
        settings = timm.data.resolve_model_data_config(network)
        # Buffers, so that they are on the device when a step needs them.
        self.register_buffer("mean", torch.tensor(settings["mean"]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(settings["std"]).view(3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Distance [B] of images from others, both [B, 3, S, S] on the 0 … 1 scale; gradients reach `images` only."""
        return self._distance(self._features(images), [maps.detach() for maps in self._features(others.detach())])

    def train(self, mode: bool = True) -> PerceptualNetwork:
        """Stay in evaluation mode: the batch statistics are frozen, as the weights are."""
        return super().train(False)

    def _features(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.network.forward_intermediates(
            (images - self.mean) / self.std, indices=self.indices, intermediates_only=True
        )
        return [F.normalize(layer.float(), dim=1) for layer in maps]

    def _distance(self, features: list[Tensor], others: list[Tensor]) -> Tensor:
        apart = [(a - b).square().sum(dim=1).mean(dim=(1, 2)) for a, b in zip(features, others, strict=True)]
        return sum(apart[1:], apart[0]) / len(apart)
