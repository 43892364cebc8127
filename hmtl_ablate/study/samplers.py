"""Samplers: what draws the next values of a search. Each is one entry; Optuna is imported only when one is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hmtl_ablate.errors import SearchError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


Drawn = Literal["random", "grid", "sampler", "start", "from"]
"""How a configuration came into a search: drawn independently of every score, or in the grid's order; by a sampler from
the scores before it; declared in the study file; taken from another study."""


@dataclass(frozen=True)
class Sampler:
    """A sampler, and the spaces that it can search as they are declared."""

    name: str
    """Name in a study file."""
    text: str
    """What it does, in one sentence."""
    build: Callable[[int], BaseSampler]
    """Optuna's sampler for a seed."""
    continuous: bool = True
    """Takes continuous ranges: uniform and loguniform."""
    choices: bool = True
    """Takes `choice`, whose values have no order."""
    conditions: bool = True
    """Takes parameters that exist only `when` another one has some value."""
    exhaustive: bool = False
    """Visits every combination of the values once, in the order of `Search.grid`; Optuna's sampler draws nothing."""
    several: bool = True
    """Takes several objectives."""
    startup: int | None = None
    """Configurations that are drawn at random before it draws any from scores; None: it never looks at a score."""

    def drawn(self, before: int) -> Drawn:
        """How a configuration is drawn that has so many before it."""
        if self.exhaustive:
            return "grid"
        return "random" if self.startup is None or before < self.startup else "sampler"


POPULATION = 20
"""Configurations in a generation of NSGA-II."""

SAMPLERS: dict[str, Sampler] = {}
"""Sampler by name; `register_sampler` adds to it."""


def register_sampler(sampler: Sampler) -> Sampler:
    """Add a sampler; raises SearchError when another one has its name."""
    if SAMPLERS.get(sampler.name, sampler) is not sampler:
        raise SearchError(f"sampler {sampler.name!r} is registered already: choose another name")
    SAMPLERS[sampler.name] = sampler
    return sampler


def _tpe(seed: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    # the first draws are made at random outside of it (`startup`), and one at least must have ended
    return TPESampler(seed=seed, n_startup_trials=1, multivariate=True, group=True, constant_liar=True)


def _random(seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _gp(seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, n_startup_trials=1)


def _cmaes(seed: int) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=seed)


def _nsga2(seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=POPULATION)


register_sampler(
    Sampler(
        "tpe",
        "Tree-structured Parzen estimator (Bergstra et al. 2011), of all options together; takes every space.",
        _tpe,
        startup=10,
    )
)
register_sampler(Sampler("random", "Independent random draws; takes every space.", _random))
register_sampler(
    Sampler(
        "grid",
        "Every combination of the values once; takes no continuous ranges.",
        _random,
        continuous=False,
        exhaustive=True,
    )
)
# Optuna's GP and CMA-ES samplers model only what every trial has, and draw all else at random.
register_sampler(Sampler("gp", "Gaussian process; takes no conditions.", _gp, conditions=False, startup=10))
register_sampler(
    Sampler(
        "cmaes",
        "CMA-ES; takes numeric ranges only, no conditions.",
        _cmaes,
        choices=False,
        conditions=False,
        several=False,
        startup=1,
    )
)
# Its first generation is random, too, but of its own draws: one that was made outside of it belongs to no generation.
register_sampler(
    Sampler(
        "nsga2",
        f"NSGA-II (Deb et al. 2002), in generations of {POPULATION}: for several objectives and hundreds of "
        "configurations; takes no conditions.",
        _nsga2,
        conditions=False,
        startup=0,
    )
)
