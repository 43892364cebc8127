"""Which arms a figure shows, and their trials' folders."""

from __future__ import annotations

from collections.abc import Mapping

from hmtl_ablate.errors import HmtlError
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyRow, StudyTable
from hmtl_ablate.reporting.wording import lower_is_better
from hmtl_ablate.training.folder import TrialFolder, TrialResult


def best_first(table: StudyTable) -> list[StudyRow]:
    """The rows after the baseline that have a score, the best mean first."""
    sign = 1 if lower_is_better(table.metric) else -1
    known = [row for row in table.rows[1:] if row.score.mean is not None]
    return sorted(known, key=lambda row: sign * (row.score.mean or 0.0))


def baseline_and_best(table: StudyTable, most: int) -> list[str]:
    """Names of the baseline and the best others, at most so many in all, in the table's order."""
    kept = {row.variant for row in (*table.rows[:1], *best_first(table)[: most - 1])}
    return [row.variant for row in table.rows if row.variant in kept]


def folders(table: StudyTable, results: Results) -> dict[str, dict[int, TrialFolder]]:
    """Variant → seed → the folder of its finished trial, of those that this machine has, in the table's order."""
    found: dict[str, dict[int, TrialFolder]] = {row.variant: {} for row in table.rows}
    declared = results.declared(table.run_id)
    for trial in declared[declared["status"] == "finished"].to_dict("records"):
        own = found.get(trial["variant"])
        folder = None if own is None else results.folder(trial["trial_id"])
        if own is not None and folder is not None:
            own[int(trial["seed"])] = folder
    return {variant: dict(sorted(own.items())) for variant, own in found.items()}


def selection_metric(own: Mapping[str, Mapping[int, TrialFolder]]) -> str:
    """The metric that selected the weights, of the first trial that says so; "" where none does."""
    for folder in (folder for seeds in own.values() for folder in seeds.values()):
        try:
            return folder.config().selects_by
        except HmtlError:  # damaged, or of a task that is not imported here
            continue
    return ""


def result_of(folder: TrialFolder) -> TrialResult | None:
    """The trial's result; None where it is damaged."""
    try:
        return folder.result()
    except HmtlError:
        return None
