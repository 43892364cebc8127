"""A network as a graph that torch.export traces, and as the pt2 file that it writes.

A pt2 file is a zip archive: the graph, and each weight as raw bytes. PyTorch's own reader unpickles parts of one and
evaluates expressions in its graph, so a file from elsewhere can run code. `read` does neither: it takes the description
and the raw weights, and builds the network itself; an archive with anything pickled in it is refused.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from hmtl_ablate.errors import CheckpointError, first_line
from hmtl_ablate.exporting.description import KEY, LONGEST, Description, parse
from hmtl_ablate.exporting.network import LARGEST, filled
from hmtl_ablate.model import InferenceModel
from hmtl_ablate.storage.files import write_atomically

CONFIG_BYTES = 1 << 24
"""Largest table of weights that is read."""
KNOWN = re.compile(
    rf"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)|"
    rf"models/model\.json|data/sample_inputs/model\.pt|extra/{KEY}\.json|archive_format|archive_version|byteorder|"
    r"\.data/(version|serialization_id)"
)
"""Entries of an archive that `write` makes, without the archive's own folder."""
DTYPES: dict[int, tuple[torch.dtype, str]] = {
    5: (torch.int64, "<i8"),
    7: (torch.float32, "<f4"),
}
"""Numbers of torch._export.serde.schema.ScalarType that weights have → their types in torch and NumPy."""


def traced(network: InferenceModel, size: int) -> ExportedProgram:
    """The graph of a network in eval mode, of any number of images float32 [B, 3, size, size].

    It names no file of this machine. Raises CheckpointError when torch.export can't trace the network.
    """
    batch = torch.zeros(2, 3, size, size)  # of one image, torch.export would take the 1 as fixed
    try:
        with torch.no_grad():
            program = torch.export.export(network, (batch,), dynamic_shapes=({0: Dim("batch", min=1)},))
    except Exception as error:  # of any class: a network's code may defy tracing in many ways
        raise CheckpointError(
            f"torch.export can't trace this network ({first_line(error)}); export it to a folder, which needs no graph"
        ) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def write(program: ExportedProgram, description: Description, path: Path) -> None:
    """Write the pt2 file, with the description as the extra file hmtl_ablate.json, and nothing pickled in it."""
    program.example_inputs = None  # the one part of it that would be pickled
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={f"{KEY}.json": description.text()})
    write_atomically(path, buffer.getvalue())


def read(path: Path) -> tuple[Description, nn.Module]:
    """The network of a pt2 file that `write` made, built here and filled with the file's weights.

    Raises CheckpointError when there is no such file, or it is damaged, or holds anything else than `write` puts in it.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise CheckpointError(f"{path}: larger than {LARGEST >> 30} GiB")
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive, path)
            text = _content(archive, entries, f"extra/{KEY}.json", LONGEST, path)
            description, config = parse(text, path)
            table = json.loads(_content(archive, entries, "data/weights/model_weights_config.json", CONFIG_BYTES, path))
            state = {
                name: _tensor(archive, entries, name, entry, path) for name, entry in dict(table["config"]).items()
            }
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise CheckpointError(f"can't load {path}: {first_line(error)}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"can't load {path}: its table of weights is malformed: {error!r}") from error
    return description, filled(config, description.width, state, path)


def _entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The archive's entries by name, without the folder that all of them are in. Nothing is decompressed, so that no
    entry is larger than the file."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.partition("/")[2]
        if not KNOWN.fullmatch(name) or name in found:
            pickled = name.endswith((".pkl", ".pt")) or "custom_obj" in name or "opaque" in name
            what = "a pickled object or TorchScript code" if pickled or name.startswith("code/") else "unknown"
            raise CheckpointError(
                f"{path}: refused: its entry {info.filename[:100]!r} is {what}; only a pt2 file that `hmtl-ablate "
                "export` wrote is loaded, as others can run code"
            )
        if info.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(
                f"{path}: refused: its entry {info.filename[:100]!r} is compressed; PyTorch's are not"
            )
        found[name] = info
    if sum(info.file_size for info in found.values()) > path.stat().st_size:
        raise CheckpointError(f"{path}: refused: its entries overlap")
    if found.get("data/sample_inputs/model.pt", zipfile.ZipInfo()).file_size:
        raise CheckpointError(
            f"{path}: refused: it has pickled example inputs, and pickled objects can run code; "
            "`hmtl-ablate export` writes none"
        )
    if "byteorder" in found and archive.read(found["byteorder"]) != b"little":
        raise CheckpointError(f"{path}: its weights are not little-endian")
    return found


def _content(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str, most: int, path: Path) -> bytes:
    if name not in entries:
        raise CheckpointError(f"{path}: there is no entry {name} in it; it is no file of `hmtl-ablate export`")
    if entries[name].file_size > most:
        raise CheckpointError(f"{path}: its entry {name} is larger than {most} bytes")
    return archive.read(entries[name])


def _tensor(
    archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str, entry: dict[str, Any], path: Path
) -> Tensor:
    """One weight, from its raw bytes."""
    if entry["use_pickle"]:
        raise CheckpointError(f"{path}: refused: its weight {name[:100]} is pickled; pickled objects can run code")
    meta = entry["tensor_meta"]
    shape = [int(side["as_int"]) for side in meta["sizes"]]
    dtype, stored = DTYPES[meta["dtype"]]
    raw = _content(archive, entries, f"data/weights/{entry['path_name']}", LARGEST, path)
    contiguous = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
    strides = [int(step["as_int"]) for step in meta["strides"]]
    plain = all(one == other or side < 2 for one, other, side in zip(strides, contiguous, shape, strict=True))
    values = np.frombuffer(raw, stored)
    if not plain or meta["storage_offset"]["as_int"] or min(shape, default=0) < 0 or len(values) != math.prod(shape):
        raise CheckpointError(f"{path}: its weight {name[:100]} has not the shape that its table says")
    return torch.from_numpy(values.copy()).reshape(shape).to(dtype)
