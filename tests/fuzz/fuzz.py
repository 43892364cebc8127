"""Runs cases through the command line in this process, and says which of them break its promises."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from random import Random

from hmtl_ablate.backbone import check_size
from hmtl_ablate.cli import main
from tests.fuzz.cases import KINDS, SHARES  # type: ignore[import-not-found]

CODES = (0, 1, 2)
"""Exit codes of a command that has no defect."""
CPU_LIMIT = 10.0
"""Seconds of computing that a command may take."""
HANG = 60.0
"""Seconds after which a command hangs; more than CPU_LIMIT, since other programs compute too."""
MEMORY = 2 * 2**30
"""Bytes of memory that this process may reach."""


class Hangs(BaseException):
    """Raised in a command that takes too long; nothing in the package catches it."""


@dataclass(frozen=True)
class Broken:
    """A case that breaks a promise."""

    seed: int
    number: int
    kind: str
    words: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return (
            f"{self.kind}: {self.why}\n    hmtl-ablate {' '.join(self.words)}\n"
            f"    python -m tests.fuzz --seed {self.seed} --only {self.number} --keep DIR"
        )


def fuzz(seed: int, numbers: Iterator[int] | range, keep: Path | None = None) -> list[Broken]:
    """The broken ones of these cases; keep: a folder in which the input of the last one stays."""
    check_size("test_vit", 32)  # PyTorch makes a folder for itself where the temporary files are, once
    return [one for number in numbers for one in run_case(seed, number, keep)]


def kind_of(number: int) -> str:
    """The kind of a case, in turns."""
    return [kind for kind, share in SHARES.items() for _ in range(share)][number * 7 % sum(SHARES.values())]


def run_case(seed: int, number: int, keep: Path | None = None) -> list[Broken]:
    kind = kind_of(number)
    root = Path(tempfile.mkdtemp(prefix="hmtl-fuzz-"))
    try:
        for name in ("in", "cwd", "home", "tmp"):
            (root / name).mkdir()
        commands = KINDS[kind](Random(f"{seed}/{number}"), root / "in")
        found = []
        for words in commands:
            given = [word.replace("{store}", str(root / "runs")) for word in words]
            if why := fault(given, root):
                found.append(Broken(seed, number, kind, tuple(given), why))
        return found
    finally:
        if keep is not None:
            shutil.copytree(root, keep, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(root)


def fault(words: list[str], root: Path) -> str:
    """The promise that a command breaks, or ""."""
    before = listing(root)
    output = StringIO()
    started = time.process_time()
    with inside(root):
        try:
            with redirect_stdout(output), redirect_stderr(output):
                code = main(words)
        except Hangs:
            return f"hangs for {HANG:g} s"
        except BaseException as error:
            return f"raises {type(error).__name__}: {error}"
    text = output.getvalue()
    if code not in CODES:
        return f"exit code {code}: {text.strip()[-400:]}"
    if "Traceback" in text:
        return f"a traceback: {text.strip()[-400:]}"
    if code == 2 and not text.strip():
        return "exit code 2 without a message"
    if changed := sorted(listing(root).items() ^ before.items()):
        return f"writes outside the store: {changed[0][0]}"
    if (seconds := time.process_time() - started) > CPU_LIMIT:
        return f"computes for {seconds:.0f} s"
    if (needed := peak()) > MEMORY:
        return f"needs {needed / 2**30:.1f} GB"
    return ""


def peak() -> int:
    """The most memory in bytes that this program has had: unlike `ru_maxrss`, without that of the one it was started
    by."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def listing(root: Path) -> dict[str, tuple[int, int]]:
    """Every file outside the store → its size and time."""
    found = {}
    for folder, folders, files in os.walk(root):
        if folder == str(root) and "runs" in folders:
            folders.remove("runs")
        for name in (*files, *folders):
            stat = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (stat.st_size, stat.st_mtime_ns if name in files else 0)
    return found


@contextmanager
def inside(root: Path) -> Iterator[None]:
    """A working folder, a home and a folder for temporary files of its own, and an end of patience."""

    def end(number: int, frame: object) -> None:
        raise Hangs

    here, environment, handler = os.getcwd(), dict(os.environ), signal.signal(signal.SIGALRM, end)
    temporary = tempfile.tempdir
    os.environ |= {"HOME": str(root / "home"), "TMPDIR": str(root / "tmp")}
    tempfile.tempdir = str(root / "tmp")
    os.chdir(root / "cwd")
    signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        os.chdir(here)
        tempfile.tempdir = temporary
        os.environ.clear()
        os.environ |= environment
