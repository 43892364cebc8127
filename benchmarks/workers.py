"""Two workers of a thread each against one worker of two threads, at equal global batch."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
from pathlib import Path

from benchmarks.bench import PROGRAM, Record, in_turns, ratio


def workers(repeats: int, tiny: bool) -> Record:
    """Images a second in the epoch after the first, training alone."""
    backbone, size, images, epochs = ("test_resnet", 32, 256, 2) if tiny else ("resnet50", 64, 640, 2)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        file = place / "workers.yaml"
        file.write_text(
            json.dumps(
                {
                    "name": "workers",
                    "variants": {"SL": {}},
                    "seeds": [0],
                    "base": {
                        "data": {"images": images, "size": size},
                        "model": {"backbone": backbone},
                        "training": {"epochs": epochs, "warmup_epochs": 0, "batch_size": 128},
                    },
                }
            )
        )

        def rate(option: str) -> float:
            store = Path(tempfile.mkdtemp(dir=place))
            (store / "packs").symlink_to(place, target_is_directory=True)
            subprocess.run(
                [PROGRAM, "run", file, "--runs", store, "--set", option], check=True, stdout=subprocess.DEVNULL
            )
            [history] = (store / "trials").glob("*/metrics.jsonl")
            rows = [json.loads(line) for line in history.read_text().splitlines()]
            return statistics.median(row["images_per_second"] for row in rows[1:])

        found = in_turns(
            {
                "2 workers × 1 thread (DDP, gloo)": lambda: rate("resources.workers=2"),
                "1 worker × 2 threads": lambda: rate("resources.cpus=2"),
            },
            repeats,
        )
    return Record(
        "workers",
        f"What do two workers lose on the way ({backbone}, {size} px, batch 128)?",
        [ratio(found, "2 workers × 1 thread (DDP, gloo)", "1 worker × 2 threads", "images/s", "≥ 0.85")],
        ["Through `hmtl-ablate run`; Ray Train's start-up is not in it."],
    )
