"""The search space: parameters, their conditions, and from drawn values to a TrialConfig."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal

from hmtl_ablate.config import TrainingConfig, TrialConfig, parse_config, short_hash
from hmtl_ablate.errors import ConfigError, Fault, SearchError
from hmtl_ablate.study.constraints import Constraint
from hmtl_ablate.study.declaration import Kind
from hmtl_ablate.study.pruners import Pruner

MAX_GRID = 10_000

Direction = Literal["max", "min"]


@dataclass(frozen=True)
class Parameter:
    """One searched option."""

    key: str
    """Dotted key of a TrialConfig's option."""
    kind: Kind
    choices: tuple[Any, ...] = ()
    """Its values, of kind choice."""
    low: float = 0.0
    """Lower end of the range, included; of the other kinds."""
    high: float = 0.0
    """Upper end of the range, included."""
    step: int = 1
    """Of kind int: values are low plus a multiple of it."""
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Dotted key of another parameter → its values with which this one exists."""

    @property
    def values(self) -> tuple[Any, ...] | range | None:
        """All values it can take; None for a continuous range."""
        if self.kind == "choice":
            return self.choices
        return range(int(self.low), int(self.high) + 1, self.step) if self.kind == "int" else None

    def takes(self, value: Any) -> bool:
        """Whether it can have this value."""
        if self.values is not None:
            return contains(self.values, value)
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether the parameter exists, given the values of the parameters before it."""
        return all(key in values and contains(allowed, values[key]) for key, allowed in self.when.items())


@dataclass(frozen=True)
class Search:
    """A search as declared: `parameters` come in an order in which each follows those that its `when` names."""

    base: Mapping[str, Any]
    parameters: tuple[Parameter, ...]
    sampler: str
    pruner: Pruner
    trials: int | None
    """Configurations in total; None: as many as the budget allows."""
    metric: str
    direction: Direction
    confirm: int = 0
    """How many of the best are confirmed."""
    arm: str = ""
    """Name of the arm that it searches; "" in a search without arms."""
    racing: int = 1
    """The most seeds that a configuration can get; 1: there is no race."""
    budget: float | None = None
    """Image passes that it may spend."""
    start: tuple[Mapping[str, Any], ...] = ()
    """Configurations that are tried first: searched option → value."""
    constraints: tuple[Constraint, ...] = ()
    source: str = ""
    """Study, or study@profile, whose best configurations are tried first; "" for none."""
    others: Mapping[str, Direction] = field(default_factory=dict)
    """Further objectives besides `metric`, which is the one that a pruner watches: a validation metric, or a cost."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Dotted keys of the searched options."""
        return tuple(parameter.key for parameter in self.parameters)

    @property
    def objectives(self) -> dict[str, Direction]:
        """Every objective, `metric` first."""
        return {self.metric: self.direction, **self.others}

    @property
    def epochs(self) -> int:
        """The most epochs that one of its trials can have."""
        own = self.base.get("training", {}).get("epochs", TrainingConfig.model_fields["epochs"].default)
        searched = next((parameter.values for parameter in self.parameters if parameter.key == "training.epochs"), None)
        return max(searched) if searched else int(own)

    def resolve(self, values: Mapping[str, Any], seed: int) -> TrialConfig:
        """The config of drawn values (dotted key → value; without parameters whose `when` does not hold).

        Raises `ConfigError` where the options refuse this combination.
        """
        config = parse_config({**resolved(self.base, values), "seed": seed})
        data = config.model_dump(mode="json") if self.constraints else {}
        broken = [one.text for one in self.constraints if not one.holds(data)]
        if broken:
            raise ConfigError([Fault((), f"breaks the constraint {text}", None, "") for text in broken])
        return config

    def fits(self, values: Mapping[str, Any]) -> bool:
        """Whether these could have been drawn: a value within its range for each parameter that exists, no other."""
        chosen: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.active(chosen) and parameter.key in values:
                if not parameter.takes(values[parameter.key]):
                    return False
                chosen[parameter.key] = values[parameter.key]
            elif parameter.active(chosen):
                return False
        return len(chosen) == len(values)

    @property
    def space_hash(self) -> str:
        """12 hexadecimal digits over what a drawn value and its score mean: base, parameters, objective.

        Sampler, pruner, number of trials and budget are no part of it: a search continues when they change.
        """
        identity: list[Any] = [
            self.base,
            [asdict(parameter) for parameter in sorted(self.parameters, key=lambda p: p.key)],
            self.metric,
            self.direction,
            *(["racing"] if self.racing > 1 else []),  # other scores: means of last epochs, over two seeds
            *([self.arm] if self.arm else []),
            *([{"others": dict(self.others)}] if self.others else []),
        ]
        return short_hash(identity)

    def grid(self) -> list[dict[str, Any]]:
        """Every combination of values, in a fixed order; `SearchError` for a continuous range or a huge grid."""
        continuous = [parameter.key for parameter in self.parameters if parameter.values is None]
        if continuous:
            raise SearchError(f"a grid has no end: {', '.join(continuous)} is a continuous range; use choice or int")
        found = list(islice(combinations(self.parameters), MAX_GRID + 1))
        if len(found) > MAX_GRID:
            raise SearchError(f"the grid has more than {MAX_GRID} combinations; use fewer values, or sampler: random")
        return found


def combinations(
    parameters: tuple[Parameter, ...], chosen: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Every combination of the parameters' values, parameters in their order; the ends alone of a continuous range."""
    chosen = dict(chosen or {})
    if not parameters:
        yield chosen
        return
    first, rest = parameters[0], parameters[1:]
    if not first.active(chosen):
        yield from combinations(rest, chosen)
        return
    for value in (first.low, first.high) if first.values is None else first.values:
        yield from combinations(rest, {**chosen, first.key: value})


def resolved(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The base's data with dotted keys set; the base itself stays as it is."""
    result = dict(base)
    for key, value in values.items():
        *groups, name = key.split(".")
        level = result
        for group in groups:
            level[group] = dict(level.get(group) or {})
            level = level[group]
        level[name] = value
    return result


def contains(allowed: tuple[Any, ...] | range, value: Any) -> bool:
    """Whether the value is one of the allowed; True is not 1 here."""
    if isinstance(allowed, range):
        return isinstance(value, int | float) and not isinstance(value, bool) and value in allowed
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in allowed)
