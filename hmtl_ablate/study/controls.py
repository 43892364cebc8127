"""Controls of an arm: the variants that show where its gain comes from (docs/methods.md, controls).

With k = the arm's views: SL with one view (A0) → SL with k whole views (A1) → the arm with ignored answers (A2) → the
arm with random answers (A3) → the arm (A4). Outside that sum: SL with k times the epochs, and the arm whose changed
views have no supervised loss.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hmtl_ablate.config import DEFAULT_WARMUP, TrialConfig, parse_config
from hmtl_ablate.errors import nearest
from hmtl_ablate.study.declaration import EXTRAS, MAX_NAME
from hmtl_ablate.study.options import config_faults
from hmtl_ablate.study.source import Node, StudyFault

LABELS = {
    "sl": "one view",
    "views": "whole views",
    "distortion": "distortion",
    "random_answers": "random answers",
    "epochs": "more epochs",
    "supervision_off": "supervision off",
}
"""Field of `Controls` → what follows the arm's name in the name of a control that is added."""


@dataclass(frozen=True)
class Controls:
    """The controls of an arm: names of variants; "" where there is none."""

    sl: str
    """A0: SL with one view."""
    views: str
    """A1: SL with as many whole views as the arm has views in all."""
    distortion: str
    """A2: the arm with ignored answers."""
    random_answers: str
    """A3: the arm with random answers."""
    arm: str
    """A4: the arm itself."""
    epochs: str = ""
    """SL with one view and the arm's views times its epochs."""
    supervision_off: str = ""
    """The arm with whole images alone in the supervised loss."""
    tasks: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Of an arm with several pretext tasks, task → the variants in which its answers alone are ignored, and random."""


Raw = Mapping[str, Any]
"""The data of a TrialConfig, without a seed."""


def control_configs(raw: Raw, chosen: Collection[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """The controls of an arm as ("", field of `Controls`) → data; those of one task of several as (task, field).

    raw: the arm's data, a valid TrialConfig with pretext tasks; chosen: the controls outside the sum, of `EXTRAS`.
    """
    config = parse_config(raw)
    found = {
        ("", "sl"): _alone(raw, 1),
        ("", "views"): _alone(raw, config.passes_per_image),
        ("", "distortion"): _changed(raw, config.pretext, answers="ignored"),
        ("", "random_answers"): _changed(raw, config.pretext, answers="random"),
    }
    if "epochs" in chosen:
        found["", "epochs"] = _longer(raw, config)
    if "supervision_off" in chosen:
        leaders = [name for name, options in config.pretext.items() if options.joins is None]
        found["", "supervision_off"] = _changed(raw, leaders, supervised_weight=0.0)
    if len(config.pretext) > 1:
        for task in config.pretext:
            found[task, "distortion"] = _changed(raw, [task], answers="ignored")
            found[task, "random_answers"] = _changed(raw, [task], answers="random")
    return found


def _alone(raw: Raw, views: int) -> dict[str, Any]:
    """SL with this number of whole views; the mean over one view has no kinds."""
    rest = {key: value for key, value in raw.items() if key != "pretext"}
    if views == 1 and "loss" in raw:
        rest["loss"] = {key: value for key, value in raw["loss"].items() if key != "views"}
    return {**rest, "data": {**raw.get("data", {}), "views": views}}


def _longer(raw: Raw, config: TrialConfig) -> dict[str, Any]:
    """SL with one view and the arm's views times its epochs, after a warm-up as long as the arm's."""
    alone, views, training = _alone(raw, 1), config.passes_per_image, config.training
    if views == 1:
        return alone
    changes: dict[str, Any] = {"epochs": views * training.epochs}
    if training.warmup < DEFAULT_WARMUP:  # of few epochs the default is all of them
        changes["warmup_epochs"] = training.warmup
    return {**alone, "training": {**raw.get("training", {}), **changes}}


def _changed(raw: Raw, tasks: Iterable[str], **options: Any) -> dict[str, Any]:
    """The arm with other options of some of its pretext tasks."""
    return {**raw, "pretext": {**raw["pretext"], **{task: {**raw["pretext"][task], **options} for task in tasks}}}


def expand(
    asked: Mapping[str, Node], variants: Mapping[str, Raw], taken: Collection[str], faults: list[StudyFault]
) -> tuple[dict[str, Raw], dict[str, Controls]]:
    """The control variants that a study lacks, by name, and the controls of each arm that asks for some.

    asked: variant → its key `controls`; variants: all of the study's own, valid; taken: names of everything in the
    study. A control that is trained as another variant is that variant. What is wrong goes to faults.
    """
    known = {identity(raw): name for name, raw in reversed(list(variants.items()))}
    added: dict[str, Raw] = {}
    controls: dict[str, Controls] = {}
    for arm, node in asked.items():
        chosen = _chosen(node, variants[arm], faults)
        if chosen is None:
            continue
        names: dict[tuple[str, str], str] = {}
        for (task, role), raw in control_configs(variants[arm], chosen).items():
            label = f"{task} {LABELS[role]}".strip()
            name = f"{arm}: {label}"
            if wrong := config_faults(raw):
                faults.append(_fault(node, f"its control {label!r} can't be trained: {wrong[0]}", "remove controls"))
                break
            names[task, role] = known.setdefault(identity(raw), name)
            if names[task, role] == name and name not in added:
                faults += _name_faults(node, name, taken)
                added[name] = raw
        else:
            controls[arm] = _named(arm, names)
    return added, controls


def _named(arm: str, names: Mapping[tuple[str, str], str]) -> Controls:
    tasks = dict.fromkeys(task for task, _ in names if task)
    return Controls(
        arm=arm,
        **{role: name for (task, role), name in names.items() if not task},
        tasks={task: (names[task, "distortion"], names[task, "random_answers"]) for task in tasks},
    )


def identity(raw: Raw) -> str:
    """Equal for configs that are trained alike: those of equal options, apart from what has no effect in SL, the mean
    over one view and most combinations of one loss."""
    config = parse_config(raw)
    declared = config.declared()
    loss: dict[str, Any] = declared.pop("loss", {})
    if not config.pretext and config.data.views == 1:
        loss.pop("views", None)
    if not config.pretext and len(config.tasks) == 1:
        neutral = {"dwa", "pcgrad"} | ({"geometric"} if config.loss.task_weight(config.tasks[0]) == 1 else set())
        if config.loss.combine in neutral:
            del loss["combine"]
    return json.dumps([declared, loss], sort_keys=True)


def _chosen(node: Node, raw: Raw, faults: list[StudyFault]) -> tuple[str, ...] | None:
    """The controls outside the sum that `controls` asks for; None where it asks for none, or can't."""
    if node.content is None or node.content is False:
        return None
    if node.content is not True and not isinstance(node.content, list):
        hint = f"write true, or a list of some of {', '.join(EXTRAS)}"
        faults.append(StudyFault(node.place, node.path, f"should be true or a list, not {node.plain()!r}", hint))
        return None
    config = parse_config(raw)
    if not config.training.supervised:
        faults.append(_fault(node, "pre-training has no supervised score that a control could have too"))
    elif not config.pretext:
        faults.append(_fault(node, "controls are of pretext tasks, and this variant has none"))
    elif controlled := [name for name, options in config.pretext.items() if options.answers != "own"]:
        how = config.pretext[controlled[0]].answers
        faults.append(_fault(node, f"{controlled[0]} has answers: {how}, so this variant is a control itself"))
    else:
        items = node.content if isinstance(node.content, list) else []
        wrong = [fault for item in items if (fault := _extra_fault(item, config))]
        faults += wrong
        if not wrong:
            return ("epochs",) if node.content is True else tuple(dict.fromkeys(item.content for item in items))
    return None


def _extra_fault(item: Node, config: TrialConfig) -> StudyFault | None:
    if not isinstance(item.content, str) or item.content not in EXTRAS:
        return StudyFault(item.place, item.path, f"there is no control {item.plain()!r}", nearest(item.plain(), EXTRAS))
    other = [name for name in config.pretext if config.leader(name).feed != "siamese"]
    if item.content == "supervision_off" and other:
        feed = config.leader(other[0]).feed
        what = f"supervision_off leaves whole views to the supervised loss, which feed: {feed} of {other[0]} has not"
        return StudyFault(item.place, item.path, what, "remove it, or set feed: siamese")
    return None


def _name_faults(node: Node, name: str, taken: Collection[str]) -> list[StudyFault]:
    if name in taken:
        return [_fault(node, f"its control would be named {name!r}, as another one is", "rename that one")]
    if len(name) > MAX_NAME:
        return [
            _fault(
                node, f"its control {name!r} would have a name of {len(name)} characters", "shorten the variant's name"
            )
        ]
    return []


def _fault(node: Node, what: str, hint: str = "remove it") -> StudyFault:
    return StudyFault(node.key, node.path, what, hint)
