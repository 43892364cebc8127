"""One tiny trial for the whole session; the examples in the docstrings use the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hmtl_ablate as ha

CONFIG: dict[str, Any] = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder whose store `runs` has the pack of CONFIG, and what tests train there."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="session")
def trial(workplace: Path) -> ha.TrainedTrial:
    return ha.train(CONFIG, store=workplace / "runs")


@pytest.fixture
def at_workplace(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workplace)
    return workplace
