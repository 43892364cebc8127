"""Costs that grow: curves over the number of finished trials, over batch and image size, over cores and over time."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import PROGRAM, Record, Row, alone, threads
from benchmarks.loading import STORED, write_faces
from benchmarks.training import config, faces, platform_side
from hmtl_ablate.config import DataConfig
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.storage.files import write_atomically
from hmtl_ablate.training.folder import TrialResult

WINDOW = 10
"""Trials around a mark that its figure is the median of."""
SEARCH = """
name: growth
question: Does the platform stay quick?
base: {data: {images: 64, size: 32}}
seeds: [0]
search:
  racing: null
  base: {pretext: {puzzling: {}}}
  space:
    pretext.puzzling.weight: {loguniform: [0.1, 10.0]}
    pretext.puzzling.grid: {choice: [2, 3, 4]}
    training.lr: {loguniform: [1.0e-4, 1.0e-2]}
    model.dropout: {uniform: [0.0, 0.5]}
  sampler: tpe
  pruner: {name: successive_halving, grace_epochs: 1}
  trials: 20
  confirm: false
"""


def trials(repeats: int, tiny: bool) -> Record:
    """Seconds the driver spends on a trial, over the trials that are finished; then report and plan over the runs."""
    from hmtl_ablate.running.conductor import Conductor
    from hmtl_ablate.running.listener import SilentListener
    from hmtl_ablate.running.optuna_search import OptunaSearch, connect
    from hmtl_ablate.running.racing import Racer
    from hmtl_ablate.running.resolver import Packs, Resolver
    from hmtl_ablate.study import load_study
    from hmtl_ablate.tracking import open_tracking

    marks = (10, 30) if tiny else (10, 100, 1000, 5000)
    spent: dict[str, list[float]] = {"suggestion (Optuna)": [], "MLflow": [], "all": []}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        file, store = place / "growth.yaml", place / "runs"
        file.write_text(SEARCH)
        store.mkdir()
        study = load_study(file, trials=marks[-1] + WINDOW)
        data = study.search.resolve({}, 0).data if study.search else DataConfig()
        packs = Packs({Packs.key(data): open_pack(data, None, store)})
        tracking = open_tracking(None, store)
        assert study.search is not None
        optuna_search = OptunaSearch(
            study.search, "growth", (0,), connect(None, store), Resolver(study, packs).identify
        )
        conductor = Conductor(study, packs, store, tracking, [Racer(optuna_search, store)], SilentListener(), True)
        clocks = {
            "suggestion (Optuna)": _clocked(optuna_search, ("next", "report", "tell")),
            "MLflow": _clocked(tracking, ("trial_run", "log_epochs", "finish_trial")),
        }
        for number in range(1, marks[-1] + WINDOW + 1):
            before = {key: clock[0] for key, clock in clocks.items()}
            started = time.perf_counter()
            job = conductor.next()
            assert job is not None
            trained = _stub(job.folder.path, job.trial_id, number, partial(conductor.epoch, job))
            conductor.end(job)
            spent["all"].append(time.perf_counter() - started - trained)
            for key, clock in clocks.items():
                spent[key].append(clock[0] - before[key])
            if number - WINDOW in marks:
                for what, seconds in {"report": _report(store, repeats), "plan": _plan(file, store, repeats)}.items():
                    rows.append(alone(f"{what}, {number - WINDOW:,} runs", seconds, "s"))
        for key, seconds in spent.items():
            rows += [alone(f"driver, {key}: trial {mark:,}", seconds[mark : mark + WINDOW], "s") for mark in marks]
    return Record(
        "trials",
        "Do a trial's costs grow with the trials before it?",
        rows,
        [
            "A search by TPE over four parameters with early stopping; three epochs a trial, whose training is "
            "a stub; everything else is real: Optuna's SQLite, MLflow's SQLite, the trials' folders."
        ],
    )


def images(repeats: int, tiny: bool) -> Record:
    """Images a second over batch size, image size and threads."""
    rows = []
    points: list[dict[str, Any]] = (
        [{"batch_size": 16}]
        if tiny
        else [
            *({"batch_size": batch} for batch in (16, 64, 256)),
            *({"size": size} for size in (48, 96, 112)),
            {"threads": 2},
        ]
    )
    net = "test_resnet" if tiny else "efficientnet_b0"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for number, point in enumerate(points):
            size, batch = point.get("size", 64), point.get("batch_size", 64)
            count = 128 if tiny else 640  # two steps of the largest batch
            with threads(point.get("threads", 1)):
                settings = config(net, size, count, training={"batch_size": batch})
                side = platform_side(faces(size, count, place), settings, place / f"trial-{number}")
                side()
                found = [side() for _ in range(repeats)]
            rows.append(
                alone(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in point.items()), found, "images/s")
            )
    return Record(
        "images",
        f"How does training speed move with batch, size and threads ({net})?",
        rows,
        ["64 px, batch 64, one thread, fp32, unless said; whole epochs, as in the benchmark `training`."],
    )


def packs(repeats: int, tiny: bool) -> Record:
    """Images a second into a pack, over cores."""
    count = 64 if tiny else 1500
    rows = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        write_faces(place / "faces", count, STORED)
        for cores in range(1, len(os.sched_getaffinity(0)) + 1):
            for what, data, path in (
                ("JPEGs of 350 px to 112 px", DataConfig(name="folder", size=112), place / "faces"),
                ("rendered faces, 48 px", DataConfig(images=count), None),
            ):
                found = []
                for repeat in range(repeats):
                    started = time.perf_counter()
                    open_pack(data, path, place / f"store-{cores}-{repeat}", threads=cores)
                    found.append(count / (time.perf_counter() - started))
                rows.append(alone(f"{what}, {cores} core{'s' if cores > 1 else ''}", found, "images/s"))
    return Record("packs", "How fast is a pack built?", rows, ["With the search for duplicates."])


def actors(repeats: int, tiny: bool) -> Record:
    """Memory of the process that trains, over 200 trials."""
    count = 6 if tiny else 200
    seen: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        file = place / "actors.yaml"
        file.write_text(
            json.dumps(
                {
                    "name": "actors",
                    "variants": {"SL": {}},
                    "seeds": list(range(count)),
                    "base": {
                        "data": {"images": 64, "size": 32},
                        "training": {"epochs": 1, "warmup_epochs": 0, "batch_size": 16},
                    },
                }
            )
        )
        run = subprocess.Popen(
            [PROGRAM, "run", file, "--runs", place / "runs", "--max-concurrent", "1"], stdout=subprocess.DEVNULL
        )
        while run.poll() is None:
            done = len(list((place / "runs" / "trials").glob("*/result.json")))
            if size := _actor_bytes():
                seen[done] = size
            time.sleep(0.1)
        if run.returncode:
            raise RuntimeError("hmtl-ablate run failed")
    marks = [mark for mark in (1, 10, 50, 100, 150, 199) if mark in seen]
    rows = [alone(f"after {mark} trials", [seen[mark] / 2**20], "MiB") for mark in marks]
    return Record("actors", "Does the process that trains grow?", rows, ["Resident set of the Ray actor."])


CURVES: dict[str, Callable[[int, bool], Record]] = {
    "trials": trials,
    "images": images,
    "packs": packs,
    "actors": actors,
}


def _clocked(owner: Any, methods: tuple[str, ...]) -> list[float]:
    """Sum up the seconds spent in some methods of an object."""
    clock = [0.0]

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                clock[0] += time.perf_counter() - started

        return timed

    for name in methods:
        setattr(owner, name, wrap(getattr(owner, name)))
    return clock


def _stub(folder: Path, trial: str, number: int, on_epoch: Callable[[int], None]) -> float:
    """A finished trial's folder without a training; gives the seconds it took to write it."""
    started = time.perf_counter()
    value = (number * 0.618) % 1
    history = [
        {"epoch": epoch, "val/accuracy": value * epoch / 3, "val/loss": 1.0, "train/loss": 1.0, "seconds": 1.0}
        for epoch in (1, 2, 3)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    result = TrialResult(
        trial_id=trial,
        status="finished",
        epochs=3,
        best_epoch=3,
        image_passes=100,
        seconds=1.0,
        metrics={"best/val/accuracy": value},
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    write_atomically(folder / "config.json", b"{}")
    write_atomically(folder / "best.safetensors", b"")
    write_atomically(folder / "result.json", result.model_dump_json().encode())
    seconds = time.perf_counter() - started
    for epoch in (1, 2, 3):
        on_epoch(epoch)
    return seconds


def _report(store: Path, repeats: int) -> list[float]:
    from hmtl_ablate.reporting.render import build_report, render
    from hmtl_ablate.reporting.results import load_results

    return [_timed(lambda: render(build_report(load_results(None, store), None), "markdown")) for _ in range(repeats)]


def _plan(file: Path, store: Path, repeats: int) -> list[float]:
    return [
        _timed(lambda: subprocess.run([PROGRAM, "plan", file, "--runs", store], check=True, capture_output=True))
        for _ in range(repeats)
    ]


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _actor_bytes() -> float:
    """Resident bytes of the Ray actor that trains on this machine; 0 while there is none."""
    for folder in Path("/proc").iterdir():
        with suppress(OSError):  # a process may end while it is looked at
            if folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(b"ray::ImplicitFunc"):
                return int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0.0
