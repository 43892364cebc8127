"""Several processes that open one new store at once (fault C16)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hmtl_ablate.tracking.opening import one_at_a_time

OPEN = """
import sys
from pathlib import Path
from hmtl_ablate.running.optuna_search import connect
from hmtl_ablate.tracking import open_tracking
sys.stdin.readline()
connect(None, Path(sys.argv[1]))
open_tracking(None, Path(sys.argv[1]))
"""


def test_one_process_at_a_time_makes_the_tables(tmp_path: Path) -> None:
    inside, url = threading.Semaphore(1), f"sqlite:///{tmp_path / 'x.db'}"

    def enter() -> bool:
        with one_at_a_time(url):
            alone = inside.acquire(blocking=False)
            threading.Event().wait(0.05)
            inside.release()
            return alone

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: enter(), range(4)))


def test_whoever_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmtl_ablate.tracking.opening.PATIENCE", 0.1)
    url = f"sqlite:///{tmp_path / 'x.db'}"
    with one_at_a_time(url), one_at_a_time(url):
        pass


def test_a_folder_that_may_not_be_written_and_another_database_need_no_lock(tmp_path: Path) -> None:
    with one_at_a_time(f"sqlite:///{tmp_path}/none/x.db"), one_at_a_time("http://host:5000"):
        assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_first_runs_at_once_on_a_fresh_store(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(tmp_path)],
            env=dict(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    threading.Event().wait(5)  # while they import
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        output, _ = process.communicate(timeout=200)
        assert (process.returncode, "Traceback" in output) == (0, False), output
