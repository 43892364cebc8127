"""timm backbone, supervised head and pretext heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from hmtl_ablate import pretext, weights
from hmtl_ablate.config import ModelConfig, TrialConfig
from hmtl_ablate.errors import ConfigError, Fault
from hmtl_ablate.pretext import FeatureShape
from hmtl_ablate.weights import check_network


class InferenceModel(nn.Module):
    """Backbone and supervised head: what remains after training, the same for SL and HMTL.

    Takes normalised images [B, 3, S, S], gives outputs [B, K]: class logits or the numbers of a pose; those of several
    tasks side by side, in the config's order. Its weights are random.
    """

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        check_network(config.backbone, ("model", "backbone"))
        self.backbone: Any = timm.create_model(config.backbone, num_classes=0)
        pooled = _pooled_size(self.backbone)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(pooled, outputs)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps [B, C, h, w] and pooled features [B, P]."""
        maps = self.backbone.forward_features(images)
        return maps, self.backbone.forward_head(maps, pre_logits=True)

    def classify(self, pooled: Tensor) -> Tensor:
        """Outputs [B, K] from pooled features [B, P]."""
        return self.head(self.dropout(pooled))

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images)[1])


class HMTLModel(nn.Module):
    """The inference model with a head for each pretext task beside it.

    The inference model's weights are drawn first: trials with one seed start alike, whatever their pretext tasks.
    `learned`: log variances of the losses, for uncertainty weighting; empty for the other combinations.
    """

    def __init__(self, config: TrialConfig, outputs: int) -> None:
        super().__init__()
        self.inference = InferenceModel(config.model, outputs)
        self.pretext = nn.ModuleDict()
        if config.pretext:
            shape = feature_shape(self.inference, config.data.size, config.model.backbone)
            for name, choice in config.pretext.items():
                self.pretext[name] = pretext.build(name, choice, shape)
        self.learned = nn.ParameterDict()
        if config.loss.combine == "uncertainty":
            names = (*(config.tasks if config.training.supervised else ()), *config.pretext)
            self.learned.update({name: nn.Parameter(torch.zeros(())) for name in names})

    def load_sources(self, config: TrialConfig, trials: Path) -> None:
        """Load the weights that the config names; trials: the folder of all trials. Raises CheckpointError."""
        if config.model.weights is not None:
            weights.load(self.inference.backbone, config.model.backbone, config.model.weights, trials)
        for task in self.pretext.values():
            for network, name, source in task.frozen():  # type: ignore[operator]
                weights.load(network, name, source, trials)

    def forward(self, groups: Sequence[tuple[Tensor, Mapping[str, Tensor]]]) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """For each group of images [B, 3, S, S] with the rows (int64) that each pretext head is asked about: the
        outputs [B, K] of all its images, and each head's output for its rows.

        All groups of a step in one call: DistributedDataParallel counts a call as a step.
        """
        results = []
        for images, rows in groups:
            maps, pooled = self.inference.features(images)
            outputs = {name: self.pretext[name](maps[index], pooled[index]) for name, index in rows.items()}
            results.append((self.inference.classify(pooled), outputs))
        return results


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
        raise ConfigError(
            [
                Fault(
                    ("model", "backbone"),
                    f"{name} gives no feature map [channels, height, width]",
                    name,
                    "choose a convolutional backbone",
                )
            ]
        )
    mean, std = (tuple(value.flatten().tolist()) for value in normalisation(model))
    return FeatureShape(size, maps.shape[1], maps.shape[2], maps.shape[3], pooled.shape[1], mean, std)


def _pooled_size(backbone: Any) -> int:
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)
