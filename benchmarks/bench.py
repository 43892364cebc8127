"""What every benchmark shares: sides that take turns, medians of ratios, and the record of a run.

A machine's speed drifts with its load, so nothing is compared across runs: the sides of a comparison run in turns, and
each repeat gives one ratio.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any

import torch

from hmtl_ablate.training.revision import DIRTY, revision

PROGRAM = Path(sys.executable).parent / "hmtl-ablate"
PACKAGES = ("torch", "timm", "ray", "optuna", "mlflow", "albumentations", "numpy")


@dataclass(frozen=True)
class Row:
    """One comparison: `figure` is the median over the repeats, `low` and `high` their ends; goal: e.g. "≥ 0.97"."""

    what: str
    against: str
    measured: str
    """Medians of both sides, with their unit; empty when there is one side."""
    figure: float
    low: float
    high: float
    unit: str = "×"
    goal: str = ""

    @property
    def reached(self) -> bool | None:
        """Does the median reach the goal? None without a goal."""
        if not self.goal:
            return None
        sign, number = self.goal.split()[:2]
        return self.figure >= float(number) if sign == "≥" else self.figure <= float(number)


@dataclass(frozen=True)
class Record:
    """All that one benchmark found."""

    benchmark: str
    question: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Name of a curve → its points, for a figure next to the table."""


def stamped(record: Record, repeats: int, seconds: float) -> dict[str, Any]:
    """The record as JSON data, with where and with what it was made."""
    return {
        "benchmark": record.benchmark,
        "question": record.question,
        "rows": [{**asdict(row), "reached": row.reached} for row in record.rows],
        "notes": record.notes,
        **({"curves": record.curves} if record.curves else {}),
        "repeats": repeats,
        "seconds": round(seconds, 1),
        "commit": revision().commit[:7] + (DIRTY if revision().diff else ""),
        "hardware": hardware(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def hardware() -> str:
    """Processor, cores and GPU in words."""
    names = [line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    what = f"{len(names) or 1} × {names[0] if names else platform.machine()}"
    if torch.cuda.is_available():
        what += f", {torch.cuda.get_device_name()}"
    return what


def in_turns(sides: Mapping[str, Callable[[], float]], repeats: int, warm_up: int = 0) -> dict[str, list[float]]:
    """Run every side once a repeat, in turns; each returns its figure. The first `warm_up` rounds are not kept."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(warm_up + repeats):
        for name, run in sides.items():
            value = run()
            if number >= warm_up:
                found[name].append(value)
    return found


def ratio(found: Mapping[str, list[float]], what: str, against: str, unit: str, goal: str = "") -> Row:
    """Side `what` over side `against`, repeat by repeat."""
    ratios = [a / b for a, b in zip(found[what], found[against], strict=True)]
    return Row(
        what,
        against,
        f"{_number(found[what])} : {_number(found[against])} {unit}",
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        goal=goal,
    )


def difference(found: Mapping[str, list[float]], what: str, against: str, unit: str, goal: str = "") -> Row:
    """Side `what` minus side `against`, repeat by repeat."""
    found_ = [a - b for a, b in zip(found[what], found[against], strict=True)]
    return Row(
        what,
        against,
        f"{_number(found[what])} − {_number(found[against])} {unit}",
        statistics.median(found_),
        min(found_),
        max(found_),
        unit=unit,
        goal=goal,
    )


def alone(what: str, values: list[float], unit: str, goal: str = "") -> Row:
    """A figure without a comparison."""
    return Row(what, "", "", statistics.median(values), min(values), max(values), unit=unit, goal=goal)


class Turns:
    """A function that calls back now and then, run from one call-back to the next at each `advance`.

    So a training that is written as one function can take turns with another one, an epoch each, both warm.
    """

    def __init__(self, run: Callable[[Callable[[], None]], object]) -> None:
        self._go, self._come = Semaphore(0), Semaphore(0)
        self._error: BaseException | None = None

        def follow() -> None:
            self._go.acquire()
            try:
                run(self._pause)
            except BaseException as error:
                self._error = error
            self._come.release()

        self._thread = Thread(target=follow, daemon=True)
        self._thread.start()

    def _pause(self) -> None:
        self._come.release()
        self._go.acquire()

    def advance(self) -> float:
        """Let it go on to its next call-back, or to its end; gives the seconds that took."""
        started = time.perf_counter()
        self._go.release()
        self._come.acquire()
        seconds = time.perf_counter() - started
        if self._error is not None:
            raise self._error
        return seconds


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def table(rows: list[Row]) -> list[list[str]]:
    """Cells of a table: what, against, measured, figure with its range, goal, reached."""
    cells = [["What", "Against", "Medians", "Figure (range)", "Goal", ""]]
    for row in rows:
        figure = f"{_number([row.figure])} {row.unit} ({_number([row.low])} … {_number([row.high])})"
        cells.append(
            [row.what, row.against, row.measured, figure, row.goal, {True: "yes", False: "NO", None: ""}[row.reached]]
        )
    return cells


def _number(values: list[float]) -> str:
    value = statistics.median(values)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:  # PackageNotFoundError: a machine with the training core alone
        return ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
