"""A file of a paper's claims → its claims, checked; a fault is named with its line (docs/claims.md)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from hmtl_ablate.config import PRETEXT_OPTIONS, Frozen, metric_info, model_faults, refused
from hmtl_ablate.errors import Fault, HmtlError, StudyError, nearest
from hmtl_ablate.study.options import key_fault, value_faults
from hmtl_ablate.study.source import Node, StudyFault, parse, read_text, refuse
from hmtl_ablate.supervised import SUPERVISED_TASKS

FORMAT = "docs/claims.md describes the format"


def _one_of(known: Mapping[str, Any], what: str, name: str) -> str:
    if name not in known:
        raise refused((), f"{name!r} is no {what}", nearest(name, known))
    return name


def _pretext(names: tuple[str, ...]) -> tuple[str, ...]:
    for place, name in enumerate(names):
        if name not in PRETEXT_OPTIONS:
            raise refused((place,), f"{name!r} is no pretext task", nearest(name, PRETEXT_OPTIONS))
    return names


def _score(name: str) -> str:
    if metric_info(name).unit not in ("%", "°"):
        raise refused((), f"a claim can't be about {name!r}", "name a metric in percent or degrees, e.g. test/accuracy")
    return name


def _option_names(keys: Any) -> Any:
    for place, key in enumerate(keys):
        if fault := key_fault(key):
            raise refused((key if isinstance(keys, Mapping) else place,), *fault)
    return keys


def _options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    for key, value in _option_names(options).items():
        if wrong := value_faults(key, value):
            raise refused((key,), wrong[0].what, wrong[0].hint)
    return options


Options = Annotated[dict[str, Any], AfterValidator(_options)]
AtLeast = Annotated[dict[str, float], AfterValidator(_option_names)]
Images = Annotated[int, Field(ge=0, strict=True)]
Line = Annotated[str, Field(min_length=1)]


class Probed(Frozen):
    """The trained model that a claim's evaluation starts from."""

    data: Line
    images: Images = 0


class Claim(Frozen):
    """A published number and which trials count for or against it. `pretext`, `options`, `set` and `at_least` are of
    the trained model, also where its evaluation is claimed."""

    model_config = ConfigDict(protected_namespaces=())

    dataset: Line
    model: Line
    metric: Line
    claimed: float = Field(allow_inf_nan=False)
    """In percent or degrees."""
    data: Line
    """`data.name` of the trials."""
    task: Annotated[str, AfterValidator(lambda name: _one_of(SUPERVISED_TASKS, "supervised task", name))] = "emotion"
    score: Annotated[str, AfterValidator(_score)] = "test/accuracy"
    """The logged metric."""
    classes: int | None = Field(default=None, ge=2, strict=True)
    """Of the supervised task; None: any number."""
    images: Images = 0
    """Fewest training images of the real dataset, at fraction 1: a small sample in the same layout verifies nothing."""
    pretext: Annotated[tuple[str, ...], AfterValidator(_pretext)] = ()
    """Names of the pretext tasks: these and no others."""
    options: Options = Field(default_factory=dict)
    """Dotted option → the value that a trial must have."""
    set: Annotated[tuple[str, ...], AfterValidator(_option_names)] = ()
    """Options that must not be null."""
    at_least: AtLeast = Field(default_factory=dict)
    """Dotted option → the smallest value."""
    evaluation: str = ""
    """The tag `hmtl.evaluation`; "" for the trained model itself."""
    probed: Probed | None = None
    """With an `evaluation`: what the evaluated model was trained on."""


class Paper(Frozen):
    """A paper's claims, in its order."""

    paper: Line
    """Its title, as the report shows it."""
    schedule: Line = "the claim's options and data"
    """In words, what `options` and `at_least` ask for."""
    options: Options = Field(default_factory=dict)
    """Of all claims, where they have no value of their own."""
    at_least: AtLeast = Field(default_factory=dict)
    claims: tuple[Claim, ...]

    def full(self) -> tuple[Claim, ...]:
        """The claims with what they share."""
        return tuple(
            one.model_copy(
                update={"options": {**self.options, **one.options}, "at_least": {**self.at_least, **one.at_least}}
            )
            for one in self.claims
        )


def read_claims(path: Path) -> Paper:
    """The claims of a YAML file. Raises HmtlError with all that is wrong with it, each fault with its line."""
    shown = str(path)
    try:
        return _paper(read_text(path, shown), shown)
    except StudyError as error:
        raise HmtlError(f"--claims-file: {error}\n{FORMAT}") from None


@lru_cache(maxsize=1)
def own_paper() -> Paper:
    """The claims of the paper that this package reproduces (docs/paper.md)."""
    return _paper(files("hmtl_ablate.reporting").joinpath("claims.yaml").read_text("utf-8"), "claims.yaml")


def _paper(text: str, source: str) -> Paper:
    tree = parse(text, source)
    raw = tree.plain()
    if not isinstance(raw, dict):
        raise refuse([StudyFault(tree.place, (), "should be a map with the keys paper and claims")])
    faults = _faults(raw)
    if faults:
        raise refuse([_placed(fault, tree) for fault in faults])
    return Paper.model_validate(raw)


def _faults(raw: Mapping[str, Any]) -> list[Fault]:
    """All that is wrong with a file, each claim looked at by itself."""
    found = model_faults(Paper, {**raw, "claims": ()})
    claims = raw.get("claims")
    if not isinstance(claims, list) or not claims:
        return [*found, Fault(("claims",), "should be a list of at least one claim")]
    for number, one in enumerate(claims):
        place = ("claims", number)
        found += model_faults(Claim, one, place)
        if isinstance(one, dict) and bool(one.get("evaluation")) != bool(one.get("probed")):
            what = "evaluation and probed go together: name the data that the evaluated model was trained on"
            found.append(Fault((*place, "evaluation" if one.get("evaluation") else "probed"), what))
    return found


def _placed(fault: Fault, tree: Node) -> StudyFault:
    """The fault with the place of the nearest node that is there."""
    node = tree
    for key in fault.path:
        content = node.content
        if isinstance(content, dict) and key in content:
            node = content[str(key)]
        elif isinstance(content, list) and isinstance(key, int) and key < len(content):
            node = content[key]
        else:
            break
    return StudyFault(node.key, fault.path, fault.what, fault.hint)
