"""Ray's own share of a trial's cost at 8, 16 and 32 actors: python -m benchmarks.ray_share ACTORS TRIALS STORE

The trainer is a stub that writes a trial's folder at once, so the driver is never idle for want of a trial that ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.bench import Record, alone
from benchmarks.scale import BASE, EPOCHS, Clock, Trainer, resident
from hmtl_ablate.running.task import Report, TrialTask


def train(task: TrialTask, report: Report) -> None:
    """A trial without a training."""
    trainer = Trainer(task, task.folder.name)
    for number in range(1, EPOCHS + 1):
        trainer.epoch(number)
        report({"epoch": number})
    trainer.over(EPOCHS)


def measure(actors: int, trials: int, store: Path) -> dict[str, float]:
    """Run a study with so many actors; milliseconds per trial, from the end of the first `actors` trials on."""
    from hmtl_ablate.data.build import open_pack
    from hmtl_ablate.running.conductor import Conductor
    from hmtl_ablate.running.options import RunOptions
    from hmtl_ablate.running.resolver import Packs
    from hmtl_ablate.running.run import run_study
    from hmtl_ablate.study import data_configs, load_study
    from hmtl_ablate.tracking import open_tracking

    file = store / "ray.yaml"
    resources = {"cpus": 1 / 32}
    study_text = {"name": "ray", "question": "Ray?", "base": BASE, "variants": {"SL": {}}, "resources": resources}
    file.write_text(json.dumps(study_text | {"seeds": list(range(trials))}))
    study = load_study(file)
    packs = Packs({Packs.key(data): open_pack(data, None, store) for data in data_configs(study)})
    clock = Clock(Conductor, ("next", "epoch", "end", "task"))
    ends: list[tuple[float, float, float, float]] = []

    def ended(method: Any) -> Any:
        def end(*arguments: Any, **options: Any) -> Any:
            found = method(*arguments, **options)
            ends.append((time.perf_counter(), time.process_time(), clock.seconds, clock.cpu))
            return found

        return end

    Conductor.end = ended(Conductor.end)  # type: ignore[method-assign]
    options = RunOptions(max_concurrent=actors, pictures=False)
    began = time.perf_counter()
    run_study(study, packs=packs, store=store, tracking=open_tracking(None, store), options=options, trainer=train)
    first, last = ends[actors - 1], ends[-1]
    wall, cpu, conductor, conductor_cpu = (1000 * (b - a) / (trials - actors) for a, b in zip(first, last, strict=True))
    return {
        "start": first[0] - began,
        "wall": wall,
        "conductor": conductor,
        "ray": wall - conductor,
        "ray_cpu": cpu - conductor_cpu,
        "conductor_cpu": conductor_cpu,
        "memory": resident(),
    }


def ray_share(repeats: int, tiny: bool) -> Record:
    """Seconds per trial that are Ray's, by the number of actors."""
    rows = []
    path = os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH", ""))))  # for Ray's workers
    for actors in (2,) if tiny else (8, 16, 32):
        found: list[dict[str, float]] = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as name:
                words = [sys.executable, "-m", "benchmarks.ray_share", str(actors), str(3 * actors), name]
                done = subprocess.run(words, stdout=subprocess.PIPE, check=True, env=os.environ | {"PYTHONPATH": path})
                found.append(json.loads(done.stdout.splitlines()[-1]))
        for key, text, unit in (
            ("start", f"until {actors} trials have ended", "s"),
            ("wall", "a trial, all", "ms"),
            ("conductor", "of it, the conductor", "ms"),
            ("ray", "of it, Ray and Tune", "ms"),
            ("ray_cpu", "CPU time of Ray and Tune in the driver", "ms"),
            ("conductor_cpu", "CPU time of the conductor", "ms"),
            ("memory", "resident memory of the driver", "MiB"),
        ):
            rows.append(alone(f"{actors} actors, {text}", [one[key] for one in found], unit))
    return Record(
        "ray_share",
        "How much of a trial's cost is Ray's own?",
        rows,
        [
            "Three trials per actor, each a stub of three epochs that writes its folder at once. The first trial of "
            "each actor, which starts a process, is apart. Ray and Tune: what is left of the time between two ends "
            "without the calls of the conductor; the actors' own work on the same cores is in it."
        ],
    )


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))), flush=True)
