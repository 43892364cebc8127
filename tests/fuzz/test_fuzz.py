"""Odd input never ends in exit code 70, a hang, more than 2 GB of memory, or a file outside the store.

More of it: `python -m tests.fuzz --seed 1 --count 2000`.
"""

from pathlib import Path

import pytest

from tests.fuzz import fuzz as fuzzing  # type: ignore[import-not-found]
from tests.fuzz.fuzz import fuzz


def test_a_few_odd_inputs() -> None:
    assert not (broken := fuzz(0, range(20))), "\n".join(map(str, broken))


GB = 2**30


@pytest.mark.parametrize(
    ("before", "resident", "after", "expected"),
    [
        (0.5 * GB, 0.4 * GB, 2.6 * GB, "needs 2.2 GB"),
        (2.6 * GB, 2.5 * GB, 2.6 * GB, ""),  # fault: another test of this process had taken it
        (2.6 * GB, 2.5 * GB, 2.9 * GB, ""),
        (2.6 * GB, 1.5 * GB, 3.8 * GB, "needs 2.3 GB"),
    ],
)
def test_only_the_memory_that_a_command_adds_counts(
    before: float, resident: float, after: float, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [before]
    monkeypatch.setattr(fuzzing, "peak", lambda: now[0])
    monkeypatch.setattr(fuzzing, "resident", lambda: resident)
    monkeypatch.setattr(fuzzing, "main", lambda words: now.__setitem__(0, after) or 0)
    for name in ("in", "cwd", "home", "tmp"):
        (tmp_path / name).mkdir()
    assert fuzzing.fault([], tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_two_thousand_odd_inputs(part: int) -> None:
    assert not (broken := fuzz(0, range(200 * part, 200 * part + 200))), "\n".join(map(str, broken))
