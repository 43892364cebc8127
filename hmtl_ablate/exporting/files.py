"""Which format a path is of, and its reader and writer."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from hmtl_ablate.errors import CheckpointError, HmtlError
from hmtl_ablate.exporting import program, timm_folder
from hmtl_ablate.exporting.description import Description
from hmtl_ablate.model import InferenceModel

PRECISIONS = ("fp32", "fp16", "int8")
PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".ts", ".torchscript", ".jit", ".joblib", ".npy", ".tar")
"""Endings of files that hold pickled objects, or code."""


def read(path: Path) -> tuple[Description, nn.Module] | None:
    """The network that `write` wrote to a path; None when the path is of no exported network.

    Raises CheckpointError for TorchScript and pickled files, and for a file that can't be used.
    """
    if path.suffix in PICKLED and not path.is_dir():
        raise CheckpointError(
            f"{path}: refused: TorchScript and pickled files can run code when they are loaded; give a trial, or what "
            "`hmtl-ablate export` writes: a folder, a .onnx file or a .pt2 file"
        )
    if path.suffix == ".onnx":
        from hmtl_ablate.exporting import onnx_file

        return onnx_file.read(path)
    if path.suffix == ".pt2":
        return program.read(path)
    return timm_folder.read(path) if timm_folder.is_export(path) else None


def check(to: Path, precision: str) -> None:
    """Raise HmtlError when there is no such format or precision, before anything is computed."""
    if to.suffix in (*PICKLED, ".safetensors"):
        raise HmtlError(f"{to}: no format of export; name a .onnx file, a .pt2 file, or a folder (for safetensors)")
    if precision not in PRECISIONS:
        raise HmtlError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision != "fp32" and to.suffix != ".onnx":
        raise HmtlError(f"{to}: {precision} is made by ONNX Runtime's tools; name a .onnx file, or leave precision out")
    if to.is_dir() and any(to.iterdir()) and not timm_folder.is_export(to):
        raise HmtlError(f"{to} is a folder with other things in it; name a new one")
    if not to.parent.is_dir():
        raise HmtlError(f"{to}: there is no folder {to.parent}; make it first")


def write(network: InferenceModel, description: Description, to: Path, precision: str) -> None:
    """Write a network in eval mode in the format that the path's ending names, else as a folder.

    Raises CheckpointError when the network can't be written so, HmtlError when the path can't be written.
    """
    try:
        if to.suffix == ".onnx":
            from hmtl_ablate.exporting import onnx_file

            onnx_file.write(program.traced(network, description.size), description, to, precision)
        elif to.suffix == ".pt2":
            program.write(program.traced(network, description.size), description, to)
        else:
            timm_folder.write(network, description, to)
    except OSError as error:
        raise HmtlError(f"can't write {to}: {error.strerror}") from error


def place(new: Path, to: Path) -> None:
    """Move what was written to its place. Raises HmtlError when that can't be written."""
    try:
        if not new.is_dir():
            os.replace(new, to)
            return
        to.mkdir(exist_ok=True)
        (to / timm_folder.HEAD).unlink(missing_ok=True)  # of an older export, whose head was separate
        for file in new.iterdir():
            os.replace(file, to / file.name)
    except OSError as error:
        raise HmtlError(f"can't write {to}: {error.strerror}") from error


def outside(to: Path) -> nn.Module:
    """The written network as another program runs it, for a comparison: ONNX Runtime, torch.export's own graph, or
    timm's network. For what this process wrote itself alone: PyTorch's reader trusts a pt2 file."""
    if to.suffix == ".onnx":
        from hmtl_ablate.exporting import onnx_file

        return onnx_file.read(to)[1]
    if to.suffix == ".pt2":
        return torch.export.load(str(to)).module()
    return timm_folder.by_timm(to)
