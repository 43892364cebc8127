"""What counts as a lost cluster (fault C3), with a clock of the test's own; slow, as importing Ray takes seconds."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from hmtl_ablate.errors import ClusterError

pytestmark = pytest.mark.slow


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, liveness: Any, seconds: float) -> str:
        """Look every second; what the last look says."""
        said = ""
        for _ in range(int(seconds)):
            self.now += 1
            said = liveness.lost()
        return said


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": resources if alive else {}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def liveness(clock: Clock) -> Any:
    from hmtl_ablate.running.ray_watch import Liveness

    def count(nodes: Any) -> int:
        return sum(int(one["Resources"].get("GPU", 0)) for one in nodes)

    return Liveness("home", count, clock=clock)


def test_a_cluster_that_answers_is_there(liveness: Any, clock: Clock) -> None:
    for _ in range(100):
        assert clock.wait(liveness, 3) == ""
        liveness.hear([node("home", CPU=1), node("other", CPU=1, GPU=3)])
    assert liveness.room == 3


def test_a_node_that_is_examined_is_waited_for(clock: Clock) -> None:
    from hmtl_ablate.running.ray_watch import ROOMLESS, Liveness

    coming = [True]
    liveness = Liveness("home", lambda nodes: 0, clock=clock, coming=lambda: coming[0])
    for _ in range(10):
        assert clock.wait(liveness, int(ROOMLESS / 2)) == ""
        liveness.hear([node("home", CPU=1)])
    coming.clear()
    coming.append(False)
    liveness.hear([node("home", CPU=1)])
    assert clock.wait(liveness, int(ROOMLESS / 2)) == ""
    liveness.hear([node("home", CPU=1)])
    assert "no room for a trial" in clock.wait(liveness, int(ROOMLESS / 2) + 2)


def test_the_node_of_this_process_is_needed_and_another_is_not(liveness: Any) -> None:
    liveness.hear([node("home", CPU=2, GPU=1), node("other", alive=False)])
    assert liveness.lost() == ""
    liveness.hear([node("home", alive=False), node("other", CPU=2, GPU=1)])
    assert "the Ray node of this machine has died" in liveness.lost()


def test_silence_is_borne_for_half_a_minute(liveness: Any, clock: Clock) -> None:
    """SIGSTOP of the GCS for 20 s ends nothing; its death ends the run before Ray aborts the process."""
    assert clock.wait(liveness, 25) == ""
    liveness.hear([node("home", CPU=2, GPU=1)])
    assert clock.wait(liveness, 25) == ""
    assert "Ray has not answered for 30 s" in clock.wait(liveness, 6)


def test_a_process_that_was_stopped_itself_does_not_blame_the_cluster(liveness: Any, clock: Clock) -> None:
    """Ctrl-Z, and fg an hour later."""
    clock.now += 3600
    assert liveness.lost() == ""
    assert clock.wait(liveness, 25) == ""


def test_a_cluster_that_holds_no_trial_any_more_is_lost(liveness: Any, clock: Clock) -> None:
    for _ in range(15):
        liveness.hear([node("home", CPU=8), node("other", alive=False)])
        said = clock.wait(liveness, 3)
    assert "what is left has no room for a trial" in said


def test_a_question_without_an_answer_ends() -> None:
    from hmtl_ablate.running.ray_watch import answered

    never = threading.Event()
    with pytest.raises(ClusterError, match="has not answered"):
        answered(never.wait, 0.05)
    never.set()
    assert answered(lambda: 7, 5) == 7
    with pytest.raises(KeyError):
        answered(lambda: {"a": 1}["x"], 5)
