"""The benchmarks run from a checkout; what they measure is not asserted, since a test machine is shared."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks.bench import Turns, alone, difference, in_turns, ratio, stamped  # type: ignore[import-not-found]
from benchmarks.curve import write_curve  # type: ignore[import-not-found]
from benchmarks.page import page  # type: ignore[import-not-found]
from benchmarks.scale import CASES, PARTS, record_of, simulate  # type: ignore[import-not-found]
from tests.conftest import ROOT  # type: ignore[import-not-found]


def call(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_ratio_is_the_median_over_the_repeats() -> None:
    found = {"ours": [2.0, 9.0, 4.0], "theirs": [1.0, 3.0, 4.0]}
    row = ratio(found, "ours", "theirs", "s", "≤ 2")
    assert (row.figure, row.low, row.high, row.reached) == (2.0, 1.0, 3.0, True)
    assert difference(found, "ours", "theirs", "s", "≤ 0.5").reached is False
    assert alone("theirs", found["theirs"], "s").reached is None


def test_sides_take_turns() -> None:
    order: list[str] = []

    def turn(name: str) -> float:
        order.append(name)
        return float(len(order))

    sides = {name: partial(turn, name) for name in "ab"}
    assert in_turns(sides, repeats=2, warm_up=1) == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
    assert order == list("ababab")


def test_a_function_goes_on_from_call_back_to_call_back() -> None:
    seen: list[int] = []

    def work(pause: object) -> None:
        for number in range(2):
            seen.append(number)
            pause()  # type: ignore[operator]
        raise ValueError("over")

    turns = Turns(work)
    assert seen == []
    assert turns.advance() > 0
    assert seen == [0]
    turns.advance()
    assert seen == [0, 1]
    with pytest.raises(ValueError, match="over"):
        turns.advance()


@pytest.mark.parametrize("case", CASES)
def test_the_driver_is_simulated_with_many_trials_in_flight(case: str, tmp_path: Path) -> None:
    store, pages = tmp_path / "store", tmp_path / "performance"
    store.mkdir()
    pages.mkdir()
    found = simulate(case, 6, 3, store, before=5 if case == "tpe" else 0)
    assert found.windows[-1].ended == 6
    assert len(list((store / "trials").glob("*/result.json"))) == 6
    assert len(list((store / "trials").glob("*/config.json"))) == 9  # three are in flight
    assert found.warnings == []
    for window in found.windows:
        assert window.driver == pytest.approx(sum(getattr(window, part) for part in (*PARTS, "rest")))
    content = stamped(record_of([found]), 1, 1.0)
    (pages / "scale.json").write_text(json.dumps(content))
    write_curve(content, pages / "scale.svg")
    assert "![What does the driver spend per trial with 3 in flight?](performance/scale.svg)" in page(pages)
    assert f"{case}, MLflow: trial 6" in page(pages)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ["training", "pretext", "transform", "loading", "memory", "sequential", "gpu"],
        ["images", "packs", "trials"],
        ["scale", "ray_share"],
    ],
    ids=" ".join,
)
def test_benchmarks_print_a_table_and_a_line_of_json(names: list[str], tmp_path: Path) -> None:
    done = call(*names, "--tiny", "--repeats", 1, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [line["benchmark"] for line in lines] == names
    for line in lines:
        assert line == json.loads((tmp_path / f"{line['benchmark']}.json").read_text())
        assert line["rows"]
        assert line["hardware"]
        assert all(row["low"] <= row["figure"] <= row["high"] for row in line["rows"])


@pytest.mark.slow
def test_an_unknown_benchmark_is_refused_with_the_known_ones() -> None:
    done = call("speed")
    assert done.returncode == 2
    assert "there is no benchmark 'speed'; choose of training, pretext" in done.stderr
