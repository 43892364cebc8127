"""Pruners: what stops a search's trial early. Each is one class, with its options and how Optuna's pruner is built.

A module that `--import` names can add its own:

    @register_pruner
    class Threshold(Pruner):
        \"\"\"Stops a trial whose objective is below a limit.\"\"\"

        name: Literal["threshold"] = "threshold"
        lower: float = 0.2
        \"\"\"Smallest value of the objective that a trial may have.\"\"\"

        def build(self, epochs: int) -> BasePruner:
            from optuna.pruners import ThresholdPruner

            return ThresholdPruner(lower=self.lower)

Optuna is imported only when a pruner is built. A pruner gets the objective once per epoch, and its steps are epochs,
counted from 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, SerializeAsAny

from hmtl_ablate.config import Frozen, model_faults
from hmtl_ablate.errors import ConfigError, Fault, SearchError, nearest
from hmtl_ablate.study.declaration import Defined, marked

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

GraceEpochs = Annotated[int, Field(ge=1, le=10_000)]
NESTED = Defined("pruner")
"""Marks an option that is a pruner itself."""


class Pruner(Frozen, ABC):
    """What stops a search trial early; the base class of every pruner."""

    name: str
    """Name in a study file: a Literal with a default in every subclass."""

    @property
    def compares(self) -> bool:
        """Whether it compares a trial with others at the same epoch. Such a pruner is refused where trials have
        different epochs: one would be at the end of its schedule and the other in the middle."""
        return True

    @abstractmethod
    def build(self, epochs: int) -> BasePruner:
        """Optuna's pruner.

        epochs: the most epochs that a trial of the search can have.
        """


PRUNERS: dict[str, type[Pruner]] = {}
"""Pruner by its name in a study file; `register_pruner` adds to it."""

P = TypeVar("P", bound=Pruner)


def register_pruner(kind: type[P]) -> type[P]:
    """Add a pruner, under the default of its `name`; also a class decorator.

    Raises SearchError when it has no name, or another pruner has it.
    """
    name = kind.model_fields["name"].default
    if not isinstance(name, str):
        raise SearchError(f"the pruner {kind.__name__} has no name; write name: Literal['mine'] = 'mine'")
    if PRUNERS.get(name, kind) is not kind:
        raise SearchError(f"pruner {name!r} is registered already: choose another name")
    PRUNERS[name] = kind
    return kind


@register_pruner
class NoPruner(Pruner):
    """Every trial runs to its end."""

    name: Literal["none"] = "none"

    @property
    def compares(self) -> bool:
        return False

    def build(self, epochs: int) -> BasePruner:
        from optuna.pruners import NopPruner

        return NopPruner()


@register_pruner
class SuccessiveHalving(Pruner):
    """Asynchronous successive halving (Li et al. 2018): after grace_epochs × 1, 3, 9, … epochs, a trial continues only
    if it is in the best third of those that got as far."""

    name: Literal["successive_halving"] = "successive_halving"
    grace_epochs: GraceEpochs = 1
    """Epochs that every trial gets."""

    def build(self, epochs: int) -> BasePruner:
        from optuna.pruners import SuccessiveHalvingPruner

        return SuccessiveHalvingPruner(min_resource=self.grace_epochs, reduction_factor=3)


@register_pruner
class Hyperband(Pruner):
    """Hyperband (Li et al. 2017): several successive halvings, whose first decision comes after grace_epochs × 1, 3, 9,
    … epochs; a trial belongs to one of them by its number. Useful when it is unknown how early a bad trial shows."""

    name: Literal["hyperband"] = "hyperband"
    grace_epochs: GraceEpochs = 1
    """Epochs that every trial gets. The most epochs are those of training.epochs."""

    def build(self, epochs: int) -> BasePruner:
        from optuna.pruners import HyperbandPruner, NopPruner

        if self.grace_epochs >= epochs:  # Optuna would make no bracket, and fail
            return NopPruner()
        return HyperbandPruner(min_resource=self.grace_epochs, max_resource=epochs, reduction_factor=3)


@register_pruner
class Median(Pruner):
    """Median rule (Golovin et al. 2017): stops a trial whose best value so far is worse than the median of the finished
    trials at the same epoch."""

    name: Literal["median"] = "median"
    grace_epochs: GraceEpochs = 1
    """Epochs that every trial gets."""
    startup_trials: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Trials that have to finish before any is stopped."""

    def build(self, epochs: int) -> BasePruner:
        from optuna.pruners import MedianPruner

        return MedianPruner(n_startup_trials=self.startup_trials, n_warmup_steps=self.grace_epochs)


@register_pruner
class Patient(Pruner):
    """Early stopping: stops a trial that no longer improves, or lets another pruner decide about such trials only."""

    name: Literal["patient"] = "patient"
    patience: Annotated[int, Field(ge=0, le=10_000)] = 3
    """Epochs without improvement that a trial may have: it is stopped when its last patience + 1 epochs are all worse
    than its best before them."""
    wraps: Annotated[SerializeAsAny[Pruner], NESTED] = NoPruner()
    """Pruner that decides about a trial without improvement, e.g. median; none: the trial is stopped."""

    @property
    def compares(self) -> bool:
        return self.wraps.compares

    def build(self, epochs: int) -> BasePruner:
        from optuna.pruners import PatientPruner

        wrapped = None if isinstance(self.wraps, NoPruner) else self.wraps.build(epochs)
        return PatientPruner(wrapped, patience=self.patience)


def parse_pruner(raw: Any) -> Pruner:
    """The pruner of a study file: its name, a map of name and options, or null for none.

    Raises ConfigError with all that is wrong.
    """
    if faults := _faults(raw, ()):
        raise ConfigError(faults)
    return _made(_as_map(raw))


def _as_map(raw: Any) -> Any:
    return {"name": "none" if raw is None else raw} if not isinstance(raw, Mapping) else raw


def _faults(raw: Any, path: tuple[str | int, ...]) -> list[Fault]:
    options = _as_map(raw)
    name = options.get("name")
    if "name" not in options:
        return [Fault(path, "the pruner has no name", raw, "write e.g. {name: median}")]
    if not isinstance(name, str) or name not in PRUNERS:
        return [Fault((*path, "name"), f"there is no pruner {name!r}", name, nearest(name, PRUNERS))]
    kind = PRUNERS[name]
    nested = [key for key in marked(kind, NESTED) if key in options]
    found = model_faults(kind, {key: value for key, value in options.items() if key not in nested}, path)
    return found + [fault for key in nested for fault in _faults(options[key], (*path, key))]


def _made(options: Mapping[str, Any]) -> Pruner:
    kind = PRUNERS[options["name"]]
    nested = {key: _made(_as_map(options[key])) for key in marked(kind, NESTED) if key in options}
    return kind.model_validate({**options, **nested})
