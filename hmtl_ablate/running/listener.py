"""What a run says while it runs. The command line draws it; a notebook can plug in its own display."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from hmtl_ablate.config import TrialConfig


class ProgressListener(Protocol):
    """Called by the run, in its thread."""

    def expect(self, trials: int) -> None:
        """The run has this many trials more than it said before."""

    def skip(self) -> None:
        """One of the expected trials was finished by an earlier run."""

    def say(self, text: str) -> None:
        """One line of news."""

    def warn(self, text: str) -> None:
        """One line that nobody should miss."""

    def start(self, trial_id: str, name: str, config: TrialConfig) -> None:
        """A trial starts. name: for people, e.g. "SL + puzzling · seed 0"."""

    def epoch(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        """An epoch of a running trial has ended; metrics as in metrics.jsonl."""

    def end(self, trial_id: str, status: str, result: Mapping[str, float], seconds: float) -> None:
        """A trial is over. status: finished, pruned, failed or interrupted; result: as in result.json, empty for the
        last two; seconds: of training, over all runs."""

    def forecast(self, left: Callable[[int], float | None]) -> None:
        """How the run's time can be asked for, once it is known. left(n): seconds from now until the run's last trial
        ends, with n trials of it that have not started; None before anything was measured."""


class SilentListener:
    """Prints nothing; warnings go to the logger `hmtl_ablate`."""

    def expect(self, trials: int) -> None:
        pass

    def skip(self) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        logging.getLogger("hmtl_ablate").warning("%s", text)

    def start(self, trial_id: str, name: str, config: TrialConfig) -> None:
        pass

    def epoch(self, trial_id: str, metrics: Mapping[str, float]) -> None:
        pass

    def end(self, trial_id: str, status: str, result: Mapping[str, float], seconds: float) -> None:
        pass

    def forecast(self, left: Callable[[int], float | None]) -> None:
        pass
