"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hmtl_ablate.reporting.wording import clock_text
from hmtl_ablate.running.outcome import Outcome


@dataclass(frozen=True)
class Left:
    """What a run leaves to do because it did not fit into its budget."""

    trials: tuple[str, ...]
    """Names of trials, without a search's."""
    searched: int
    """Trials that the search has yet to draw."""
    seconds: float | None
    """Until the last of them would end; None where it is not known."""
    budget: float
    """Seconds."""

    @property
    def sentence(self) -> str:
        """One line for the user."""
        what = [f"{len(self.trials)} trial{'s' * (len(self.trials) != 1)}"] if self.trials else []
        what += [f"{self.searched} of the search"] if self.searched else []
        named = ", ".join(self.trials[:3]) + (f" and {len(self.trials) - 3} more" if len(self.trials) > 3 else "")
        cost = "of unknown length" if self.seconds is None else f"about {clock_text(self.seconds)}"
        return (
            f"stopped at the budget of {clock_text(self.budget)}; left to do: {' and '.join(what)}, {cost}"
            + (f" ({named})" if named else "")
            + "; run the same command again to resume"
        )


@dataclass
class RunSummary:
    """How a run ended, in numbers of trials."""

    done: int = 0
    """Trained to their end by this run."""
    skipped: int = 0
    """Finished by an earlier run."""
    pruned: int = 0
    """Stopped early by the search's pruner."""
    failed: list[tuple[str, str, Path]] = field(default_factory=list)
    """Name, reason and log file of each failed trial."""
    left_out: list[str] = field(default_factory=list)
    """A sentence for each of the cluster's nodes that got no trials, or no more, and why."""
    interrupted: bool = False
    """The run was asked to stop; the next run resumes."""
    outcome: Outcome | None = field(default=None, compare=False)
    """What the study has found; None where MLflow was down at the end."""
    left: Left | None = None
    """What did not fit into the budget; None where all did, or there was none."""

    @property
    def complete(self) -> bool:
        """Nothing that the study declares is left to train."""
        return not (self.interrupted or self.left or self.failed)
