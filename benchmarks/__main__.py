"""python -m benchmarks [NAME…] [--repeats N] [--output DIR] [--tiny]: run benchmarks by name, or all of them.

Each prints its table and one JSON line; with --output the same JSON is DIR/NAME.json, from which
`python -m benchmarks.page DIR PAGE.md` makes the page. One with curves draws them in DIR/NAME.svg.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import (
    gpu,
    growth,
    loading,
    memory,
    overhead,
    plan,
    ray_share,
    report,
    scale,
    sequential,
    startup,
    training,
    transform,
    tuning,
    workers,
)
from benchmarks.bench import Record, stamped, table
from benchmarks.curve import write_curve

BENCHMARKS: dict[str, Callable[[int, bool], Record]] = {
    "training": training.training,
    "pretext": training.pretext,
    "transform": transform.transform,
    "loading": loading.loading,
    "memory": memory.memory,
    "overhead": overhead.overhead,
    "study": overhead.study,
    "startup": startup.startup,
    "plan": plan.plan,
    "report": report.report,
    "workers": workers.workers,
    "tuning": tuning.tuning,
    **growth.CURVES,
    "scale": scale.scale,
    "ray_share": ray_share.ray_share,
    "sequential": sequential.sequential,
    "gpu": gpu.gpu,
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(BENCHMARKS)}; all when left out, gpu where there is one",
    )
    parser.add_argument("--repeats", type=int, default=5, help="times each side is measured (5)")
    parser.add_argument("--output", type=Path, help="folder for NAME.json")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes: does it run? Measures nothing")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown or options.repeats < 1:
        parser.error(
            f"there is no benchmark {unknown[0]!r}; choose of {', '.join(BENCHMARKS)}"
            if unknown
            else "--repeats is 1 or more"
        )
    console = Console(width=None if sys.stdout.isatty() else 150)
    every = [name for name in BENCHMARKS if name != "gpu" or torch.cuda.is_available()]
    for name in options.names or every:
        started = time.perf_counter()
        record = BENCHMARKS[name](options.repeats, options.tiny)
        found = stamped(record, options.repeats, time.perf_counter() - started)
        (head, *rows), shown = table(record.rows), Table(title=record.question, title_justify="left")
        for column in head:
            shown.add_column(column)
        for row in rows:
            shown.add_row(*row)
        console.print(shown, markup=False)
        for note in record.notes:
            console.print(note, markup=False)
        print(json.dumps(found), flush=True)
        if options.output:
            options.output.mkdir(parents=True, exist_ok=True)
            (options.output / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
            if record.curves:
                write_curve(found, options.output / f"{name}.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
