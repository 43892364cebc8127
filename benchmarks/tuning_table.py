"""python -m benchmarks.tuning_table [--processes N] FILE: train the configurations that `python -m benchmarks tuning`
replays searches on, and write their scores.

CONFIGURATIONS random draws of a space, each trained with SEEDS seeds on rendered faces, on the CPU. The file is CSV:
one line for each training run, with the drawn values, the image passes, val accuracy after each epoch, and test
accuracy at the end, in percent. Lines are written as runs end; those that the file has are not trained again.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from itertools import chain
from math import exp, log
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from hmtl_ablate.errors import ConfigError
from hmtl_ablate.study import Parameter, Search, load_study

CONFIGURATIONS, SEEDS, EPOCHS = 150, 5, 10
SPACE: dict[str, Any] = {
    "training.lr": {"loguniform": [0.001, 0.03]},
    "training.weight_decay": {"loguniform": [0.00001, 0.3]},
    "training.batch_size": {"choice": [16, 32, 64]},
    "model.dropout": {"uniform": [0.0, 0.5]},
    "data.augment": {"choice": ["none", "weak"]},
    "pretext.puzzling.weight": {"loguniform": [0.001, 1.0]},
    "pretext.puzzling.share": {"uniform": [0.05, 0.5]},
}
"""What the configurations are drawn from: SL + puzzling in the mixed feed, one image pass per image."""
STUDY: dict[str, Any] = {
    "name": "tuning-table",
    "base": {
        "data": {"images": 1200, "size": 32},
        "model": {"backbone": "test_resnet"},
        "training": {
            "optimizer": "adamw",
            "lookahead": False,
            "epochs": EPOCHS,
            "warmup_epochs": 1,
            "precision": "fp32",
        },
        "pretext": {"puzzling": {"feed": "mixed"}},
    },
    "search": {"space": SPACE, "trials": CONFIGURATIONS, "sampler": "random"},
    "seeds": list(range(SEEDS)),
}
COLUMNS = ("configuration", "seed", *SPACE, "passes", *(f"val {epoch}" for epoch in range(1, EPOCHS + 1)), "test")


def table_search() -> Search:
    """The search whose space the table holds draws of."""
    search = load_study(STUDY).search
    assert search is not None
    return search


def drawn(search: Search, count: int) -> list[dict[str, Any]]:
    """`count` random draws of a space, always the same ones; those that the options refuse are left out."""
    source = random.Random(0)
    found: list[dict[str, Any]] = []
    while len(found) < count:
        values = {parameter.key: _value(parameter, source) for parameter in search.parameters}
        try:
            search.resolve(values, 0)
        except ConfigError:
            continue
        found.append(values)
    return found


def _value(parameter: Parameter, source: random.Random) -> Any:
    if parameter.kind == "loguniform":
        return float(f"{exp(source.uniform(log(parameter.low), log(parameter.high))):.3g}")
    if parameter.kind == "uniform":
        return round(source.uniform(parameter.low, parameter.high), 3)
    assert parameter.values is not None
    return source.choice(list(parameter.values))


def measured(store: Path, search: Search, work: tuple[int, int, dict[str, Any]]) -> list[Any]:
    """Train one configuration with one seed; a row of the table."""
    from hmtl_ablate.data.build import open_pack
    from hmtl_ablate.training.loop import train

    number, seed, values = work
    config = search.resolve(values, seed)
    curve: list[float] = []

    def on_epoch(metrics: dict[str, float]) -> bool:
        curve.append(round(100 * metrics["val/accuracy"], 2))
        return False

    pack = open_pack(config.data, None, store)
    folder = store / f"{number}-{seed}"
    result = train(config, pack, folder, evaluate_test=True, threads=1, device="cpu", on_epoch=on_epoch)
    while len(curve) < config.training.epochs:  # diverged: from then on it has nothing to show
        curve.append(0.0)
    test = round(100 * result.metrics.get("test/accuracy", 0.0), 2)
    return [number, seed, *values.values(), result.image_passes, *curve, test]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning_table", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="CSV to write")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--configurations", type=int, default=CONFIGURATIONS)
    options = parser.parse_args(arguments)
    search, started = table_search(), time.perf_counter()
    known = _read(options.file)
    work = [
        (number, seed, values)
        for seed in range(SEEDS)
        for number, values in enumerate(drawn(search, options.configurations))
        if (number, seed) not in known
    ]
    with tempfile.TemporaryDirectory() as place, ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        measured_here = partial(measured, Path(place), search)
        first = [measured_here(one) for one in work[:1]]  # builds the pack, before the processes use it
        others = as_completed([pool.submit(measured_here, one) for one in work[1:]])
        for row in chain(first, (done.result() for done in others)):
            known[row[0], row[1]] = row
            _write(options.file, known)
    print(f"{len(work)} training runs in {time.perf_counter() - started:.0f} s on {options.processes} processes")
    return 0


def _read(path: Path) -> dict[tuple[int, int], list[Any]]:
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {(int(row[0]), int(row[1])): row for row in rows}


def _write(path: Path, rows: Mapping[tuple[int, int], list[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows[key] for key in sorted(rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
