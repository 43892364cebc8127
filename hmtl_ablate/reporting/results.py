"""MLflow's runs as two tidy frames, one row per study and one row per trial. Nothing else is read or written."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd

from hmtl_ablate.errors import StoreError, TrackingError
from hmtl_ablate.supervised import SUPERVISED_TASKS
from hmtl_ablate.tracking.address import note_environment, parse_address
from hmtl_ablate.tracking.reading import read_records
from hmtl_ablate.tracking.records import SEARCH, StudyRecord, TrialRecord
from hmtl_ablate.training.folder import TrialFolder

Key = TypeVar("Key", bound=Hashable)
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
    "asked",
    "search",
    "controls",
    "added",
    "designs",
    "verdict",
    "decide",
    "file",
    "plan",
    "registered",
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
    "ending",
    "data",
    "fingerprint",
    "protocol",
    "task",
    "evaluation",
    "arm",
    "draw",
    "classes",
    "numerics",
    "commit",
    "device",
    "torch",
    "started",
    "options",
)
RECALLS = ("val/recall/", "test/recall/")
Standing = Literal["declared", "superseded", "older data", "other batch norm", "search", "stage"]


@dataclass(frozen=True)
class Results:
    """What the tracking store holds."""

    studies: pd.DataFrame
    """STUDY_COLUMNS, the oldest first. `variants` is {variant: variant key} in the declared order, the baseline
    first; `evaluations` is {variant: evaluation} of those that evaluate another; `seeds` is a list, `asked` is
    {variant: seeds that its last run asked for}; `controls` is {arm: {kind of control: variant}}, `added` lists those
    of them that the study did not declare as variants itself; `designs` is {name: ablation design, as
    `study.Design`}; `verdict` is the rule of the verdict; `decide` says how seeds were added
    (`tracking.StudyRecord.decide`, empty where they are fixed); `file` is the SHA-256 of the study file in its last
    run, `plan` what its last run that trained anything was going to train and what it did
    (`tracking.StudyRecord.plan`), `registered` what the study was before its first trial (`tracking.Registration` as
    a dict, empty without one); `started` is in milliseconds since 1970."""
    trials: pd.DataFrame
    """TRIAL_COLUMNS, then `params.<key>` (each option as text) and `metrics.<key>` (the last value; accuracies from 0
    to 1), the oldest first.

    `parent` is the study's run_id; a trial that two studies share has a row under each. `options` is {dotted key:
    value} of the trial's config, its values typed: None, bool, int, float, str or list. `classes` counts the classes
    whose recall was measured. `numerics` is the numerics version, 0 when unknown; `commit`, `device` and `torch` say
    what trained it. `arm` is the arm of the search that a search's trial belongs to, `draw` how its configuration was
    drawn: "random" or "grid" without a look at any score, "sampler" from the scores before it, "start" and "from" where
    the study file or another study gave it. `ending` is the class of its end (docs/failures.md). `standing` says
    what the row may be used for:

    - declared: one of the study's variants, seeds and data as they are declared now, whatever its status;
    - superseded: a variant, config or seed that the study no longer declares, a trial of a search whose base, space or
      objective has changed since, an older run of the same, or a trial of an older numerics version than others of its
      study;
    - older data: as declared, but the data's content has changed since;
    - other batch norm: as declared, but its batch norm took the statistics over another share of a batch than that of
      most of the study's trials, because another number of workers trained it or a GPU's memory ran out;
    - search: a search's trial, which never sees the test split;
    - stage: a trial that others start from.
    """
    store: Path | None = None
    """The folder of the trials; None for frames that were made without one."""

    def folder(self, trial_id: str) -> TrialFolder | None:
        """The trial's folder, with its curves, predictions and pictures; None where this machine has none."""
        if self.store is None or not (self.store / "trials" / trial_id).is_dir():
            return None
        return TrialFolder(self.store / "trials" / trial_id)

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

    @cached_property
    def fixed(self) -> frozenset[str]:
        """Ids of the trials that belong to a study of fixed seeds. How many others there are depends on their results,
        so that a t interval of their mean would not hold."""
        adaptive = {row["run_id"] for row in self.studies.to_dict("records") if row["decide"]}
        return frozenset(self.trials[~self.trials["parent"].isin(adaptive)]["trial_id"])

    def controls(self) -> pd.DataFrame:
        """Where the gains of arms with controls come from: one row per difference, as in the report's JSON; empty when
        no study has controls."""
        from hmtl_ablate.reporting.controls import control_records
        from hmtl_ablate.reporting.tables import study_tables

        return pd.DataFrame([record for table in study_tables(self) for record in control_records(table)])

    def tuning_curves(self) -> pd.DataFrame:
        """The best score that so many random draws of each search are expected to find, with a band from 20 draws on:
        one row per arm and number of draws; empty without random draws."""
        from hmtl_ablate.reporting.search_tables import curve_records
        from hmtl_ablate.reporting.tables import study_tables

        return pd.DataFrame(
            [
                {"study": table.name, "profile": table.profile, **record}
                for table in study_tables(self)
                for record in curve_records(table.search)
            ]
        )

    def searches(self) -> pd.DataFrame:
        """What each search promised and what unseen seeds gave: one row per arm and rank, as in the report's JSON;
        empty when no study has a search."""
        from hmtl_ablate.reporting.search_tables import records
        from hmtl_ablate.reporting.tables import study_tables

        return pd.DataFrame(
            [
                {"study": table.name, "profile": table.profile, **record}
                for table in study_tables(self)
                for record in records(table.search)
            ]
        )

    def verdicts(self) -> pd.DataFrame:
        """The verdict on each arm with controls, one row per arm: p values adjusted for the study's controlled arms
        (missing where nothing was tested), the sentence, and when the study was registered."""
        from hmtl_ablate.reporting.controls import verdict_records
        from hmtl_ablate.reporting.tables import study_tables

        return pd.DataFrame([record for table in study_tables(self) for record in verdict_records(table)])

    def comparisons(self) -> pd.DataFrame:
        """The comparisons of studies with fixed seeds: one row per arm and the one that it is compared with, as in the
        report's JSON: difference, 95 % interval, p values, effect size, simultaneous interval, seeds needed, and from
        the predictions the sampling error over test images and McNemar's p; empty when nothing is compared."""
        from hmtl_ablate.reporting.comparison_records import comparison_records
        from hmtl_ablate.reporting.tables import study_tables

        own = ("name", "profile", "evaluation", "data", "metric")
        return pd.DataFrame(
            [
                {"study" if key == "name" else key: getattr(table, key) for key in own} | record
                for table in study_tables(self)
                for record in comparison_records(table)
            ]
        )

    def decisions(self) -> pd.DataFrame:
        """What the comparisons of studies with `decide` decided: one row per comparison, as in the report's JSON; empty
        when no study adds seeds until decided."""
        from hmtl_ablate.reporting.decision_tables import decision_records
        from hmtl_ablate.reporting.tables import study_tables

        return pd.DataFrame([record for table in study_tables(self) for record in decision_records(table)])

    def effects(self) -> pd.DataFrame:
        """The effects of ablation designs, one row per effect, as in the report's JSON: its mean over the seeds, its
        95 % interval, and p adjusted for the design's effects (missing where nothing was tested); empty when no study
        has designs."""
        from hmtl_ablate.reporting.effect_tables import effect_records
        from hmtl_ablate.reporting.tables import study_tables

        return pd.DataFrame([record for table in study_tables(self) for record in effect_records(table)])


def load_results(tracking_uri: str | None, store: Path) -> Results:
    """Read the tracking store: `tracking_uri`, or the SQLite file in `store` when it is None.

    A SQLite file that does not exist is a store without runs; it is not created. Raises TrackingError when the
    tracking store can't be reached. A run whose tags are not what hmtl-ablate writes is left out, with a warning;
    trials of a task that nobody has registered here are in the frames, with a warning.
    """
    file = parse_address(tracking_uri, store).sqlite_file
    if file is not None and not _exists(file):
        return results_of([], [])
    known = None if file is None else read_records(file)
    if known is not None:
        note_environment(tracking_uri)
        studies, trials = known
    else:
        from hmtl_ablate.tracking import open_tracking

        tracking = open_tracking(tracking_uri, store)
        studies, trials = tracking.studies(), tracking.trials()
    _note_unknown_tasks(trials)
    return replace(results_of(studies, trials), store=store)


def _note_unknown_tasks(trials: Sequence[TrialRecord]) -> None:
    """Warn of supervised tasks whose module is not imported: what their metrics' direction is, only it can say."""
    unknown = sorted({task for one in trials for task in one.task.split("+")} - {"", *SUPERVISED_TASKS})
    if unknown:
        logging.getLogger("hmtl_ablate").warning(
            "no supervised task %s is registered here: higher is taken for better in each of its metrics, which may be "
            "wrong; import its module first (--import MODULE)",
            " or ".join(map(repr, unknown)),
        )


def require_runs(tracking_uri: str | None, store: Path) -> None:
    """Raises StoreError where there is no tracking store to read: no such SQLite file. One without a study is fine."""
    file = parse_address(tracking_uri, store).sqlite_file
    if file is None or _exists(file):
        return
    what = f"there is no store in {store}" if store.is_dir() else f"there is no folder {store}"
    if tracking_uri is not None:
        what = f"there is no file {file}"
    raise StoreError(
        f"{what}\nname the --runs folder that a run has written, or begin one: "
        f"hmtl-ablate run search_spaces/puzzling.yaml --runs {store}"
    )


def results_of(studies: Sequence[StudyRecord], trials: Sequence[TrialRecord]) -> Results:
    """The frames of these records."""
    standings = _standings(studies, trials)
    study_frame = pd.DataFrame([_study_row(study) for study in studies], columns=list(STUDY_COLUMNS))
    trial_frame = pd.DataFrame([_trial_row(*pair) for pair in zip(trials, standings, strict=True)])
    if trial_frame.empty:
        trial_frame = pd.DataFrame(columns=list(TRIAL_COLUMNS))
    others = [column for column in trial_frame.columns if column not in TRIAL_COLUMNS]
    return Results(_oldest_first(study_frame), _oldest_first(trial_frame[[*TRIAL_COLUMNS, *sorted(others)]]))


def without_params(results: Results) -> Results:
    """The results without the columns `params.<key>`, which are for people: rows that have `options` only are made in
    half of the time."""
    kept = [column for column in results.trials.columns if not column.startswith("params.")]
    return replace(results, trials=results.trials[kept])


def arm_of_trial(results: Results) -> dict[str, str]:
    """Trial id → name of its variant or stage."""
    return dict(zip(results.trials["trial_id"], results.trials["variant"], strict=True))


def of_other_batch_norm(shares: Mapping[Key, str]) -> set[Key]:
    """The declared trials of a study that do not count, because their batch norm is not that of most; "batch" is the
    usual one where none is of most.

    shares: trial → what its batch norm took its statistics over (`training.loop.batch_norm`); a trial with "none", or
    without a record of it, "", is of any.
    """
    count = Counter(share for share in shares.values() if share not in ("", "none"))
    usual = max(count, key=lambda share: (count[share], share == "batch"), default="")
    return {key for key, share in shares.items() if share in count and share != usual}


def by_arm(options: Mapping[str, Any], arms: Mapping[str, str]) -> dict[str, Any]:
    """The options with a name in place of the id of a trial whose weights they start from, as the id differs from seed
    to seed. arms: of `arm_of_trial`."""
    start = "trial:"
    return {
        key: start + arms.get(value.removeprefix(start), value) if str(value).startswith(start) else value
        for key, value in options.items()
    }


def pretext_tasks(options: Mapping[str, Any]) -> frozenset[str]:
    """Names of the pretext tasks in a trial's options ({dotted key: value}); one whose options are all None is off."""
    return frozenset(
        key.split(".")[1] for key, value in options.items() if key.startswith("pretext.") and value is not None
    )


def _oldest_first(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("started", kind="stable").reset_index(drop=True)


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except OSError as error:
        raise TrackingError(f"{file} can't be read: {error.strerror}\ncheck --runs and its permissions") from error


def _study_row(study: StudyRecord) -> dict[str, Any]:
    return {
        "run_id": study.run_id,
        "study": study.name,
        "profile": study.profile,
        "question": study.question,
        "metric": study.metric,
        "data": study.data,
        "variants": study.variants,
        "evaluations": study.evaluations,
        "seeds": list(study.seeds),
        "asked": dict(study.asked),
        "search": dict(study.search),
        "controls": study.controls,
        "added": _added(study.controls),
        "designs": study.designs,
        "verdict": study.verdict,
        "decide": dict(study.decide),
        "file": study.file,
        "plan": dict(study.plan),
        "registered": {} if study.registered is None else asdict(study.registered),
        "started": study.started,
    }


def _trial_row(trial: TrialRecord, standing: Standing) -> dict[str, Any]:
    options = trial.options
    row = {
        "run_id": trial.run_id,
        "parent": trial.parent,
        "standing": standing,
        "trial_id": trial.trial_id,
        "variant": trial.variant,
        "variant_key": trial.variant_key,
        "seed": trial.seed,
        "status": trial.status,
        "reason": trial.reason,
        "ending": trial.ending,
        "data": trial.data,
        "fingerprint": trial.fingerprint,
        "protocol": trial.protocol,
        "task": trial.task,
        "evaluation": trial.evaluation,
        "arm": trial.arm,
        "draw": trial.draw,
        "classes": _classes(trial.metrics),
        "numerics": trial.numerics,
        "commit": trial.commit,
        "device": trial.environment.get("device", ""),
        "torch": trial.environment.get("version.torch", ""),
        "started": trial.started,
        "options": options,
    }
    return (
        row
        | {f"params.{key}": str(value) for key, value in options.items()}
        | {f"metrics.{key}": value for key, value in trial.metrics.items()}
    )


def _classes(metrics: Mapping[str, float]) -> int:
    return max(sum(name.startswith(part) for name in metrics) for part in RECALLS)


def _added(controls: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The variants that were added to a study as controls of its arms; others serve as controls too, under the name
    that they were declared with."""
    found: dict[str, None] = {}
    for arm, own in controls.items():
        names = [value for value in own.values() if isinstance(value, str)]
        names += [name for pair in (own.get("tasks") or {}).values() for name in pair]
        found |= dict.fromkeys(name for name in names if name.startswith(f"{arm}: "))
    return list(found)


def _standings(studies: Sequence[StudyRecord], trials: Sequence[TrialRecord]) -> list[Standing]:
    """The standing of each trial."""
    by_id = {study.run_id: study for study in studies}
    standings = [_declaration(trial, by_id.get(trial.parent)) for trial in trials]
    newest: dict[str, int] = {}
    content: dict[tuple[Any, ...], str] = {}
    taken: set[tuple[Any, ...]] = set()
    for kind in ("declared", "search"):  # a search's trials say nothing about declared ones
        own = [index for index, standing in enumerate(standings) if standing == kind]
        for index in own:
            newest[trials[index].parent] = max(newest.get(trials[index].parent, 0), trials[index].numerics)
        for index in sorted(own, key=lambda index: -trials[index].started):  # the newest first
            trial = trials[index]
            place = (trial.parent, trial.variant, trial.seed)
            if trial.numerics < newest[trial.parent]:
                standings[index] = "superseded"
            elif content.setdefault(_pack_of(trial), trial.fingerprint) != trial.fingerprint:
                standings[index] = "older data"
            elif kind == "declared" and place in taken:
                standings[index] = "superseded"
            else:
                taken.add(place)
    for index in _of_other_batch_norm(trials, standings):
        standings[index] = "other batch norm"
    return standings


def _of_other_batch_norm(trials: Sequence[TrialRecord], standings: Sequence[Standing]) -> list[int]:
    """Declared trials whose batch norm is not the usual one of their study's."""
    shares: dict[str, dict[int, str]] = {}
    for index, (trial, standing) in enumerate(zip(trials, standings, strict=True)):
        if standing == "declared":
            shares.setdefault(trial.parent, {})[index] = trial.environment.get("batch_norm", "")
    return [index for own in shares.values() for index in of_other_batch_norm(own)]


def _declaration(trial: TrialRecord, study: StudyRecord | None) -> Standing:
    """The standing by the study's declaration alone, whatever other trials there are."""
    if trial.variant == SEARCH:
        return "search" if study is None or _of_search(trial, study.search) else "superseded"
    if trial.stage:
        return "stage"
    known = study is not None and trial.seed in study.seeds and study.variants.get(trial.variant) == trial.variant_key
    return "declared" if known else "superseded"


def _of_search(trial: TrialRecord, searches: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a search's trial is of a search as it is declared now: of its base, space and objective. Older versions
    recorded none of it."""
    if trial.arm not in searches:
        return not searches
    return trial.space in ("", searches[trial.arm].get("hash", trial.space))


def _pack_of(trial: TrialRecord) -> tuple[Any, ...]:
    """What a study asks of its data. Variants may differ in it (image size), and with it in the fingerprint; trials
    that ask for the same but have another fingerprint saw other content and can't be compared."""
    name, stored, size, images, seed = (
        trial.options.get(f"data.{key}") for key in ("name", "stored", "size", "images", "seed")
    )
    return trial.parent, trial.data, str((name, size if stored is None else stored, images, seed))
