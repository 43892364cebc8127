"""Seeds until decided: the bound that allows a comparison to be looked at after every seed.

Group-sequential repeated t-intervals (Jennison and Turnbull 1989) with the error-spending function α(n/N)^1.5 (Lan and
DeMets 1983): after n of at most N differences, the interval of their mean is mean ± c_n · sd / √n. With normal
differences, the probability that any of the intervals from n = 4 to N misses the true mean is α, so a comparison may
stop at whichever of them decides it. Differences in, states out; nothing here knows a study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from hmtl_ablate.reporting.statistics import Estimate, estimate, without_interval
from hmtl_ablate.study.declaration import FIRST_LOOK

State = Literal["better", "worse", "no difference that matters", "undecided", "open"]
STATES: tuple[State, ...] = get_args(State)
"""What a comparison is: decided in one of three ways, undecided with all its seeds, or open: more seeds to come."""
EXPONENT = 1.5
"""Of the spending function."""
POWER = 0.8
"""Probability with which `Reach.detectable` is found."""
CELLS = 400
"""Cells in which a distribution is carried from look to look; twice as many move no boundary by 0.001."""
_PATHS = 4000
"""Simulated comparisons behind a `Reach`."""

Floats = NDArray[np.float64]


# The bound ------------------------------------------------------------------------------------------------------------


def spent(n: int, seeds: int, alpha: float) -> float:
    """Probability of a false decision that may have been used up after n of at most `seeds` differences."""
    return 0.0 if n < FIRST_LOOK else float(alpha * (n / seeds) ** EXPONENT)


@lru_cache(maxsize=64)
def boundaries(seeds: int, alpha: float) -> tuple[float, ...]:
    """c_4, c_5, …, c_N for |t|, t with n - 1 degrees of freedom: without a difference, |t_n| exceeds c_n at any look
    with probability alpha.

    seeds: N, 4 or more; alpha: of one comparison, so α/m over m of them. For N = 12 and 0.05: 5.92, 5.10, 4.31, 3.79,
    3.44, 3.18, 2.99, 2.84, 2.71 (docs/methods.md). No Monte Carlo: let Q_n be the sum of the squares of n normal
    differences and t_n = √(n - 1) · tan θ_n, so that √n · sin θ_n = U_n is their sum over √Q_n. The next one over √Q_n
    is tan φ, where √n · tan φ has a t distribution with n degrees of freedom and is independent of all of θ_4 … θ_n.
    Therefore θ_n is a Markov chain, U_{n+1} = U_n · cos φ + sin φ, whose distribution within the bounds is carried from
    look to look in `CELLS` cells of |θ|. N = 12 takes tenths of a second, N = 100 some seconds.
    """
    found = [-float(stdtrit(FIRST_LOOK - 1, spent(FIRST_LOOK, seeds, alpha) / 2))]
    edges = np.linspace(0, math.atan(found[0] / math.sqrt(FIRST_LOOK - 1)), CELLS + 1)
    mass = 2 * np.diff(stdtr(FIRST_LOOK - 1, math.sqrt(FIRST_LOOK - 1) * np.tan(edges)))
    for n in range(FIRST_LOOK, seeds):
        spend = spent(n + 1, seeds, alpha) - spent(n, seeds, alpha)
        step = _Step(n, edges, mass)
        angle = _bisect(step.beyond, spend)
        found.append(math.sqrt(n) * math.tan(angle))
        edges = np.linspace(0, angle, CELLS + 1)
        mass = step.within(edges)
    return tuple(found)


class _Step:
    """From the distribution of |θ_n| to that of |θ_{n+1}|."""

    def __init__(self, n: int, edges: Floats, mass: Floats) -> None:
        self._n, self._mass = n, mass
        self._sum = math.sqrt(n) * np.sin((edges[1:] + edges[:-1]) / 2)
        # P(φ ≤ angle), on a grid that is fine enough for straight lines between its points
        self._grid = np.linspace(-math.pi / 2, math.pi / 2, 20_001)
        with np.errstate(over="ignore"):
            self._cdf = stdtr(n, math.sqrt(n) * np.tan(self._grid))

    def _below(self, bound: Floats) -> Floats:
        """P(U_{n+1} ≤ bound) for each cell (rows) and each bound (columns).

        U_n · cos φ + sin φ is R · sin(φ + δ) with R = √(1 + U_n²) and tan δ = U_n: it is above the bound between two
        angles.
        """
        radius, shift = np.sqrt(1 + self._sum**2)[:, None], np.arctan(self._sum)[:, None]
        angle = np.arcsin(np.clip(bound[None, :] / radius, -1, 1))
        above: Floats = self._chance(math.pi - angle - shift) - self._chance(angle - shift)
        return 1 - above

    def _chance(self, angle: Floats) -> Floats:
        return np.interp(angle, self._grid, self._cdf, left=0.0, right=1.0)

    def beyond(self, angle: float) -> float:
        """P(|θ_{n+1}| > angle), without having crossed a bound before."""
        bound = math.sqrt(self._n + 1) * math.sin(angle)
        below = self._below(np.array([-bound, bound]))
        return float(self._mass @ (1 - below[:, 1] + below[:, 0]))

    def within(self, edges: Floats) -> Floats:
        """P(|θ_{n+1}| in each cell between the edges), without having crossed a bound before."""
        bounds = math.sqrt(self._n + 1) * np.sin(edges)
        found: Floats = np.diff(self._mass @ (self._below(bounds) - self._below(-bounds)))
        return found


def _bisect(decreasing: Callable[[float], float], value: float) -> float:
    """Where a decreasing function of an angle between 0 and π/2 takes this value."""
    low, high = 0.0, math.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if decreasing(middle) > value else (low, middle)
    return (low + high) / 2


# One comparison -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """How the comparisons of a study are decided."""

    seeds: int
    """N: most differences."""
    alpha: float
    """Of one comparison."""
    margin: float | None
    """Smallest difference that matters, in the unit of the differences; None: none is too small to matter."""
    sign: int = 1
    """-1 where a lower value is better."""

    def interval(self, differences: Sequence[float]) -> Estimate:
        """Mean, sd and repeated interval of n differences. No interval before the first look, and none of differences
        that are all equal, as small test splits give them: their spread is unknown."""
        n, found = len(differences), estimate(differences)
        if n < FIRST_LOOK or found.low is None or found.mean is None or found.sd is None:
            return without_interval(found)
        half = boundaries(self.seeds, self.alpha)[n - FIRST_LOOK] * found.sd / math.sqrt(n)
        return replace(found, low=found.mean - half, high=found.mean + half)

    def state(self, found: Estimate) -> State | None:
        """What an interval decides; None where it decides nothing. An interval that leaves out 0 and is within the
        margin too decides the direction."""
        if found.low is None or found.high is None:
            return None
        if found.low > 0 or found.high < 0:
            return "better" if (found.low > 0) == (self.sign > 0) else "worse"
        if self.margin is not None and -self.margin < found.low and found.high < self.margin:
            return "no difference that matters"
        return None


@dataclass(frozen=True)
class Course:
    """How one comparison went."""

    state: State
    estimate: Estimate
    """At the look that decided, or at the last one; low and high are the ends of the repeated interval."""
    values: Mapping[int, float]
    """Seed → difference, of those seeds."""
    missing: tuple[int, ...] = ()
    """Seeds up to then without a pair, because a trial failed or was left out."""


def follow(pairs: Mapping[int, float | None], bound: Bound) -> Course:
    """The course of a comparison: it is looked at after each pair from the fourth on, and closes at the first look that
    decides; later pairs do not open it again.

    pairs: seed → difference, None without a pair, in the order of the study's seeds; only those that are over. A
    missing pair is a look that is not taken: the boundary is always that of the number of pairs.
    """
    known: dict[int, float] = {}
    missing: list[int] = []
    for seed, value in pairs.items():
        if value is None:
            missing.append(seed)
            continue
        known[seed] = value
        found = bound.interval(list(known.values()))
        if state := bound.state(found):
            return Course(state, found, known, tuple(missing))
    state = "undecided" if len(pairs) >= bound.seeds else "open"
    return Course(state, bound.interval(list(known.values())), known, tuple(missing))


# Many comparisons at once, for what to expect of a bound --------------------------------------------------------------


def settle(differences: Floats, bound: Bound) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each row of N differences, the number of its state in `STATES`, and how many of them it took: `follow` for
    simulations, without missing pairs, and without its care for differences that are all equal."""
    counts = np.arange(1, bound.seeds + 1)
    means = differences.cumsum(1) / counts
    # spread around the first difference, so that nothing is lost where the mean is far from 0
    apart = differences - differences[:, :1]
    squares = (apart**2).cumsum(1) - apart.cumsum(1) ** 2 / counts
    looks = slice(FIRST_LOOK - 1, None)
    halves = np.sqrt(np.maximum(squares[:, looks], 0) / (counts[looks] - 1) / counts[looks])
    halves *= np.array(boundaries(bound.seeds, bound.alpha))
    lows, highs = means[:, looks] - halves, means[:, looks] + halves
    margin = -math.inf if bound.margin is None else bound.margin
    above, below = (lows > 0, highs < 0) if bound.sign > 0 else (highs < 0, lows > 0)
    codes = np.select([above, below, (lows > -margin) & (highs < margin)], [0, 1, 2], 3)
    closed = codes < 3
    at = np.where(closed.any(1), closed.argmax(1), codes.shape[1] - 1)
    return codes[np.arange(len(codes)), at], at + FIRST_LOOK


@dataclass(frozen=True)
class Reach:
    """What a declared bound can decide at a known spread, by simulation with normal differences."""

    power: float
    """Probability that a true difference of `smallest` is found, with its direction."""
    same: float
    """Probability that no difference is found to be no difference that matters."""
    detectable: float
    """True difference that is found with a probability of `POWER`, in the unit of the spread."""
    seeds: float
    """Mean number of seeds without a true difference."""


def decidable(sd: float, smallest: float, seeds: int, alpha: float, comparisons: int) -> Reach:
    """What `seeds` paired seeds can decide.

    sd: standard deviation of one paired difference, above 0; smallest: in the same unit; alpha: over all comparisons.
    The same arguments give the same numbers.
    """
    bound = Bound(seeds, alpha / comparisons, smallest / sd)
    noise = np.random.default_rng(0).standard_normal((_PATHS, seeds))

    def found(shift: float) -> float:
        return float((settle(noise + shift, bound)[0] == STATES.index("better")).mean())

    codes, used = settle(noise, bound)
    low, high = 0.0, boundaries(seeds, alpha / comparisons)[0] * 2
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if found(middle) < POWER else (low, middle)
    same = float((codes == STATES.index("no difference that matters")).mean())
    return Reach(found(smallest / sd), same, sd * high, float(used.mean()))
