"""How long a user waits: for --help, and from `run` to the first training step."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bench import PROGRAM, Record, difference, in_turns, ratio

STUDY = """
name: startup
base:
  data: {images: 256, size: 32}
  training: {epochs: 1, warmup_epochs: 0, batch_size: 32}
variants: {SL: {}}
seeds: [0]
"""
IMPORTS = "import torch, timm, ray; ray.init(include_dashboard=False, log_to_driver=False, logging_level='ERROR')"


def startup(repeats: int, tiny: bool) -> Record:
    """Seconds until --help is printed, and until the first step is about to be taken."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        study = place / "startup.yaml"
        study.write_text(STUDY)
        store = place / "runs"
        subprocess.run([PROGRAM, "run", study, "--runs", store], check=True, capture_output=True)  # makes the pack

        def first_step() -> float:
            """The trial's log opens with a line that is written before its first step."""
            for old in (store / "trials").glob("*/*"):
                if old.is_file():
                    old.unlink()
            started = time.perf_counter()
            run = subprocess.Popen([PROGRAM, "run", study, "--runs", store], stdout=subprocess.DEVNULL)
            while run.poll() is None and not list((store / "trials").glob("*/log.txt")):
                time.sleep(0.005)
            seconds = time.perf_counter() - started
            if run.wait() != 0:
                raise RuntimeError("hmtl-ablate run failed")
            return seconds

        found = in_turns(
            {
                "hmtl-ablate --help": lambda: _seconds([str(PROGRAM), "--help"]),
                "python -c pass": lambda: _seconds([sys.executable, "-c", "pass"]),
                "run, to the first step": first_step,
                "import torch, timm, ray; ray.init": lambda: _seconds([sys.executable, "-c", IMPORTS]),
            },
            repeats,
            warm_up=1,
        )
    rows = [
        difference(found, "hmtl-ablate --help", "python -c pass", "s", "≤ 0.3"),
        ratio(found, "run, to the first step", "import torch, timm, ray; ray.init", "s", "≤ 2"),
    ]
    return Record("startup", "How long does a user wait for the first sign of life?", rows)


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"})
    return time.perf_counter() - started
