"""A network from a description and weights: what the formats that hold weights share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.errors import CheckpointError, ConfigError
from hmtl_ablate.model import InferenceModel

LARGEST = 1 << 32
"""Bytes of a weights file that is read; ONNX's own limit is half of it."""


def filled(config: TrialConfig, width: int, state: Mapping[str, Tensor], path: Path) -> InferenceModel:
    """The network of a config with given weights, in eval mode on the CPU; width: its number of outputs.

    path: where the weights are from, for messages. Raises CheckpointError when they don't fit.
    """
    try:
        with torch.random.fork_rng(devices=()):  # the random initial weights are replaced: nobody should notice them
            network = InferenceModel(config.model, width, config.data.size)
    except ConfigError as error:
        raise CheckpointError(f"can't load {path}: {error}") from error
    own = network.state_dict()
    wrong = [name for name, value in own.items() if name not in state or state[name].shape != value.shape]
    wrong += [name for name in state if name not in own]
    if wrong:
        raise CheckpointError(
            f"can't load {path}: {len(wrong)} tensors are missing, too many or of another shape for "
            f"{config.model.backbone} with {width} outputs, e.g. {wrong[0][:100]}"
        )
    network.load_state_dict(dict(state))
    return network.eval()
