"""A network from a description and weights: what the formats that hold weights share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.errors import CheckpointError, ConfigError
from hmtl_ablate.model import InferenceModel

LARGEST = 1 << 32
"""Bytes of a weights file that is read; ONNX's own limit is half of it."""


LONGEST = 600
"""Characters of an error of PyTorch, which names every tensor of a network."""


def filled(config: TrialConfig, width: int, state: Mapping[str, Tensor], path: Path) -> InferenceModel:
    """The network of a config with given weights, in eval mode on the CPU; width: its number of outputs.

    path: where the weights are from, for messages. Raises CheckpointError when they don't fit.
    """
    try:
        with torch.random.fork_rng(devices=()):  # the random initial weights are replaced: nobody should notice them
            network = InferenceModel(config.model, width, config.data.size)
        network.load_state_dict(dict(state))
    except (RuntimeError, ConfigError) as error:
        raise CheckpointError(f"can't load {path}: {shorten(str(error), LONGEST, placeholder=' …')}") from error
    return network.eval()
