"""Memory of several trials on one pack: the pixels should be there once, whoever reads them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bench import Record, alone
from benchmarks.training import faces

TRIALS = 4
READER = """
import sys
from pathlib import Path
import numpy as np
import hmtl_ablate.data.augment  # code is not what is measured
from hmtl_ablate.config import parse_config
from hmtl_ablate.data.pack import load_pack
from hmtl_ablate.data.splits import split
from hmtl_ablate.training.batches import EvaluationImages, TrainingBatches
from hmtl_ablate.training.supervised import build_tasks
settings = parse_config({"data": {"size": int(sys.argv[2])}, "training": {"batch_size": 64}})
print("ready", flush=True)
sys.stdin.readline()
pack = load_pack(Path(sys.argv[1]))
rows = split(pack, settings.data, settings.tasks)
batches = TrainingBatches(settings, pack, rows.train, build_tasks(settings, pack, rows.train), 0, 1)
held = EvaluationImages(settings, pack, rows.val)
for number in range(batches.steps):
    batches[number]
for start in range(0, len(rows.val), 256):
    held.take(np.arange(start, min(start + 256, len(rows.val))))
print("read", flush=True)
sys.stdin.readline()
"""
"""A trial's reading: every training image augmented once, then all of validation. What it holds, it still holds when it
says so."""


def memory(repeats: int, tiny: bool) -> Record:
    """Growth of the memory per further trial, as a share of the pack."""
    size, count = (32, 512) if tiny else (64, 24_000)
    with tempfile.TemporaryDirectory() as name:
        pack = faces(size, count, Path(name))

        def share() -> float:
            one, many = _held(pack.folder, size, 1), _held(pack.folder, size, TRIALS)
            return (many - one) / (TRIALS - 1) / pack.images.nbytes

        found = [share() for _ in range(repeats)]
        what = f"pack of {pack.images.nbytes / 2**20:.0f} MiB ({count} faces, {size} px)"
    row = alone(f"{TRIALS} trials: growth a further trial", found, "of the pack", "≤ 0.05")
    return Record(
        "memory",
        f"Is a pack in memory once, whoever reads it ({what})?",
        [row],
        ["Proportional set size (Linux), summed over the processes, after reading minus before."],
    )


def _held(pack: Path, size: int, trials: int) -> float:
    """Bytes by which the processes of so many trials grow, together, as they read the pack."""
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(pack), str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(trials)
    ]
    try:
        sizes = []
        for word in ("ready", "read"):
            for reader in readers:
                assert reader.stdin is not None
                assert reader.stdout is not None
                if reader.stdout.readline().strip() != word:
                    raise RuntimeError("a reader of the pack ended early")
            sizes.append(sum(_proportional(reader.pid) for reader in readers))
            for reader in readers:
                assert reader.stdin is not None
                reader.stdin.write("\n")
                reader.stdin.flush()
        return sizes[1] - sizes[0]
    finally:
        for reader in readers:
            reader.kill()
            reader.communicate()


def _proportional(pid: int) -> float:
    """Proportional set size in bytes: a page that n processes share counts 1/n in each."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * next(float(line.split()[1]) for line in lines if line.startswith("Pss:"))
