"""MLflow's runs as two tidy frames, one row a study and one row a trial. Nothing else is read, nothing is written."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from hmtl_ablate.errors import TrackingError

STUDY_COLUMNS = (
    "run_id",
    "study",
    "profile",
    "question",
    "metric",
    "data",
    "variants",
    "evaluations",
    "seeds",
    "started",
)
TRIAL_COLUMNS = (
    "run_id",
    "parent",
    "standing",
    "trial_id",
    "variant",
    "variant_key",
    "seed",
    "status",
    "reason",
    "data",
    "fingerprint",
    "protocol",
    "task",
    "evaluation",
    "classes",
    "commit",
    "device",
    "torch",
    "started",
)
RECALLS = ("val/recall/", "test/recall/")


@dataclass(frozen=True)
class Results:
    """What the tracking store holds.

    studies: STUDY_COLUMNS; `variants` is {variant: variant key} in the declared order, the baseline first;
    `evaluations` is {variant: evaluation} of those that evaluate another; `seeds` is a list; `started` is in
    milliseconds since 1970.

    trials: TRIAL_COLUMNS, then `params.<key>` (text) and `metrics.<key>` (the last value; accuracies from 0 to 1).
    `parent` is the study's run_id; a trial that two studies share has a row under each. `classes` counts the classes
    whose recall was measured; `commit`, `device`, `torch`: what made the row. `standing` says what the row may be used
    for:

    - declared: one of the study's variants, seeds and data as they stand now, whatever its status;
    - superseded: a variant, config or seed that the study no longer declares, or an older run of the same;
    - older data: as declared, but the data's content has changed since;
    - search: a search's trial, which never sees the test split;
    - stage: a trial that others start from.
    """

    studies: pd.DataFrame
    trials: pd.DataFrame

    @property
    def empty(self) -> bool:
        """True when no study was ever run."""
        return self.studies.empty

    def declared(self, run_id: str | None = None) -> pd.DataFrame:
        """The trials whose standing is `declared`, of one study or of all."""
        rows = self.trials["standing"] == "declared"
        if run_id is not None:
            rows &= self.trials["parent"] == run_id
        return self.trials[rows]


def load_results(tracking_uri: str | None, store: Path) -> Results:
    """Read the tracking store: `tracking_uri`, or the SQLite file in `store` when it is None.

    A SQLite file that does not exist is a store without runs; it is not created. Raises TrackingError when the
    tracking store can't be reached or a run's tags are not what hmtl-ablate writes.
    """
    if _absent(tracking_uri, store):
        return results_of([], [])
    from mlflow.exceptions import MlflowException

    from hmtl_ablate.tracking import open_tracking

    tracking = open_tracking(tracking_uri, store)
    try:
        with _uncollected():
            studies = [_study(run) for run in _runs(tracking.client, tracking.experiment_id, "study")]
            trials = [_trial(run) for run in _runs(tracking.client, tracking.experiment_id, "trial")]
    except MlflowException as error:
        raise TrackingError(
            f"the runs can't be read from the tracking store: {error}\n"
            "check --tracking-uri and --runs, and that the MLflow server is up"
        ) from error
    return results_of(studies, trials)


def results_of(studies: list[dict[str, Any]], trials: list[dict[str, Any]]) -> Results:
    """Frames of plain records (columns as in `Results`, `standing` left out: it is worked out here)."""
    _set_standings(studies, trials)
    study_frame = pd.DataFrame(studies, columns=list(STUDY_COLUMNS)).sort_values("started", kind="stable")
    trial_frame = pd.DataFrame(trials)
    if trial_frame.empty:
        trial_frame = pd.DataFrame(columns=list(TRIAL_COLUMNS))
    others = [column for column in trial_frame.columns if column not in (*TRIAL_COLUMNS, "stage")]
    trial_frame = trial_frame[[*TRIAL_COLUMNS, *sorted(others)]].sort_values("started", kind="stable")
    return Results(study_frame.reset_index(drop=True), trial_frame.reset_index(drop=True))


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's garbage collector, which looks through all of MLflow's objects, seventy a run, again and again
    while more of them are made: that was more than half of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _absent(tracking_uri: str | None, store: Path) -> bool:
    scheme = "sqlite:///"
    if tracking_uri is not None and not tracking_uri.startswith(scheme):
        return False
    database = store / "mlflow.db" if tracking_uri is None else Path(tracking_uri.removeprefix(scheme))
    try:
        return not database.exists()
    except OSError as error:
        raise TrackingError(
            f"{database} can't be looked at: {error.strerror}\ncheck --runs and who may read it"
        ) from error


def _runs(client: Any, experiment_id: str, kind: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], filter_string=f"tags.`hmtl.kind` = '{kind}'", max_results=1000, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _study(run: Any) -> dict[str, Any]:
    tags = run.data.tags
    return {
        "run_id": run.info.run_id,
        "study": _tag(run, "study"),
        "profile": _tag(run, "profile"),
        "question": tags.get("hmtl.question", ""),
        "metric": _tag(run, "metric"),
        "data": tags.get("hmtl.data", ""),
        "variants": _json(run, "variants", dict),
        "evaluations": _json(run, "evaluations", dict) if "hmtl.evaluations" in tags else {},
        "seeds": _json(run, "seeds", list),
        "started": run.info.start_time,
    }


def _trial(run: Any) -> dict[str, Any]:
    tags, metrics = run.data.tags, run.data.metrics
    seed = _tag(run, "seed")
    if not seed.isdecimal():
        raise _unreadable(run, "seed")
    row = {
        "run_id": run.info.run_id,
        "parent": tags.get("mlflow.parentRunId", ""),
        "trial_id": _tag(run, "trial_id"),
        "variant": _tag(run, "variant"),
        "variant_key": tags.get("hmtl.variant_key", ""),
        "seed": int(seed),
        "status": tags.get("hmtl.status", "running"),
        "reason": tags.get("hmtl.reason", ""),
        "data": tags.get("hmtl.data", ""),
        "fingerprint": tags.get("hmtl.data_fingerprint", ""),
        "protocol": tags.get("hmtl.protocol", ""),
        "task": tags.get("hmtl.task", ""),
        "evaluation": tags.get("hmtl.evaluation", ""),
        "stage": tags.get("hmtl.stage", ""),
        "commit": tags.get("hmtl.git_commit", ""),
        "device": tags.get("hmtl.device", ""),
        "torch": tags.get("hmtl.version.torch", ""),
        "classes": max(sum(key.startswith(part) for key in metrics) for part in RECALLS),
        "started": run.info.start_time,
    }
    return (
        row
        | {f"params.{key}": value for key, value in run.data.params.items()}
        | {f"metrics.{key}": value for key, value in metrics.items()}
    )


def _tag(run: Any, name: str) -> str:
    value = run.data.tags.get(f"hmtl.{name}")
    if value is None:
        raise _unreadable(run, name)
    return str(value)


def _json(run: Any, name: str, kind: type) -> Any:
    try:
        value = json.loads(_tag(run, name))
    except json.JSONDecodeError:
        raise _unreadable(run, name) from None
    if not isinstance(value, kind):
        raise _unreadable(run, name)
    return value


def _unreadable(run: Any, name: str) -> TrackingError:
    return TrackingError(
        f"run {run.info.run_id} in the tracking store: the tag hmtl.{name} is missing or not what "
        "hmtl-ablate writes\nrun its study again, which repairs it, or delete that run in MLflow"
    )


def _set_standings(studies: list[dict[str, Any]], trials: list[dict[str, Any]]) -> None:
    declared = {study["run_id"]: study for study in studies}
    for trial in trials:
        study = declared.get(trial["parent"])
        if trial["variant"] == "search":
            trial["standing"] = "search"
        elif trial.pop("stage", ""):
            trial["standing"] = "stage"
        elif (
            study is not None
            and trial["seed"] in study["seeds"]
            and study["variants"].get(trial["variant"]) == trial["variant_key"]
        ):
            trial["standing"] = "declared"
        else:
            trial["standing"] = "superseded"
    newest_first = sorted(
        (trial for trial in trials if trial["standing"] == "declared"), key=lambda trial: -trial["started"]
    )
    content: dict[tuple[Any, ...], str] = {}
    taken: set[tuple[Any, ...]] = set()
    for trial in newest_first:
        place = (trial["parent"], trial["variant"], trial["seed"])
        if content.setdefault(_pack_of(trial), trial["fingerprint"]) != trial["fingerprint"]:
            trial["standing"] = "older data"
        elif place in taken:
            trial["standing"] = "superseded"
        else:
            taken.add(place)


def _pack_of(trial: dict[str, Any]) -> tuple[Any, ...]:
    """What a study asks of its data. Variants may differ in it (image size), and with it in the fingerprint; trials
    that ask for the same but have another fingerprint saw other content and can't be compared."""
    options = {key: trial.get(f"params.data.{key}") for key in ("name", "stored", "size", "images", "seed")}
    stored = options["size"] if options["stored"] in (None, "None", "null") else options["stored"]
    return trial["parent"], trial["data"], options["name"], stored, options["images"], options["seed"]
