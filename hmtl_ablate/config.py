"""TrialConfig: everything that defines one training run; frozen, validated, hashable.

Two trials with the same `TrialConfig` on the same pack give the same numbers on the same machine. Where a trial runs
(workers, device, threads, how a batch is split) is no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hmtl_ablate.errors import ConfigError, Fault, nearest

NUMERICS_VERSION = 1
"""Part of every trial_id; bumped when a change in the code moves the golden loss curve."""

Feed = Literal["shared", "siamese", "mixed"]
Task = Literal["emotion", "gender"]
Range = Annotated[tuple[float, float], Field(description="[low, high]")]


class Frozen(BaseModel):
    """A strict, immutable model: unknown keys and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class DataConfig(Frozen):
    """What the model is shown."""

    name: str = "rendered"
    """Dataset: rendered, ferplus, affectnet, folder, csv, or one that `--import` registers."""
    images: Annotated[int, Field(ge=64, le=1_000_000)] | None = None
    """rendered only: how many faces are drawn over all splits (6,000 when left out)."""
    size: Annotated[int, Field(ge=16, le=1024)] = 48
    """Side of the image the model sees, in pixels."""
    stored: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Side of the image in the pack, from which crops are taken, in pixels; `size` when left out."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training split that is used; stratified, and nested: a smaller share lies inside a larger one."""
    augment: Literal["none", "weak", "strong"] = "weak"
    """Augmentation of the training views, as in the authors' scripts (PAPER.md, recipe)."""
    views: Annotated[int, Field(ge=1, le=8)] = 1
    """Whole views of each image a step; each is one image pass."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the splits, of `fraction` and of the rendered faces; not of the training."""
    protocol: Literal["selection", "paper"] = "selection"
    """`selection`: weights are chosen on a split apart from test. `paper`: on the official validation set, as
    published work does, which is then also the test split."""

    @property
    def stored_size(self) -> int:
        """Side of the images in the pack, in pixels."""
        return self.stored or self.size

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.images is not None and self.name != "rendered":
            raise refused(("images",), f"only the rendered faces take a number of images, not {self.name!r}",
                          "use data.fraction")
        if self.stored is not None and self.stored < self.size:
            raise refused(("stored",), f"{self.stored} px is smaller than data.size, {self.size} px",
                          f"use {self.size} or more")
        return self


class ModelConfig(Frozen):
    """Backbone and supervised head."""

    backbone: str = "test_resnet"
    """Name of a timm model, e.g. efficientnet_b0; or one that `--import` registers."""
    weights: Literal["imagenet"] | None = None
    """Initial weights: null is random; imagenet asks timm's hub for them."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout before the supervised head (authors' scripts: 0.3)."""


class LossConfig(Frozen):
    """How the supervised loss is weighted, and how it combines with the pretext losses."""

    combine: Literal["sum", "geometric"] = "sum"
    """`sum`: supervised + Σ weight × pretext. `geometric`: the weighted geometric mean of the same losses."""
    class_weights: Literal["none", "inverse", "effective"] = "none"
    """By class: none; majority count / class count (authors' scripts); effective number (Cui et al. 2019, eq. 2)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class TrainingConfig(Frozen):
    """Optimiser and schedule."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Images a step over all workers, before views are counted."""
    optimizer: Literal["adabelief", "adamw", "sgd"] = "adabelief"
    lookahead: bool = True
    """Lookahead (k = 6, alpha = 0.5) around the optimiser."""
    lr: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    warmup_epochs: Annotated[float, Field(ge=0)] = 3.0
    """Epochs of linear warm-up before the cosine to 0."""
    clip: Annotated[float, Field(gt=0)] | None = 5.0
    """Largest norm of the gradient; null: none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 elsewhere."""

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if self.warmup_epochs > self.epochs:
            raise refused(("warmup_epochs",), f"{self.warmup_epochs:g} is more than training.epochs, {self.epochs}",
                          f"use 0 to {self.epochs}")
        return self


class PretextOptions(Frozen):
    """What every pretext task takes."""

    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Weight of the pretext loss beside the supervised loss."""
    feed: Feed = "shared"
    """What the supervised head is shown: `shared` the changed image (cost of SL); `siamese` whole views and, beside
    them, changed ones; `mixed` a batch of which a share is changed (cost of SL)."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """mixed: share of each batch that is changed."""
    supervised_weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    """siamese and mixed: weight of the supervised loss on changed images, relative to whole ones."""
    changed_views: Annotated[tuple[Range, ...], Field(min_length=1, max_length=8)] = ((1.0, 1.0),)
    """siamese: one entry a changed view, the range of its side relative to data.size, drawn anew each step."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout before the pretext head (authors' scripts: 0.2 to 0.3)."""

    @model_validator(mode="after")
    def _check(self) -> PretextOptions:
        if self.feed != "mixed" and "share" in self.model_fields_set:
            raise refused(("share",), f"only the mixed feed has a share, not {self.feed!r}", "set feed: mixed")
        if self.feed != "siamese" and "changed_views" in self.model_fields_set:
            raise refused(("changed_views",), f"only the siamese feed has changed views, not {self.feed!r}",
                          "set feed: siamese")
        if self.feed == "shared" and self.supervised_weight != 1.0:
            raise refused(("supervised_weight",), "a shared feed shows changed images only, so their supervised loss "
                          "has no other to be relative to", "use weight, or feed: siamese")
        for number, (low, high) in enumerate(self.changed_views):
            if not 0.25 <= low <= high <= 4:
                raise refused(("changed_views", number), f"[{low:g}, {high:g}] is no range of sizes",
                              "use 0.25 ≤ low ≤ high ≤ 4")
        return self


class PuzzlingOptions(PretextOptions):
    """Puzzling: which tile stands where (PAPER.md, the method)."""

    grid: Annotated[int, Field(ge=2, le=16)] = 2
    """n: the image is cut into n × n tiles."""


class InpaintingOptions(PretextOptions):
    """In-painting: rebuild the masked part of the image (PAPER.md, the method)."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the image's area that is masked."""
    mask: Literal["regions", "patches"] = "regions"
    """regions: `regions` rectangles; patches: cells of a `patches` × `patches` grid."""
    regions: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of rectangles; together they cover mask_ratio of the image, less where they overlap."""
    patches: Annotated[int, Field(ge=2, le=64)] = 8
    """Cells along a side of the image."""

    @model_validator(mode="after")
    def _check_mask(self) -> InpaintingOptions:
        other = "patches" if self.mask == "regions" else "regions"
        if other in self.model_fields_set:
            raise refused((other,), f"has no effect with mask: {self.mask}", f"set mask: {other}")
        return self


PRETEXT_OPTIONS: dict[str, type[PretextOptions]] = {"puzzling": PuzzlingOptions, "inpainting": InpaintingOptions}
"""Options class of each pretext task; `hmtl_ablate.pretext.register` adds to it."""


def _typed_pretext(raw: Any) -> Any:
    if not isinstance(raw, Mapping):
        return raw
    return {name: PRETEXT_OPTIONS[name].model_validate(options) if isinstance(options, Mapping) else options
            for name, options in raw.items()}


class TrialConfig(Frozen):
    """Everything that defines one training run."""

    task: Task = "emotion"
    """Supervised task."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    pretext: Annotated[dict[str, SerializeAsAny[PretextOptions]], BeforeValidator(_typed_pretext)] = {}
    """Pretext task → its options; {} is plain supervised learning."""
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of initial weights, batch order, augmentation and pretext draws."""

    @model_validator(mode="after")
    def _check(self) -> TrialConfig:
        feeds = [options.feed for options in self.pretext.values()]
        if "shared" in feeds and len(feeds) > 1:
            raise refused(("pretext",), "a shared feed has room for one pretext task", "use siamese or mixed feeds")
        shares = sum(options.share for options in self.pretext.values() if options.feed == "mixed")
        if shares > 1:
            raise refused(("pretext",), f"the mixed feeds take {shares:g} of each batch", "use shares of 1 in all")
        for name, options in self.pretext.items():
            if isinstance(options, PuzzlingOptions) and self.data.size // options.grid < 4:
                raise refused(("pretext", name, "grid"), f"a {options.grid} × {options.grid} grid cuts data.size "
                              f"{self.data.size} px into tiles of less than 4 px",
                              f"use 2 to {self.data.size // 4}")
        return self

    @property
    def passes_per_image(self) -> int:
        """Image passes an image costs in one epoch: its whole views and its changed ones."""
        changed = sum(len(o.changed_views) for o in self.pretext.values() if o.feed == "siamese")
        return self.data.views + changed

    def declared(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as plain JSON data."""
        return self.model_dump(mode="json", exclude_defaults=True)


def refused(path: tuple[str | int, ...], what: str, hint: str = "") -> PydanticCustomError:
    """A fault that concerns several fields; `path` is relative to the model that raises it."""
    return PydanticCustomError("refused", "{what}", {"what": what, "path": path, "hint": hint})


def parse_config(raw: Mapping[str, Any]) -> TrialConfig:
    """Build a TrialConfig from plain data, or raise `ConfigError` with all that is wrong."""
    faults: list[Fault] = []
    pretext = raw.get("pretext", {})
    if isinstance(pretext, Mapping):
        for name, options in pretext.items():
            if name not in PRETEXT_OPTIONS:
                faults.append(Fault(("pretext", name), f"there is no pretext task {name!r}", name,
                                    nearest(name, PRETEXT_OPTIONS)))
            elif not isinstance(options, Mapping):
                faults.append(Fault(("pretext", name), "options are a map", options, f"write {name}: {{}}"))
            else:
                faults += model_faults(PRETEXT_OPTIONS[name], options, ("pretext", name))
        if faults:
            faults += model_faults(TrialConfig, {k: v for k, v in raw.items() if k != "pretext"})
            raise ConfigError(faults)
    faults = model_faults(TrialConfig, raw)
    if faults:
        raise ConfigError(faults)
    return TrialConfig.model_validate(raw)


def model_faults(model: type[BaseModel], raw: Any, prefix: tuple[str | int, ...] = ()) -> list[Fault]:
    """All that is wrong with `raw` as a `model`, each fault's path starting with `prefix`."""
    try:
        model.model_validate(raw)
    except ValidationError as error:
        return [_fault(model, detail, prefix) for detail in error.errors()]
    return []


def _fault(model: type[BaseModel], detail: Any, prefix: tuple[str | int, ...]) -> Fault:
    path = prefix + tuple(detail["loc"])
    kind, context, value = detail["type"], detail.get("ctx", {}), detail.get("input")
    if kind == "refused":
        inner = tuple(context["path"])
        for key in inner:  # the input of a cross-field fault is the whole model; show the one value meant
            value = value.get(key) if isinstance(value, Mapping) else getattr(value, str(key), None)
        return Fault(path + inner, context["what"], value, context["hint"])
    if kind == "extra_forbidden":
        owner = _model_at(model, detail["loc"][:-1])
        names = owner.model_fields if owner else ()
        return Fault(path, f"there is no option {detail['loc'][-1]!r}", value, nearest(detail["loc"][-1], names))
    if kind == "literal_error":
        owner = _model_at(model, detail["loc"][:-1])
        field = owner.model_fields.get(str(detail["loc"][-1])) if owner else None
        choices = [str(c) for c in _literals(field.annotation)] if field else []
        return Fault(path, f"{value!r} is not one of {context['expected']}", value, nearest(value, choices))
    message = detail["msg"].removeprefix("Value error, ")
    return Fault(path, f"{message[:1].lower()}{message[1:]}, not {value!r}", value)


def _literals(annotation: Any) -> list[Any]:
    found: list[Any] = []
    for part in get_args(annotation):
        found += _literals(part) if get_args(part) else [part] if isinstance(part, str) else []
    return found


def _model_at(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel] | None:
    for key in path:
        field = model.model_fields.get(str(key))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model


def trial_id(config: TrialConfig, fingerprint: str) -> str:
    """Name of a trial: 16 hexadecimal digits over the declared fields, the seed, the pack and NUMERICS_VERSION.

    Only fields that differ from their defaults count, so a new option with a neutral default renames no old trial.
    """
    identity = {"config": config.declared(), "seed": config.seed, "data": fingerprint, "numerics": NUMERICS_VERSION}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
