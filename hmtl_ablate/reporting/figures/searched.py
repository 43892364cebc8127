"""The configurations of a search with their scores, in the order in which they were started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.tables import StudyTable, finite
from hmtl_ablate.study.racing import SCORE, search_seeds


@dataclass(frozen=True)
class Configuration:
    """One configuration of one arm."""

    arm: str
    number: int
    """From 1, in its arm."""
    options: Mapping[str, Any]
    """Searched option → value, of those that it has."""
    score: float | None
    """Mean over its finished seeds of the race, in the objective's own unit; None for one without, as it was stopped
    early or failed."""


@dataclass(frozen=True)
class Searched:
    """What a study's search has tried."""

    objective: str
    direction: Literal["max", "min"]
    configurations: tuple[Configuration, ...]


def searched(table: StudyTable, results: Results) -> Searched | None:
    """The configurations of a study's search; None without any that has a score."""
    if table.search is None or not table.run_id:
        return None
    study = next(row for row in results.studies.to_dict("records") if row["run_id"] == table.run_id)
    trials = results.trials[(results.trials["parent"] == table.run_id) & (results.trials["standing"] == "search")]
    found: dict[tuple[str, str], dict[int, float]] = {}
    options: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in trials[trials["status"].isin(["finished", "pruned", "failed"])].to_dict("records"):
        about = study["search"].get(row["arm"])
        if about is None:
            continue
        config = {key: value for key, value in row["options"].items() if key != "seed"}
        place = (row["arm"], json.dumps(config, sort_keys=True))
        options[place] = {key: config[key] for key in about["keys"] if config.get(key) is not None}
        scores, score = found.setdefault(place, {}), finite(row.get(f"metrics.{SCORE}"))
        if (
            row["status"] == "finished"
            and score is not None
            and row["seed"] in search_seeds(study["seeds"], about["racing"])
        ):
            scores[int(row["seed"])] = score
    counts: dict[str, int] = {}
    configurations = []
    for place, scores in found.items():
        counts[place[0]] = counts.get(place[0], 0) + 1
        mean = fmean(scores.values()) if scores else None
        configurations.append(Configuration(place[0], counts[place[0]], options[place], mean))
    if all(one.score is None for one in configurations):
        return None
    first = next(iter(study["search"].values()))
    return Searched(first["objective"], first["direction"], tuple(configurations))
