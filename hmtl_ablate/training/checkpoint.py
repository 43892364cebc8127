"""Checkpoints: nested state dicts as one safetensors file. No pickle, so loading a checkpoint can't run code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hmtl_ablate.errors import CheckpointError
from hmtl_ablate.training.folder import replacing


def save_state(path: Path, state: Any) -> None:
    """Write a tree of dicts (keys str or int), lists, tensors and JSON scalars, atomically."""
    tensors: dict[str, Tensor] = {}
    skeleton = _strip(state, tensors)
    with replacing(path) as new:
        save_file(tensors, new, metadata={"skeleton": json.dumps(skeleton)})


def load_state(path: Path, device: torch.device | str = "cpu") -> Any:
    """Read what `save_state` wrote. Raises CheckpointError when the file is missing, damaged or of another kind."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            skeleton = json.loads((file.metadata() or {})["skeleton"])
        return _fill(skeleton, tensors)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"can't load {path}: {type(error).__name__}: {error}") from error


def _strip(node: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(node, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = node.detach().cpu().contiguous()
        return {"tensor": name}
    if isinstance(node, dict):
        return {"dict": [[key, _strip(value, tensors)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        return {"list": [_strip(value, tensors) for value in node]}
    return {"value": node}


def _fill(node: Any, tensors: dict[str, Tensor]) -> Any:
    [(kind, content)] = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _fill(value, tensors) for key, value in content}
    if kind == "list":
        return [_fill(value, tensors) for value in content]
    return content
