"""A study's records as a bundle has them, and the frames of a report from them and the trials' folders alone.

What follows from a trial's folder is never read from the records: metrics, options, status, seed, task, commit,
device. The records add what only the tracking store knows: which trial serves which variant of which study.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from hmtl_ablate.bundles.layout import CONFIG, PREDICTIONS, RECORDS, RESULT, BundleError
from hmtl_ablate.config import TrialConfig
from hmtl_ablate.errors import ConfigError, HmtlError, StoreError, first_line
from hmtl_ablate.reporting.results import Results, results_of
from hmtl_ablate.study.declaration import WINNER
from hmtl_ablate.study.racing import SCORE, run_score
from hmtl_ablate.tracking.records import SEARCH, StudyRecord, TrialRecord, loggable
from hmtl_ablate.training.folder import TrialFolder, TrialResult


@dataclass(frozen=True)
class Content:
    """What one trial's folder says."""

    trial_id: str
    folder: TrialFolder
    config: TrialConfig
    history: tuple[dict[str, float], ...]
    result: TrialResult | None
    """None: it was not complete when the bundle was made."""
    predictions: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Records:
    """What the tracking store knew of a study."""

    studies: tuple[StudyRecord, ...]
    trials: tuple[TrialRecord, ...]


def records_text(records: Records) -> str:
    """The records as JSON: their tags, as the tracking store has them."""
    return (
        json.dumps(
            {
                kind: [
                    {"run_id": one.run_id, "started": one.started, "tags": dict(sorted(one.to_run().tags.items()))}
                    for one in found
                ]
                for kind, found in (("studies", records.studies), ("trials", records.trials))
            },
            indent=1,
            ensure_ascii=False,
        )
        + "\n"
    )


def read_records(raw: Any) -> Records:
    """The records of plain data. Raises BundleError."""
    try:
        return Records(
            tuple(StudyRecord.from_run(_run(one)) for one in raw["studies"]),
            tuple(TrialRecord.from_run(_run(one)) for one in raw["trials"]),
        )
    except (HmtlError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BundleError(f"{RECORDS} is not what hmtl-ablate writes: {first_line(error)}") from error


def _run(raw: Any) -> Any:
    """One record as MLflow would return it."""
    run_id, started, tags = raw["run_id"], raw["started"], raw["tags"]
    if not isinstance(run_id, str) or not isinstance(started, int) or not isinstance(tags, dict):
        raise TypeError("a record has run_id, started and tags")
    if not all(isinstance(text, str) for pair in tags.items() for text in pair):
        raise TypeError("tags are texts")
    return SimpleNamespace(
        info=SimpleNamespace(run_id=run_id, start_time=started), data=SimpleNamespace(tags=tags, params={}, metrics={})
    )


def read_content(path: Path) -> Content:
    """A trial's folder; the checksum in its result.json is not compared. Raises BundleError."""
    folder, name = TrialFolder(path), f"trials/{path.name}"
    try:
        config = folder.config()
    except (ConfigError, StoreError) as error:
        raise BundleError(
            f"{name}/{CONFIG} can't be read: {first_line(error)}; a module of the author's that registers "
            "tasks or backbones is named with --import, if you trust it"
        ) from error
    result = None
    if (path / RESULT).exists():
        try:
            raw = json.loads((path / RESULT).read_bytes())
            result = TrialResult.model_validate({key: value for key, value in raw.items() if key != "crc32"})
        except (ValueError, ValidationError, AttributeError, RecursionError) as error:
            raise BundleError(f"{name}/{RESULT} is not what hmtl-ablate writes") from error
    return Content(path.name, folder, config, tuple(folder.history()), result, _arrays(path / PREDICTIONS))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as saved:  # checked in reading.py
        return {name: saved[name] for name in saved.files}


def declared_only(record: TrialRecord, in_folder: bool) -> TrialRecord:
    """A trial's record without what its folder says."""
    if not in_folder:
        environment = {name: value for name, value in record.environment.items() if name != "host"}
        return replace(record, metrics={}, environment=environment)
    return replace(record, metrics={}, environment={}, config={}, commit="", numerics=0, reason="", status="running")


def rebuilt(records: Records, contents: Mapping[str, Content], root: Path) -> Results:
    """The frames of a report."""
    searches = {study.run_id: study.search for study in records.studies}
    trials = [
        _trial(record, contents[record.trial_id], searches.get(record.parent, {}))
        if record.trial_id in contents
        else record
        for record in records.trials
    ]
    return replace(results_of(records.studies, trials), store=root)


def _trial(record: TrialRecord, content: Content, search: Mapping[str, Mapping[str, Any]]) -> TrialRecord:
    config, result = content.config, content.result
    metrics: dict[str, float] = {}
    for row in content.history:
        metrics |= loggable(row)
    found = replace(
        record,
        seed=config.seed,
        data=config.data.name,
        protocol=config.data.protocol,
        task="+".join(config.tasks),
        config=config.model_dump(mode="json"),
        metrics=metrics,
    )
    if result is None:
        return found
    environment = dict(result.tags)
    commit, numerics = environment.pop("git_commit", ""), environment.pop("numerics", "0")
    score = _score(record, result, content.history, search)
    return replace(
        found,
        status=result.status,
        reason=result.reason,
        commit=commit,
        numerics=int(numerics) if numerics.isdecimal() else 0,
        environment=environment,
        metrics=metrics | loggable(result.metrics) | score,
    )


def _score(
    record: TrialRecord,
    result: TrialResult,
    history: Sequence[Mapping[str, float]],
    search: Mapping[str, Mapping[str, Any]],
) -> dict[str, float]:
    """By what the search would select the trial, as a run of the study writes it (`running.study_log`)."""
    own = next(iter(search.values()), None)
    if own is None or result.status != "finished" or record.variant.partition(",")[0] not in (SEARCH, WINNER):
        return {}
    found = run_score(result.metrics, history, str(own["objective"]), racing=int(own.get("racing", 1)) > 1)
    return {} if found is None else {SCORE: found}
