"""A server that speaks S3, on 127.0.0.1, and a proxy in front of it that can be cut."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from hmtl_ablate.storage import mirror


class Proxy:
    """Passes connections on to a server; while it is cut, it closes each of them."""

    def __init__(self, port: int) -> None:
        self._server, self._up = port, True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._up = False
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._up = True

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._up:
                client.close()
                continue
            with suppress(OSError):
                server = socket.create_connection(("127.0.0.1", self._server))
                self._open |= {client, server}
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for each in (one, other):
            self._open.discard(each)
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture(scope="session")
def server() -> Iterator[int]:
    """The port of the server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    found = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    found.start()
    yield found.get_host_and_port()[1]
    found.stop()


@pytest.fixture
def proxy(server: int) -> Iterator[Proxy]:
    found = Proxy(server)
    yield found
    found.close()


@pytest.fixture
def address(server: int, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a store in an empty bucket, behind the proxy; this process and those it starts can use it."""
    name = f"faces-{secrets.token_hex(4)}"
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{server}/{name}", method="PUT"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "swan-7!lake")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mirror, "_mirrors", {})
    return f"s3://{name}/studies/runs"
