"""A job of a run: one training run, and whom it is for."""

from __future__ import annotations

from dataclasses import dataclass, field

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.running.optuna_search import Draw
from hmtl_ablate.study import Variant
from hmtl_ablate.training.folder import TrialFolder, TrialResult, is_complete


@dataclass
class Job:
    """One training run, shared by all variants, stages and draws of the search that have the same config."""

    trial_id: str
    config: TrialConfig
    """Resolved: every trial that it starts from is named by its id."""
    folder: TrialFolder
    pack: Pack
    needs: frozenset[str] = frozenset()
    """Ids of the trials it starts from."""
    arms: list[Variant] = field(default_factory=list)
    """Variants and stages it belongs to."""
    draws: list[Draw] = field(default_factory=list)
    """The search's draws it belongs to."""
    searched: dict[str, str] = field(default_factory=dict)
    """Of a trial of the search that ended in an earlier run: arm of the search → how its configuration was drawn."""
    tried: str = ""
    """What a search's trial tries, in words: `naming.tried_text`."""
    source: bool = False
    """Whether others start from its weights, so that these are compared whole with their checksum."""
    aside: dict[str, int] = field(default_factory=dict)
    """`TrialFolder.aside` when it was looked at last."""
    said: tuple[str, ...] = ()
    """Damaged files that the user has read of."""
    retries: int = 0
    """How often it was started again in this run after a fault of the machine."""

    @property
    def name(self) -> str:
        if self.arms:
            return f"{' = '.join(arm.name for arm in self.arms)} · seed {self.config.seed}"
        number = min((draw.trial.number + 1 for draw in self.draws), default=None)
        which = " · ".join(
            part for part in ("search" if number is None else f"search {number}", *self.searches) if part
        )
        return f"{which}: {self.tried or self.trial_id[:6]}"

    @property
    def searches(self) -> dict[str, str]:
        """Arm of the search whose trial it is → how its configuration was drawn; {} when it is none."""
        return self.searched | {draw.arm: draw.kind for draw in self.draws}

    @property
    def evaluate_test(self) -> bool:
        """A search's trial and a stage never look at the test split."""
        return any(not arm.stage for arm in self.arms)

    def complete(self, result: TrialResult) -> bool:
        """Is this all that the job is for? An arm's trial runs to its end; a search's need not."""
        return not self.arms or is_complete(self.config, result, self.evaluate_test)
