"""What is expected of a cluster's nodes; slow, as importing Ray takes seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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
    said = "host-n1 (10.0.0.1) is left out from now on: the processes of 3 trials have died there"
    assert unfit.count("10.0.0.1", nodes) == said
    assert unfit.ids == ["n1"]
    assert unfit.count("10.0.0.1", nodes) == ""  # said once


def test_the_last_node_that_a_trial_fits_on_stays() -> None:
    from hmtl_ablate.running.ray_nodes import Unfit

    unfit, nodes = Unfit(Resources(cpus=2)), [node("n1", CPU=2), node("n2", CPU=1)]
    assert [unfit.count("10.0.0.1", nodes) for _ in range(5)] == [""] * 5
    assert unfit.ids == []


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
