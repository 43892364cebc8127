"""A cluster's address is asked within seconds, and a missing token is named (fault C15); the folder of Ray's sockets is
short enough (fault C16). No Ray runs here: servers in this process answer in its place."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from hmtl_ablate.errors import ClusterError
from hmtl_ablate.running import ray_address, ray_sockets
from hmtl_ablate.running.ray_address import CLIENT, CLUSTER, check_address


class Head(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers one method; with a token, only to those who have it."""

    def __init__(self, method: str, token: bool) -> None:
        self.method, self.token = method, token

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_unary_rpc_method_handler(self.answer) if details.method == self.method else None

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if self.token:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        return b""


@pytest.fixture
def head(request: pytest.FixtureRequest) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1), [Head(*request.param)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def refused(address: str) -> str:
    with pytest.raises(ClusterError) as caught:
        check_address(address)
    return str(caught.value)


@pytest.mark.parametrize("head", [(CLUSTER, False)], indirect=True)
def test_a_cluster_is_let_pass(head: str) -> None:
    check_address(head)


@pytest.mark.parametrize("head", [(CLIENT, False)], indirect=True)
def test_a_client_server_wants_its_own_scheme(head: str) -> None:
    check_address(f"ray://{head}")
    assert "ray://HOST:PORT that of Ray's client server" in refused(head)


@pytest.mark.parametrize("head", [(CLUSTER, True)], indirect=True)
def test_a_cluster_that_wants_a_token_is_named(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert "the cluster wants a token; set RAY_AUTH_MODE=token" in refused(head)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    check_address(head)  # Ray itself sends the token


def test_what_listens_but_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "ANSWER", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert f"--address {address}: what listens there is no Ray cluster" in refused(address)
    assert f"--address {address}: nothing answers there (Connection refused)" in refused(address)


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:port", "head:70000", "ray://head"])
def test_a_malformed_address(address: str) -> None:
    assert refused(address) == f"--address {address}: write HOST:PORT, ray://HOST:PORT, or auto"


def place(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str | None:
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone, too
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ray_sockets.place_sockets()
    return os.environ.get("RAY_TMPDIR")


def test_a_short_temporary_folder_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ray_sockets.LONGEST == 37
    assert place(monkeypatch) is None
    assert place(monkeypatch, TMPDIR="/" + 36 * "t") is None
    assert place(monkeypatch, RAY_TMPDIR="/short", TMPDIR="/" + 79 * "t") == "/short"


def test_a_long_one_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray_sockets, "LONGEST", len(str(tmp_path)))
    monkeypatch.setattr(ray_sockets, "SHORT", (str(tmp_path / "missing"), str(tmp_path)))
    assert place(monkeypatch, TMPDIR=f"{tmp_path}/{80 * 't'}") == str(tmp_path)
    monkeypatch.setattr(ray_sockets, "SHORT", ())
    with pytest.raises(ClusterError, match="TMPDIR is too long for Ray's sockets"):
        place(monkeypatch, TMPDIR=f"{tmp_path}/{80 * 't'}")
    with pytest.raises(ClusterError, match="RAY_TMPDIR is too long"):
        place(monkeypatch, RAY_TMPDIR=f"{tmp_path}/{80 * 't'}")


@pytest.mark.slow
def test_ray_leaves_the_working_folder_alone_under_uv_run() -> None:
    code = (
        "import hmtl_ablate.running.ray_engine; from ray._private.ray_constants import RAY_ENABLE_UV_RUN_RUNTIME_ENV; "
        "print(RAY_ENABLE_UV_RUN_RUNTIME_ENV)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
