"""MLflow stores on SQLite, and records to write into them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hmtl_ablate.tracking import StudyRecord, Tracking, TrialRecord

StudyMaker = Callable[..., StudyRecord]
TrialMaker = Callable[..., TrialRecord]


@pytest.fixture
def study() -> StudyMaker:
    """A study's record; its name needs quoting."""
    record = StudyRecord(
        name="it's",
        profile="quick",
        data="rendered",
        question="Does it help?",
        metric="test/accuracy",
        variants={"SL": "k1"},
        seeds=(0, 1),
    )
    return lambda **changes: replace(record, **changes)


@pytest.fixture
def trial() -> TrialMaker:
    """A running trial's record under a parent."""
    record = TrialRecord(
        parent="",
        trial_id="abc",
        variant="sl",
        variant_key="k1",
        seed=0,
        config={"training": {"epochs": 2}, "model": {"long": "x" * 900}},
    )
    return lambda parent, **changes: replace(record, parent=parent, **changes)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def steps() -> Callable[[Tracking, str, str], list[int]]:
    """The steps at which a run has values of a metric."""

    def of(tracking: Tracking, run_id: str, metric: str) -> list[int]:
        points: list[Any] = tracking.client.get_metric_history(run_id, metric)
        return [point.step for point in points]

    return of
