"""What `plan` says against what a run takes, and how long `plan` itself takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bench import Record, alone, ratio

SPACES = Path(__file__).parents[1] / "search_spaces"
PROGRAM = (sys.executable, "-m", "hmtl_ablate")
STUDY = """
name: planned
base:
  data: {{images: {images}, size: 48}}
  training: {{epochs: {epochs}, warmup_epochs: 0, batch_size: 64, optimizer: adamw, lookahead: false}}
variants:
  SL: {{}}
  "SL, 2 views": {{data.views: 2}}
  SL + puzzling: {{pretext: {{puzzling: {{}}}}}}
  SL + in-painting: {{pretext: {{inpainting: {{}}}}}}
seeds: [0, 1, 2]
"""


def plan(repeats: int, tiny: bool) -> Record:
    """Seconds of a study's trials as planned after `plan --calibrate`, against those of the run."""
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        for engine in ("local",) if tiny else ("local", "ray"):
            with tempfile.TemporaryDirectory() as name:
                planned, actual = _once(Path(name), engine, tiny)
            found.setdefault(f"planned, {engine}", []).append(planned)
            found.setdefault(f"run, {engine}", []).append(actual)
    rows = [
        ratio(found, f"planned, {engine}", f"run, {engine}", "s")
        for engine in ("local", "ray")
        if f"run, {engine}" in found
    ]
    files = sorted(SPACES.glob("*.yaml"))[: 2 if tiny else None]
    rows += [alone(f"plan {file.name}", [_plan(file) for _ in range(repeats)], "s") for file in files]
    return Record(
        "plan",
        "Is a study's time known before it runs, and how soon?",
        rows,
        ["Aim: the plan within ±30 % of the run, on a machine that does nothing else; a study of 10 minutes."],
    )


def _once(place: Path, engine: str, tiny: bool) -> tuple[float, float]:
    study, store = place / "study.yaml", place / "runs"
    study.write_text(STUDY.format(images=100 if tiny else 3000, epochs=2 if tiny else 14))
    words = (study, "--runs", store, "--engine", engine)
    _call("plan", *words, "--calibrate")
    _call("run", *words)
    report = json.loads(_call("report", "--runs", store, "--format", "json"))
    made = report["studies"][0]["plan"]
    return float(made["seconds"]), float(made["actual"]["seconds"])


def _plan(file: Path) -> float:
    with tempfile.TemporaryDirectory() as store:
        started = time.perf_counter()
        _call("plan", file, "--runs", store)
        return time.perf_counter() - started


def _call(*words: object) -> str:
    done = subprocess.run([*PROGRAM, *map(str, words)], check=True, capture_output=True, text=True)
    return done.stdout
