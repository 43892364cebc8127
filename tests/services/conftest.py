"""Real services on 127.0.0.1 that a test stops and starts: an MLflow server, a PostgreSQL cluster."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import environment, start  # type: ignore[import-not-found]

PASSWORD = "swan-7!lake"
STUDY = """\
name: services
question: Does it survive its services?
base:
  data: {images: 96, size: 16}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 4, warmup_epochs: 0}
variants:
  SL: {}
  SL + puzzling: {pretext: {puzzling: {feed: siamese, grid: 2}}}
seeds: [0, 1]
search:
  space: {training.lr: {choice: [0.001, 0.002]}}
  sampler: grid
  trials: 2
  racing: null
"""
TRIALS = 6
EPOCHS = 4


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "services.yaml"
    path.write_text(STUDY)
    return path


class Command:
    """`hmtl-ablate …` in the background; its output is in a file, so that it never waits for a reader."""

    def __init__(self, words: Sequence[object], folder: Path) -> None:
        self.store, self.output = folder / "runs", folder / f"output-{time.monotonic_ns()}.txt"
        self._file = self.output.open("w")
        self.process: subprocess.Popen[str] = start(words, folder, self._file.fileno())

    def epochs(self) -> int:
        """Epochs in the trials' folders, of all trials together."""
        return sum(path.read_text().count("\n") for path in self.store.glob("trials/*/metrics.jsonl"))

    def wait_for(self, epochs: int, seconds: float = 400) -> None:
        """Until the trials have trained so many epochs."""
        deadline = time.monotonic() + seconds
        while self.epochs() < epochs:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def longest_pause(self) -> float:
        """Wait for the end; the longest time in s in which the trials wrote nothing."""
        longest, since, known = 0.0, time.monotonic(), self.changed()
        while self.process.poll() is None:
            time.sleep(0.05)
            now = self.changed()
            if now != known:
                longest, since, known = max(longest, time.monotonic() - since), time.monotonic(), now
            assert time.monotonic() - since < 240, self.text()
        return max(longest, time.monotonic() - since)

    def changed(self) -> int:
        files = (*self.store.glob("trials/*/metrics.jsonl"), *self.store.glob("trials/*/result.json"))
        return max((path.stat().st_mtime_ns for path in files), default=0)

    def text(self) -> str:
        return self.output.read_text()

    def end(self) -> int:
        """Wait for its end; its exit code."""
        try:
            return self.process.wait(300)
        finally:
            self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._file.close()


class MlflowServer:
    """`mlflow server` with one worker; a process group of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", self._port]
        command += ["--workers", 1, "--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}"]
        command += ["--artifacts-destination", self._folder / "files"]
        options = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                env=environment() | options,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 240
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.3)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=10):
                return True
        except OSError:
            return False

    def send(self, number: int) -> None:
        """A signal to the server and its worker."""
        if self._process is not None:
            os.killpg(self._process.pid, number)
            if number == signal.SIGKILL:
                self._process.wait()
                self._process = None


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[MlflowServer]:
    """A running MLflow server on SQLite."""
    server = MlflowServer(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.send(signal.SIGKILL)


class Postgres:
    """A PostgreSQL cluster with the databases `optuna` and `mlflow`, in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        self._programs = str(programs[-1]) if programs else None
        # PostgreSQL refuses root; the Debian package makes this user
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def url(self, database: str) -> str:
        return f"postgresql://hmtl:{PASSWORD.replace('!', '%21')}@127.0.0.1:{self._port}/{database}"

    def create(self) -> None:
        import psycopg

        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if self._as:
            for path in (self._folder, secret):
                shutil.chown(path, "postgres")
        self._call("initdb", "-U", "hmtl", "-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8")
        self.start()
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for name in ("optuna", "mlflow"):
                connection.execute(f"CREATE DATABASE {name}")

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._call("pg_ctl", "-w", "-t", "120", "-l", self._folder / "log.txt", "-o", options, "start")

    def stop(self) -> None:
        """As a crash: connections are cut, no transaction ends."""
        self._call("pg_ctl", "-w", "-m", "immediate", "stop")

    def running(self) -> bool:
        return (self._folder / "data" / "postmaster.pid").exists()

    def _call(self, program: str, *words: object) -> None:
        path = shutil.which(program, path=self._programs)
        assert path, f"{program} is missing: make test-deps installs PostgreSQL (tests/debian-packages.txt)"
        command = [*self._as, path, "-D", str(self._folder / "data"), *map(str, words)]
        done = subprocess.run(
            command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL."""
    folder = Path(tempfile.mkdtemp(prefix="hmtl-postgres-"))  # not tmp_path: only its owner can enter that
    cluster = Postgres(folder)
    try:
        cluster.create()
        yield cluster
    finally:
        if cluster.running():
            cluster.stop()
        shutil.rmtree(folder)
