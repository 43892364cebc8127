"""Optuna's cache of a storage, for a driver that writes nearly all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo
from optuna.trial import FrozenTrial, TrialState


class DriverCache(_CachedStorage):
    """Reads a trial again only when this process has written to it.

    Optuna's own cache reads every unfinished trial again, at each suggestion and at each look of a pruner: with 1,000
    trials in flight that is nearly all that a driver does. Here one driver is the only writer of its trials, so what it
    did not change is as it was. Every read still asks the database, for the changed trials and for new ones. While
    other drivers share the search, all unfinished trials are read again.
    """

    def __init__(self, backend: RDBStorage, shared: Callable[[], bool] = lambda: False) -> None:
        """shared: whether other drivers write, too."""
        super().__init__(backend)
        self._shared = shared
        self._changed: dict[int, set[int]] = {}
        """Id of a study → ids of its trials that were written to since they were read."""
        self._newest: dict[int, int] = {}
        """Id of a study → the largest id of its trials in the cache."""
        self._read: dict[int, int] = {}
        """Id of a study → the id up to which all of its trials were read."""

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        self._changed.setdefault(study_id, set()).add(trial_id)
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self._note(trial_id)
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        self._note(trial_id)
        return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._note(trial_id)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._note(trial_id)
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._note(trial_id)
        super().set_trial_system_attr(trial_id, key, value)

    def _note(self, trial_id: int) -> None:
        """A trial is about to be changed. One that was never read is read with all others of its study."""
        if trial_id in self._trial_id_to_study_id_and_number:
            study_id, _ = self._trial_id_to_study_id_and_number[trial_id]
            self._changed.setdefault(study_id, set()).add(trial_id)

    def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
        super()._add_trials_to_cache(study_id, trials)
        ids = [trial._trial_id for trial in trials]
        self._newest[study_id] = max([self._newest.get(study_id, -1), *ids])

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        changed = self._changed.get(study_id, set())
        with self._lock:
            study = self._studies.setdefault(study_id, _StudyInfo())
            study.unfinished_trial_ids = set(changed)
            if self._shared():
                others = (trial for trial in study.trials.values() if not trial.state.is_finished())
                study.unfinished_trial_ids |= {trial._trial_id for trial in others}
            study.last_finished_trial_id = self._read.get(study_id, -1)
        super()._read_trials_from_remote_storage(study_id)
        self._changed[study_id] = set()  # not before: the database may be away
        self._read[study_id] = self._newest.get(study_id, -1)
