"""timm backbone, supervised head and pretext heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from hmtl_ablate import pretext
from hmtl_ablate.config import ModelConfig, PretextOptions
from hmtl_ablate.errors import ConfigError, Fault, HmtlError, nearest
from hmtl_ablate.pretext import FeatureShape


class InferenceModel(nn.Module):
    """Backbone and supervised head: what remains after training, the same for SL and HMTL.

    Takes normalised images [B, 3, S, S], gives logits [B, K].
    """

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        check_backbone(config.backbone)
        self.backbone: Any = _backbone(config)
        pooled = _pooled_size(self.backbone)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(pooled, classes)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps [B, C, h, w] and pooled features [B, P]."""
        maps = self.backbone.forward_features(images)
        return maps, self.backbone.forward_head(maps, pre_logits=True)

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits [B, K] from pooled features [B, P]."""
        return self.head(self.dropout(pooled))

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images)[1])


class HMTLModel(nn.Module):
    """The inference model with a head for each pretext task beside it.

    The inference model's weights are drawn first: trials with one seed start alike, whatever their pretext tasks.
    """

    def __init__(self, config: ModelConfig, options: Mapping[str, PretextOptions], classes: int, size: int) -> None:
        super().__init__()
        self.inference = InferenceModel(config, classes)
        shape = feature_shape(self.inference, size, config.backbone) if options else None
        self.pretext = nn.ModuleDict()
        for name, choice in options.items():
            assert shape is not None
            self.pretext[name] = pretext.build(name, choice, shape)

    def forward(self, groups: Sequence[tuple[Tensor, Mapping[str, Tensor]]]
                ) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """For each group of images [B, 3, S, S] with the rows (int64) that each pretext head is asked about: the
        logits [B, K] of all its images, and each head's output for its rows.

        All groups of a step in one call: DistributedDataParallel counts a call as a step.
        """
        results = []
        for images, rows in groups:
            maps, pooled = self.inference.features(images)
            outputs = {name: self.pretext[name](maps[index], pooled[index]) for name, index in rows.items()}
            results.append((self.inference.classify(pooled), outputs))
        return results


def check_backbone(name: str) -> None:
    """Raise ConfigError when timm knows no model of this name."""
    if not timm.is_model(name):
        raise ConfigError([Fault(("model", "backbone"), f"timm has no model {name!r}", name,
                                 nearest(name, timm.list_models()))])


def normalisation(model: InferenceModel) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the input the backbone expects, each [3, 1, 1], on the 0 … 1 scale."""
    settings = timm.data.resolve_model_data_config(model.backbone)
    return torch.tensor(settings["mean"]).view(3, 1, 1), torch.tensor(settings["std"]).view(3, 1, 1)


def feature_shape(model: InferenceModel, size: int, name: str) -> FeatureShape:
    """Shape of the backbone's features at images of side `size` px; ConfigError when it has no feature map."""
    training = model.training
    model.eval()
    with torch.no_grad():
        maps, pooled = model.features(torch.zeros(1, 3, size, size))
    model.train(training)
    if maps.ndim != 4 or maps.shape[1] != model.backbone.num_features:
        raise ConfigError([Fault(("model", "backbone"), f"{name} gives no feature map [channels, height, width]", name,
                                 "choose a convolutional backbone")])
    return FeatureShape(size, maps.shape[1], maps.shape[2], maps.shape[3], pooled.shape[1])


def _backbone(config: ModelConfig) -> nn.Module:
    try:
        return timm.create_model(config.backbone, pretrained=config.weights == "imagenet", num_classes=0)
    except (OSError, RuntimeError) as error:
        if config.weights is None:
            raise
        raise HmtlError(
            f"model.weights: no ImageNet weights of {config.backbone} at hand ({type(error).__name__}). timm fetches "
            "them from its hub: run once where the network is open and carry the hub's cache here (HF_HOME), or set "
            "model.weights: null") from error


def _pooled_size(backbone: Any) -> int:
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)
