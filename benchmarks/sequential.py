"""What seeds until decided costs and finds: 10,000 simulated comparisons of each kind, with the bound of `run`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.bench import Record, Row
from hmtl_ablate.reporting.sequential import STATES, Bound, settle

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SEEDS, ALPHA, SMALLEST = 12, 0.05, 0.5
"""N, alpha, and the smallest difference that matters in standard deviations of one paired difference."""
STUDIES = 10_000
TRUE = {
    "no difference": 0.0,
    "smallest": SMALLEST,
    "−smallest": -SMALLEST,
    "1 sd": 1.0,
    "2 sd": 2.0,
}
"""True difference in standard deviations."""

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]


def sequential(repeats: int, tiny: bool) -> Record:
    """False decisions, power and seeds; `repeats` does not matter, a fixed seed draws everything."""
    studies = 200 if tiny else STUDIES
    residuals = real_residuals()
    draws: dict[str, Draw] = {
        "normal": lambda random, shape: random.standard_normal(shape),
        "t with 3 degrees of freedom": lambda random, shape: random.standard_t(3, shape) / np.sqrt(3),
        "skewed (exponential)": lambda random, shape: random.exponential(size=shape) - 1,
        "real differences, resampled": lambda random, shape: random.choice(residuals, shape),
    }
    rows = [_row(name, draw, true, studies, 1) for name, draw in draws.items() for true in TRUE]
    rows += [_row("normal, one of 6 comparisons", draws["normal"], true, studies, 6) for true in TRUE]
    worst = max(row.low for row in rows if row.what.startswith("normal"))
    return Record(
        "sequential",
        f"How often is a comparison decided falsely, how often rightly, and with how many of at most {SEEDS} seeds?",
        rows,
        [
            f"{studies:,} comparisons a row; N = {SEEDS}, alpha = {ALPHA}, smallest = {SMALLEST} sd of one paired "
            "difference. Figure: false decisions, with the 95 % interval of their share (Wilson): better or worse "
            "without a difference; with one, the other direction, or no difference that matters.",
            "Medians: rightly decided (power); the same with a t test of 12 fixed seeds at the same level; mean seeds; "
            "seeds saved.",
            f"Goal: for normal differences the lower end of that interval is at most {100 * ALPHA:g} %: "
            f"{'reached' if worst <= 100 * ALPHA else 'NOT reached'}, the largest is {worst:.2f} %.",
            f"Real differences: {len(residuals)} paired differences of the studies in docs/results/*.json, less the "
            "mean of their comparison, over the standard deviation of their study.",
        ],
    )


def real_residuals() -> Floats:
    """Standardised residuals of the paired differences in docs/results: mean 0, standard deviation 1."""
    found: list[float] = []
    for file in sorted(RESULTS.glob("*.json")):
        for study in json.loads(file.read_text(encoding="utf-8"))["studies"]:
            own = [value for values in _differences(study) for value in _centred(values)]
            spread = float(np.sqrt(np.mean(np.square(own)))) if own else 0.0
            found += [value / spread for value in own] if spread else []
    values = np.array(found)
    values -= values.mean()
    return values / values.std()


def _differences(study: Mapping[str, Any]) -> Iterator[list[float]]:
    """Of each variant from the first one, over the seeds that both have."""
    rows = study["rows"]
    for row in rows[1:]:
        shared = sorted(rows[0]["values"].keys() & row["values"].keys())
        yield [row["values"][seed] - rows[0]["values"][seed] for seed in shared]


def _centred(values: list[float]) -> list[float]:
    """Less their mean, and as wide as the differences that the mean was not taken from."""
    n = len(values)
    return [] if n < 2 else [float((value - np.mean(values)) * np.sqrt(n / (n - 1))) for value in values]


def _row(name: str, draw: Draw, true: str, studies: int, comparisons: int) -> Row:
    shift, bound = TRUE[true], Bound(SEEDS, ALPHA / comparisons, SMALLEST)
    differences = draw(np.random.default_rng(20261126), (studies, SEEDS)) + shift
    codes, used = settle(differences, bound)
    shares: dict[str, float] = {state: float((codes == number).mean()) for number, state in enumerate(STATES)}
    right = "better" if shift > 0 else "worse" if shift < 0 else "no difference that matters"
    wrong = sum(shares[state] for state in ("better", "worse", "no difference that matters") if state != right)
    ends = stats.binomtest(round(wrong * studies), studies).proportion_ci(method="wilson")
    t = np.sqrt(SEEDS) * differences.mean(1) / differences.std(1, ddof=1)
    fixed = (t * np.sign(shift) > stats.t.isf(bound.alpha / 2, SEEDS - 1)).mean() if shift else None
    power = f"{100 * shares[right]:.1f} %" + ("" if fixed is None else f"; fixed {100 * fixed:.1f} %")
    return Row(
        f"{name}: {true}",
        "",
        f"{power}; {used.mean():.1f} seeds, saved {SEEDS - used.mean():.1f}",
        100 * wrong,
        100 * ends.low,
        100 * ends.high,
        unit="%",
    )
