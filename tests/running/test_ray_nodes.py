"""What is expected of a cluster's nodes; slow, as importing Ray takes seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.running.task import TrialTask
from hmtl_ablate.study import Resources

pytestmark = pytest.mark.slow
STORE = Path("/shared/runs")


def node(name: str, alive: bool = True, **resources: float) -> dict[str, Any]:
    address = f"10.0.0.{name[-1]}"
    return {"NodeID": name, "NodeManagerHostname": f"host-{name}", "NodeManagerAddress": address, "Alive": alive} | {
        "Resources": resources
    }


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (Resources(cpus=1), 3 + 4),
        (Resources(cpus=2), 1 + 2),  # the third core of n1 is of no use
        (Resources(cpus=2, workers=2), 1),  # one worker on each node, or two on n2
        (Resources(cpus=1, gpus=0.5), 2),
        (Resources(cpus=8), 0),
    ],
)
def test_room_is_counted_node_by_node(resources: Resources, expected: int) -> None:
    from hmtl_ablate.running.ray_nodes import room

    nodes = [node("n1", CPU=3), node("n2", CPU=4, GPU=1), node("n3", alive=False, CPU=64, GPU=8)]
    assert room(nodes, resources) == expected


def test_a_node_that_is_left_out_has_no_room() -> None:
    from hmtl_ablate.running.ray_nodes import room

    assert room([node("n1", CPU=3), node("n2", CPU=4)], Resources(cpus=1), without=["n2"]) == 3


def test_the_third_fault_of_a_node_is_its_last() -> None:
    from hmtl_ablate.running.ray_nodes import Unfit

    unfit, nodes = Unfit(Resources(cpus=1)), [node("n1", CPU=1), node("n2", CPU=1)]
    assert [unfit.count("10.0.0.1", nodes), unfit.count("10.0.0.2", nodes), unfit.count("10.0.0.1", nodes)] == [""] * 3
    said = "host-n1 (10.0.0.1) is left out from now on: processes of trials have died there 3 times"
    assert unfit.count("10.0.0.1", nodes) == said
    assert unfit.ids == ["n1"]
    assert unfit.count("10.0.0.1", nodes) == ""  # said once


def test_the_last_node_that_a_trial_fits_on_stays() -> None:
    from hmtl_ablate.running.ray_nodes import Unfit

    unfit, nodes = Unfit(Resources(cpus=2)), [node("n1", CPU=2), node("n2", CPU=1)]
    assert [unfit.count("10.0.0.1", nodes) for _ in range(5)] == [""] * 5
    assert unfit.ids == []


# Nodes that join ------------------------------------------------------------------------------------------------------


class Examiner:
    """Answers as the nodes' examination does, once it is let go."""

    def __init__(self, **faults: str) -> None:
        self.faults, self.asked, self.may_answer = faults, list[list[str]](), threading.Event()
        self.may_answer.set()
        self.given_up = 0

    def __call__(self, nodes: Sequence[Mapping[str, Any]], over: Callable[[], bool]) -> dict[str, str]:
        names = [one["NodeID"] for one in nodes]
        self.asked.append(names)
        while not self.may_answer.wait(0.01) and not over():
            pass
        self.given_up += over()
        if "broken" in self.faults:
            raise OSError("the store is full")
        return {name: self.faults[name] for name in names if name in self.faults}


def settle(arrivals: Any, until: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_node_that_joins_has_room_once_it_is_examined() -> None:
    from hmtl_ablate.running.ray_nodes import Arrivals, Unfit

    examiner = Examiner(n3="")
    arrivals = Arrivals(Resources(cpus=1), {"n1", "n2"}, examiner)
    unfit, nodes = Unfit(Resources(cpus=1), arrivals), [node("n1", CPU=1), node("n2", CPU=2)]
    assert (unfit.room(nodes), unfit.examining) == (3, False)
    examiner.may_answer.clear()
    nodes += [node("n3", CPU=4), node("n4", GPU=1), node("n5", alive=False, CPU=8)]
    assert [unfit.room(nodes) for _ in range(3)] == [3] * 3
    assert (unfit.examining, unfit.ids) == (True, ["n3"])
    examiner.may_answer.set()
    settle(arrivals, lambda: not arrivals.examining)
    assert (unfit.room(nodes), unfit.ids) == (7, [])
    assert examiner.asked == [["n3"]]  # once, and neither a dead node nor one without a core
    assert arrivals.news() == []


def test_a_node_that_joins_and_is_not_fit_is_left_out() -> None:
    from hmtl_ablate.running.ray_nodes import Arrivals, Unfit

    examiner = Examiner(n2="it has Python 3.8.1 instead of 3.11.7; install the same versions on all nodes", n3="")
    arrivals = Arrivals(Resources(cpus=1), {"n1"}, examiner)
    unfit, nodes = Unfit(Resources(cpus=1), arrivals), [node("n1", CPU=1), node("n2", CPU=4), node("n3", CPU=2)]
    unfit.room(nodes)
    settle(arrivals, lambda: not arrivals.examining)
    assert (unfit.room(nodes), unfit.ids) == (3, ["n2"])
    said = "host-n2 (10.0.0.2) has joined and is left out: it has Python 3.8.1 instead of 3.11.7; install"
    assert [one.startswith(said) for one in arrivals.news()] == [True]
    assert arrivals.news() == []  # said once
    assert examiner.asked == [["n2", "n3"]]


def test_a_node_that_could_not_be_examined_is_examined_again() -> None:
    """The store may be full for a moment. A node that has gone meanwhile is not spoken of."""
    from hmtl_ablate.running.ray_nodes import Arrivals, Unfit

    examiner = Examiner(broken="")
    arrivals = Arrivals(Resources(cpus=1), {"n1"}, examiner)
    unfit, nodes = Unfit(Resources(cpus=1), arrivals), [node("n1", CPU=1), node("n2", CPU=1)]
    unfit.room(nodes)
    settle(arrivals, lambda: unfit.room(nodes) == 1 and len(examiner.asked) > 1)
    assert unfit.ids == ["n2"]
    examiner.faults = {"n2": ""}
    settle(arrivals, lambda: unfit.room(nodes) == 2)
    unfit.room([*nodes, node("n3", CPU=1)])
    unfit.room([*nodes, node("n3", alive=False)])
    assert (unfit.ids, arrivals.news(), arrivals.examining) == ([], [], False)


def test_an_examination_ends_with_the_run() -> None:
    from hmtl_ablate.running.ray_nodes import Arrivals

    examiner = Examiner(n1="")
    examiner.may_answer.clear()
    arrivals = Arrivals(Resources(cpus=1), (), examiner)
    arrivals.hear([node("n1", CPU=1)])
    settle(arrivals, lambda: examiner.asked)
    arrivals.close()
    arrivals.hear([node("n2", CPU=1)])
    assert (examiner.given_up, examiner.asked) == (1, [["n1"]])


def test_a_trial_is_placed_on_none_of_the_nodes_that_are_left_out() -> None:
    """Tune calls a copy of the function that says where, which it has pickled: the ids are in the trial's task. They
    once were in an object of this process, of which the copy had an empty one."""
    from ray import cloudpickle

    from hmtl_ablate.running.ray_engine import _placement

    task = TrialTask({}, STORE, STORE, False, STORE)
    for resources, bundle in ((Resources(cpus=2), {"CPU": 2.0}), (Resources(cpus=2, workers=2), {"memory": 1.0})):
        place = cloudpickle.loads(cloudpickle.dumps(_placement(resources)))
        anywhere, elsewhere = place({"task": task}), place({"task": replace(task, left_out=("n1", "n2"))})
        assert anywhere.bundles == elsewhere.bundles == [bundle]
        assert "bundle_label_selector" not in anywhere._kwargs
        assert elsewhere._kwargs["bundle_label_selector"] == [{"ray.io/node-id": "!in(n1,n2)"}]


# Versions -------------------------------------------------------------------------------------------------------------


def test_what_differs_on_a_node_is_named() -> None:
    from hmtl_ablate.running.ray_nodes import Finding, fault_of

    own = Finding({"Python": "3.11.7", "Ray": "2.60.0", "hmtl-ablate": "1.0", "PyTorch": "2.14.1"})
    assert fault_of(own, own, STORE) == ""
    assert fault_of(replace(own, versions={"Python": "3.11.7"}), own, STORE) == ""
    older = replace(own, versions={**own.versions, "hmtl-ablate": "0.9", "PyTorch": "2.11.0"}, numerics=1)
    assert fault_of(older, own, STORE) == (
        "it has hmtl-ablate 0.9 instead of 1.0, PyTorch 2.11.0 instead of 2.14.1, another version of the numerics, "
        f"1 instead of {own.numerics}; install the same versions on all nodes"
    )
    assert "it can't write the folder /shared/runs of this machine" in fault_of(
        replace(own, sees_store=False), own, STORE
    )
    assert fault_of(replace(own, fault="it has not answered"), own, STORE) == "it has not answered"


def test_versions_that_ray_refuses_are_one_line() -> None:
    from hmtl_ablate.running.ray_engine import versions_in

    text = (
        "Version mismatch: The cluster was started with:\n    Ray: 2.40.0\n    Python: 3.10.2\n"
        "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    assert versions_in(text) == (
        "it has Ray 2.40.0 and Python 3.10.2, and this command Ray 2.60.0 and Python 3.11.7; "
        "install the same versions on all nodes and here"
    )
    assert versions_in("Ray: is not there") == ""
