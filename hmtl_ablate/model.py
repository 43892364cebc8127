"""timm backbone, supervised head and pretext heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from hmtl_ablate import pretext, weights
from hmtl_ablate.backbone import build_backbone, check_views, example_features, find_layout
from hmtl_ablate.config import ModelConfig, TrialConfig
from hmtl_ablate.errors import ConfigError, Fault
from hmtl_ablate.pretext import FeatureShape


class InferenceModel(nn.Module):
    """Backbone and supervised head: the network that remains after training, the same for SL and HMTL.

    Maps normalised images [B, 3, S, S] to outputs [B, K]: class logits or the numbers of a pose; with several tasks
    their outputs are concatenated, in the config's order. Its weights are random until loaded.
    """

    def __init__(self, config: ModelConfig, outputs: int, size: int) -> None:
        """outputs: K; size: S, the side of the images in pixels (data.size). Raises ConfigError."""
        super().__init__()
        self.backbone: Any = build_backbone(config.backbone, size)
        features, pooled = example_features(self.backbone, config.backbone, size)
        self.layout = find_layout(self.backbone, features, size)
        """How the backbone's features become maps; None without a map, which supervised learning does not need."""
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(pooled.shape[1], outputs)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Feature maps [B, C, h, w] and pooled features [B, P].

        Without a layout the maps are the backbone's features as they are; then no pretext head uses them.
        """
        features = self.backbone.forward_features(images)
        maps = features if self.layout is None else self.layout.maps(features)
        return maps, self.backbone.forward_head(features, pre_logits=True)

    def classify(self, pooled: Tensor) -> Tensor:
        """Outputs [B, K] from pooled features [B, P]."""
        return self.head(self.dropout(pooled))

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.features(images)[1])


class HMTLModel(nn.Module):
    """The inference model and the head of each pretext task.

    The inference model's weights are drawn first, so trials with one seed start from equal weights, whatever their
    pretext tasks.
    """

    def __init__(self, config: TrialConfig, outputs: int) -> None:
        """outputs: width of the supervised head. Raises ConfigError."""
        super().__init__()
        name, size = config.model.backbone, config.data.size
        self.inference = InferenceModel(config.model, outputs, size)
        self.pretext = nn.ModuleDict()
        if config.pretext:
            shape = feature_shape(self.inference, size, name)
            for task, options in config.pretext.items():
                check_views(
                    self.inference.backbone, name, size, options.changed_views, ("pretext", task, "changed_views")
                )
                self.pretext[task] = pretext.build(task, options, shape)
        self.learned = nn.ParameterDict()
        """Log variances of the combined losses, for uncertainty weighting; empty for the other combinations."""
        if config.loss.combine == "uncertainty":
            self.learned.update({name: nn.Parameter(torch.zeros(())) for name in config.combined})

    def load_sources(self, config: TrialConfig, trials: Path) -> None:
        """Load the weights that the config names; trials: the folder of all trials. Raises CheckpointError."""
        if config.model.weights is not None:
            weights.load(self.inference.backbone, config.model.backbone, config.model.weights, trials)
        for task in self.pretext.values():
            for network, name, source in task.frozen():  # type: ignore[operator]
                weights.load(network, name, source, trials)

    def forward(self, groups: Sequence[tuple[Tensor, Mapping[str, Tensor]]]) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """For each group, the outputs [B, K] of all its images, and each pretext head's output for its rows.

        A group: images [B, 3, S, S] of one size, and pretext task → rows (int64) of the images that its head predicts
        for. All groups of a step in one call: DistributedDataParallel counts a call as a step.
        """
        results = []
        for images, rows in groups:
            maps, pooled = self.inference.features(images)
            outputs = {name: self._answer(name, maps, pooled, index) for name, index in rows.items()}
            results.append((self.inference.classify(pooled), outputs))
        return results

    def _answer(self, name: str, maps: Tensor, pooled: Tensor, rows: Tensor) -> Tensor:
        """The output of a pretext head for some rows, of first dimension len(rows).

        For no rows, as on a worker whose share of a batch has no changed image, the head sees one image and its answer
        is left out: not every layer works without images (the gradient of a pixel shuffle does not), and the workers
        wait for the gradient of each weight, which is 0 then.
        """
        head = self.pretext[name]
        return head(maps[rows], pooled[rows]) if len(rows) else head(maps[:1], pooled[:1])[:0]


def normalisation(model: InferenceModel) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the input the backbone expects, each [3, 1, 1], on the 0 … 1 scale."""
    settings = timm.data.resolve_model_data_config(model.backbone)
    return torch.tensor(settings["mean"]).view(3, 1, 1), torch.tensor(settings["std"]).view(3, 1, 1)


def feature_shape(model: InferenceModel, size: int, name: str) -> FeatureShape:
    """Shape of the features of images of side `size` px; `name` is the backbone's.

    Raises ConfigError when the backbone gives no feature map.
    """
    if model.layout is None:
        raise ConfigError(
            [
                Fault(
                    ("model", "backbone"),
                    f"{name} gives no square feature map, which pretext tasks need",
                    name,
                    "choose a convolutional network or a vision transformer, or remove the pretext tasks",
                )
            ]
        )
    features, pooled = example_features(model.backbone, name, size)
    maps = model.layout.maps(features)
    mean, std = (tuple(value.flatten().tolist()) for value in normalisation(model))
    return FeatureShape(size, maps.shape[1], maps.shape[2], maps.shape[3], pooled.shape[1], mean, std)
