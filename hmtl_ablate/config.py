"""TrialConfig: everything that defines one training run; frozen, validated, hashable.

Two trials with the same `TrialConfig` on the same pack give the same numbers on the same machine. Where a trial runs
(workers, device, threads, how a batch is split) is not part of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hmtl_ablate.errors import CheckpointError, ConfigError, Fault, nearest, nearest_registered
from hmtl_ablate.supervised import SUPERVISED_TASKS, Metric

NUMERICS_VERSION = 3
"""Part of every trial_id; bumped when a change in the code moves the golden loss curve, or a default changes.

2: the steps of an augmentation are drawn independently of one another; before, all of them drew the same numbers.

3: defaults of pretext tasks (siamese feed, supervised weight 0.5, weights of puzzling and rotation) and of the warm-up;
the perceptual loss divided by the masked share; a smaller in-painting decoder on a small backbone; AdaBelief with
rectification and the authors' eps; Lookahead synchronised before each validation; brightness added instead of
multiplied, holes and the border of a rotation filled with 0.
"""

Feed = Literal["shared", "siamese", "mixed"]
Answers = Literal["own", "random", "ignored"]
Range = Annotated[tuple[float, float], Field(description="[low, high]")]
READER_OPTIONS = ("votes", "frames")
"""Options of `data:` that some datasets have: with another value than its default, one is refused elsewhere."""
PACK_OPTIONS = (*READER_OPTIONS, "face_crop", "face_margin")
"""Options of `data:`, apart from the size, that change what a pack holds."""
DEFAULT_WARMUP = 3.0
"""Epochs of warm-up where a config names none (authors' scripts: 3 to 5)."""
SUMS = ("sum", "dwa")
"""Values of loss.combine whose derivative does not depend on the losses of this step."""
PACKAGE_BACKBONE = "tf_efficientnet_lite0"
"""The one network that weights `package` fit."""


def metric_names() -> tuple[str, ...]:
    """What a split can be measured by, of every registered task: `accuracy` in a trial of one task, `emotion/accuracy`
    in a trial of several."""
    alone = (name for entry in SUPERVISED_TASKS.values() for name in entry.metrics)
    several = (f"{task}/{name}" for task, entry in SUPERVISED_TASKS.items() for name in entry.metrics)
    return tuple(dict.fromkeys((*alone, *several)))


def metric_info(metric: str) -> Metric:
    """Direction, title and unit of a logged metric, e.g. test/mae_yaw, best/val/emotion/accuracy or val/recall/fear.

    The title names the task or the class too, but not the split: "MAE yaw", "emotion accuracy", "recall fear". A score
    of a pretext task has direction and unit of the supervised metric of that name. A metric that nothing declares has
    its own words as title, no unit, and says max.
    """
    parts = metric.removeprefix("best/").split("/")
    if len(parts) > 1 and parts[0] in ("train", "val", "test"):
        parts = parts[1:]
    own = SUPERVISED_TASKS.get(parts[0]) if len(parts) > 1 else None
    declared: dict[str, Metric] = {}
    for entry in (*([own] if own else []), *SUPERVISED_TASKS.values()):  # the metric's own task has precedence
        declared = {**entry.class_metrics, **entry.metrics, **declared}
    known = next((declared[part] for part in parts if part in declared), Metric("max", ""))
    words = [declared[part].title if part in declared else part.replace("_", " ") for part in parts]
    return replace(known, title=" ".join(words))


def in_percent(metric: str) -> bool:
    """Is this metric shown as a percentage? (It is logged as a fraction from 0 to 1.)"""
    return metric_info(metric).unit == "%"


def refused(path: tuple[str | int, ...], what: str, hint: str = "") -> PydanticCustomError:
    """A fault that concerns several fields, for a validator to raise; `path` is relative to its model."""
    return PydanticCustomError("refused", "{what}", {"what": what, "path": path, "hint": hint})


def _task(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names:
        raise refused((), f"{value!r} is no task", f"write one of {', '.join(SUPERVISED_TASKS)}, or a list of them")
    for name in names:
        if not isinstance(name, str) or name not in SUPERVISED_TASKS:
            raise refused((), f"{name!r} is no supervised task", nearest_registered(name, SUPERVISED_TASKS))
    if len(set(names)) < len(names):
        raise refused((), f"a task is repeated in {', '.join(names)}", "keep one")
    return names[0] if len(names) == 1 else tuple(names)


def _task_weights(value: dict[str, float]) -> dict[str, float]:
    own = {name for name in SUPERVISED_TASKS if f"{name}_weight" in LossConfig.model_fields}
    for name in value:
        if name in own:
            raise refused((name,), f"the weight of {name} is an option of its own", f"set loss.{name}_weight")
        if name not in SUPERVISED_TASKS:
            hint = nearest_registered(name, SUPERVISED_TASKS.keys() - own)
            raise refused((name,), f"{name!r} is no supervised task", hint)
    return {name: weight for name, weight in value.items() if weight != 1.0}  # a default renames no trial


def _weights(value: Any) -> Any:
    if value is None or value in ("imagenet", "package"):
        return value
    kind, _, rest = str(value).partition(":")
    if kind == "file" and rest:
        return f"file:{Path(rest).expanduser().absolute()}"
    if kind == "trial" and rest and re.fullmatch(r"[^/\\\x00-\x1f]+", rest) and rest.strip(". "):
        return value
    raise refused((), f"{value!r} names no weights", "use null, imagenet, package, file:PATH or trial:NAME")


Task = Annotated[str | tuple[str, ...], BeforeValidator(_task)]
Weights = Annotated[str | None, BeforeValidator(_weights)]
TaskWeight = Annotated[float, Field(gt=0, le=1000)]


class Frozen(BaseModel):
    """A strict, immutable model: unknown keys and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    def changed(self, name: str) -> bool:
        """Does a field differ from its default? (A stored config has every field, so presence does not show it.)"""
        return bool(getattr(self, name) != type(self).model_fields[name].default)


class DataConfig(Frozen):
    """The images that the model is trained and tested on."""

    name: str = "rendered"
    """Dataset: rendered, ferplus, affectnet, folder, csv, or one that `--import` registers."""
    images: Annotated[int, Field(ge=64, le=1_000_000)] | None = None
    """rendered only: number of faces over all splits (6,000 when left out)."""
    size: Annotated[int, Field(ge=16, le=1024)] = 48
    """Side of the image the model sees, in pixels."""
    stored: Annotated[int, Field(ge=16, le=2048)] | None = None
    """Side of the image in the pack, from which crops are taken, in pixels; `size` when left out."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training split that is used; stratified, and nested: a larger share contains every smaller one."""
    augment: Literal["none", "weak", "strong"] = "weak"
    """Augmentation of the training views, as in the authors' scripts (docs/paper.md, recipe)."""
    views: Annotated[int, Field(ge=1, le=8)] = 1
    """Whole views of each image in a step; each costs one image pass."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the splits, of `fraction` and of the rendered faces; not of the training."""
    leave_out: tuple[str, ...] = ()
    """Emotions whose images are not used: [contempt] makes AffectNet's and FER+'s eight the usual seven."""
    face_crop: Literal["box", "none"] = "box"
    """`box`: an image is cropped to the square around the face where the dataset says where it is (AffectNet's lists,
    CK+'s landmarks, 300W-LP, AFLW2000-3D, BIWI). `none`: the whole image is used, padded to a square, as the authors
    do with AffectNet (docs/paper.md, recipe)."""
    face_margin: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Widens the face box on each side, by this share of its longer side."""
    frames: Literal["peak", "last3"] = "peak"
    """ckplus only: the peak, which is the last frame of each sequence, or the last three frames."""
    votes: Literal["majority", "plurality", "soft"] = "majority"
    """ferplus only: the label of a face that several people rated. `majority`: single votes are dropped, then more than
    half of what is left must agree (FER+'s own rule, Barsoum et al. 2016). `plurality`: the most frequent vote; it
    keeps faces that raters disagree on. `soft`: the faces and labels of `majority`; the training target is the share of
    each emotion in the votes, without single ones."""
    protocol: Literal["selection", "paper"] = "selection"
    """`selection`: the best weights are selected on a split separate from test. `paper`: on the official validation
    set, as published work does; it is then the test split too."""

    @property
    def stored_size(self) -> int:
        """Side of the images in the pack, in pixels."""
        return self.stored or self.size

    @property
    def pack_options(self) -> dict[str, Any]:
        """The options that differ from their defaults and change what a pack holds, apart from its size."""
        return {name: getattr(self, name) for name in PACK_OPTIONS if self.changed(name)}

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.images is not None and self.name != "rendered":
            raise refused(
                ("images",), f"only the rendered faces take a number of images, not {self.name!r}", "use data.fraction"
            )
        if self.face_margin and self.face_crop == "none":
            raise refused(("face_margin",), "has no effect with face_crop: none", "set face_crop: box")
        if self.stored is not None and self.stored < self.size:
            raise refused(
                ("stored",), f"{self.stored} px is smaller than data.size, {self.size} px", f"use {self.size} or more"
            )
        return self


class ModelConfig(Frozen):
    """Backbone and supervised head."""

    backbone: str = "test_resnet"
    """Name of a timm model, e.g. efficientnet_b0; or one that `--import` registers."""
    weights: Weights = None
    """Initial weights of the backbone: null is random; imagenet (timm's hub); package (ImageNet weights of
    tf_efficientnet_lite0 from a package); file:PATH; trial:NAME, a stage or variant of the study, or a trial_id."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout before the supervised head (authors' scripts: 0.3)."""
    pose_head: Literal["regression", "rotation6d"] = "regression"
    """pose: three angles, or six numbers that make a rotation matrix (Zhou et al. 2019; 6DRepNet)."""

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.weights == "package" and self.backbone != PACKAGE_BACKBONE:
            raise refused(
                ("weights",),
                f"the package has weights of {PACKAGE_BACKBONE}, not of {self.backbone}",
                f"set model.backbone: {PACKAGE_BACKBONE}, or use imagenet",
            )
        return self


class LossConfig(Frozen):
    """How the supervised loss is weighted, and how it combines with the pretext losses."""

    combine: Literal["sum", "geometric", "focused", "uncertainty", "dwa", "pcgrad"] = "sum"
    """Of supervised and pretext losses. sum: Σ weight × loss (the authors'). geometric: weighted geometric mean of the
    losses (Chennupati et al. 2019; not the authors', whose geometric mean is `views`). focused: the same, times that of
    the supervised losses alone. uncertainty: weights learned as variances. dwa: dynamic weight averaging. pcgrad:
    gradients that conflict are projected first. Equations: hmtl_ablate/loss.py."""
    views: Literal["mean", "geometric"] = "mean"
    """Of the supervised losses of an image's views, each view's over the batch: their mean, or their geometric mean
    (authors' siamese script), weighted by `supervised_weight`. Pretext losses are always averaged over views."""
    emotion_weight: TaskWeight = 1.0
    """Weight of the emotion loss relative to the other losses."""
    gender_weight: TaskWeight = 1.0
    """Weight of the gender loss relative to the other losses."""
    pose_weight: TaskWeight = 1.0
    """Weight of the pose loss, in radians, relative to the other losses."""
    task_weights: Annotated[dict[str, Annotated[TaskWeight, Strict()]], AfterValidator(_task_weights)] = {}
    """Weights of the losses of the other supervised tasks, relative to the other losses, e.g. {affect: 0.5}; 1 where
    left out."""
    class_weights: Literal["none", "inverse", "effective"] = "none"
    """By class: none; majority count / class count (authors' scripts); effective number (Cui et al. 2019, eq. 2)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each label that is spread evenly over all classes."""

    def task_weight(self, task: str) -> float:
        """Weight of the loss of a supervised task."""
        own = f"{task}_weight"
        return float(getattr(self, own)) if own in type(self).model_fields else self.task_weights.get(task, 1.0)


class TrainingConfig(Frozen):
    """Optimiser and schedule."""

    supervised: bool = True
    """false: the pretext tasks alone, on labelled and unlabelled images (self-supervised pre-training); `task` then
    only says which images are held out."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Images in a step, over all workers; an image with several views counts once."""
    optimizer: Literal["adabelief", "adamw", "sgd"] = "adabelief"
    """adabelief (authors' scripts), adamw or sgd."""
    lookahead: bool = True
    """Lookahead (k = 6, alpha = 0.5) around the optimiser."""
    lr: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    """Weight decay of the optimiser."""
    warmup_epochs: Annotated[float, Field(ge=0)] | None = None
    """Epochs of linear warm-up before the cosine to 0; null: 3, or all epochs where there are fewer."""
    clip: Annotated[float, Field(gt=0)] | None = 5.0
    """Largest norm of the gradient, to which it is clipped; null: no clipping."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it (not one that emulates it), fp32 elsewhere."""
    deterministic: bool = False
    """true: equal numbers at every repetition on one GPU, too, by deterministic algorithms alone, which are slower; an
    operation without one ends the trial. On a CPU this holds always."""

    @property
    def warmup(self) -> float:
        """Epochs of linear warm-up, from 0 to `epochs`."""
        return min(DEFAULT_WARMUP, float(self.epochs)) if self.warmup_epochs is None else self.warmup_epochs

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if self.warmup_epochs is not None and self.warmup_epochs > self.epochs:
            raise refused(
                ("warmup_epochs",),
                f"{self.warmup_epochs:g} is more than training.epochs, {self.epochs}",
                f"use 0 to {self.epochs}",
            )
        return self


class ProbeConfig(Frozen):
    """What is trained on a frozen backbone instead of the whole network."""

    kind: Literal["none", "linear", "nonlinear", "knn", "direct"] = "none"
    """none: the whole network is trained; linear: a linear layer; nonlinear: one hidden layer and a linear one; knn:
    nothing, the nearest training images vote; direct: nothing, the trained head of the trial that the weights name is
    tested on all images of the dataset. Features are of whole images, without augmentation."""
    hidden: Annotated[int, Field(ge=8, le=16_384)] = 512
    """nonlinear: units of the hidden layer."""
    neighbours: Annotated[int, Field(ge=1, le=1000)] = 20
    """knn: images that vote, by cosine similarity (Wu et al. 2018, section 3.4)."""
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    """Cross-validation over all images of the dataset, folds apart by subject where the data names subjects; the
    accuracy is over all images, each predicted by the model fitted to the other folds. null: the data's own splits."""

    @model_validator(mode="after")
    def _check(self) -> ProbeConfig:
        for name, kind in (("hidden", "nonlinear"), ("neighbours", "knn")):
            if self.changed(name) and self.kind != kind:
                raise refused((name,), f"has no effect with kind: {self.kind}", f"set kind: {kind}")
        if self.folds is not None and self.kind == "none":
            raise refused(("folds",), "only a probe is cross-validated", "set kind: linear, nonlinear or knn")
        if self.folds is not None and self.kind == "direct":
            raise refused(("folds",), "a direct measurement fits nothing to folds", "remove it")
        return self


Weight = Annotated[float, Field(gt=0, le=1000)]


class PretextOptions(Frozen):
    """Options of every pretext task."""

    weight: Weight = 1.0
    """Weight of the pretext loss relative to the supervised loss."""
    joins: str | None = None
    """Another pretext task whose changed images this one changes too, in one pass; its feed, share, views and
    supervised_weight apply to both. Tasks with shared feeds always change the same images."""
    feed: Feed = "siamese"
    """What the supervised head is shown: `siamese` whole views and, in addition, changed ones; `shared` the changed
    image (cost of SL, and worse on few images); `mixed` a batch of which a share is changed (cost of SL). In
    pre-training there are changed views only."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """mixed: share of each batch that is changed."""
    supervised_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """siamese and mixed: weight of the supervised loss on changed images, relative to whole ones (authors: 1)."""
    changed_views: Annotated[tuple[Range, ...], Field(min_length=1, max_length=8)] = ((1.0, 1.0),)
    """siamese: one entry per changed view, the range of its side relative to data.size, drawn at each step."""
    same_augmentation: bool = False
    """siamese: the changed views are made from the first whole view (authors' siamese script); false: each view is
    augmented by itself."""
    same_draw: bool = False
    """siamese: the changed views of an image share one permutation, rotation or mask (authors' siamese script); false:
    each has its own."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Dropout before the pretext head (authors' scripts: 0.2 to 0.3)."""
    answers: Answers = "own"
    """own: the task. The others are controls of it, with equal images and draws (docs/methods.md, controls). random:
    its loss is of answers that have nothing to do with the image, new ones at each step. ignored: its images are
    changed and its loss is logged, but trains nothing."""

    @model_validator(mode="after")
    def _check(self) -> PretextOptions:
        for name in ("feed", "share", "changed_views", "supervised_weight", "same_augmentation", "same_draw"):
            if self.joins is not None and self.changed(name):
                raise refused((name,), f"is that of {self.joins}, which this task joins", "set it there")
        if self.feed != "mixed" and self.changed("share"):
            raise refused(("share",), f"only the mixed feed has a share, not {self.feed!r}", "set feed: mixed")
        for name in ("changed_views", "same_augmentation", "same_draw"):
            if self.feed != "siamese" and self.changed(name):
                raise refused(
                    (name,), f"only the siamese feed has changed views, not {self.feed!r}", "set feed: siamese"
                )
        if self.feed == "shared" and self.changed("supervised_weight"):
            raise refused(
                ("supervised_weight",),
                "a shared feed shows changed images only, so their supervised loss has no other to be relative to",
                "use weight, or feed: siamese",
            )
        for number, (low, high) in enumerate(self.changed_views):
            if not 0.25 <= low <= high <= 4:
                raise refused(
                    ("changed_views", number), f"[{low:g}, {high:g}] is no range of sizes", "use 0.25 ≤ low ≤ high ≤ 4"
                )
        return self


class PuzzlingOptions(PretextOptions):
    """Puzzling: predict the original position of each tile (docs/paper.md, the method).

    The defaults are those of the studies in search_spaces/, except paper.yaml, which has the authors' recipe
    (docs/methods.md, defaults).
    """

    weight: Weight = 1.2
    """Weight of the pretext loss, averaged over positions and changed views (authors' siamese script: 8.1 at 3 × 3)."""
    grid: Annotated[int, Field(ge=2, le=16)] = 2
    """n: the image is cut into n × n tiles."""


class RotationOptions(PretextOptions):
    """Rotation: predict by how many quarter turns the image, or each of its tiles, is rotated (Gidaris et al. 2018)."""

    weight: Weight = 0.5
    """Weight of the pretext loss relative to the supervised loss."""
    grid: Annotated[int, Field(ge=1, le=16)] = 1
    """1: the whole image is rotated; n: each of n × n tiles separately."""


class InpaintingOptions(PretextOptions):
    """In-painting: reconstruct the masked part of the image (docs/paper.md, the method)."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the image's area that is masked."""
    mask: Literal["regions", "patches"] = "regions"
    """regions: `regions` rectangles; patches: cells of a `patches` × `patches` grid."""
    regions: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of rectangles; together they cover mask_ratio of the image, less where they overlap."""
    patches: Annotated[int, Field(ge=2, le=64)] = 8
    """Cells along a side of the image."""
    perceptual: str | None = None
    """Frozen network of the perceptual loss (-pl), a timm model, e.g. vgg16; null: the pixel loss alone."""
    perceptual_weights: Weights = "imagenet"
    """Weights of that network: imagenet (timm's hub), package, file:PATH, trial:NAME, or null for random ones."""
    perceptual_layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Layers whose features are compared: relu1_2 … of vgg16, else timm's names of its stages; null: the first three
    (vgg16: relu1_2, relu2_2, relu3_3)."""
    perceptual_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Weight of the perceptual loss, divided by the masked share, relative to the pixel loss."""

    @model_validator(mode="after")
    def _check_perceptual(self) -> InpaintingOptions:
        for name in ("perceptual_weights", "perceptual_layers", "perceptual_weight"):
            if self.perceptual is None and self.changed(name):
                raise refused((name,), "has no effect without a perceptual network", "set perceptual: vgg16")
        if self.perceptual_weights == "package" and self.perceptual != PACKAGE_BACKBONE:
            raise refused(
                ("perceptual_weights",),
                f"the package has weights of {PACKAGE_BACKBONE}, not of {self.perceptual}",
                f"set perceptual: {PACKAGE_BACKBONE}, or use imagenet",
            )
        return self

    @model_validator(mode="after")
    def _check_mask(self) -> InpaintingOptions:
        other = "patches" if self.mask == "regions" else "regions"
        if self.changed(other):
            raise refused((other,), f"has no effect with mask: {self.mask}", f"set mask: {other}")
        return self


PRETEXT_OPTIONS: dict[str, type[PretextOptions]] = {
    "puzzling": PuzzlingOptions,
    "rotation": RotationOptions,
    "inpainting": InpaintingOptions,
}
"""Options class of each pretext task; `hmtl_ablate.pretext.register_pretext_task` adds to it. Tasks
that change the same image do so in this order: tiles are shuffled, then rotated, then masked."""


def _typed_pretext(raw: Any) -> Any:
    if not isinstance(raw, Mapping):
        return raw
    order = list(PRETEXT_OPTIONS)  # not the file's order: equal configs must draw equal numbers
    names = sorted(raw, key=lambda name: order.index(name) if name in order else len(order))
    return {
        name: PRETEXT_OPTIONS[name].model_validate(raw[name]) if isinstance(raw[name], Mapping) else raw[name]
        for name in names
    }


class TrialConfig(Frozen):
    """Everything that defines one training run.

    >>> from hmtl_ablate import TrialConfig
    >>> TrialConfig(task="gender", seed=3).metrics["accuracy"]
    'max'
    """

    task: Task = "emotion"
    """Supervised task: emotion, gender, pose, affect, or one that `--import` registers; or a list of them, the first of
    which selects the weights."""
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    pretext: Annotated[dict[str, SerializeAsAny[PretextOptions]], BeforeValidator(_typed_pretext)] = {}
    """Pretext task → its options; {} is plain supervised learning."""
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    probe: ProbeConfig = ProbeConfig()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of initial weights, batch order, augmentation and pretext draws."""

    @model_validator(mode="after")
    def _check(self) -> TrialConfig:
        self._check_joins()
        self._check_feeds()
        for name, options in self.pretext.items():
            grid = getattr(options, "grid", 1)
            if self.data.size // grid < 4:
                raise refused(
                    ("pretext", name, "grid"),
                    f"a {grid} × {grid} grid cuts data.size {self.data.size} px into tiles of less than 4 px",
                    f"use 2 to {self.data.size // 4}",
                )
            if isinstance(options, RotationOptions):
                self._check_rotation(name)
        if not self.training.supervised:
            self._check_unsupervised()
        if self.probe.kind != "none":
            self._check_probe()
        return self

    def _check_rotation(self, name: str) -> None:
        fed = self.leader(name).feed != "siamese" or self.leader(name).supervised_weight > 0
        unsafe = [task for task in self.tasks if not SUPERVISED_TASKS[task].task.rotation_safe]
        if fed and unsafe and self.training.supervised:
            raise refused(
                ("pretext", name),
                f"a rotated face has another {unsafe[0]} than its label",
                "use supervised_weight: 0 with feed: siamese",
            )

    def _check_joins(self) -> None:
        for name, options in self.pretext.items():
            if options.joins is not None and (options.joins == name or options.joins not in self.pretext):
                others = [other for other in self.pretext if other != name]
                raise refused(
                    ("pretext", name, "joins"),
                    f"{options.joins!r} is no other pretext task here",
                    nearest(options.joins, others) if others else "remove it",
                )
            if options.joins is not None and self.pretext[options.joins].joins is not None:
                raise refused(
                    ("pretext", name, "joins"),
                    f"{options.joins} joins another task itself",
                    f"write joins: {self.pretext[options.joins].joins}",
                )

    def _check_feeds(self) -> None:
        leaders = [options for options in self.pretext.values() if options.joins is None]
        if len({options.feed for options in leaders}) > 1 and any(options.feed == "shared" for options in leaders):
            raise refused(
                ("pretext",),
                "a shared feed changes every image, so no other feed has whole ones",
                "use shared for all, or siamese and mixed",
            )
        shares = sum(options.share for options in leaders if options.feed == "mixed")
        if shares > 1:
            raise refused(("pretext",), f"the mixed feeds take {shares:g} of each batch", "use shares of 1 in all")

    def _check_unsupervised(self) -> None:
        if not self.pretext:
            raise refused(
                ("training", "supervised"),
                "without the supervised loss and a pretext task there is nothing to train",
                "add a pretext task",
            )
        for name in self.pretext:
            if self.leader(name).feed == "mixed":
                raise refused(
                    ("pretext", name, "feed"),
                    "pre-training has no supervised head that whole images would go to",
                    "use feed: siamese or shared",
                )
        if not self.combined:
            raise refused(
                ("pretext", next(iter(self.pretext)), "answers"),
                "with ignored answers and without the supervised loss there is nothing to train",
                "use own or random for one task",
            )
        if self.loss.combine == "focused":
            raise refused(("loss", "combine"), "focused is about the supervised losses, and there is none", "use sum")

    def _check_probe(self) -> None:
        if self.pretext:
            raise refused(("pretext",), "a probe trains no pretext task", "set probe.kind: none, or pretext: {}")
        direct = self.probe.kind == "direct"
        with_classes = [name for name, entry in SUPERVISED_TASKS.items() if entry.task.has_classes]
        if len(self.tasks) > 1 or (self.tasks[0] not in with_classes and not direct):
            raise refused(("task",), "a probe predicts one task with classes", f"use {' or '.join(with_classes)}")
        if direct and not (self.model.weights or "").startswith("trial:"):
            raise refused(("model", "weights"), "a direct measurement needs a trained head", "write trial:NAME")
        if self.data.views > 1:
            raise refused(("data", "views"), "a probe sees each image once, whole", "use 1")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The supervised tasks."""
        return (self.task,) if isinstance(self.task, str) else self.task

    @property
    def combined(self) -> tuple[str, ...]:
        """The tasks whose losses are combined: the supervised ones, and the pretext tasks whose answers count."""
        supervised = self.tasks if self.training.supervised else ()
        return (*supervised, *(name for name, options in self.pretext.items() if options.answers != "ignored"))

    @property
    def lone_loss(self) -> str:
        """The task whose loss is trained by itself, so that its gradient is that of the step; "" with several."""
        return self.combined[0] if len(self.combined) == 1 and self.loss.combine in SUMS else ""

    @property
    def metrics(self) -> dict[str, Literal["max", "min"]]:
        """What a split is measured by, without its name: accuracy, or emotion/accuracy where there are several tasks;
        with the better direction. The first one selects the weights. {}: no supervised task is trained."""
        if not self.training.supervised:
            return {}
        return {
            name if len(self.tasks) == 1 else f"{task}/{name}": metric.direction
            for task in self.tasks
            for name, metric in SUPERVISED_TASKS[task].metrics.items()
        }

    @property
    def selects_by(self) -> str:
        """The metric that selects the weights, e.g. val/accuracy; "" where none does and the last epoch's are used."""
        whole = self.probe.folds is not None or self.probe.kind == "direct"
        return f"val/{next(iter(self.metrics))}" if self.metrics and not whole else ""

    def leader(self, name: str) -> PretextOptions:
        """The options that say what pretext task `name` is fed: its own, or those of the task it joins."""
        return self.pretext[self.pretext[name].joins or name]

    @property
    def chains(self) -> tuple[tuple[str, ...], ...]:
        """Pretext tasks that change the same images, each in the order in which they do."""
        if all(options.feed == "shared" for options in self.pretext.values() if options.joins is None):
            return (tuple(self.pretext),) if self.pretext else ()
        return tuple(
            tuple(name for name, options in self.pretext.items() if leader in (name, options.joins))
            for leader, own in self.pretext.items()
            if own.joins is None
        )

    @property
    def weight_sources(self) -> dict[tuple[str, ...], str]:
        """Path of each option that names weights → its source."""
        found: dict[tuple[str, ...], str | None] = {("model", "weights"): self.model.weights}
        for name, options in self.pretext.items():
            if getattr(options, "perceptual", None) is not None:
                found["pretext", name, "perceptual_weights"] = getattr(options, "perceptual_weights", None)
        return {path: source for path, source in found.items() if source is not None}

    @property
    def passes_per_image(self) -> int:
        """Image passes an image costs in one epoch: its whole views, except in siamese pre-training, and its changed
        ones."""
        return len(self.view_sources)

    @property
    def view_sources(self) -> tuple[int, ...]:
        """For each image pass, whole views first, the number of the pass whose augmentation it shows: its own, or that
        of the first whole view (in pre-training, of the task's first changed view)."""
        siamese = [o for o in self.pretext.values() if o.feed == "siamese" and o.joins is None]
        whole = self.training.supervised or not siamese  # pre-training has no head that would read whole views
        sources = list(range(self.data.views if whole else 0))
        for options in siamese:
            first = 0 if whole else len(sources)
            for _ in options.changed_views:
                sources.append(first if options.same_augmentation else len(sources))
        return tuple(sources)

    def replaced(self, values: Mapping[tuple[str, ...], Any]) -> TrialConfig:
        """This config with other values at the paths of some options."""
        raw = self.declared() | {"seed": self.seed}
        for (*groups, name), value in values.items():
            section = raw
            for group in groups:
                section = section.setdefault(group, {})
            section[name] = value
        return parse_config(raw)

    def declared(self) -> dict[str, Any]:
        """The fields that differ from their defaults, as plain JSON data."""
        return self.model_dump(mode="json", exclude_defaults=True)


def parse_config(raw: Mapping[str, Any]) -> TrialConfig:
    """Build a TrialConfig from plain data, or raise `ConfigError` with every fault."""
    faults: list[Fault] = []
    pretext = raw.get("pretext", {})
    if isinstance(pretext, Mapping):
        for name, options in pretext.items():
            if name not in PRETEXT_OPTIONS:
                faults.append(
                    Fault(
                        ("pretext", name),
                        f"there is no pretext task {name!r}",
                        name,
                        nearest_registered(name, PRETEXT_OPTIONS),
                    )
                )
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

    Only fields that differ from their defaults count, so a new option with a neutral default renames no old trial. A
    file of weights counts by its content, not its path. Raises CheckpointError when it can't be read.
    """
    return id_of(declared_by_content(config), config.seed, fingerprint, NUMERICS_VERSION)


def declared_by_content(config: TrialConfig) -> dict[str, Any]:
    """The declared fields, files of weights named by their content. Raises CheckpointError when one can't be read."""
    declared = config.declared()
    for path, source in config.weight_sources.items():
        if source.startswith("file:"):
            *groups, name = path
            section: Any = declared
            for group in groups:
                section = section[group]
            file = Path(source.removeprefix("file:"))
            try:
                stat = file.stat()
                section[name] = f"file:{_digest(file, stat.st_size, stat.st_mtime_ns)}"
            except OSError as error:
                raise CheckpointError(f"{'.'.join(path)}: can't read {file}: {error.strerror}") from error
    return declared


def short_hash(data: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of data as JSON, e.g. the key of a variant."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def id_of(declared: Mapping[str, Any], seed: int, fingerprint: str, numerics: int) -> str:
    """The id of a trial from its declared fields, with files of weights named by their content (`file:` and 16
    hexadecimal digits)."""
    identity = {"config": declared, "seed": seed, "data": fingerprint, "numerics": numerics}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(maxsize=64)
def _digest(file: Path, size: int, changed: int) -> str:
    """sha256 of a file; size and modification time make the cache miss when the file was replaced."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
