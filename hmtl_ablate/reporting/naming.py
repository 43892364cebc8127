"""Names of trials, as every command and function that takes a trial reads them:

- a trial_id, or the first digits of one, where no other trial's begins so (four at least);
- STUDY/VARIANT/SEED, e.g. `puzzling/SL + puzzling/0`; STUDY@PROFILE/… where a study ran at several profiles;
- best:STUDY, on the validation split the best seed of the variant with the best mean (`best_trial`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hmtl_ablate.config import metric_info
from hmtl_ablate.errors import StoreError, nearest
from hmtl_ablate.reporting.results import Results, load_results
from hmtl_ablate.reporting.winner import variant_options
from hmtl_ablate.study import selection_metric
from hmtl_ablate.study.mapping import node_of, yaml_of
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
    """The row of the study's best trial: of the variant with the best mean over its seeds, the best seed. Both are by
    the study's metric on the validation split, never on test, among finished trials of its variants as they are
    declared now; a search's own trials count only where the study has no other, each by itself. Probes are left out,
    since they have no model of their own. The older of equal ones.

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
    for standings in (("declared", "other batch norm"), ("search",)):
        own = scored[scored["standing"].isin(standings)]
        if not own.empty:
            value = own[column] if metric_info(row["metric"]).direction == "max" else -own[column]
            if standings != ("search",):
                value = value[own["variant"] == value.groupby(own["variant"], sort=False).mean().idxmax()]
            best: dict[Any, Any] = own.loc[value.idxmax()].to_dict()
            return best
    raise StoreError(f"{BEST}{study}: no trial of this study is finished and has {metric}; run it first")


def best_text(study: str, results: Results) -> str:
    """The study's best trial in words: its name and score, the rule, and its options as YAML. Raises StoreError."""
    row = best_trial(study, results)
    owner = next(one for one in results.studies.to_dict("records") if one["run_id"] == row["parent"])
    metric = selection_metric(owner["metric"])
    options = variant_options(row["options"], ())
    rule = "best mean on validation over seeds, then best seed" if row["standing"] != "search" else "best on validation"
    lines = [
        f"{trial_name(row, owner)} (trial {row['trial_id']})",
        f"{metric}: {row[f'metrics.{metric}']:.4f}",
        f"rule: {rule}",
        "",
        *(yaml_of(node_of({row["variant"]: options})).splitlines()),
    ]
    return "\n".join(lines) + "\n"


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
