"""Names of trials, as every command and function that takes a trial reads them:

- a trial_id, or the first digits of one, where no other trial's begins so (four at least);
- STUDY/VARIANT/SEED, e.g. `puzzling/SL + puzzling/0`; STUDY@PROFILE/… where a study ran at several profiles;
- best:STUDY, the best seed of the study's best variant on the validation split (`best_trial`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from hmtl_ablate.config import metric_info
from hmtl_ablate.errors import StoreError, nearest
from hmtl_ablate.reporting.results import Results, load_results
from hmtl_ablate.study import selection_metric
from hmtl_ablate.training.folder import TrialFolder

BEST = "best:"
LISTED = 8
"""Names that an error lists at most."""
HOW = "name a trial by its id, STUDY/VARIANT/SEED or best:STUDY; `hmtl-ablate ui` lists the trials"


def find_trial(name: str, results: Results) -> str:
    """The trial_id of the trial that `name` names. Raises StoreError when there is none, or more than one."""
    if name.startswith(BEST):
        return str(best_trial(name.removeprefix(BEST), results)["trial_id"])
    ids = sorted(set(results.trials["trial_id"]))
    if _is_prefix(name) and (own := [trial_id for trial_id in ids if trial_id.startswith(name)]):
        return _only(name, own)
    return _by_place(name, results)


def find_folder(name: str | Path, store: Path, tracking_uri: str | None = None) -> TrialFolder:
    """The folder of the trial that `name` names; a path of a trial's folder is taken as it is.

    An id needs the trials' folders alone, not the tracking store. Raises StoreError when there is no such trial, more
    than one, or no folder of it here.
    """
    if (path := Path(name)).is_dir() and (path / "config.json").is_file():
        return TrialFolder(path)
    text, trials = str(name), store / "trials"
    if _is_prefix(text) and (own := sorted(path.parent.name for path in trials.glob(f"{text}*/config.json"))):
        return TrialFolder(trials / _only(text, own))
    results = load_results(tracking_uri, store)
    if results.empty:
        raise StoreError(f"{name}: there is no such trial in {store}, nor a study; name the store with --runs DIR")
    trial_id = find_trial(text, results)
    if not (trials / trial_id / "config.json").is_file():
        raise StoreError(f"{name}: this is trial {trial_id}, but {trials / trial_id} is not here; copy it there")
    return TrialFolder(trials / trial_id)


def best_trial(study: str, results: Results) -> dict[str, Any]:
    """The row of the study's best trial: of the variant whose mean over the seeds is best, the best seed.

    Both are by the study's metric on the split that selects the weights, never on test, and among finished trials of
    the variants as they are declared now. A search's own trials count only where the study has no other: there each
    configuration that was trained with as many seeds as any other is a variant. Probes are left out, since they have no
    model of their own. The older of equal ones.

    study: NAME or NAME@PROFILE. Raises StoreError when there is no such study or no such trial.
    """
    found = [row for row in results.studies.to_dict("records") if study in (row["study"], _full(row))]
    if not found:
        raise _unknown(
            f"{BEST}{study}", study, {name for row in results.studies.to_dict("records") for name in _names(row)}
        )
    if len(found) > 1:
        names = ", ".join(f"{BEST}{_full(row)}" for row in found)
        raise StoreError(f"{BEST}{study}: the study ran at several profiles; name one of {names}")
    row = found[0]
    metric = selection_metric(row["metric"])
    trials = results.trials[(results.trials["parent"] == row["run_id"]) & (results.trials["status"] == "finished")]
    column = f"metrics.{metric}"
    scored = trials[trials[column].notna()] if column in trials else trials.iloc[:0]
    scored = scored[scored["evaluation"] == ""]
    sign = 1.0 if metric_info(row["metric"]).direction == "max" else -1.0
    for standings in (("declared", "other batch norm"), ("search",)):
        own = scored[scored["standing"].isin(standings)].to_dict("records")
        groups: dict[str, list[dict[Any, Any]]] = {}
        for one in own:
            groups.setdefault(_configuration(one), []).append(one)
        if standings == ("search",):
            most = max((len(rows) for rows in groups.values()), default=0)
            groups = {key: rows for key, rows in groups.items() if len(rows) == most}
        if groups:
            best = max(groups.values(), key=lambda rows: sign * fmean(one[column] for one in rows))
            return max(best, key=lambda one: sign * one[column])
    raise StoreError(f"{BEST}{study}: no trial of this study is finished and has {metric}; run it first")


def _configuration(row: Mapping[Any, Any]) -> str:
    """What the trials of a variant, or of a search's configuration, share."""
    if row["standing"] != "search":
        return str(row["variant"])
    return json.dumps({key: value for key, value in row["options"].items() if key != "seed"}, sort_keys=True)


def trial_name(row: Mapping[Any, Any], study: Mapping[Any, Any]) -> str:
    """STUDY/VARIANT/SEED of a row of `Results.trials`."""
    return f"{study['study']}/{row['variant']}/{row['seed']}"


def _by_place(name: str, results: Results) -> str:
    """The trial at STUDY/VARIANT/SEED; names may have a / in them. One that the study declares comes before others."""
    place, _, seed = name.rpartition("/")
    known, found = [], []
    for study in results.studies.to_dict("records"):
        rows = results.trials[results.trials["parent"] == study["run_id"]].to_dict("records")
        known += [trial_name(row, study) for row in rows if row["standing"] == "declared"]
        variants = {place.removeprefix(f"{own}/") for own in _names(study) if place.startswith(f"{own}/")}
        own = [row for row in rows if row["variant"] in variants and str(row["seed"]) == seed]
        declared = [row for row in own if row["standing"] in ("declared", "other batch norm")]
        found += [(study, row) for row in declared[-1:] or own]
    ids = list(dict.fromkeys(str(row["trial_id"]) for _, row in found))
    if not ids:
        raise _unknown(name, name, known)
    if len(ids) > 1:
        choices = list(
            dict.fromkeys(f"{_full(study)}/{row['variant']}/{seed} ({row['trial_id']})" for study, row in found)
        )
        raise StoreError(f"{name}: more than one trial has this name: {_listed(choices)}; name one by its id")
    return ids[0]


def _unknown(name: str, word: str, known: Iterable[str]) -> StoreError:
    names = list(dict.fromkeys(known))
    hint = nearest(word, names) if names else ""
    if hint.startswith("valid: "):
        hint = f"there are {_listed(names)}"
    return StoreError(f"{name}: there is no such trial; {hint or 'the store has none'}\n{HOW}")


def _only(name: str, ids: list[str]) -> str:
    if len(ids) > 1:
        raise StoreError(f"{name}: {len(ids)} trials begin so: {_listed(ids)}; write more digits")
    return ids[0]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _is_prefix(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{4,16}", name) is not None


def _names(study: Mapping[Any, Any]) -> tuple[str, str]:
    return study["study"], _full(study)


def _full(study: Mapping[Any, Any]) -> str:
    return f"{study['study']}@{study['profile']}"
