"""A driver at scale: what the conductor spends per trial, with 1,000 trials in flight and up to 10,000 of them.

python -m benchmarks.scale [CASE…] [--trials N] [--slots N] [--before N] [--seconds N] [--output DIR]

The engine is simulated: a queue of events in simulated time, and a trainer that writes a real trial folder. All else
is real: conductor, Optuna's SQLite, MLflow's SQLite, and the folders. Each case runs in a process of its own.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench import Record, Row, alone, stamped
from hmtl_ablate.config import DataConfig, TrialConfig, parse_config
from hmtl_ablate.running.conductor import Conductor
from hmtl_ablate.running.job import Job
from hmtl_ablate.running.task import PRUNE, TrialTask
from hmtl_ablate.study import Study
from hmtl_ablate.training.folder import TrialFolder, TrialResult

CASES = ("tpe", "random", "variants")
"""A search by one of two samplers, or a list of variants and seeds without a search."""
EPOCHS = 3
SEEDS = 500
"""Of each variant in the case `variants`."""
PARTS = ("suggestion", "report", "tell", "mlflow")
"""What the driver's time is split into; the rest is the package's own work."""
NAMES = {
    "driver": "driver, all",
    "suggestion": "Optuna: suggestion",
    "report": "Optuna: epochs and pruner",
    "tell": "Optuna: end of a trial",
    "mlflow": "MLflow",
    "rest": "the package's own work",
    "cpu": "driver, all, CPU time",
    "forecast": "time left (one call)",
}
FLAT = 1.25
"""Goal: the cost of a trial at half of the trials, relative to that of the first tenth."""
BASE: dict[str, Any] = {"data": {"images": 64, "size": 32}, "training": {"epochs": EPOCHS, "warmup_epochs": 0}}
SPACE: dict[str, dict[str, list[float]]] = {
    "pretext.puzzling.weight": {"loguniform": [0.1, 10.0]},
    "pretext.puzzling.grid": {"choice": [2, 3, 4]},
    "training.lr": {"loguniform": [1e-4, 1e-2]},
    "model.dropout": {"uniform": [0.0, 0.5]},
}


@dataclass(frozen=True)
class Window:
    """Means over some trials that ended one after another. Times are in milliseconds per trial."""

    ended: int
    """Trials that had ended at its end."""
    driver: float
    cpu: float
    suggestion: float
    report: float
    tell: float
    mlflow: float
    rest: float
    writes_per_second: float
    """Calls of MLflow's client that write, over the time spent in MLflow."""
    forecast: float
    """One call of `Conductor.time_left`."""
    memory: float
    """Resident memory of the driver, MiB."""
    cpu_parts: dict[str, float]
    """CPU time of the parts, which other work on the machine changes less."""


@dataclass(frozen=True)
class Found:
    """What one case has found."""

    case: str
    trials: int
    slots: int
    before: int
    """Finished trials that the search had at the start."""
    start: float
    """Seconds until the conductor is ready."""
    fill: float
    """Milliseconds per trial that is started while the slots are filled."""
    first_memory: float
    """Resident memory of the driver before the first trial, MiB."""
    warnings: list[str]
    """What the conductor warned of, at most three."""
    windows: list[Window]


class Clock:
    """Seconds, CPU seconds and calls, summed up over some methods of an object or a class."""

    def __init__(self, owner: Any = None, methods: Sequence[str] = ()) -> None:
        self.seconds, self.cpu, self.calls = 0.0, 0.0, 0
        for name in methods:
            setattr(owner, name, self.timed(getattr(owner, name)))

    def timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            started, cpu = time.perf_counter(), time.process_time()
            try:
                return method(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - started
                self.cpu += time.process_time() - cpu
                self.calls += 1

        return call


@dataclass
class Listener:
    """Remembers the warnings."""

    warned: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warned.append(text)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: None


class Trainer:
    """Writes a trial's folder as training does, epoch by epoch, from a curve that depends on the trial's id."""

    def __init__(self, task: TrialTask, trial_id: str) -> None:
        self.task, self.folder, self.trial_id = task, TrialFolder(task.folder), trial_id
        self.config: TrialConfig = parse_config(task.config)
        self.value = int(trial_id[:8], 16) / 2**32
        """From 0 to 1."""
        self.folder.write_config(self.config)
        self.folder.log("started")
        (self.folder.path / "best.safetensors").write_bytes(b"\0" * 64)

    @property
    def pace(self) -> float:
        """Simulated seconds of an epoch."""
        return 0.5 + int(self.trial_id[8:16], 16) / 2**32

    def epoch(self, number: int) -> None:
        accuracy = self.value * number / EPOCHS
        row = {"epoch": number, "val/accuracy": accuracy, "val/loss": 2 - accuracy, "train/loss": 2 - accuracy}
        self.folder.append_history(row | {"image_passes": 51.0 * number, "seconds": float(number)})

    def over(self, number: int) -> bool:
        """Whether the trial is over with this epoch; then its result is written."""
        pruned = number < EPOCHS and (self.task.folder / PRUNE).exists()
        if number < EPOCHS and not pruned:
            return False
        metrics = {"best/val/accuracy": self.value * number / EPOCHS, "best/val/loss": 1.0}
        if self.task.evaluate_test and not pruned:
            metrics |= {"test/accuracy": self.value}
        self.folder.write_result(
            TrialResult(
                trial_id=self.trial_id,
                status="pruned" if pruned else "finished",
                epochs=number,
                best_epoch=number,
                metrics=metrics,
                image_passes=51 * number,
                seconds=float(number),
                tags={"device": "cpu", "cpu": "simulated", "precision": "fp32"},
            )
        )
        return True


class Slots:
    """The engine: so many trials at once, in simulated time."""

    def __init__(self, conductor: Conductor, slots: int, stop: Path) -> None:
        self.conductor, self.slots, self.stop = conductor, slots, stop
        self.driver, self.started, self.ended = Clock(), 0, 0
        self._events: list[tuple[float, int, int, Job, Trainer]] = []

    def fill(self, now: float = 0.0) -> None:
        """Start trials until no slot is free, or the conductor has none."""
        while len(self._events) < self.slots and (job := self._ask(self.conductor.next)) is not None:
            trainer = Trainer(self._ask(self.conductor.task, job, self.stop), job.trial_id)
            self.started += 1
            heapq.heappush(self._events, (now + trainer.pace, self.started, 1, job, trainer))

    def until(self, ended: int) -> bool:
        """Run until so many trials have ended; False when nothing is left before."""
        while self.ended < ended:
            if not self._events:
                return False
            now, number, epoch, job, trainer = heapq.heappop(self._events)
            trainer.epoch(epoch)
            self._ask(self.conductor.epoch, job, epoch)
            if trainer.over(epoch):
                self._ask(self.conductor.end, job)
                self.ended += 1
                self.fill(now)
            else:
                heapq.heappush(self._events, (now + trainer.pace, number, epoch + 1, job, trainer))
        return True

    def _ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return self.driver.timed(method)(*arguments)


def simulate(case: str, trials: int, slots: int, place: Path, *, seconds: float = math.inf, before: int = 0) -> Found:
    """Run one case in the store `place`.

    seconds: ends with what it has once these are over. before: trials that Optuna's database has at the start; MLflow
    and the folder of trials do not have them.
    """
    from hmtl_ablate.data.build import open_pack
    from hmtl_ablate.running.optuna_search import OptunaSearch, connect
    from hmtl_ablate.running.racing import Racer
    from hmtl_ablate.running.resolver import Packs, Resolver
    from hmtl_ablate.running.timekeeper import Timekeeper
    from hmtl_ablate.study import data_configs, load_study
    from hmtl_ablate.tracking import open_tracking

    began = time.perf_counter()
    file = place / "scale.yaml"
    file.write_text(json.dumps(declared(case, before + trials + slots)))  # JSON is YAML
    study: Study = load_study(file)
    pack = open_pack(DataConfig(images=64, size=32), None, place)
    packs = Packs({Packs.key(data): pack for data in data_configs(study)})
    tracking, listener = open_tracking(None, place), Listener()

    def opened() -> list[OptunaSearch]:
        identify = Resolver(study, packs).identify
        return [OptunaSearch(one, "scale", study.seeds[:1], connect(None, place), identify) for one in study.searches]

    if before:
        _finish(opened()[0], before, place / "optuna.db")
    searches = opened()
    keeper = Timekeeper(place, study.resources, "local", at_once=slots)
    started = time.perf_counter()
    racers = [Racer(one, place) for one in searches]
    conductor = Conductor(study, packs, place, tracking, racers, listener, False, keeper)
    start = time.perf_counter() - started
    methods = {"suggestion": ("next",), "report": ("report",), "tell": ("tell",)}
    clocks = {name: Clock(one, names) for one in searches for name, names in methods.items()}
    clocks["mlflow"] = Clock(tracking, ("trial_run", "log_epochs", "finish_trial"))
    writes = Clock(tracking.client, ("create_run", "log_batch", "log_inputs", "set_terminated", "update_run"))
    engine = Slots(conductor, slots, place / "stop")
    memory, windows = resident(), list[Window]()
    engine.fill()
    fill = 1000 * engine.driver.seconds / max(engine.started, 1)
    size = max(min(500, trials // 10), 1)
    while engine.ended < trials and time.perf_counter() - began < seconds:
        spent = {name: (clock.seconds, clock.cpu) for name, clock in clocks.items()}
        driver, cpu, wrote, ended = engine.driver.seconds, engine.driver.cpu, writes.calls, engine.ended
        if not engine.until(min(engine.ended + size, trials)):
            break
        each = 1000 / (engine.ended - ended)
        parts = {name: each * (clock.seconds - spent[name][0]) for name, clock in clocks.items()}
        cpu_parts = {name: round(each * (clock.cpu - spent[name][1]), 2) for name, clock in clocks.items()}
        parts = {name: parts.get(name, 0.0) for name in PARTS}
        whole, clock = each * (engine.driver.seconds - driver), Clock()
        clock.timed(conductor.time_left)(trials - engine.started)
        windows.append(
            Window(
                ended=engine.ended,
                driver=whole,
                cpu=each * (engine.driver.cpu - cpu),
                rest=whole - sum(parts.values()),
                writes_per_second=each * (writes.calls - wrote) / parts["mlflow"],
                forecast=1000 * clock.seconds,
                memory=resident(),
                cpu_parts=cpu_parts,
                **parts,
            )
        )
        print(json.dumps({"case": case, "ended": engine.ended, "driver": round(whole, 1)}), file=sys.stderr, flush=True)
    return Found(case, trials, slots, before, start, fill, memory, listener.warned[:3], windows)


def _finish(search: Any, count: int, database: Path) -> None:
    """Have Optuna's database hold so many finished trials: one by Optuna, and copies of it with other values."""
    from optuna.trial import TrialState

    draw = search.next()
    for epoch in range(1, EPOCHS + 1):
        search.report(draw, epoch, epoch / 10)
    search.tell(draw, TrialState.COMPLETE, [EPOCHS / 10])
    chance = "(0.5 + random() / 18446744073709551616.0)"
    with sqlite3.connect(database) as connection:
        connection.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x + 1 < ?) "
            "INSERT INTO trials (number, study_id, state, datetime_start, datetime_complete) "
            "SELECT x, study_id, state, datetime_start, datetime_complete FROM trials, n WHERE number = 0",
            [count],
        )
        for table in ("params", "values", "intermediate_values", "user_attributes", "system_attributes"):
            known = [row[1] for row in connection.execute(f"PRAGMA table_info(trial_{table})")][1:]
            columns = ", ".join(name for name in known if name != "trial_id")
            connection.execute(
                f"INSERT INTO trial_{table} (trial_id, {columns}) SELECT trials.trial_id, "
                f"{columns} FROM trials, (SELECT {columns} FROM trial_{table}) WHERE number > 0"
            )
        for key, one in SPACE.items():
            low, high = next(iter(one.values()))[:2]
            if "choice" not in one:
                words = f"UPDATE trial_params SET param_value = {low} + {high - low} * {chance} WHERE param_name = ?"
                connection.execute(words, [key])
        connection.execute(f"UPDATE trial_values SET value = {chance}")
        connection.execute(
            "UPDATE trial_user_attributes SET value_json = '\"' || trial_id || '\"' WHERE key = 'trial_id'"
        )
    connection.close()


def declared(case: str, trials: int) -> dict[str, Any]:
    """The study of a case, with at least so many trials."""
    if case == "variants":
        count = min(SEEDS, trials)
        weights = range(math.ceil(trials / count))
        variants = {f"weight {n}": {"pretext": {"puzzling": {"weight": 1 + n / 100}}} for n in weights}
        return {"name": "scale", "question": "Scale?", "base": BASE, "variants": variants, "seeds": list(range(count))}
    search: dict[str, Any] = {
        "racing": None,
        "base": {"pretext": {"puzzling": {}}},
        "space": SPACE,
        "sampler": case,
        "pruner": {"name": "successive_halving", "grace_epochs": 1},
        "trials": trials,
        "confirm": False,
    }
    return {"name": "scale", "question": "Scale?", "base": BASE, "seeds": [0], "search": search}


def resident() -> float:
    """Resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def scale(repeats: int, tiny: bool) -> Record:
    """All cases, one after another."""
    trials, slots = (60, 20) if tiny else (10_000, 1_000)
    return record_of([_apart(case, trials, slots) for case in CASES])


def record_of(cases: Sequence[Found]) -> Record:
    """The record of some cases: figures at a tenth, a half and all of the trials, and the first bottleneck."""
    rows, notes = list[Row](), list[str]()
    for found in cases:
        rows += _rows(found)
        notes += _notes(found)
    trials, slots = max((one.trials, one.slots) for one in cases)
    notes = [
        f"Up to {trials:,} trials of {EPOCHS} epochs, {slots:,} in flight, in simulated time; conductor, Optuna's "
        "SQLite, MLflow's SQLite and the trials' folders are real. Searches over four parameters with successive "
        f"halving; variants with {SEEDS} seeds each. A figure is the mean per trial over the trials between two marks.",
        *notes,
    ]
    curves = {one.case: [vars(window) for window in one.windows] for one in cases}
    return Record("scale", f"What does the driver spend per trial with {slots:,} in flight?", rows, notes, curves)


def points_of(cases: Sequence[Found]) -> Record:
    """The record of runs that began with some finished trials: a point of the curve for each."""
    rows, curves = list[Row](), dict[str, list[dict[str, Any]]]()
    for found in [one for one in cases if one.windows]:
        name = f"{found.case}, after {found.before:,} trials"
        rows.append(alone(f"{name}: start of the conductor", [found.start], "s"))
        for key, text in NAMES.items():
            if any(values := [getattr(one, key) for one in found.windows]):
                rows.append(alone(f"{name}: {text}", values, "ms"))
        rows.append(alone(f"{name}: MLflow's writes", [one.writes_per_second for one in found.windows], "/s"))
        rows.append(alone(f"{name}: memory", [one.memory for one in found.windows], "MiB"))
        point = {name: median(getattr(one, name) for one in found.windows) for name in (*PARTS, "rest", "cpu")}
        curves.setdefault(found.case, []).append({"ended": found.before, **point})
    note = (
        f"{cases[0].trials} trials of {EPOCHS} epochs, {cases[0].slots} in flight, after so many finished ones, which "
        "were written into Optuna's database alone: MLflow and the folder of trials did not have them. The engine is "
        "simulated; conductor, Optuna's SQLite, MLflow's SQLite and the trials' folders are real. Searches over four "
        "parameters with successive halving. A figure is the median over ten windows."
    )
    return Record("scale", "What does the driver spend per trial, far into a search?", rows, [note], curves)


def _rows(found: Found) -> list[Row]:
    rows = [
        alone(f"{found.case}: start of the conductor", [found.start], "s"),
        alone(f"{found.case}: start of a trial while the slots fill", [found.fill], "ms"),
    ]
    marks = [mark for mark in _marks(found.trials) if found.windows and mark <= found.windows[-1].ended]
    for name, text in NAMES.items():
        if any(getattr(one, name) for one in found.windows):
            rows += [
                alone(f"{found.case}, {text}: trial {mark:,}", [getattr(one, name) for one in near(found, mark)], "ms")
                for mark in marks
            ]
    for mark in marks:
        speeds = [one.writes_per_second for one in near(found, mark)]
        rows.append(alone(f"{found.case}, MLflow's writes: trial {mark:,}", speeds, "/s"))
    rows += [
        alone(f"{found.case}, memory: trial {mark:,}", [one.memory for one in near(found, mark)], "MiB")
        for mark in marks
    ]
    if len(marks) > 1:
        first, half = ([one.cpu for one in near(found, mark)] for mark in marks[:2])
        base = sum(first) / len(first)
        what, against = (f"{found.case}, CPU time: trial {mark:,}" for mark in (marks[1], marks[0]))
        row = alone(what, [value / base for value in half], "×", f"≤ {FLAT}")
        rows.append(Row(row.what, against, "", row.figure, row.low, row.high, "×", row.goal))
    return rows


def _notes(found: Found) -> list[str]:
    notes = [f"{found.case}: warning of the conductor: {text}" for text in found.warnings]
    if not found.windows:
        return [*notes, f"{found.case}: ended before its first mark."]
    last, marks = found.windows[-1], _marks(found.trials)
    if last.ended < found.trials:
        notes.append(f"{found.case}: ended after {last.ended:,} of {found.trials:,} trials: its time was up.")
    first = near(found, marks[0])
    parts = [name for name in (*PARTS, "rest") if getattr(last, name)]
    most = max(parts, key=lambda name: float(getattr(last, name)))
    grown = {name: getattr(last, name) - sum(getattr(one, name) for one in first) / len(first) for name in parts}
    grew = max(grown, key=lambda name: float(grown[name]))
    notes.append(
        f"{found.case}, at {last.ended:,}: the largest part is {NAMES[most]}, {getattr(last, most):.1f} of "
        f"{last.driver:.1f} ms; the part that has grown the most since trial {marks[0]:,} is {NAMES[grew]}, by "
        f"{grown[grew]:.1f} ms; the driver is full at {1000 / last.driver:.1f} trials per second."
    )
    return notes


def _marks(trials: int) -> list[int]:
    return [max(trials // 10, 1), max(trials // 2, 1), trials]


def near(found: Found, mark: int) -> list[Window]:
    """The windows that end at a mark, or up to a tenth of all trials before it."""
    return [one for one in found.windows if mark - found.trials / 10 < one.ended <= mark]


def _apart(case: str, trials: int, slots: int, seconds: float = math.inf, before: int = 0) -> Found:
    """Simulate a case in a process of its own, so that its memory is that of the case alone."""
    words = [case, "--here", "--trials", str(trials), "--slots", str(slots), "--seconds", str(seconds)]
    words += ["--before", str(before)]
    done = subprocess.run([sys.executable, "-m", "benchmarks.scale", *words], stdout=subprocess.PIPE, check=True)
    return read(json.loads(done.stdout.splitlines()[-1]))


def read(content: dict[str, Any]) -> Found:
    return Found(**{**content, "windows": [Window(**one) for one in content["windows"]]})


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all when left out")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=math.inf, help="time limit of each case")
    parser.add_argument("--before", type=int, nargs="*", default=[], help="finished trials of the search at the start")
    parser.add_argument("--output", type=Path, help="folder for scale.json and scale.svg")
    parser.add_argument("--here", action="store_true", help="one case in this process; prints what it has found")
    options = parser.parse_args(arguments)
    cases = options.cases or list(CASES)
    if unknown := set(cases) - set(CASES):
        parser.error(f"there is no case {min(unknown)!r}; choose of {', '.join(CASES)}")
    starts = options.before or [0]
    if options.here:
        with tempfile.TemporaryDirectory() as name:
            found = simulate(
                cases[0], options.trials, options.slots, Path(name), seconds=options.seconds, before=starts[0]
            )
        print(json.dumps({**vars(found), "windows": [vars(one) for one in found.windows]}), flush=True)
        return 0
    started = time.perf_counter()
    size = options.trials, options.slots, options.seconds
    every = [_apart(case, *size, before) for case in cases for before in starts]
    record = points_of(every) if options.before else record_of(every)
    content = stamped(record, 1, time.perf_counter() - started)
    content["command"] = " ".join(["python -m benchmarks.scale", *arguments])
    print(json.dumps(content, indent=2))
    if options.output:
        from benchmarks.curve import write_curve

        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "scale.json").write_text(json.dumps(content, indent=2) + "\n")
        write_curve(content, options.output / "scale.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
