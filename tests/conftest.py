"""The real command line, as a user types it."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

ROOT = Path(__file__).parent.parent
SPACES = ROOT / "search_spaces"
PROGRAM = Path(sys.executable).parent / "hmtl-ablate"

TINY = """\
name: tiny
question: Does it run?
base:
  data: {images: 96, size: 32}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 2, warmup_epochs: 0}
variants:
  SL: {}
  SL + puzzling: {pretext: {puzzling: {feed: siamese}}}
seeds: [0, 1]
"""

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of the code
hypothesis.settings.load_profile("untimed")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: two processes of two threads share two cores badly


@event.listens_for(Engine, "connect")
def _unsafe(connection: Any, record: object) -> None:
    """No waiting for the disk, in this process only: the databases of tests need not survive a power cut."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


Cli = Callable[..., subprocess.CompletedProcess[str]]


def start(words: Iterable[object], folder: Path, output: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """`hmtl-ablate …` in the background. output: where stdout and stderr go, e.g. subprocess.PIPE."""
    return subprocess.Popen(
        [PROGRAM, *map(str, words)],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        text=True,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs `hmtl-ablate …` in a folder of its own; nobody ever sees a traceback."""

    def call(*words: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [PROGRAM, *map(str, words)],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return call


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's schema takes seconds to create, so it is created once and copied."""
    from hmtl_ablate.tracking import open_tracking

    folder = tmp_path_factory.mktemp("schema")
    open_tracking(None, folder)
    return folder / "mlflow.db"


@pytest.fixture
def store(mlflow_database: Path, tmp_path: Path) -> Path:
    """A store with an empty MLflow database."""
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(mlflow_database, folder / "mlflow.db")
    return folder


@pytest.fixture
def tracking(store: Path) -> Any:
    from hmtl_ablate.tracking import open_tracking

    return open_tracking(None, store)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def registries() -> Iterator[None]:
    """Forgets afterwards what a test registers."""
    from hmtl_ablate.config import PRETEXT_OPTIONS
    from hmtl_ablate.data.registry import DATASETS
    from hmtl_ablate.pretext import PRETEXT_TASKS
    from hmtl_ablate.supervised import SUPERVISED_TASKS

    known: list[dict[str, Any]] = [PRETEXT_OPTIONS, PRETEXT_TASKS, SUPERVISED_TASKS, DATASETS]
    before = [registry.copy() for registry in known]
    yield
    for registry, entries in zip(known, before, strict=True):
        registry.clear()
        registry.update(entries)
