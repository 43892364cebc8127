"""Where initial weights come from, and what is said when they do not."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from hmtl_ablate import weights
from hmtl_ablate.config import TrialConfig, parse_config, trial_id
from hmtl_ablate.errors import CheckpointError

LITE = "tf_efficientnet_lite0"


def network(name: str = "test_resnet") -> torch.nn.Module:
    return timm.create_model(name, num_classes=0)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_package_fills_every_tensor() -> None:
    model = network(LITE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights.load(model, LITE, "package", Path())
    untouched = [name for name, value in model.state_dict().items() if torch.equal(value, before[name])]
    assert {name.rpartition(".")[2] for name in untouched} <= {"num_batches_tracked"}


def test_the_package_has_one_backbone() -> None:
    with pytest.raises(CheckpointError, match=LITE):
        weights.load(network(), "test_resnet", "package", Path())


@pytest.mark.parametrize("prefix", ["", "inference.backbone.", "module."])
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_files_load_whatever_their_prefix(tmp_path: Path, prefix: str, ending: str) -> None:
    torch.manual_seed(1)
    source, target = network(), network()
    state = {prefix + name: value for name, value in source.state_dict().items()}
    file = tmp_path / f"w.{ending}"
    save_file(state, file) if ending == "safetensors" else torch.save({"state_dict": state}, file)
    assert not same(source, target)
    weights.load(target, "test_resnet", f"file:{file}", tmp_path)
    assert same(source, target)


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("exploded"),))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(CheckpointError, match="tensors only"):
        weights.load(network(), "test_resnet", f"file:{tmp_path / 'bomb.pth'}", tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_weights_of_another_network_change_nothing(tmp_path: Path) -> None:
    save_file(network("resnet10t").state_dict(), tmp_path / "w.safetensors")
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="do not fit test_resnet"):
        weights.load(model, "test_resnet", f"file:{tmp_path / 'w.safetensors'}", tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("content", "words"), [(None, "no file"), (b"", "can't load"), (b"broken", "can't load")])
def test_missing_and_damaged_files_are_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "w.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        weights.load(network(), "test_resnet", f"file:{file}", tmp_path)


def test_offline_the_other_ways_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"HF_HOME.*package.*file:PATH.*trial:NAME"):
        weights.load(network("resnet10t"), "resnet10t", "imagenet", Path())


def refused(address: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> str:
    """The message for weights of a hub at this address, with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    with pytest.raises(CheckpointError) as caught:
        weights.check_source("resnet10t", "imagenet")
    return str(caught.value)


def test_a_hub_that_refuses_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fault C15: its client tried for a minute before there was a message."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    message = refused(address, monkeypatch, tmp_path)
    assert f"none of resnet10t available ({address}: " in message
    assert "other ways: package" in message


def test_a_hub_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fault C15."""
    monkeypatch.setattr(weights, "ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        message = refused(address, monkeypatch, tmp_path)
    assert f"none of resnet10t available ({address}" in message


def test_an_answer_of_any_kind_is_an_answer() -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert weights._unanswered(f"http://127.0.0.1:{server.server_port}") is None


def test_weights_in_the_cache_ask_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def created(name: str, **options: object) -> torch.nn.Module:
        assert constants.HF_HUB_OFFLINE
        return torch.nn.Linear(2, 1)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm, "create_model", created)
    monkeypatch.setattr(weights, "_unanswered", None)  # is not called
    weights.check_source("resnet10t", "imagenet")
    assert not constants.HF_HUB_OFFLINE


def test_a_files_content_names_the_trial_and_not_its_path(tmp_path: Path) -> None:
    def identity(path: Path) -> str:
        return trial_id(parse_config({"model": {"weights": f"file:{path}"}}), "f")

    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        save_file({"x": torch.tensor(value)}, tmp_path / name)
    assert identity(tmp_path / "a") == identity(tmp_path / "b") != identity(tmp_path / "c")
    assert trial_id(TrialConfig(), "f") != identity(tmp_path / "a")
    with pytest.raises(CheckpointError, match="can't read"):
        identity(tmp_path / "d")
