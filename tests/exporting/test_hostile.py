"""Files that claim to be exported networks: none runs code, reads another file, or ends in a traceback."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

import hmtl_ablate as ha
from hmtl_ablate.errors import CheckpointError
from hmtl_ablate.exporting import timm_folder
from hmtl_ablate.exporting.description import KEY, Description
from hmtl_ablate.exporting.onnx_file import INPUT, OUTPUT
from hmtl_ablate.model import InferenceModel

ABOUT: dict[str, Any] = {
    "trial_id": "0123456789abcdef",
    "backbone": "test_resnet",
    "size": 32,
    "stored": 32,
    "crop": 0.85,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "tasks": {"gender": {"outputs": 2, "classes": ["male", "female"]}},
    "data": {"name": "rendered"},
}


class Attack:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def refused(path: Path, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        ha.load_model(path)
    assert len(str(caught.value)) < 2000


@pytest.fixture(scope="module")
def network() -> InferenceModel:
    config = Description.model_validate(ABOUT).config()
    torch.manual_seed(0)
    return InferenceModel(config.model, 2, 32).eval()


# Pickles


@pytest.mark.parametrize("ending", [".pt", ".pth", ".pkl", ".ckpt", ".bin"])
def test_pickled_files_are_refused_unread(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"model{ending}").write_bytes(pickle.dumps(Attack(tmp_path / "mark")))
    refused(tmp_path / f"model{ending}", "TorchScript and pickled files can run code")
    assert not (tmp_path / "mark").exists()


def test_pickles_under_another_name_are_refused(tmp_path: Path) -> None:
    for name in ("model.pt2", "model.onnx"):
        (tmp_path / name).write_bytes(pickle.dumps(Attack(tmp_path / "mark")))
        refused(tmp_path / name, "can't load|no description")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "saved.pt2")
    refused(tmp_path / "saved.pt2", "data.pkl.* is a pickled object")
    assert not (tmp_path / "mark").exists()


# pt2


def entries_of(network: InferenceModel) -> dict[str, bytes]:
    """The entries of a pt2 file that matter, as PyTorch writes them."""
    table, found = {}, {}
    for number, (name, value) in enumerate(network.state_dict().items()):
        table[name] = {
            "path_name": f"weight_{number}",
            "is_param": True,
            "use_pickle": False,
            "tensor_meta": {
                "dtype": {torch.float32: 7, torch.int64: 5}[value.dtype],
                "sizes": [{"as_int": side} for side in value.shape],
                "strides": [{"as_int": step} for step in value.stride()],
                "storage_offset": {"as_int": 0},
            },
        }
        found[f"data/weights/weight_{number}"] = value.numpy().tobytes()
    return {
        **found,
        "data/weights/model_weights_config.json": json.dumps({"config": table}).encode(),
        "data/sample_inputs/model.pt": b"",
        f"extra/{KEY}.json": json.dumps(ABOUT).encode(),
        "byteorder": b"little",
    }


def archive(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(f"archive/{name}", content)
    return path


def test_a_pt2_file_is_read_without_pytorch_s_reader(
    network: InferenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(torch.export, "load", never)
    monkeypatch.setattr(torch, "load", never)
    model = ha.load_model(archive(tmp_path / "model.pt2", entries_of(network)))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(images), network(images))


def changed_table(entries: dict[str, bytes], change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    """The entries, with another description of the head's weight."""
    name = "data/weights/model_weights_config.json"
    table = json.loads(entries[name])
    change(table["config"]["head.weight"])
    return entries | {name: json.dumps(table).encode()}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("data/constants/custom_obj_0", b"x", "is a pickled object"),
        ("data/constants/opaque_obj_0", b"x", "is a pickled object"),
        ("data/weights/model.pt", b"x", "is a pickled object"),
        ("code/__torch__.py", b"x", "TorchScript code"),
        ("data/aotinductor/model/model.so", b"x", "is unknown"),
        ("../../outside", b"x", "is unknown"),
        ("data/sample_inputs/model.pt", b"x", "pickled example inputs"),
        ("byteorder", b"big", "not little-endian"),
        (f"extra/{KEY}.json", b"[", "no JSON"),
        (f"extra/{KEY}.json", b"[" * 100_000, "no JSON"),
        (f"extra/{KEY}.json", b" " * (2 << 20), "larger than"),
        ("data/weights/model_weights_config.json", b"[]", "malformed"),
        ("data/weights/model_weights_config.json", b'{"config": {}}', "tensors are missing"),
        (f"extra/{KEY}.json", json.dumps(ABOUT | {"backbone": "test_resne"}).encode(), "timm has no model"),
        (f"extra/{KEY}.json", json.dumps(ABOUT | {"backbone": "test_vit"}).encode(), "of another shape for test_vit"),
    ],
)
def test_hostile_entries_of_a_pt2_file(
    network: InferenceModel, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    refused(archive(tmp_path / "model.pt2", entries_of(network) | {name: content}), words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda entry: entry.update(use_pickle=True), "head.weight is pickled"),
        (lambda entry: entry.update(path_name="../../../etc/passwd"), "there is no entry"),
        (lambda entry: entry["tensor_meta"].update(sizes=[{"as_int": 1 << 40}, {"as_int": 1 << 40}]), "not the shape"),
        (lambda entry: entry["tensor_meta"].update(sizes=[{"as_int": -2}, {"as_int": -96}]), "not the shape"),
        (lambda entry: entry["tensor_meta"].update(strides=[{"as_int": 1 << 40}, {"as_int": 1}]), "not the shape"),
        (lambda entry: entry["tensor_meta"].update(storage_offset={"as_int": 1 << 40}), "not the shape"),
        (lambda entry: entry["tensor_meta"].update(dtype=99), "malformed"),
        (lambda entry: entry.update(tensor_meta=None), "malformed"),
    ],
)
def test_hostile_weights_of_a_pt2_file(
    network: InferenceModel, tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    refused(archive(tmp_path / "model.pt2", changed_table(entries_of(network), change)), words)


def test_bombs(network: InferenceModel, tmp_path: Path) -> None:
    entries = entries_of(network)
    refused(archive(tmp_path / "packed.pt2", entries, zipfile.ZIP_DEFLATED), "is compressed")
    whole = archive(tmp_path / "twice.pt2", entries)
    with zipfile.ZipFile(whole, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("archive/byteorder", b"little")
    refused(whole, "is unknown")
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(whole.read_bytes()[:-100])
    refused(cut, "can't load")
    refused(tmp_path / "nowhere.pt2", "can't load")


# ONNX


def onnx_model(about: object = ABOUT, width: int = 2, outside: str = "") -> onnx.ModelProto:
    """A network that gives the means of red and green; outside: the file that its weights are said to be in."""
    weight = numpy_helper.from_array(np.eye(3, width, dtype=np.float32), "weight")
    if outside:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=outside)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", [INPUT], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], [OUTPUT]),
        ],
        "means",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", width])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if about is not None:
        helper.set_model_props(model, {KEY: json.dumps(about)})
    return model


def written(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_an_onnx_file_answers(tmp_path: Path) -> None:
    model = ha.load_model(written(tmp_path / "model.onnx", onnx_model()))
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    torch.testing.assert_close(model(model.preprocess(red)[None]), torch.tensor([[1.0, -1.0]]))
    assert model.predict(red)["gender"].label == "male"


@pytest.mark.parametrize("outside", ["/etc/passwd", "../weights", "weights"])
def test_weights_of_an_onnx_file_in_another_file_are_refused(tmp_path: Path, outside: str) -> None:
    (tmp_path / "weights").write_bytes(bytes(24))
    refused(written(tmp_path / "model.onnx", onnx_model(outside=outside)), "its weights are in another file")
    hidden = onnx_model()
    value = onnx_model(outside=outside).graph.initializer[0]
    hidden.graph.node.append(helper.make_node("Constant", [], ["hidden"], value=value))
    refused(written(tmp_path / "hidden.onnx", hidden), "its weights are in another file")


def test_other_onnx_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    refused(written(path, onnx_model(None)), "it has no description")
    refused(written(path, onnx_model(width=3)), r"its outputs are \[1, 3\], not \[1, 2\]")
    foreign = onnx_model()
    foreign.graph.node[0].op_type = "Attack"
    refused(written(path, foreign), "can't load")
    path.write_bytes(onnx_model().SerializeToString()[:-40])
    refused(path, "can't load|no description")
    refused(tmp_path / "nowhere.onnx", "can't load")


# Descriptions and folders


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 10**6}, "malformed at size"),
        ({"stored": 16}, "smaller than data.size"),
        ({"std": [0.0, 1.0, 1.0]}, "not above 0"),
        ({"mean": [float("nan"), 0.0, 0.0]}, "finite|malformed"),
        ({"tasks": {}}, "malformed at tasks"),
        ({"tasks": {"gendre": {"outputs": 2}}}, "gendre"),
        ({"tasks": {"gender": {"outputs": 3, "classes": ["male", "female"]}}}, "3 outputs in its description, and 2"),
        ({"trial_id": "../../etc"}, "malformed at trial_id"),
        ({"more": 1}, "malformed at more"),
        ({"format": 2}, "malformed at format"),
    ],
)
def test_malformed_descriptions(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    refused(written(tmp_path / "model.onnx", onnx_model(ABOUT | change)), words)


def test_folders(network: InferenceModel, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    timm_folder.write(network, Description.model_validate(ABOUT), folder)
    assert ha.load_model(folder).classes == {"gender": ("male", "female")}
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused(folder, "does not match its checksum")
    save_file({"other": torch.zeros(2)}, weights)
    refused(folder, "e.g. backbone.conv1.0.weight")
    weights.write_bytes(pickle.dumps(Attack(tmp_path / "mark")))
    refused(folder, "can't load")
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Attack(tmp_path / "mark")))
    refused(folder, "can't load")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {KEY: [1]}))
    refused(folder, "can't load")
    config[KEY]["classifier"] = ["x"]
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "can't load")
    assert not (tmp_path / "mark").exists()
