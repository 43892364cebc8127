"""A network as an ONNX file: one input `images`, float32 [batch, 3, S, S], and one output `outputs`, [batch, K].

The description is in the file's metadata. A smaller file, in half precision or with 8-bit weights, is made by ONNX
Runtime's own tools.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from google.protobuf.message import DecodeError, Message
from torch import Tensor, nn
from torch.export import ExportedProgram

from hmtl_ablate.errors import CheckpointError, first_line
from hmtl_ablate.exporting.description import KEY, Description, parse
from hmtl_ablate.storage.files import write_atomically

INPUT, OUTPUT = "images", "outputs"
LARGEST = (1 << 31) - 1
"""Bytes of an ONNX file without other files; protobuf's limit."""


class OnnxNetwork(nn.Module):
    """An ONNX Runtime session as a module: float32 [B, 3, S, S] → [B, K], on the CPU."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised; what it prints besides would only repeat them
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        (outputs,) = self.session.run([OUTPUT], {INPUT: images.detach().cpu().numpy()})
        return torch.from_numpy(outputs)


def write(program: ExportedProgram, description: Description, path: Path, precision: str) -> None:
    """Write an ONNX file of a traced network. Raises CheckpointError when ONNX has no form for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
            assert found is not None
            model = _smaller(found.model_proto, precision)
    except Exception as error:  # of any class: converters of many operators
        raise CheckpointError(
            f"torch.onnx can't export this network as {precision} ({first_line(error)}); export it to a .pt2 file or "
            "to a folder"
        ) from error
    _tidy(model)
    onnx.helper.set_model_props(model, {KEY: description.text()})
    try:
        content = model.SerializeToString()
    except ValueError as error:
        raise CheckpointError(
            "an ONNX file holds at most 2 GiB, and this network is larger; export it to a folder"
        ) from error
    write_atomically(path, content)


def read(path: Path) -> tuple[Description, nn.Module]:
    """The network of an ONNX file that `write` made, run by ONNX Runtime.

    Raises CheckpointError when there is no such file, when it is damaged or of other origin, or when its weights are in
    another file, which could be any file of this machine.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise CheckpointError(f"{path}: larger than 2 GiB")
        content = path.read_bytes()
        model = onnx.load_model_from_string(content)
    except (OSError, DecodeError) as error:
        raise CheckpointError(f"can't load {path}: {first_line(error)}") from error
    if any(tensor.external_data or tensor.data_location for tensor in _tensors(model)):
        raise CheckpointError(f"{path}: refused: its weights are in another file; export it with the weights inside")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if KEY not in properties:
        raise CheckpointError(f"{path}: it has no description; only a file that `hmtl-ablate export` wrote is loaded")
    description, config = parse(properties[KEY], path)
    try:
        network = OnnxNetwork(content)
        size = config.data.size
        outputs = network(torch.zeros(1, 3, size, size))
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        raise CheckpointError(f"can't load {path}: {first_line(error)}") from error
    if list(outputs.shape) != [1, description.width]:
        raise CheckpointError(f"{path}: its outputs are {list(outputs.shape)}, not {[1, description.width]}")
    return description, network


def _smaller(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    if precision == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        return convert_float_to_float16(model, keep_io_types=True)
    if precision == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with tempfile.TemporaryDirectory() as folder:
            ready, path = Path(folder) / "ready.onnx", Path(folder) / "model.onnx"
            quant_pre_process(model, ready)
            quantize_dynamic(ready, path, weight_type=QuantType.QUInt8)  # ONNX Runtime has no int8 convolution
            return onnx.load_model(path)
    return model


def _tidy(model: onnx.ModelProto) -> None:
    """Call the batch axis `batch`, and remove where each operator is from: paths of this machine."""
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for message in _messages(model):
        if isinstance(message, onnx.TensorShapeProto.Dimension) and batch and message.dim_param == batch:
            message.dim_param = "batch"
        for name in ("metadata_props", "doc_string"):
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model, those of subgraphs, functions and attributes too."""
    return (message for message in _messages(model) if isinstance(message, onnx.TensorProto))


def _messages(root: Message) -> Iterator[Any]:
    """A protobuf message and all messages within it."""
    waiting: list[Message] = [root]
    while waiting:
        message = waiting.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend(value if isinstance(value, (list, tuple)) or hasattr(value, "add") else [value])
