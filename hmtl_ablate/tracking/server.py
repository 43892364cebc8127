"""MLflow's own pages, served from a store until they are closed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from hmtl_ablate.errors import TrackingError
from hmtl_ablate.tracking.address import Address, note_environment, parse_address
from hmtl_ablate.tracking.records import EXPERIMENT, VIEW
from hmtl_ablate.tracking.store import artifacts_folder

HOST = "127.0.0.1"
START_LIMIT = 120
"""Seconds. MLflow's server answers after 16 to 30 s on two cores."""


def serve_ui(uri: str | None, store: Path, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve MLflow's own pages on 127.0.0.1:`port` until Ctrl-C or SIGTERM, then end the server and its children.

    on_ready: called with the address of the experiment's page once the server answers, after 16 to 30 s.
    Raises TrackingError for a busy port, a store without runs, or a server that dies.
    """
    note_environment(uri)
    address = parse_address(uri, store)
    if not address.is_database:
        raise TrackingError(f"{address} is a server already: open it in a browser")
    if address.sqlite_file is not None and not address.sqlite_file.is_file():
        raise TrackingError(
            f"{address.sqlite_file}: no runs yet\nmake some: hmtl-ablate run STUDY, or name another store with --runs"
        )
    address.probe()
    _probe_port(port)
    # not a file in the store, which may be read-only
    with tempfile.TemporaryFile() as log, _terminable():
        server = _start_server(address, store, port, log)
        try:
            _wait_until_up(server, port, log)
            on_ready(_page(port))
            server.wait()
            raise TrackingError(f"MLflow's server ended by itself (exit code {server.returncode}):\n{_last_lines(log)}")
        except KeyboardInterrupt:
            pass
        finally:
            _end_group(server)


def _start_server(address: Address, store: Path, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "_MLFLOW_"))}
    environment |= {
        "MLFLOW_BACKEND_STORE_URI": address.uri,  # not an argument: it may hold a password
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONSAFEPATH": "1",  # else `-m` imports from the working folder, which anybody may write
    }
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
        "--serve-artifacts",
        "--artifacts-destination",
        artifacts_folder(store).as_uri(),
    ]
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=tempfile.gettempdir(),
        start_new_session=True,
    )


def _wait_until_up(server: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT
    while _get(f"http://{HOST}:{port}/health") is None:
        if server.poll() is not None:
            raise TrackingError(f"MLflow's server does not start (exit code {server.returncode}):\n{_last_lines(log)}")
        if time.monotonic() > deadline:
            raise TrackingError(
                f"MLflow's server does not answer on port {port} after {START_LIMIT} s:\n{_last_lines(log)}"
            )
        time.sleep(0.3)


def _page(port: int) -> str:
    """The table of the runs as `view_state` has it; with any search in the address MLflow would leave the view out. An
    experiment's own page would be MLflow's overview of language models."""
    root = f"http://{HOST}:{port}/"
    answer = _get(f"{root}api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}")
    if answer is None:
        return root
    number = json.loads(answer)["experiment"]["experiment_id"]
    return f"{root}#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"


def _get(address: str) -> bytes | None:
    """The body, or None without a good answer. The environment's proxy is not used: this is the local machine."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=10) as answer:
            return bytes(answer.read())
    except OSError:
        return None


def _last_lines(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").strip().splitlines()[-15:])


def _end_group(server: subprocess.Popen[bytes]) -> None:
    """End the server and its workers: they are a process group of their own."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and _group_lives(server):
            time.sleep(0.1)
    server.wait()


def _group_lives(server: subprocess.Popen[bytes]) -> bool:
    server.poll()
    try:
        os.killpg(server.pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _terminable() -> Iterator[None]:
    """Within, SIGTERM acts like Ctrl-C. Only the main thread can set a signal handler; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _probe_port(port: int) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise TrackingError(
                f"port {port} can't be used ({error}); another program may be using it\nchoose another with --port"
            ) from error
