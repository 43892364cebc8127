"""Between a conductor and Tune: where trials may run, and what their ends say of nodes; slow, as importing Ray takes
seconds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hmtl_ablate.running.failures import Ending, Failure
from hmtl_ablate.running.options import RunOptions
from hmtl_ablate.running.task import Report, TrialTask
from hmtl_ablate.study import Resources

pytestmark = pytest.mark.slow
DIED = "The actor died unexpectedly.\n\tpid: 7\n\tip: 10.0.0.1\nThe actor is dead: exit code 13."
NODES = [
    {
        "NodeID": f"n{number}",
        "NodeManagerHostname": f"host-{number}",
        "NodeManagerAddress": f"10.0.0.{number}",
        "Alive": True,
        "Resources": {"CPU": 2.0},
    }
    for number in (1, 2)
]


class Conductor:
    """Jobs named 0, 1, 2 … without end, and what was said of them."""

    def __init__(self) -> None:
        self.queue: list[Any] = []
        self.said: list[str] = []
        self.failures: list[Failure | None] = []
        self.progress = SimpleNamespace(say=self.said.append)
        self.leave_out = self.said.append
        self.drawn = 0

    def next(self) -> Any:
        self.drawn += 1
        return SimpleNamespace(trial_id=str(self.drawn))

    def task(self, job: Any, stop: Path) -> TrialTask:
        return TrialTask({}, stop, stop, False, stop, workers=2)

    def end(self, job: Any, failure: Failure | None) -> None:
        self.failures.append(failure)


@pytest.fixture
def conductor(monkeypatch: pytest.MonkeyPatch) -> Conductor:
    import ray

    monkeypatch.setattr(ray, "nodes", lambda: NODES)
    return Conductor()


def feeder_of(conductor: Conductor, resources: Resources, examine: Any = None, room: int | None = None) -> Any:
    """The feeder of a run on a cluster, of whose nodes the first one is examined; room: what the watch has counted."""
    from hmtl_ablate.running.ray_engine import _Feeder, _Places
    from hmtl_ablate.running.ray_nodes import Arrivals, Unfit

    places = _Places(resources, RunOptions(max_concurrent=4))
    places.watch = SimpleNamespace(room=room)  # type: ignore[assignment]
    arrivals = None if examine is None else Arrivals(resources, {"n1"}, examine)
    stop: Any = SimpleNamespace(requested=False, path=Path("stop"))
    return _Feeder(conductor, stop, print, places, Unfit(resources, arrivals), (), "")  # type: ignore[arg-type]


def test_a_trial_may_not_run_on_a_node_that_has_just_joined(conductor: Conductor) -> None:
    feeder = feeder_of(conductor, Resources(cpus=1), examine=lambda nodes, over: {})
    assert feeder.suggest("a")["task"].left_out == ("n2",)


def test_a_node_that_is_not_fit_is_said_once(conductor: Conductor) -> None:
    feeder = feeder_of(conductor, Resources(cpus=1), examine=lambda nodes, over: {"n2": "it is old"})
    while not conductor.said:
        feeder.suggest("a")
        feeder.on_trial_complete("a")
    assert feeder.suggest("b")["task"].left_out == ("n2",)
    assert conductor.said == ["host-2 (10.0.0.2) has joined and is left out: it is old"]


def test_without_room_no_trial_is_started_again(conductor: Conductor) -> None:
    """It would run on the next node that joins, before that is examined."""
    feeder = feeder_of(conductor, Resources(cpus=1), examine=lambda nodes, over: {}, room=0)
    conductor.queue = [object()]
    assert feeder.suggest("a") is None
    assert conductor.drawn == 0
    feeder.places.watch = SimpleNamespace(room=1)
    assert feeder.suggest("a") is not None


def test_a_node_where_workers_of_trials_die_is_left_out(conductor: Conductor) -> None:
    """Ray Train's workers die apart from the function that watches over them: it returns the failure as text."""
    feeder = feeder_of(conductor, Resources(cpus=1, workers=2))
    crashed = Failure(Ending.CRASHED, "the process that trained it ended with exit code 13")
    for number in range(3):
        assert feeder.suggest(f"{number}")["task"].left_out == ()
        feeder.on_trial_complete(f"{number}", {"failure": str(crashed), "machine": "10.0.0.1"})
    assert [failure.ending for failure in conductor.failures if failure] == [Ending.CRASHED] * 3
    assert conductor.said == ["host-1 (10.0.0.1) is left out from now on: processes of trials have died there 3 times"]
    assert feeder.suggest("3")["task"].left_out == ("n1",)


def test_the_node_of_a_worker_that_died_is_returned(tmp_path: Path) -> None:
    from ray import exceptions

    from hmtl_ablate.running.actor import run_task

    def trainer(task: TrialTask, report: Report) -> None:
        raise exceptions.RayActorError(error_msg=DIED)

    task = TrialTask({}, tmp_path, tmp_path / "trial", False, tmp_path / "stop")
    found = run_task({"task": task, "trainer": trainer})
    assert found["failure"].startswith("crashed: the process that trained it ended with exit code 13\n")
    assert found["machine"] == "10.0.0.1"
