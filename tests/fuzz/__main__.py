"""`python -m tests.fuzz`: 2,000 odd inputs through the command line; exit code 1 when one breaks a promise."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz.fuzz import fuzz  # type: ignore[import-not-found]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="number of the one case to run")
    parser.add_argument("--keep", type=Path, help="copy the input of the last case here")
    given = parser.parse_args()
    numbers = range(given.start, given.start + given.count) if given.only is None else range(given.only, given.only + 1)
    broken = 0
    for number in numbers:
        for one in fuzz(given.seed, range(number, number + 1), given.keep):
            broken += 1
            print(one, flush=True)
    print(f"{len(numbers)} cases of seed {given.seed}, {broken} broken")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
