"""Odd input never ends in exit code 70, a hang, more than 2 GB of memory, or a file outside the store.

In processes of their own, whose memory is not that of the tests before. More of it:
`python -m tests.fuzz --seed 1 --count 2000`.
"""

import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT  # type: ignore[import-not-found]


def fuzz(start: int, count: int) -> None:
    words = [sys.executable, "-m", "tests.fuzz", "--seed", "0", "--start", str(start), "--count", str(count)]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, [f"{count} cases of seed 0, 0 broken"]), done.stdout


def test_a_few_odd_inputs() -> None:
    fuzz(0, 20)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_two_thousand_odd_inputs(part: int) -> None:
    fuzz(200 * part, 200)


def test_the_memory_of_the_process_that_starts_it_does_not_count() -> None:
    """Fault: where tests before had needed 2 GB, every input did."""
    held = np.ones(2**30, np.uint8)
    words = [sys.executable, "-c", "from tests.fuzz.fuzz import peak; print(peak())"]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert 0 < int(done.stdout) < held.nbytes
