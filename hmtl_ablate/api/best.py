"""A study's best trial; without torch, which takes seconds to load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hmtl_ablate.errors import ConfigError, StoreError
from hmtl_ablate.reporting.naming import best_trial, trial_name
from hmtl_ablate.reporting.results import load_results, require_runs
from hmtl_ablate.reporting.winner import variant_options
from hmtl_ablate.storage import store_folder
from hmtl_ablate.study import selection_metric
from hmtl_ablate.study.mapping import node_of, yaml_of

BEST_RULE = "the best seed of the variant whose mean is best, both by {metric}; test has no say"


@dataclass(frozen=True)
class BestTrial:
    """A study's best trial.

    >>> from hmtl_ablate import BestTrial
    >>> BestTrial("0" * 16, "s/SL/0", "val/accuracy", 0.5, "…", "").score
    0.5
    """

    trial_id: str
    name: str
    """STUDY/VARIANT/SEED."""
    metric: str
    """The metric that it is best by, on the split that selects, e.g. val/accuracy."""
    score: float
    """Its value of that metric, in the metric's own unit."""
    rule: str
    """Why it is the best, in words."""
    yaml: str
    """Its configuration, as an entry of `variants` in a study file."""


def best(study: str, store: str | Path = "runs", *, tracking_uri: str | None = None) -> BestTrial:
    """A study's best trial, as `best:STUDY` names it.

    >>> import hmtl_ablate as ha
    >>> base = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}
    >>> study = {"name": "small", "base": base, "variants": {"SL": {}}, "seeds": [0]}
    >>> done = ha.run(study, progress=False)
    >>> ha.best("small").name
    'small/SL/0'

    Args:
        study: NAME or NAME@PROFILE.
        store: the folder of the study's trials.
        tracking_uri: MLflow tracking store; None for SQLite in the store.

    Raises:
        StoreError: there is no store, no such study, or no finished trial of it; or its configuration has a task or
            backbone of a module that was not imported.
    """
    place = store_folder(store)
    require_runs(tracking_uri, place)
    results = load_results(tracking_uri, place)
    row = best_trial(study, results)
    parent = next(one for one in results.studies.to_dict("records") if one["run_id"] == row["parent"])
    metric = selection_metric(parent["metric"])
    shown = metric.removeprefix("best/")
    options = {key: value for key, value in row["options"].items() if value is not None}
    try:
        declared = variant_options(options, ())
    except ConfigError as error:
        raise StoreError(
            f"the configuration of {trial_name(row, parent)} can't be read: {error}\n"
            "a module that registers its tasks or backbones is named with --import"
        ) from error
    return BestTrial(
        trial_id=row["trial_id"],
        name=trial_name(row, parent),
        metric=shown,
        score=float(row[f"metrics.{metric}"]),
        rule=BEST_RULE.format(metric=shown),
        yaml=yaml_of(node_of({row["variant"]: declared})),
    )
