"""The `search` section: from nodes to a `Search`, with all that is wrong in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from hmtl_ablate.config import model_faults, parse_config
from hmtl_ablate.errors import ConfigError, Fault, nearest
from hmtl_ablate.study.constraints import Constraint, parse_constraint
from hmtl_ablate.study.declaration import (
    COSTS,
    KINDS,
    MAX_TRIALS,
    Racing,
    Range,
    SearchSection,
    Step,
    TrialCount,
    accepts,
    default,
    keys,
    objectives,
)
from hmtl_ablate.study.merge import tasks
from hmtl_ablate.study.options import config_faults, key_fault, option_fields, value_faults
from hmtl_ablate.study.pruners import NoPruner, Pruner, parse_pruner
from hmtl_ablate.study.samplers import SAMPLERS
from hmtl_ablate.study.source import Node, StudyFault
from hmtl_ablate.study.space import MAX_GRID, Direction, Parameter, Search, combinations, contains, resolved

FIXED = (
    "task",
    "data.name",
    "data.images",
    "data.seed",
    "data.protocol",
    "data.votes",
    "data.face_crop",
    "data.face_margin",
    "data.frames",
    "data.leave_out",
    "training.supervised",
    "probe.kind",
    "probe.folds",
)
"""Options that define what is measured and on which images: scores at their different values are not comparable."""
_MAX: Direction = "max"
_ATTEMPTS = 2000
"""Combinations that are tried before a value is assumed to be possible."""

Report = Callable[..., None]
"""report(node, what, hint="", at_key=False): notes a fault at a node."""


class _Draft(NamedTuple):
    parameter: Parameter
    node: Node


def read_search(
    node: Node, base: Node, faults: list[StudyFault], arm: str = ""
) -> tuple[Search | None, Callable[[set[str]], None]]:
    """The search that a merged `search` map declares, on its merged base; None after appending faults. arm: the arm
    that it is of, whose space is in the map's.

    Also a function that reports which values of some keys no combination makes possible.
    """
    before = len(faults)

    def report(where: Node, what: str, hint: str = "", at_key: bool = False) -> None:
        faults.append(StudyFault(where.key if at_key else where.place, where.path, what, hint))

    for key, entry in node.entries.items():
        if key not in keys(SearchSection):
            report(entry, f"there is no key {key!r} in search", nearest(key, keys(SearchSection)), at_key=True)
    sampler = _sampler(node, report)
    confirm = _confirm(node, report)
    constraints = _constraints(node, report)
    drafts = _parameters(node, base, report)
    pruner = _pruner(node, report)
    trials, budget = _total(node, report)
    metric, directions = _objectives(node, base, report)
    racing = _racing(node, len(directions) > 1, report)
    space = node.entries.get("space")
    ordered = _check_when(drafts, set(space.entries) if space else set(), report)
    _suits(sampler, drafts, node, len(directions) > 1, report)
    _same_epochs(pruner, drafts, report)

    def check_values(keys: set[str]) -> None:
        _check_values(ordered, keys, base, report)

    if len(faults) > before:
        return None, check_values
    parameters = tuple(draft.parameter for draft in ordered)
    search = Search(
        base=base.plain(),
        parameters=parameters,
        sampler=sampler,
        pruner=pruner,
        trials=trials,
        metric=metric,
        direction=directions[metric],
        confirm=confirm,
        arm=arm,
        racing=racing,
        budget=budget,
        source=_source(node, report),
        constraints=constraints,
        others={name: way for name, way in directions.items() if name != metric},
    )
    starts = node.entries.get("start")
    fitting = tuple(entry.plain() for entry in _items(starts) if entry.is_map and search.fits(entry.plain()))
    search = replace(search, start=fitting)
    if not arm:
        _check_start(starts, search, report)
        if len(faults) > before:
            return None, check_values
    return search, check_values


def _sampler(node: Node, report: Report) -> str:
    entry = node.entries.get("sampler")
    if entry is None:
        return str(default(SearchSection, "sampler"))
    if not isinstance(entry.content, str) or entry.content not in SAMPLERS:
        report(entry, f"there is no sampler {entry.plain()!r}", nearest(entry.plain(), SAMPLERS))
    return str(entry.content)


def _pruner(node: Node, report: Report) -> Pruner:
    entry = node.entries.get("pruner")
    try:
        return parse_pruner(entry.plain() if entry else default(SearchSection, "pruner"))
    except ConfigError as error:
        assert entry is not None  # the default has no fault
        nodes = dict(entry.walk())
        for fault in error.faults:
            where = next(nodes[path] for n in range(len(fault.path), -1, -1) if (path := fault.path[:n]) in nodes)
            report(where, fault.what, fault.hint, at_key=fault.what.startswith("there is no option"))
        return NoPruner()


def _total(node: Node, report: Report) -> tuple[int | None, float | None]:
    """Number of configurations and image passes, one of them at least."""
    trials, budget = node.entries.get("trials"), node.entries.get("budget")
    given = [entry for entry in (trials, budget) if entry is not None and entry.content is not None]
    if not given:
        report(node, "trials is missing", "give the total, e.g. trials: 20, or a budget", at_key=True)
    if trials in given and trials is not None and not accepts(TrialCount, trials.content):
        report(trials, f"should be a whole number above 0, not {trials.plain()!r}", f"use 1 to {MAX_TRIALS}")
        return 1, None
    passes = budget.content if budget is not None and budget in given else None
    if budget is not None and passes is not None and not _positive(passes):
        report(budget, f"should be a number of image passes above 0, not {budget.plain()!r}", "write e.g. 4.0e+6")
        return 1, None
    return trials.content if trials is not None else None, None if passes is None else float(passes)


def _constraints(node: Node, report: Report) -> tuple[Constraint, ...]:
    entry = node.entries.get("constraints")
    if entry is not None and entry.content is not None and not isinstance(entry.content, list):
        report(entry, f"should be a list of comparisons, not {entry.plain()!r}", "write e.g. [training.lr < 0.01]")
    found = []
    for item in _items(entry):
        try:
            one = parse_constraint(item.content if isinstance(item.content, str) else "")
        except ValueError as error:
            report(item, f"{item.plain()!r} {error}", "write e.g. training.warmup_epochs < 0.5 * training.epochs")
            continue
        for name in one.names:
            if fault := key_fault(name):
                report(item, *fault)
        found.append(one)
    return tuple(found)


def _items(node: Node | None) -> list[Node]:
    return node.content if node is not None and isinstance(node.content, list) else []


def _check_start(node: Node | None, search: Search, report: Report) -> None:
    """Refuse a starting point that the search could not draw."""
    if node is not None and node.content is not None and not isinstance(node.content, list):
        report(node, f"should be a list of maps, not {node.plain()!r}", "write e.g. start: [{training.lr: 1.0e-3}]")
    for entry in _items(node):
        if not entry.is_map or not entry.entries:
            report(
                entry, f"should be a map of searched options, not {entry.plain()!r}", "write e.g. {training.lr: 1.0e-3}"
            )
            continue
        known = {parameter.key: parameter for parameter in search.parameters}
        wrong = False
        for key, value in entry.entries.items():
            if key not in known:
                report(value, f"{key!r} is not searched", nearest(key, known), at_key=True)
            elif not known[key].takes(value.plain()):
                report(
                    value, f"{value.plain()!r} is not among the values of {key}", "use one of its range in the space"
                )
            else:
                continue
            wrong = True
        if not wrong and not search.fits(entry.plain()):
            missing = ", ".join(key for key in known if key not in entry.entries)
            report(entry, "is no whole configuration", f"give each option that exists with these values: {missing}")


def _source(node: Node, report: Report) -> str:
    entry = node.entries.get("from")
    if entry is None or entry.content is None:
        return ""
    if not accepts(SearchSection.model_fields["from_"].annotation, entry.content):
        report(entry, f"should be the name of a study, not {entry.plain()!r}", "write e.g. from: puzzling@quick")
    return str(entry.content)


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _confirm(node: Node, report: Report) -> int:
    """How many of the best are confirmed."""
    entry = node.entries.get("confirm")
    if entry is None:
        return int(default(SearchSection, "confirm"))
    if not accepts(SearchSection.model_fields["confirm"].annotation, entry.content):
        report(entry, f"should be true, false or the number of the best, not {entry.plain()!r}", "use 1 to 100")
        return 0
    return int(entry.content)


def _racing(node: Node, several: bool, report: Report) -> int:
    """The most seeds that a configuration can get; several: whether there are several objectives, which nothing races
    for."""
    entry = node.entries.get("racing")
    if entry is None:
        return 1 if several else Racing().seeds
    if entry.content is None:
        return 1
    if several:
        report(entry, "a race ranks configurations by one objective, and there are several", "write racing: null")
        return 1
    if not entry.is_map:
        report(entry, f"should be a map or null, not {entry.plain()!r}", "write e.g. racing: {seeds: 6}")
        return 1
    for fault in model_faults(Racing, entry.plain()):
        where = entry.entries.get(str(fault.path[0])) if fault.path else None
        report(where or entry, fault.what, fault.hint, at_key=fault.what.startswith("there is no "))
    seeds = entry.entries.get("seeds")
    if seeds is not None and (isinstance(seeds.content, str | bool)):
        report(seeds, f"should be a whole number, not {seeds.plain()!r}", "use 2 to 100")
    return seeds.content if seeds is not None and isinstance(seeds.content, int) else Racing().seeds


def _objectives(node: Node, base: Node, report: Report) -> tuple[str, dict[str, Direction]]:
    """The objective that a pruner watches, and all of them with their directions; when left out, what selects the
    weights of the base's task."""
    entry = node.entries.get("objective")
    raw = base.plain()
    measured: Mapping[str, Direction] = {} if config_faults(raw) else parse_config(raw).metrics
    usual = next(((f"val/{name}", way) for name, way in measured.items()), ("val/accuracy", _MAX))
    if entry is None:
        found = dict([usual])
    elif not entry.is_map or not entry.entries:
        report(entry, "should be metrics with their directions", "write e.g. objective: {val/accuracy: max}")
        return usual[0], dict([usual])
    else:
        found = {name: _direction(name, way, measured, report) for name, way in entry.entries.items()}
        if all(name in COSTS for name in found):
            report(entry, "has a cost alone, which training nothing minimizes", "add a metric, e.g. val/accuracy: max")
            return usual[0], dict([usual])
    return _proxy(node, found, report), found


def _direction(metric: str, entry: Node, measured: Mapping[str, Direction], report: Report) -> Direction:
    """The direction of one objective."""
    if metric.startswith("test/"):
        own = metric.replace("test/", "val/")
        hint = f"use {own}" if own in objectives() else nearest(metric, objectives())
        report(entry, f"{metric!r} is of the test split, which a search must not see", hint, at_key=True)
    elif metric not in objectives():
        report(entry, f"there is no objective {metric!r}", nearest(metric, objectives()), at_key=True)
    elif metric in COSTS:
        if entry.content == "max":
            report(entry, f"{metric!r} can only be minimized", "write min")
    elif measured and metric.removeprefix("val/") not in measured:
        known = [f"val/{name}" for name in measured]
        report(entry, f"the search's trials are not measured by {metric!r}", nearest(metric, known), at_key=True)
    if entry.content not in ("max", "min"):
        report(entry, f"{entry.plain()!r} is not a direction", nearest(entry.plain(), ("max", "min")))
    return "min" if entry.content == "min" else "max"


def _proxy(node: Node, found: Mapping[str, Direction], report: Report) -> str:
    """The objective that a pruner watches."""
    metrics = [name for name in found if name not in COSTS]
    entry = node.entries.get("proxy")
    if entry is None or entry.content is None:
        return metrics[0]
    if entry.content not in metrics:
        report(
            entry,
            f"{entry.plain()!r} is no objective that is measured after each epoch",
            nearest(entry.plain(), metrics),
        )
        return metrics[0]
    return str(entry.content)


def _parameters(node: Node, base: Node, report: Report) -> list[_Draft]:
    space = node.entries.get("space")
    if space is None:
        report(node, "space is missing", "write e.g. space: {training.lr: {loguniform: [1e-4, 1e-2]}}", at_key=True)
        return []
    if not space.is_map or not space.entries:
        report(
            space,
            "should be a map of dotted options, at least one",
            "write e.g. space: {training.lr: {loguniform: [1e-4, 1e-2]}}",
        )
        return []
    drafts = []
    for key, entry in space.entries.items():
        if fault := _key_fault(key, base):
            report(entry, *fault, at_key=True)
        elif parameter := _parameter(key, entry, report):
            drafts.append(_Draft(parameter, entry))
    return drafts


def _key_fault(key: str, base: Node) -> tuple[str, str] | None:
    if key == "seed":
        return "the seed can't be searched", "search trials use the first of the study's seeds"
    if fault := key_fault(key):
        return fault
    if key in FIXED:
        return f"{key} can't be searched: scores at its different values are not comparable", "make it variants"
    parts = key.split(".")
    if parts[0] == "pretext" and parts[1] not in tasks(base):
        return f"the search's base has no pretext task {parts[1]!r}", f"write base: {{pretext: {{{parts[1]}: {{}}}}}}"
    return None


def _parameter(key: str, entry: Node, report: Report) -> Parameter | None:
    kinds = [kind for kind in KINDS if kind in entry.entries]
    for name, inner in entry.entries.items():
        if name not in keys(Range):
            report(inner, f"there is no kind of range {name!r}", nearest(name, keys(Range)), at_key=True)
    if len(kinds) != 1:
        if entry.is_map and kinds:
            report(entry, f"has {' and '.join(kinds)}", "keep one")
        elif not entry.is_map or not (set(entry.entries) - (set(keys(Range)) - set(KINDS))):
            report(
                entry,
                "has no values to search",
                "write e.g. {choice: [1, 2]}, {uniform: [0, 1]}, {loguniform: [0.1, 10]} or {int: [1, 4]}",
            )
        return None
    kind = kinds[0]
    when = _when(entry, report)
    if kind == "choice":
        choices = _choices(key, entry.entries[kind], report)
        parameter = Parameter(key, kind, choices=choices, when=when) if choices else None
    else:
        ends = _ends(key, kind, entry.entries[kind], report)
        parameter = Parameter(key, kind, low=ends[0], high=ends[1], when=when) if ends else None
    step = entry.entries.get("step")
    if step is not None:
        span = parameter.high - parameter.low if parameter else math.inf
        if kind != "int":
            report(step, f"only int has a step, not {kind}", at_key=True)
        elif not accepts(Step, step.content) or step.content > span:
            report(step, f"should be a whole number above 0, not {step.plain()!r}", f"use 1 to {span:g}")
        elif parameter:
            parameter = replace(parameter, step=step.content)
    return parameter


def _choices(key: str, node: Node, report: Report) -> tuple[Any, ...]:
    if not isinstance(node.content, list) or not node.content:
        report(node, f"choice should be a list of values, not {node.plain()!r}", "write e.g. {choice: [1, 2]}")
        return ()
    seen: list[Any] = []
    good = True
    for entry in node.content:
        value = entry.content
        faults = [] if isinstance(value, dict | list) else value_faults(key, value)
        if isinstance(value, dict | list):
            report(entry, "a choice is a single value, not a list or map", "make it variants")
        elif faults:
            report(entry, faults[0].what, faults[0].hint)
        elif contains(tuple(seen), value):
            report(entry, f"{value!r} appears twice in the choices")
        else:
            seen.append(value)
            continue
        good = False
    return tuple(seen) if good else ()


def _ends(key: str, kind: str, node: Node, report: Report) -> tuple[float, float] | None:
    entries = node.content
    if not isinstance(entries, list) or len(entries) != 2:
        report(node, f"{kind} should be [low, high], not {node.plain()!r}")
        return None
    good = True
    for entry in entries:
        value = entry.content
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            report(entry, f"should be a number, not {entry.plain()!r}")
        elif kind == "int" and not isinstance(value, int):
            report(entry, f"should be a whole number, not {value!r}", "use uniform for a continuous range")
        elif kind == "loguniform" and value <= 0:
            report(
                entry,
                f"a loguniform range must be above 0, not at {value!r}",
                "use uniform, or a small positive number",
            )
        elif faults := value_faults(key, value):
            report(entry, faults[0].what, faults[0].hint)
        else:
            continue
        good = False
    if not good:
        return None
    low, high = entries[0].content, entries[1].content
    if low >= high:
        report(
            node,
            f"the range [{low!r}, {high!r}] is empty",
            "write the smaller end first" if low > high else f"use {{choice: [{low!r}]}}",
        )
        return None
    if kind != "int" and value_faults(key, low + (high - low) * 0.4142):
        report(node, f"{key} takes whole numbers", f"use {{int: [{low!r}, {high!r}]}}")
        return None
    return low, high


def _when(entry: Node, report: Report) -> dict[str, tuple[Any, ...]]:
    node = entry.entries.get("when")
    if node is None:
        return {}
    if not node.is_map or not node.entries:
        report(
            node,
            f"should be a map of another parameter to its value, not {node.plain()!r}",
            "write e.g. when: {pretext.puzzling.feed: mixed}",
        )
        return {}
    found = {}
    for key, value in node.entries.items():
        listed = value.plain() if isinstance(value.content, list) else [value.plain()]
        if not listed or any(isinstance(item, dict | list) for item in listed):
            report(value, f"should be a value or a list of values, not {value.plain()!r}")
        else:
            found[key] = tuple(listed)
    return found


def _check_when(drafts: list[_Draft], declared: set[str], report: Report) -> list[_Draft]:
    """Refuse conditions that can never hold; the drafts, each after those that its `when` names.

    declared: all keys of the space, also of parameters that are refused for another reason.
    """
    known = {draft.parameter.key: draft for draft in drafts}
    ordered: dict[str, _Draft] = {}
    waiting = list(drafts)
    while ready := [d for d in waiting if all(key in ordered for key in d.parameter.when if key in known)]:
        ordered |= {draft.parameter.key: draft for draft in ready}
        waiting = [draft for draft in waiting if draft.parameter.key not in ordered]
    for parameter, node in waiting:
        report(
            node.entries["when"],
            "can never hold: it depends on itself through "
            + ", ".join(key for key in parameter.when if key in {d.parameter.key for d in waiting}),
            "remove one of the conditions",
        )
    for parameter, node in ordered.values():
        bad = False
        for key, allowed in parameter.when.items():
            where = node.entries["when"].entries[key]
            if (key in known or key not in declared) and (fault := _condition_fault(key, allowed, known)):
                report(where, *fault, at_key=key not in known)
                bad = True
        if not bad and (clash := _clash(parameter, ordered)):
            report(node.entries["when"], f"can never hold: {clash} would need two values at once")
    return list(ordered.values())


def _condition_fault(key: str, allowed: tuple[Any, ...], known: Mapping[str, _Draft]) -> tuple[str, str] | None:
    if key not in known:
        return f"can never hold: {key!r} is not searched", nearest(key, known)
    parent = known[key].parameter
    if parent.values is None:
        return f"can never hold: {key} has a continuous range", "use a parameter with choice or int"
    never = [value for value in allowed if not contains(parent.values, value)]
    if never:
        listed = parent.values if isinstance(parent.values, tuple) else ()
        hint = nearest(never[0], map(str, listed)) if listed else f"use {parent.low:g} to {parent.high:g}"
        return f"can never hold: {key} is never {', '.join(map(repr, never))}", hint
    return None


def _clash(parameter: Parameter, ordered: Mapping[str, _Draft]) -> str:
    """A parameter that would need two values at once for this one to exist; "" when none."""
    needed: dict[str, tuple[Any, ...]] = {}
    open_keys = [parameter]
    while open_keys:
        for key, allowed in open_keys.pop().when.items():
            both = tuple(v for v in allowed if contains(needed[key], v)) if key in needed else allowed
            if not both:
                return key
            needed[key] = both
            if key in ordered:
                open_keys.append(ordered[key].parameter)
    return ""


def _suits(name: str, drafts: list[_Draft], node: Node, several: bool, report: Report) -> None:
    """Refuse what the sampler would silently treat as something else: a space, or several objectives."""
    sampler = SAMPLERS.get(name)
    if sampler is None:
        return
    if several and not sampler.several:
        report(node.entries["sampler"], f"the {name} sampler takes one objective", "use sampler: tpe or nsga2")
    for parameter, entry in drafts:
        if not sampler.continuous and parameter.values is None:
            report(
                entry,
                f"the {name} sampler takes no continuous range, and {parameter.kind} is one",
                "use choice or int, or sampler: random",
            )
        if not sampler.choices and parameter.kind == "choice":
            report(entry, f"the {name} sampler takes numeric ranges only, no choice", "use int, or sampler: tpe")
        if not sampler.conditions and parameter.when:
            report(
                entry.entries["when"],
                f"the {name} sampler takes no conditions: it would draw such a parameter at random",
                "use sampler: tpe",
            )
    if sampler.exhaustive and drafts and all(draft.parameter.values is not None for draft in drafts):
        size = math.prod(len(draft.parameter.values or ()) for draft in drafts)
        if (
            size > MAX_GRID
            and sum(1 for _ in islice(combinations(tuple(draft.parameter for draft in drafts)), MAX_GRID + 1))
            > MAX_GRID
        ):
            report(
                node.entries["space"],
                f"the grid has more than {MAX_GRID} combinations",
                "use fewer values, or sampler: random",
            )


def _same_epochs(pruner: Pruner, drafts: list[_Draft], report: Report) -> None:
    """Refuse a pruner that would compare the end of one trial's schedule with the middle of another's."""
    for parameter, node in drafts:
        if parameter.key == "training.epochs" and pruner.compares:
            report(
                node,
                f"can't be searched with pruner {pruner.name}: it compares trials at the same epoch, where a short one "
                "has finished its cosine and a long one has not",
                "set pruner: none, or fix training.epochs in the search's base",
                at_key=True,
            )


def _check_values(ordered: list[_Draft], keys: set[str], base: Node, report: Report) -> None:
    """Refuse a value that no combination with the other parameters makes possible."""
    raw = base.plain()
    ends = tuple(_ends_only(draft.parameter) for draft in ordered)
    for draft, own in zip(ordered, ends, strict=True):
        for number, value in enumerate(own.choices if own.key in keys else ()):
            narrowed = _narrowed(replace(own, choices=(value,)), ends)
            if faults := _refusals(raw, narrowed):
                listed = draft.node.entries[draft.parameter.kind].content
                report(listed[number], f"no trial can have {own.key} {value!r}: {faults[0]}")


def impossible(search: Search) -> list[Fault]:
    """What is wrong with the first combination, where the options allow none of them."""
    ends = tuple(_ends_only(parameter) for parameter in search.parameters)
    return _refusals(search.base, ends)


def _refusals(raw: Mapping[str, Any], parameters: tuple[Parameter, ...]) -> list[Fault]:
    """What is wrong with the first combination; nothing when one is possible, or when there are too many to try."""
    first: list[Fault] = []
    for number, values in enumerate(combinations(parameters)):
        faults = config_faults(resolved(raw, values))
        if not faults or number >= _ATTEMPTS:
            return []
        first = first or faults
    return first


def _ends_only(parameter: Parameter) -> Parameter:
    if parameter.kind == "choice":
        return parameter
    last = parameter.values[-1] if parameter.values is not None else parameter.high
    return replace(parameter, kind="choice", choices=(parameter.low, last))


def _narrowed(own: Parameter, ends: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    """All parameters: `own` unchanged, those in its conditions narrowed to the values with which it exists."""
    known = {parameter.key: parameter for parameter in ends} | {own.key: own}
    waiting = [own]
    while waiting:
        for key, allowed in waiting.pop().when.items():
            both = tuple(v for v in known[key].choices if contains(allowed, v))
            known[key] = replace(known[key], choices=both or allowed)
            waiting.append(known[key])
    return tuple(known.values())


def searchable() -> list[str]:
    """Dotted keys that a space may have."""
    return [key for key in option_fields() if key not in FIXED]
