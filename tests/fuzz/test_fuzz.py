"""Odd input never ends in exit code 70, a hang, more than 2 GB of memory, or a file outside the store.

More of it: `python -m tests.fuzz --seed 1 --count 2000`.
"""

import pytest

from tests.fuzz.fuzz import fuzz  # type: ignore[import-not-found]


def test_a_few_odd_inputs() -> None:
    assert not (broken := fuzz(0, range(20))), "\n".join(map(str, broken))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_two_thousand_odd_inputs(part: int) -> None:
    assert not (broken := fuzz(0, range(200 * part, 200 * part + 200))), "\n".join(map(str, broken))
