"""The study file, declared once: every key with its type, range, default and text.

The reader takes its keys, ranges and defaults from these models; the JSON Schema (`schema.py`) and the reference
(`reference.py`) are generated from them. The options of a trial are declared in `hmtl_ablate.config`, those of a pruner
in `pruners.py`, the samplers in `samplers.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hmtl_ablate.config import Frozen, metric_names

Extra = Literal["epochs", "supervision_off"]
EXTRAS: tuple[Extra, ...] = get_args(Extra)
"""Controls outside the sum, by the names that `controls` takes."""
DesignKind = Literal["leave_one_out", "add_one_in", "one_factor_at_a_time", "pairwise", "full_factorial", "path"]
DESIGN_KINDS: tuple[DesignKind, ...] = get_args(DesignKind)
Kind = Literal["choice", "uniform", "loguniform", "int"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""How the values of a searched option are given."""
WINNER = "best of search"
RESERVED = ("search", WINNER)
"""Names, up to a comma, that results use for the search's trials, and for its confirmed winner with its baselines."""
MAX_NAME = 80
"""Longest name of a variant, stage or evaluation, in characters."""
MAX_SEED = 2**31 - 1
MAX_TRIALS = 1_000_000
FIRST_LOOK = 4
"""Seeds after which `decide` looks at results for the first time."""
MAX_SEEDS = 100
"""Most seeds of `decide`."""


COSTS = ("cost/image_passes", "cost/seconds")
"""What a search can minimize in addition to a metric: what the training run of a configuration took."""


def objectives() -> tuple[str, ...]:
    """What a search can optimize: metrics of every registered task, and COSTS."""
    return (*(f"val/{metric}" for metric in metric_names()), *COSTS)


def table_metrics() -> tuple[str, ...]:
    """What a study's table can compare, of every registered task."""
    return tuple(f"{split}/{metric}" for split in ("test", "best/val") for metric in metric_names())


@dataclass(frozen=True)
class Defined:
    """Marks a key whose schema is `$defs/<name>` and is made on request, because plug-ins add to it."""

    name: str

    def __get_pydantic_json_schema__(self, _core: Any, _handler: Any) -> dict[str, Any]:
        return {"defined": self.name}  # pydantic refuses a $ref that it did not make; schema.py writes it


@dataclass(frozen=True)
class Settable:
    """Marks a key of the study that `--set` can change."""


@dataclass(frozen=True)
class Replaced:
    """Marks a map that a profile replaces instead of merging with it, or, with `entries`, each entry of the map."""

    entries: bool = False


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME, json_schema_extra={"not": {"enum": list(RESERVED)}})]
StudyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
TrialCount = Annotated[int, Field(ge=1, le=MAX_TRIALS)]
Step = Annotated[int, Field(ge=1)]
SelectionSeeds = Annotated[int, Field(ge=1, le=1000)]
Changes = Annotated[dict[str, Any], Defined("config")]
"""A change of a TrialConfig."""
VariantChanges = Annotated[dict[str, Any], Defined("variant")]
"""A change of a TrialConfig, and the keys of `VariantKeys`."""
EvaluationChanges = Annotated[dict[str, Any], Defined("evaluation")]
"""A change of a TrialConfig, and the keys of `Evaluation`."""
Component = Annotated[dict[str, Any], Defined("component")]
"""A change of a design's baseline, or the keys of `ComponentKeys`."""
Label = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
"""A name that is part of the name of a variant."""
Ends = Annotated[list[float], Field(min_length=2, max_length=2)]
WholeEnds = Annotated[list[int], Field(min_length=2, max_length=2)]


class Resources(Frozen):
    """What one trial gets."""

    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes that train one trial together; with more than 1, Ray Train's TorchTrainer runs them."""
    cpus: Annotated[float, Field(gt=0, le=1024)] = 1
    """CPU cores of each worker."""
    gpus: Annotated[float, Field(ge=0, le=64)] = 0
    """GPUs of each worker; 0: trials train on the CPU, whatever the machine has. A fraction lets trials of one worker
    share a GPU."""
    keep_last: bool = False
    """Keep the checkpoint (`last.safetensors`: weights and state of the optimiser) of trials that have finished or
    failed. That of an interrupted or pruned trial is always kept, because it may be resumed."""


class Verdict(Frozen):
    """The rule by which the report says whether an arm with controls helps, and why (docs/methods.md, Verdict)."""

    smallest: Annotated[float, Field(gt=0)] = 0.5
    """Smallest difference that matters, in the unit of the metric: points of a percentage, or degrees. Of a metric
    without a unit, such as the CCC, nothing is called equivalent at the default: state a value of its own."""
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Probability that any arm with controls is falsely said to help or to hurt, over all of them together."""


class Decide(Frozen):
    """Paired seeds are added to each comparison until it is decided, or its seeds are used up (docs/methods.md, Seeds
    until decided)."""

    smallest: Annotated[float, Field(gt=0)] = 0.5
    """Smallest difference that matters, in the unit of the metric: points of a percentage, or degrees. A metric without
    a unit, such as the CCC, needs a value of its own."""
    seeds: Annotated[int, Field(ge=FIRST_LOOK, le=MAX_SEEDS)] = 12
    """Most seeds of a comparison. Those of the key `seeds` come first, then the smallest whole numbers above them; the
    first look is after 4. It can't be changed once the study has begun."""
    alpha: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Probability that any interval of the study's comparisons, at any look, misses the true difference."""


class Range(Frozen):
    """The values of a searched option: exactly one of choice, uniform, loguniform and int."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [kind]} for kind in KINDS]})

    choice: Annotated[list[Any], Field(min_length=1)] = Field(default_factory=list)
    """One of these values."""
    uniform: Ends = Field(default_factory=list)
    """[low, high]: a number, uniformly distributed."""
    loguniform: Ends = Field(default_factory=list)
    """[low, high]: a number, uniformly distributed on a logarithmic scale; low is above 0."""
    int_: WholeEnds = Field(default_factory=list, alias="int")
    """[low, high]: a whole number, both ends included."""
    step: Step = 1
    """int: distance between values, counted from low."""
    when: Annotated[dict[str, Any], Field(min_length=1)] = Field(default_factory=dict)
    """Key of another searched option → the value, or list of values, with which this one exists."""


class Racing(Frozen):
    """How many seeds the configurations of a search get (docs/methods.md, Racing)."""

    seeds: Annotated[int, Field(ge=2, le=100)] = 6
    """The most seeds that a configuration can get. Each gets two, the best third four, and those race for the rest."""


class SearchArm(Frozen):
    """An arm of a search: a method that is tuned on its own, for as much as every other."""

    base: Changes | None = Field(default_factory=dict)
    """A change of the search's base."""
    space: Annotated[dict[str, Range], Defined("space"), Replaced(entries=True)] = Field(default_factory=dict)
    """Options that this arm searches besides those of the search's space; of an option in both, these values count."""


class SearchSection(Frozen):
    """A search for the best options."""

    base: Changes | None = Field(default_factory=dict)
    """A change of the study's base, from which all trials of the search start."""
    space: Annotated[dict[str, Range], Defined("space"), Replaced(entries=True)] = Field(default_factory=dict)
    """Dotted key of an option → the values that are searched, by every arm; required, here or in the profile, unless
    every arm has a space of its own."""
    arms: dict[Name, SearchArm | None] | None = Field(default_factory=dict)
    """Methods that are tuned each on its own, for the same budget and number of trials. The best of each are confirmed;
    the first arm's best is the baseline."""
    racing: Racing | None = Field(default_factory=Racing)
    """How the seeds of the search are spent; null: every configuration gets the study's first seed alone, and its value
    is the best epoch's instead of the mean of the last epochs."""
    constraints: list[str] = Field(default_factory=list)
    """Comparisons that every draw must satisfy, of options by their dotted keys, numbers, + - * / and parentheses, e.g.
    training.warmup_epochs < 0.5 * training.epochs. A draw that breaks one is not trained and does not count; one that
    names an option which a trial does not have holds for it."""
    start: list[dict[str, Any]] = Field(default_factory=list)
    """Configurations that are tried first: maps of a searched option to its value, of those of the space that exist
    together. With arms each is tried by those arms whose space it fits."""
    from_: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}(@.+)?$")] | None = Field(
        default=None, alias="from"
    )
    """Name of a study of this store, or NAME@PROFILE, whose search's three best configurations are tried first, of each
    arm, where they fit the space."""
    sampler: Annotated[str, Defined("sampler")] = "tpe"
    """What draws the values."""
    pruner: Annotated[Any, Defined("pruner"), Replaced()] = "none"
    """What stops a trial early: the name of a pruner, or a map of its name and options."""
    trials: TrialCount | None = None
    """Number of configurations in total, of each arm, those before a restart included; this or a budget is required,
    here or in the profile."""
    budget: Annotated[float, Field(gt=0)] | None = None
    """Image passes that each arm may spend: when they are spent, no further training run starts."""
    objective: Annotated[dict[str, str], Defined("objective"), Replaced()] = Field(default_factory=dict)
    """A metric of the validation split → max or min; when left out, the metric that selects the weights. With several,
    or with a cost, e.g. {val/accuracy: max, cost/image_passes: min}, the Pareto front is kept, and there is no race."""
    proxy: str | None = None
    """With several objectives: the metric that the pruner watches, and by which the front is put in order; when left
    out, the first one that is not a cost."""
    confirm: bool | Annotated[int, Field(ge=1, le=100)] = False
    """After the search, train its best configurations, of each arm, on the study's other seeds: all but the first,
    which the search has used. A number says how many; true: one. Without arms SL with the best one's options is trained
    beside them. A study of one seed confirms on that one."""


class DesignSection(Frozen):
    """An ablation design: its arms are made of a baseline and named components, and become variants of the study. See
    docs/methods.md, Ablation designs."""

    kind: DesignKind
    """Which arms: the full model and each component left out; the baseline with each one added; with each level of each
    factor; with each one and each pair; all combinations; or the path from the baseline to the full model that adds the
    component that gains most first. Required, here or in the profile."""
    baseline: str | Changes | None = None
    """A variant, by its name, or a change of the study's base; when left out, the base."""
    components: dict[Label, Component | None] | None = Field(default_factory=dict)
    """Name → a change of the baseline, of any number of options. A nested pretext adds its tasks to those of the
    others; components that an arm combines must not set the same option. With one_factor_at_a_time and full_factorial
    also a factor: levels, by name, each a change of the baseline, whose own setting is one level more."""
    target: str | None = None
    """path: a variant, by its name, in place of components: each option in which it differs from the baseline is one
    component."""
    selection: SelectionSeeds = 1
    """path: how many of the study's first seeds it is chosen with, on the validation split. Its steps are estimated
    with the other seeds, 2 or more."""


class _Header(Frozen):
    name: StudyName
    """Name of the study: up to 64 letters, digits, - and _; the first a letter or digit."""
    question: Annotated[str | None, Settable()] = ""
    """What the study asks; a heading of its report."""
    metric: Annotated[str | None, Defined("metric"), Settable()] = None
    """What its table compares; when left out, the metric that selects the weights, on test."""
    verdict: Verdict | None = Field(default_factory=Verdict)
    """The rule of the verdict on each arm with controls; it is for the file alone, not for a profile or --set, and is
    stored before the first trial."""
    decide: Decide | None = None
    """Adds seeds until each comparison is decided; `{}` takes the defaults. It is for the file alone, as the verdict,
    whose rule it replaces; a study with it has no search and no evaluations."""


class Profile(Frozen):
    """A scale of the study: its keys are merged over those of the file."""

    base: Changes | None = Field(default_factory=dict)
    """Options of every trial that differ from their defaults; variants and the search build on it."""
    stages: dict[Name, Changes | None] | None = Field(default_factory=dict)
    """Trials that run first and are in no table, each a change of the base. Others start from their weights:
    model.weights: trial:NAME."""
    variants: dict[Name, VariantChanges | None] | None = Field(default_factory=dict)
    """An ablation: named arms, each a change of the base. The first one is the baseline."""
    designs: dict[Label, DesignSection | None] | None = Field(default_factory=dict)
    """Ablation designs: arms that are made of a baseline and components, and follow the variants."""
    evaluations: dict[Name, EvaluationChanges | None] | None = Field(default_factory=dict)
    """Measurements of every trained variant: a probe of its frozen backbone, or fine-tuning, on the same dataset or
    another. Each is a change of the base; model and weights are the variant's."""
    seeds: Annotated[list[Seed], Settable(), Field(min_length=1, json_schema_extra={"uniqueItems": True})] = [0, 1, 2]
    """Seeds of the trials; variants are compared seed by seed. A search uses the first one."""
    search: Annotated[SearchSection | None, Settable()] = None
    """A search for the best options."""
    resources: Annotated[Resources | None, Settable()] = Field(default_factory=Resources)
    """What one trial gets."""


class StudyFile(Profile, _Header):
    """A study: what is compared, or searched, and at which scales."""

    profiles: dict[str, Profile | None] | None = Field(default_factory=dict)
    """Named scales of the study, each merged over the file; `quick` is the default."""


class VariantKeys(Frozen):
    """Keys of a variant in addition to those of a TrialConfig."""

    controls: bool | list[Extra] | None = False
    """Adds the variants that show where the gain of a variant with pretext tasks comes from: SL with one view, SL with
    as many whole views, the variant with ignored answers, and with random ones. A list names controls in addition:
    `epochs`, SL with one view and as many image passes; `supervision_off`, the variant with whole images alone in the
    supervised loss (siamese feed). true: [epochs]. See docs/methods.md, controls."""


class ComponentKeys(Frozen):
    """Keys of a component in place of those of a TrialConfig."""

    levels: dict[Label, Changes | None] | None = Field(default_factory=dict)
    """Makes it a factor: name of a level → a change of the baseline. The baseline's own setting is one level more; a
    level that equals it is that one."""


class Evaluation(Frozen):
    """Keys of an evaluation in addition to those of a TrialConfig."""

    of: Annotated[list[str], Field(min_length=1)] = Field(default_factory=list)
    """Variants and stages that are evaluated; all variants when left out."""


def keys(model: type[BaseModel]) -> tuple[str, ...]:
    """Keys of a declared map, as they are written in a file."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


def marked(model: type[BaseModel], marker: object) -> tuple[str, ...]:
    """Keys of a declared map that have this marker."""
    return tuple(field.alias or name for name, field in model.model_fields.items() if marker in field.metadata)


def default(model: type[BaseModel], key: str) -> Any:
    """Default of a key."""
    return model.model_fields[key].get_default(call_default_factory=True)


@lru_cache(maxsize=32)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=ConfigDict(strict=True))


def accepts(kind: Any, value: Any) -> bool:
    """Whether a value is of a declared type, e.g. `Seed`, and within its range; True is not 1, and "1" is not 1."""
    try:
        _adapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def replaced_maps() -> set[tuple[str, ...]]:
    """Paths in `search` of the maps that a profile replaces; "*" is any key."""
    whole = {(key,) for key in marked(SearchSection, Replaced())}
    entries = {(key, "*") for key in marked(SearchSection, Replaced(entries=True))}
    return whole | entries | {("arms", "*", key, "*") for key in marked(SearchArm, Replaced(entries=True))}
