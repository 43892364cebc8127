"""The work of a trial, counted from its config and the sizes of its splits; nothing is measured here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from hmtl_ablate.config import TrialConfig, parse_config
from hmtl_ablate.errors import ConfigError
from hmtl_ablate.study.space import Search, combinations, resolved

if TYPE_CHECKING:
    from hmtl_ablate.data.pack import Pack

SCORED_SHARE, SCORED_LEAST, SCORED_MOST = 1 / 32, 64, 512
"""Images of val on which the pretext tasks are scored after each epoch, as `training.evaluate` has them."""
MOST_CONFIGS = 10_000
"""Configs of a search space that are looked at for the cheapest and the costliest trial."""
NEUTRAL = frozenset(
    {
        *("pretext.*." + name for name in ("weight", "supervised_weight", "share", "same_draw", "dropout", "answers")),
        *("pretext.*." + name for name in ("grid", "mask_ratio", "mask", "regions", "patches")),
        *("pretext.*." + name for name in ("perceptual_weight", "perceptual_weights")),
        *(
            "data." + name
            for name in ("name", "images", "fraction", "seed", "leave_out", "votes", "frames", "protocol")
        ),
        *("data.face_crop", "data.face_margin", "model.weights", "model.dropout", "model.pose_head"),
        *("loss.views", "loss.emotion_weight", "loss.gender_weight", "loss.pose_weight", "loss.task_weights"),
        *("loss.class_weights", "loss.label_smoothing"),
        *("training.epochs", "training.lr", "training.weight_decay", "training.warmup_epochs", "training.clip"),
        *("probe.hidden", "probe.neighbours", "seed", "training.precision"),
    }
)
"""Options, `*` for any pretext task, that change the time of an image pass little or not at all. The precision changes
it, and is named as what was chosen in place of `auto`."""


@dataclass(frozen=True)
class Counts:
    """Images in the splits of a trial."""

    train: int
    val: int
    test: int
    labelled: int
    """Images of the dataset that have a label of the first task: a probe computes the features of all."""
    exact: bool = True
    """Whether they were counted in the pack; without one they follow from `data.images`."""


@dataclass(frozen=True)
class Work:
    """The work of a trial, in images that pass through the network."""

    passes: int
    """Image passes: images that it is trained on, each view counted."""
    steps: int
    """Steps of the optimiser."""
    epochs: int
    measured: int
    """Images that go forward and back once more for the gradients that are logged after each epoch; those of a lone
    loss take no pass of their own."""
    validated: int
    """Images that go forward alone after the epochs: val, and those that pretext tasks are scored on."""
    last: int
    """Images that go forward alone once: val and test with the best weights; a probe's features."""

    @property
    def evaluated(self) -> int:
        """Images that go forward alone."""
        return self.validated + self.last


def work_of(config: TrialConfig, counts: Counts, evaluate_test: bool) -> Work:
    """The work of one trial of this config, without that of the trials that it starts from.

    Steps of an epoch are train // batch: the rest of its shuffled images is dropped. A step costs an image pass for
    each image and view: k with k whole views, 1 + changed views with a siamese feed, 1 with a shared or mixed feed.
    """
    if config.probe.kind != "none":
        return Work(0, 0, config.training.epochs, 0, 0, counts.labelled)
    batch = max(min(config.training.batch_size, counts.train), 1)
    steps = counts.train // batch
    epochs, views = config.training.epochs, config.passes_per_image
    supervised = config.training.supervised
    each = counts.val * supervised
    if config.pretext:
        scored = min(max(round(SCORED_SHARE * counts.train), SCORED_LEAST), SCORED_MOST, counts.val)
        each += scored * len(config.chains)
    return Work(
        passes=steps * batch * views * epochs,
        steps=steps * epochs,
        epochs=epochs,
        measured=0 if config.lone_loss else batch * views * (2 if config.pretext else 1) * epochs,
        validated=each * epochs,
        last=(counts.val + counts.test * evaluate_test) * supervised,
    )


def workload(config: TrialConfig) -> dict[str, Any]:
    """What the time of an image pass depends on, as plain data: the options that differ from their defaults, without
    those of `NEUTRAL`; the network, the size and the batch size always."""
    found = {
        key: value
        for key, value in _flat(config.declared()).items()
        if key not in NEUTRAL and _starred(key) not in NEUTRAL
    }
    found |= {f"pretext.{name}.feed": options.feed for name, options in config.pretext.items()}
    found |= {
        "model.backbone": config.model.backbone,
        "data.size": config.data.size,
        "training.batch_size": config.training.batch_size,
    }
    return dict(sorted(found.items()))


def _starred(key: str) -> str:
    parts = key.split(".")
    return ".".join(["pretext", "*", *parts[2:]]) if parts[0] == "pretext" else key


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, dict):
            found[f"{prefix}{key}"] = value
    return found


def costed(key: str) -> bool:
    """Whether a searched option may change what a trial costs."""
    return key in ("training.epochs", "data.fraction") or (key not in NEUTRAL and _starred(key) not in NEUTRAL)


def search_configs(search: Search, seed: int) -> list[TrialConfig]:
    """Configs of a search that cover what its trials can cost, one of each cost: the base with each combination of the
    options that change the cost, the ends alone of a continuous range; at most `MOST_CONFIGS` are tried."""
    names = {one.key for one in search.parameters if costed(one.key)}
    for one in reversed(search.parameters):  # each follows those that its `when` names
        names |= one.when.keys() if one.key in names else set()
    found: dict[str, TrialConfig] = {}
    for values in islice(combinations(tuple(p for p in search.parameters if p.key in names)), MOST_CONFIGS):
        with suppress(ConfigError):  # valid only with other values of options that change no cost
            config = parse_config({**resolved(search.base, values), "seed": seed})
            cost = [workload(config), config.training.epochs, config.data.fraction, config.training.precision]
            found.setdefault(str(cost), config)
    return list(found.values()) or [parse_config({**search.base, "seed": seed})]


def counts_in(pack: Pack, config: TrialConfig) -> Counts:
    """The sizes of a config's splits in its pack. Raises DataError when the pack can't serve it."""
    import numpy as np

    from hmtl_ablate.data.splits import labels_of, present, split

    labelled = len(pack.split)
    if config.tasks[0] in pack.labels:
        labelled = int(np.count_nonzero(present(labels_of(pack, config.data, config.tasks[0])[0])))
    if config.probe.kind != "none":
        return Counts(0, 0, 0, labelled)
    splits = split(pack, config.data, config.tasks, unlabelled=not config.training.supervised)
    return Counts(len(splits.train), len(splits.val), len(splits.test), labelled)


def split_counts(images: int, fraction: float) -> Counts:
    """Counts of rendered faces whose pack is not built: of every ten, eight train, one is val and one test."""
    rest, left = divmod(images, 10)
    val, test = rest + (left > 8), rest
    return Counts(max(math.floor((images - val - test) * fraction + 0.5), 1), val, test, images, exact=False)
