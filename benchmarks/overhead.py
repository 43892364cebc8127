"""What the platform costs a trial and a study, compared with the same trainings under other drivers.

Every driver calls the same `train`, which writes the same folder, so all are timed alike: by the times at which
result.json and config.json were written. Start-up is apart.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

from benchmarks.bench import PROGRAM, Record, alone, difference, in_turns, ratio
from hmtl_ablate.config import parse_config
from hmtl_ablate.data.build import open_pack

OURS = "ours"
TUNE = "Ray Tune, function trainable, actors reused"
BARE = "one process, one training after another"
DRIVERS = {
    BARE: "bare",
    TUNE: "tune_reuse",
    "Optuna + a process a trial": "optuna",
    "Ray Tune's defaults": "tune",
    "Ray Tune + Ray Train V2": "tune_train",
}


def overhead(repeats: int, tiny: bool) -> Record:
    """Seconds from the end of a trial to the end of the next, warm, one at a time."""
    count, few = (3, 2) if tiny else (8, 3)
    base = {"data": {"images": 128, "size": 32}, "training": {"epochs": 2, "warmup_epochs": 0, "batch_size": 32}}
    with tempfile.TemporaryDirectory() as name:
        bench = _Bench(Path(name), base)
        sides = {OURS: lambda: bench.gap(bench.ours, count)}
        for title, driver in DRIVERS.items():
            number = count if driver in ("bare", "tune_reuse") else few
            sides[title] = lambda driver=driver, number=number: bench.gap(bench.driver(driver), number)  # type: ignore[misc]
        found = in_turns(sides, repeats)
    rows = [difference(found, OURS, TUNE, "s", "≤ 0.3")]
    rows += [alone(title, found[title], "s") for title in (OURS, *DRIVERS)]
    return Record(
        "overhead",
        "What does a trial cost in addition to its training?",
        rows,
        [
            "Median time from one trial's end to the next one's; each trains test_resnet for two epochs on 102 "
            "faces of 32 px on one thread. Ours writes MLflow with curves, pictures and weights as well."
        ],
    )


def study(repeats: int, tiny: bool) -> Record:
    """Wall time of a study of 12 trials over that of the bare trainings on as many processes."""
    count, cores = (2, 2) if tiny else (12, 2)
    base = {
        "data": {"images": 128 if tiny else 3000, "size": 48},
        "training": {"epochs": 1 if tiny else 2, "warmup_epochs": 0, "batch_size": 64},
    }
    with tempfile.TemporaryDirectory() as name:
        bench = _Bench(Path(name), base)
        found = in_turns(
            {
                "the study": lambda: bench.span(bench.ours, count, cores),
                "bare trainings": lambda: bench.span(bench.driver("bare"), count, cores),
            },
            repeats,
        )
        started = statistics.median(bench.started)
    rows = [ratio(found, "the study", "bare trainings", "s", "≤ 1.15")]
    return Record(
        "study",
        f"What does a study of {count} trials cost over its bare trainings, {cores} at once?",
        rows,
        [
            f"From the first trial's start to the last one's end, of trials a tenth as long as the minute that "
            f"the goal was set for: what a trial costs weighs ten times as much. Start-up and end of the "
            f"command, apart: {started:.1f} s."
        ],
    )


class _Bench:
    """A pack, and drivers that train seeds 0 … n − 1 of one config on it, each time in a store of its own."""

    def __init__(self, place: Path, base: Mapping[str, object]) -> None:
        self.place, self.base = place, base
        self.pack = open_pack(parse_config(base).data, None, place).folder
        self.runs = 0
        self.started: list[float] = []
        """Seconds that our command took beyond its trials."""

    def gap(self, run: Callable[[Path, int, int], None], count: int) -> float:
        store = self._store()
        run(store, count, 1)
        ends = sorted(path.stat().st_mtime for path in (store / "trials").glob("*/result.json"))
        assert len(ends) == count
        return statistics.median(b - a for a, b in pairwise(ends))

    def span(self, run: Callable[[Path, int, int], None], count: int, cores: int) -> float:
        store = self._store()
        started = time.perf_counter()
        run(store, count, cores)
        whole = time.perf_counter() - started
        ends = [path.stat().st_mtime for path in (store / "trials").glob("*/result.json")]
        assert len(ends) == count
        seconds = max(ends) - min(path.stat().st_mtime for path in (store / "trials").glob("*/config.json"))
        if run == self.ours:
            self.started.append(whole - seconds)
        return seconds

    def ours(self, store: Path, count: int, cores: int) -> None:
        study = self.place / "study.yaml"
        study.write_text(
            json.dumps({"name": "overhead", "base": self.base, "variants": {"SL": {}}, "seeds": list(range(count))})
        )  # JSON is YAML
        subprocess.run(
            [PROGRAM, "run", study, "--runs", store, "--max-concurrent", str(cores)],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def driver(self, name: str) -> Callable[[Path, int, int], None]:
        def run(store: Path, count: int, cores: int) -> None:
            running = [
                subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "benchmarks.drivers",
                        name,
                        json.dumps(self.base),
                        str(self.pack),
                        str(store),
                        *map(str, range(count)[core::cores]),
                    ],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for core in range(cores)
            ]
            for one in running:
                error = one.communicate()[1]
                if one.returncode:
                    raise RuntimeError(f"driver {name}: {error[-2000:]}")

        return run

    def _store(self) -> Path:
        """A new store that has the pack already."""
        self.runs += 1
        store = self.place / f"store-{self.runs}"
        (store / "trials").mkdir(parents=True)
        (store / "packs").mkdir()
        (store / "packs" / self.pack.name).symlink_to(self.pack.resolve(), target_is_directory=True)
        return store
