"""Ten blows on real runs; and the counting itself, which must find what it counts."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.chaos.audit import Snapshot, Trial, compare, finished, kept
from tests.chaos.blows import EVENTS, ON_A_CLUSTER, draw, draw_on_cluster
from tests.chaos.processes import Family, send
from tests.chaos.runs import unclear  # type: ignore[import-not-found]
from tests.conftest import ROOT  # type: ignore[import-not-found]

TRIAL = Trial("finished", {"test/accuracy": 0.5}, (1, 2))
GOOD = Snapshot(
    folders={"aa": TRIAL, "bb": TRIAL},
    runs=(("SL aa", TRIAL), ("search bb", TRIAL)),
    ended={"bb": 1},
    rows=({"variant": "SL", "n_seeds": 1, "mean": 0.5},),
)


def test_a_store_like_the_undisturbed_one_has_no_fault() -> None:
    assert not any(compare(GOOD, GOOD).counts().values())


@pytest.mark.parametrize(
    ("changed", "count", "text"),
    [
        ({"folders": {"aa": TRIAL}}, "lost", "bb has no result"),
        ({"runs": GOOD.runs[:1]}, "lost", "MLflow has no run of search bb"),
        ({"ended": {}}, "lost", "Optuna has no end of bb"),
        ({"runs": (*GOOD.runs, GOOD.runs[1])}, "doubled", "MLflow has 2 runs of search bb"),
        ({"ended": {"bb": 2}}, "doubled", "Optuna has 2 ends of bb"),
        ({"folders": {**GOOD.folders, "bb": replace(TRIAL, epochs=(1, 2, 2))}}, "doubled", r"bb: epochs \(1, 2, 2\)"),
        ({"folders": {**GOOD.folders, "bb": replace(TRIAL, epochs=(2,))}}, "wrong", r"epochs \(2,\), not \(1, 2\)"),
        ({"folders": {**GOOD.folders, "bb": replace(TRIAL, status="failed")}}, "wrong", "failed, not finished"),
        ({"folders": {**GOOD.folders, "cc": TRIAL}}, "wrong", "cc is no trial of this study"),
        (
            {"runs": (GOOD.runs[0], ("search bb", replace(TRIAL, metrics={"test/accuracy": 0.4})))},
            "wrong",
            "MLflow's run of search bb: 1 metrics differ: test/accuracy 0.4, not 0.5",
        ),
        ({"runs": (*GOOD.runs, ("SL cc", TRIAL))}, "wrong", "SL cc belongs to no trial"),
        ({"rows": ()}, "wrong", "the report says"),
    ],
)
def test_every_fault_is_counted_once(changed: Mapping[str, object], count: str, text: str) -> None:
    faults = compare(GOOD, replace(GOOD, **changed))  # type: ignore[arg-type]
    assert {name: number for name, number in faults.counts().items() if number} == {count: 1}
    assert re.search(text, faults.lines()[0])


def test_a_finished_trial_stays_finished_and_is_not_trained_again(tmp_path: Path) -> None:
    for name, status in (("aa", "finished"), ("bb", "failed")):
        (tmp_path / "trials" / name).mkdir(parents=True)
        (tmp_path / "trials" / name / "result.json").write_text(f'{{\n  "status": "{status}"\n}}')
    before = finished(tmp_path)
    assert before.keys() == {"aa"}
    assert not kept(before, before).lines()
    assert kept(before, {}).counts()["lost"] == 1
    assert kept(before, {"aa": before["aa"] + 1}).counts()["doubled"] == 1


def test_a_seed_draws_the_same_blows_and_all_kinds_of_them() -> None:
    blows = [draw(0, number) for number in range(1, 101)]
    assert blows == [draw(0, number) for number in range(1, 101)]
    assert blows != [draw(1, number) for number in range(1, 101)]
    assert {(blow.target, blow.signal) for blow in blows} == {
        (target, number) for target in EVENTS for number in (signal.SIGKILL, signal.SIGSTOP)
    }
    assert all(blow.study == "workers" for blow in blows if blow.target == "worker")


def test_on_a_cluster_the_targets_take_turns() -> None:
    blows = [draw_on_cluster(0, number) for number in range(1, 31)]
    assert blows == [draw_on_cluster(0, number) for number in range(1, 31)]
    assert [blow.target for blow in blows[:4]] == [blow.target for blow in blows[4:8]] == list(ON_A_CLUSTER)
    assert {blow.study for blow in blows} == {"plain", "workers"}


def test_an_end_is_clear_when_its_code_and_its_text_say_why() -> None:
    assert unclear(0, "trials: 6 trained", False, None) == ""
    assert unclear(75, "run it again", False, None) == ""
    assert unclear(1, "SL · seed 0: failed: the loss became NaN", False, None) == ""
    assert unclear(1, "each trial: 1 CPU", False, None)  # Ray ended the process
    assert unclear(70, "has a defect", False, None)
    assert unclear(-9, "", False, None)


LEAVE = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], **{})"


@pytest.mark.slow
@pytest.mark.parametrize("options", ["{}", "dict(start_new_session=True)"])
def test_a_process_that_outlives_its_command_is_found_and_ended(tmp_path: Path, options: str) -> None:
    program = f"{LEAVE.replace('{}', options)}; import time; time.sleep(600)"
    family = Family([sys.executable, "-c", program], tmp_path, tmp_path / "out.txt", {})
    try:
        deadline = time.monotonic() + 30
        while len(family.members()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        send(family.find("driver"), signal.SIGKILL)
        family.driver.wait(10)
        (left,) = family.members()
        (name,) = family.orphans(grace=0.5)
        assert name.startswith(str(left.pid))
        assert not psutil.pid_exists(left.pid) or left.status() == psutil.STATUS_ZOMBIE
        assert psutil.pid_exists(os.getpid())
    finally:
        family.end()


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 4 minutes on two idle cores
def test_ten_blows_lose_nothing() -> None:
    """Fault C3, C8: SIGKILL and SIGSTOP of the driver, Ray's processes and trials' own; the same command each time."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--kills", "10", "--seed", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 blows" in done.stdout
    assert "lost: 0, doubled: 0, wrong: 0, hung: 0, orphans: 0, unclear: 0" in done.stdout
