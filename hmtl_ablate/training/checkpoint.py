"""Checkpoints and weights as safetensors files with a checksum. No pickle, so loading one can't run code."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hmtl_ablate.errors import CheckpointError
from hmtl_ablate.storage.files import replacing


def save_state(path: Path, state: Any) -> None:
    """Write a tree of dicts (keys str or int), lists, tensors and JSON scalars, atomically."""
    tensors: dict[str, Tensor] = {}
    skeleton = _strip(state, tensors)
    save_tensors(path, tensors, {"skeleton": json.dumps(skeleton)})


def load_state(path: Path) -> Any:
    """Read what `save_state` wrote, onto the CPU: `load_state_dict` moves each tensor to where it belongs, and AdamW's
    counts of its steps must stay there, or each step would wait for the GPU.

    Raises CheckpointError when the file is missing, damaged or of another kind.
    """
    tensors, metadata = _load(path, "cpu")
    try:
        return _fill(json.loads(metadata["skeleton"]), tensors)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"can't load {path}: {type(error).__name__}: {error}") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] = {}) -> None:
    """Write contiguous CPU tensors with a checksum over all of it, atomically."""
    with replacing(path) as new:
        save_file(dict(tensors), new, metadata={**metadata, "crc32": _checksum(tensors, metadata)})


def load_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises CheckpointError when it is missing or damaged.

    A file without a checksum, which `save_tensors` did not write, is taken as it is.
    """
    return _load(path, device)[0]


def _load(path: Path, device: torch.device | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"can't load {path}: {type(error).__name__}: {error}") from error
    checksum = metadata.pop("crc32", None)
    if checksum is not None and checksum != _checksum(tensors, metadata):
        raise CheckpointError(f"can't load {path}: its content does not match its checksum")
    return {name: value.to(device) for name, value in tensors.items()}, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    total = zlib.crc32(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        value = tensors[name]
        total = zlib.crc32(f"{name} {value.dtype} {list(value.shape)}".encode(), total)
        total = zlib.crc32(value.contiguous().reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


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
