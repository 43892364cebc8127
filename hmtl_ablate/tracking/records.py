"""What a run of MLflow holds of a study or a trial, as typed records; no other module knows the tags' names.

`to_run` gives a record as MLflow stores it, `from_run` reads it back. A trial's config is one JSON text in the tag
`hmtl.config`, so its values keep their types; each option that differs from its default is also a parameter, for people
who filter in MLflow's pages. Runs written before that tag existed are read from their parameters, which were all.

MLflow limits a tag to 8,000 characters. A longer text continues in further tags: `hmtl.variants`, `hmtl.variants/2`,
`hmtl.variants/3`, … A part of exactly 8,000 characters has a successor, a shorter one is the last; so parts that are
left from an earlier, longer text are never read.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Literal, cast

from pydantic import ValidationError

from hmtl_ablate.errors import TrackingError
from hmtl_ablate.study.declaration import Decide, Verdict
from hmtl_ablate.study.designs import selection_metric
from hmtl_ablate.tracking.describing import changed_options, trial_text

EXPERIMENT = "hmtl-ablate"
"""MLflow experiment of every run."""
TAG_LENGTH = 8000
"""Characters; MLflow's limit for the value of a tag."""
PARAM_LENGTH = 500
"""Characters of a parameter's value that are logged. The tag `hmtl.config` has the whole value."""

SEARCH = "search"
"""`TrialRecord.variant` of a search's trials; no variant may have this name."""

TrialStatus = Literal["running", "finished", "pruned", "failed"]

PREFIX = "hmtl."
KIND = "hmtl.kind"
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
"""Shown by MLflow as the run's description."""
SEED = "hmtl.seed"
NUMERICS = "hmtl.numerics"
STAGE = "hmtl.stage"
STATUS = "hmtl.status"
REASON = "hmtl.reason"
CONFIG = "hmtl.config"
VARIANTS = "hmtl.variants"
EVALUATIONS = "hmtl.evaluations"
CONTROLS = "hmtl.controls"
DESIGNS = "hmtl.designs"
ASKED = "hmtl.asked"
SEARCHES = "hmtl.search"
SEEDS = "hmtl.seeds"
VERDICT = "hmtl.verdict"
DECIDE = "hmtl.decide"
PLAN = "hmtl.plan"
REGISTERED = "hmtl.registered"
"""Written once, when the study's run is created."""

VIEW = "hmtl"
"""Name of the view of the runs' table that `hmtl-ablate ui` opens."""
VIEW_TAG = "mlflow.sharedViewState."
"""An experiment's tag of this name and the view's holds its columns; opened with `viewStateShareKey=NAME`."""

STUDY_TEXTS = {
    "name": "hmtl.study",
    "profile": "hmtl.profile",
    "data": "hmtl.data",
    "question": "hmtl.question",
    "metric": "hmtl.metric",
    "commit": "hmtl.git_commit",
    "file": "hmtl.study_sha256",
}
"""Field of `StudyRecord` → tag, for the fields that are plain text."""
TRIAL_TEXTS = {
    "parent": PARENT,
    "study": "hmtl.study",
    "profile": "hmtl.profile",
    "commit": "hmtl.git_commit",
    "trial_id": "hmtl.trial_id",
    "variant": "hmtl.variant",
    "variant_key": "hmtl.variant_key",
    "data": "hmtl.data",
    "fingerprint": "hmtl.data_fingerprint",
    "protocol": "hmtl.protocol",
    "task": "hmtl.task",
    "evaluation": "hmtl.evaluation",
    "ending": "hmtl.ending",
    "arm": "hmtl.arm",
    "draw": "hmtl.draw",
    "space": "hmtl.space",
}
"""Field of `TrialRecord` → tag, for the fields that are plain text."""
TRIAL_TAGS = frozenset({*TRIAL_TEXTS.values(), KIND, SEED, NUMERICS, STAGE, STATUS, REASON, CONFIG})
"""Tags with a field of their own; all others under the prefix are `TrialRecord.environment`."""

STUDY_FILTER = f"tags.`{KIND}` = 'study'"
TRIAL_FILTER = f"tags.`{KIND}` = 'trial'"


@dataclass(frozen=True)
class RunData:
    """Tags, parameters and metrics of a run, within MLflow's limits."""

    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What a study was before its first trial was trained (pre-registration)."""

    study: str
    """`StudyRecord.file` then."""
    verdict: str
    """SHA-256 of the rule of the verdict then: `rule_hash`."""
    metric: str
    seeds: tuple[int, ...]
    time: str
    """UTC, e.g. 2026-11-26T00:30:00+00:00."""
    trained: int = 0
    """Trials of the study that were complete already: other studies have them too, or the tracking store is newer."""
    decide: Mapping[str, Any] = field(default_factory=dict)
    """`StudyRecord.decide` then; {} in registrations from before there was any."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Registration:
        """From plain data. Raises TypeError when a field is missing, unknown or of another type."""
        found = cls(**{**data, "seeds": tuple(data.get("seeds", ()))})
        if not isinstance(found.trained, int) or not all(isinstance(seed, int) for seed in found.seeds):
            raise TypeError("seeds and trained are whole numbers")
        if not all(isinstance(text, str) for text in (found.study, found.verdict, found.metric, found.time)):
            raise TypeError("hashes, metric and time are texts")
        if not isinstance(found.decide, dict) or not _decides(found.decide):
            raise TypeError("decide is a rule with its comparisons")
        return found


def text_hash(text: str) -> str:
    """SHA-256 of a text in UTF-8, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def rule_hash(rule: Mapping[str, Any]) -> str:
    """SHA-256 of the rule of a verdict as JSON with sorted keys."""
    return text_hash(json.dumps(dict(rule), sort_keys=True))


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """One study at one profile on its data: a parent run."""

    name: str
    profile: str
    metric: str
    """Metric of the study's table, e.g. test/accuracy."""
    data: str = ""
    """Names of its datasets, comma-joined."""
    question: str = ""
    variants: Mapping[str, str]
    """Variant → variant key, in the declared order; the first is the baseline."""
    evaluations: Mapping[str, str] = field(default_factory=dict)
    """Variant → evaluation, for the variants that evaluate another one."""
    controls: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Variant → its controls, the fields of `hmtl_ablate.study.Controls`; {} in runs from before there were any."""
    designs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name → ablation design, the fields of `hmtl_ablate.study.Design`; {} in runs from before there were any."""
    seeds: tuple[int, ...]
    asked: Mapping[str, list[int]] = field(default_factory=dict)
    """Variant → the seeds that its last run asked for; {} in runs from before this was recorded."""
    search: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Arm of its search → objective, direction, others (further objectives: name → direction), racing (the most seeds),
    keys (searched options), confirm (how many);
    of a search without arms under ""; {} without a search, and in runs from before this was recorded."""
    commit: str = ""
    """Commit of the code that ran it last."""
    file: str = ""
    """SHA-256 of the study file's text in its last run."""
    verdict: Mapping[str, float] = field(default_factory=dict)
    """The rule of the verdict in its last run."""
    decide: Mapping[str, Any] = field(default_factory=dict)
    """How its last run added seeds: `study.Decide` as plain data, and `comparisons`, a list of pairs of variants
    (`Study.comparisons`); {} for a study whose seeds are fixed."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """What its last run that trained anything was going to train, and under `actual` what it did: `trials`,
    `image_passes` and `seconds` (None where the time was not known; with `at_most` an upper bound); {} in runs from
    before this was recorded. An empty one is not written, so that it stays as it was."""
    registered: Registration | None = None
    """What it was before its first trial; None in runs of versions that did not register."""
    run_id: str = ""
    """Given by MLflow; "" before it is stored."""
    started: int = 0
    """Milliseconds since 1970; given by MLflow."""

    @property
    def run_name(self) -> str:
        """Title of the run in MLflow's pages."""
        return f"{self.name} ({self.profile}, {self.data})"

    @property
    def identity(self) -> dict[str, str]:
        """Tags by which its run is found again."""
        return _split(
            {KIND: "study"} | {STUDY_TEXTS[name]: getattr(self, name) for name in ("name", "profile", "data")}
        )

    def to_run(self) -> RunData:
        """The record as MLflow stores it."""
        texts = {tag: getattr(self, name) for name, tag in STUDY_TEXTS.items()}
        structured = {
            VARIANTS: _json(dict(self.variants)),
            EVALUATIONS: _json(dict(self.evaluations)),
            CONTROLS: _json(self.controls),
            DESIGNS: _json(self.designs),
            SEEDS: _json(list(self.seeds)),
            ASKED: _json(dict(self.asked)),
            SEARCHES: _json(dict(self.search)),
            VERDICT: _json(dict(self.verdict)),
            DECIDE: _json(dict(self.decide)),
        }
        if self.plan:
            structured[PLAN] = _json(dict(self.plan))
        if self.registered is not None:
            structured[REGISTERED] = _json(asdict(self.registered))
        return RunData(_split({KIND: "study"} | texts | structured) | {NOTE: self.question[:TAG_LENGTH]})

    @classmethod
    def from_run(cls, run: Any) -> StudyRecord:
        """The record of an MLflow run. Raises TrackingError when a tag is missing or unreadable."""
        tags = run.data.tags
        for name in ("name", "profile", "metric"):
            _required(run, STUDY_TEXTS[name])
        seeds = _parsed(run, SEEDS, list)
        if not all(isinstance(seed, int) for seed in seeds):
            raise _unreadable(run, SEEDS)
        return cls(
            **{name: _text(tags, tag) for name, tag in STUDY_TEXTS.items()},
            variants=_parsed(run, VARIANTS, dict),
            evaluations=_parsed(run, EVALUATIONS, dict) if EVALUATIONS in tags else {},
            controls=_parsed(run, CONTROLS, dict) if CONTROLS in tags else {},
            designs=_parsed(run, DESIGNS, dict) if DESIGNS in tags else {},
            seeds=tuple(seeds),
            asked=_parsed(run, ASKED, dict) if ASKED in tags else {},
            search=_parsed(run, SEARCHES, dict) if SEARCHES in tags else {},
            verdict=_rule(run),
            decide=_parsed(run, DECIDE, dict) if DECIDE in tags else {},
            plan=_plan(run),
            registered=registration_of(run),
            run_id=run.info.run_id,
            started=run.info.start_time,
        )


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial under one study and variant: a child run. A trial that serves two variants has two."""

    parent: str
    """run_id of the study's run."""
    study: str = ""
    profile: str = ""
    commit: str = ""
    """Commit of the code that trained it."""
    trial_id: str
    variant: str
    """Name of the variant or stage; SEARCH for a search's trial."""
    variant_key: str = ""
    """`Variant.key`; "" for a search's trial."""
    seed: int
    data: str = ""
    """Name of the dataset."""
    fingerprint: str = ""
    """Fingerprint of the pack."""
    protocol: str = ""
    """How weights are selected: `data.protocol` of the config."""
    task: str = ""
    """Supervised tasks, joined with `+`."""
    evaluation: str = ""
    """What was trained on a frozen backbone, e.g. linear probe; "" for a trained network."""
    stage: bool = False
    """Whether other trials start from it, so that it is no row of a table."""
    numerics: int = 0
    """NUMERICS_VERSION it was trained with; 0 when unknown."""
    config: Mapping[str, Any]
    """The resolved config as plain JSON data, with its defaults."""
    status: TrialStatus = "running"
    reason: str = ""
    """Why it failed or was stopped."""
    arm: str = ""
    """Of a search's trial: the arm of the search that it belongs to; "" in a search without arms."""
    draw: str = ""
    """Of a search's trial: how its configuration was drawn, one of `hmtl_ablate.study.samplers.Drawn`."""
    space: str = ""
    """Of a search's trial: `Search.space_hash` of the last search that it belongs to; "" where it was not recorded."""
    ending: str = ""
    """How it ended, as docs/failures.md classes it, e.g. node lost; "" while it runs."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Name → last value; accuracies from 0 to 1."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Where it was trained: device, precision, versions."""
    run_id: str = ""
    """Given by MLflow; "" before it is stored."""
    started: int = 0
    """Milliseconds since 1970; given by MLflow."""

    @property
    def run_name(self) -> str:
        """Title of the run in MLflow's pages."""
        if self.variant_key:
            return f"{self.variant} · seed {self.seed}"
        return " · ".join(part for part in (self.variant, self.arm, self.trial_id[:6]) if part)

    @property
    def identity(self) -> dict[str, str]:
        """Tags by which its run is found again."""
        names = ("parent", "trial_id", "variant", *(("arm",) if self.arm else ()))
        return _split({KIND: "trial"} | {TRIAL_TEXTS[name]: getattr(self, name) for name in names})

    @property
    def id_filter(self) -> str:
        """MLflow filter for the runs of this trial_id, hexadecimal digits; names can't always be quoted in a filter."""
        return f"tags.`{TRIAL_TEXTS['trial_id']}` = '{self.trial_id}'"

    @cached_property
    def options(self) -> dict[str, Any]:
        """The config by dotted keys, e.g. {"data.fraction": 0.2, "model.weights": None}; values keep their types."""
        return flat(self.config)

    def to_run(self) -> RunData:
        """The record as MLflow stores it: names that it takes, lengths within its limits, finite metrics only."""
        tags = {tag: getattr(self, name) for name, tag in TRIAL_TEXTS.items()}
        tags |= {
            KIND: "trial",
            SEED: str(self.seed),
            NUMERICS: str(self.numerics),
            STAGE: "yes" if self.stage else "",
            STATUS: self.status,
            CONFIG: _json(self.config),
        }
        if self.status != "running" or self.reason:
            tags[REASON] = self.reason
        tags |= {f"{PREFIX}{name}": value for name, value in self.environment.items()}
        params = {_key(name): str(value)[:PARAM_LENGTH] for name, value in changed_options(self.config).items()}
        return RunData(_split(tags) | {NOTE: trial_text(self)[:TAG_LENGTH]}, params, loggable(self.metrics))

    @classmethod
    def from_run(cls, run: Any) -> TrialRecord:
        """The record of an MLflow run. Raises TrackingError when a tag is missing or unreadable."""
        tags = run.data.tags
        for name in ("trial_id", "variant"):
            _required(run, TRIAL_TEXTS[name])
        return cls(
            **{name: _text(tags, tag) for name, tag in TRIAL_TEXTS.items()},
            seed=_number(run, SEED),
            stage=bool(tags.get(STAGE)),
            numerics=_number(run, NUMERICS) if NUMERICS in tags else 0,
            config=_parsed(run, CONFIG, dict) if CONFIG in tags else _config_of_params(run.data.params),
            status=cast(TrialStatus, tags.get(STATUS, "running")),
            reason=_text(tags, REASON),
            metrics=dict(run.data.metrics),
            environment={
                name.removeprefix(PREFIX): _text(tags, name)
                for name in tags
                if name.startswith(PREFIX) and name not in TRIAL_TAGS and "/" not in name
            },
            run_id=run.info.run_id,
            started=run.info.start_time,
        )


def view_state(known: str, metric: str) -> str:
    """The state of MLflow's table of runs, as JSON: study, variant, seed, status, seconds, and of each metric its value
    on the selection split and on the test split.

    Sorted by end, the last first: MLflow lists trials under their study, to be opened by hand, only in the order of
    creation. So a study's row is followed by those of its trials.

    known: the state so far, "" without any; metric: one to add, e.g. test/accuracy.
    """
    try:
        state = json.loads(known)
        columns = [column for column in state["selectedColumns"] if isinstance(column, str)]
    except (ValueError, KeyError, TypeError):
        columns = ["metrics.`seconds`"]
    *others, seconds = columns
    names = [TRIAL_TEXTS["study"], TRIAL_TEXTS["variant"], SEED, STATUS]
    own = [f"tags.`{tag}`" for tag in names] + [f"metrics.`{selection_metric(metric)}`", f"metrics.`{metric}`"]
    selected = [*others, *(column for column in own if column not in others), seconds]
    return _json({"selectedColumns": selected, "orderByKey": "attributes.end_time", "orderByAsc": False})


def loggable(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as MLflow takes them: names without other characters, finite values only."""
    return {
        _key(name): float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts by dotted keys; an empty dict has none."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            for inner, leaf in flat(value).items():
                found[f"{key}.{inner}"] = leaf
        else:
            found[key] = value
    return found


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flat`. A value whose key is also the start of other keys is left out."""
    groups = {key[:end] for key in options for end, character in enumerate(key) if character == "."}
    config: dict[str, Any] = {}
    for key, value in options.items():
        if key not in groups:
            *parents, name = key.split(".")
            section = config
            for parent in parents:
                section = section.setdefault(parent, {})
            section[name] = value
    return config


def _config_of_params(params: Mapping[str, str]) -> dict[str, Any]:
    """The config of a run without the tag `hmtl.config`, whose parameters are the text of each option."""
    return nested({key: _value(text) for key, text in params.items()})


@lru_cache(maxsize=4096)
def _value(text: str) -> Any:
    """None, a truth value, a number or a list from its text in Python; any other text is itself."""
    if text in ("None", "True", "False") or text[:1] in tuple("-.0123456789["):
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return text
    return text


def _split(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: part for tag, text in texts.items() for name, part in _parts(tag, text)}


def _parts(tag: str, text: str) -> Iterator[tuple[str, str]]:
    for number, start in enumerate(range(0, len(text) + 1, TAG_LENGTH), 1):
        yield _part(tag, number), text[start : start + TAG_LENGTH]


def _part(tag: str, number: int) -> str:
    return tag if number == 1 else f"{tag}/{number}"


def _text(tags: Mapping[str, str], tag: str) -> str:
    """The whole text of a tag, "" without it."""
    part = text = tags.get(tag, "")
    number = 1
    while len(part) == TAG_LENGTH:
        number += 1
        part = tags.get(_part(tag, number), "")
        text += part
    return text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _parsed(run: Any, tag: str, kind: type) -> Any:
    try:
        value = json.loads(_required(run, tag))
    except (ValueError, RecursionError):
        raise _unreadable(run, tag) from None
    if not isinstance(value, kind) or (tag in (VARIANTS, EVALUATIONS) and not _texts(value)):
        raise _unreadable(run, tag)
    if (tag in (CONTROLS, DESIGNS, SEARCHES) and not _maps(value)) or (tag == ASKED and not _seeds(value)):
        raise _unreadable(run, tag)
    if tag == DECIDE and not _decides(value):
        raise _unreadable(run, tag)
    return value


def _rule(run: Any) -> dict[str, float]:
    found: dict[str, float] = _parsed(run, VERDICT, dict) if VERDICT in run.data.tags else {}
    try:
        Verdict.model_validate(found, strict=True)
    except ValidationError:
        raise _unreadable(run, VERDICT) from None
    return found


def _plan(run: Any) -> dict[str, Any]:
    """The plan of the last run, {} where there is none that can be read."""
    try:
        found: dict[str, Any] = _parsed(run, PLAN, dict)
    except TrackingError:
        return {}
    parts = [found, found["actual"]] if isinstance(found.get("actual"), dict) else [found]
    numbers = [part.get(name) for part in parts for name in ("trials", "image_passes", "seconds")]
    return found if all(value is None or isinstance(value, int | float) for value in numbers) else {}


def registration_of(run: Any) -> Registration | None:
    """The registration, None where there is none that can be read: it is never written again, so nothing repairs it."""
    try:
        return Registration.of(_parsed(run, REGISTERED, dict))
    except (TrackingError, TypeError):
        return None


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _seeds(value: Any) -> bool:
    return all(isinstance(one, list) and all(isinstance(seed, int) for seed in one) for one in value.values())


def _decides(value: Any) -> bool:
    """Whether it is {}, or a rule with its comparisons."""
    pairs = value.get("comparisons", [])
    try:
        Decide.model_validate({key: one for key, one in value.items() if key != "comparisons"}, strict=True)
    except ValidationError:
        return False
    return isinstance(pairs, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair) for pair in pairs
    )


def _maps(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, dict) for one in value.values())


def _number(run: Any, tag: str) -> int:
    text = _required(run, tag)
    if not text.isdecimal():
        raise _unreadable(run, tag)
    return int(text)


def _required(run: Any, tag: str) -> str:
    if tag not in run.data.tags:
        raise _unreadable(run, tag)
    return _text(run.data.tags, tag)


def _unreadable(run: Any, tag: str) -> TrackingError:
    return TrackingError(
        f"run {run.info.run_id} in the tracking store: the tag {tag} is missing or not what hmtl-ablate writes\n"
        "run its study again, which repairs it, or delete that run in MLflow"
    )


def _key(name: str) -> str:
    """MLflow takes letters, digits and `/_-. :` in names; a class folder may be called anything."""
    return re.sub(r"[^\w\-. :/]", "_", name)
