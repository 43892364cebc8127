"""From a study file to a Study: reading, merging, and all that is wrong with it at once.

`load_study` also checks the profiles that were not asked for, since they are in the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hmtl_ablate.config import PRETEXT_OPTIONS, metric_info, model_faults, parse_config
from hmtl_ablate.errors import Fault, nearest, nearest_registered
from hmtl_ablate.study.command import Command, command_node
from hmtl_ablate.study.controls import Controls, Raw, expand
from hmtl_ablate.study.deciding import Comparison, all_seeds, comparisons
from hmtl_ablate.study.declaration import (
    MAX_NAME,
    MAX_SEED,
    RESERVED,
    Decide,
    Evaluation,
    Profile,
    Resources,
    SearchArm,
    Seed,
    StudyFile,
    StudyName,
    VariantKeys,
    Verdict,
    accepts,
    default,
    keys,
    replaced_maps,
    table_metrics,
)
from hmtl_ablate.study.design_reading import Blueprint, DesignReader, place
from hmtl_ablate.study.designs import Cell
from hmtl_ablate.study.mapping import node_of, yaml_of
from hmtl_ablate.study.merge import merge, override, put, tasks
from hmtl_ablate.study.options import config_faults, own_fault
from hmtl_ablate.study.searching import impossible, read_search
from hmtl_ablate.study.source import Node, Place, StudyFault, parse, read_text, refuse
from hmtl_ablate.study.space import Search
from hmtl_ablate.study.spec import Study, Variant

ARROW = " → "
"""Between a variant's name and that of an evaluation of it."""
_TRIAL = re.compile(r"[0-9a-f]{16}")


def load_study(
    source: str | Path | Mapping[str, Any],
    *,
    profile: str = "quick",
    sets: Sequence[str] = (),
    datasets: Sequence[str] = (),
    trials: int | None = None,
    seeds: Sequence[int] | None = None,
) -> Study:
    """Read a study at one profile.

    >>> import hmtl_ablate as ha
    >>> study = ha.load_study({"name": "mine", "variants": {"SL": {}, "SL, 2 views": {"data.views": 2}}}, seeds=[0])
    >>> [variant.name for variant in study.variants]
    ['SL', 'SL, 2 views']

    source: path of a study file, or its content as a mapping, e.g. `{"name": "mine", "variants": {"SL": {}}}`, whose
        YAML is then the study's `text`.
    sets: `key=value` each, the value in YAML; they come last, over every variant, profile and the search's base. A
        searched option that is set is no longer searched.
    datasets: `name=path` each, or a name alone; one that the study does not use replaces those that it does.
    trials, seeds: replace the study's.

    Raises `StudyError` with all that is wrong, one line per fault: `FILE:LINE:COLUMN: KEY: …`, or `study: KEY: …` for a
    mapping.
    """
    if isinstance(source, Mapping):
        shown, root = "the study", node_of(source)
        text = yaml_of(root)
    else:
        shown = str(source)
        text = read_text(Path(source), shown)
        root = parse(text, shown)
    faults: list[StudyFault] = []
    command = Command(sets, datasets, trials, seeds, faults)
    if root.content is None:
        raise refuse([StudyFault(root.place, (), "the file is empty", "a study starts with name: and base:")])
    if not root.is_map:
        raise refuse(
            [StudyFault(root.place, (), f"a study is a map, not {_kind(root)}", "it starts with name: and base:")]
        )
    _check_keys(root, keys(StudyFile), "a study", faults)
    profiles = _map(root.entries.get("profiles"), faults)
    for part in profiles.values():
        _check_keys(part, keys(Profile), "a profile", faults)
        _map(part, faults)
    if profile not in profiles and (profiles or profile != "quick"):
        faults.append(
            StudyFault(
                Place(f"--profile {profile}"),
                (),
                f"{shown} has no profile {profile!r}",
                nearest(profile, profiles or ["quick"]),
            )
        )
    study = _Reader(root, profiles.get(profile), profile, command, faults).study(text)
    for name, part in profiles.items():
        if name != profile:
            _Reader(root, part, name, Command((), (), None, None, faults), faults).study(text)
    if faults or study is None:
        raise refuse(faults)
    return study


def _without(node: Node | None, others: Iterable[str]) -> Node | None:
    """A variant, stage or evaluation without the keys that are not a TrialConfig's."""
    if node is None or not node.is_map:
        return node
    left = {key: value for key, value in node.entries.items() if key not in (*keys(VariantKeys), *others)}
    return replace(node, content=left)


def _kind(node: Node) -> str:
    return "a list" if isinstance(node.content, list) else f"the value {node.plain()!r}"


def _map(node: Node | None, faults: list[StudyFault]) -> dict[str, Node]:
    """The entries of what should be a map; null is an empty one."""
    if node is not None and not node.is_map and node.content is not None:
        faults.append(StudyFault(node.place, node.path, f"should be a map, not {_kind(node)}"))
    return node.entries if node else {}


def _check_keys(node: Node, known: Sequence[str], owner: str, faults: list[StudyFault]) -> None:
    faults += [
        StudyFault(entry.key, entry.path, f"there is no key {key!r} in {owner}", nearest(key, known))
        for key, entry in node.entries.items()
        if key not in known
    ]


class _Reader:
    """Reads one profile of a file; every fault goes to faults."""

    def __init__(self, root: Node, part: Node | None, profile: str, command: Command, faults: list[StudyFault]) -> None:
        self.root, self.profile, self.command, self.faults = root, profile, command, faults
        self.part = part if part is not None and part.is_map else Node({}, root.place, root.place)
        self.seen: set[tuple[Place, Any, Any]] = set()

    def study(self, text: str) -> Study | None:
        before = len(self.faults)
        base = self._base()
        variants = {name: [*base, *steps] for name, steps in self._named("variants", base[-1]).items()}
        stages = {name: [*base, *steps] for name, steps in self._named("stages", base[-1]).items()}
        seeds = self._seeds()
        blueprints = self._designs(base, variants, seeds)
        self._refuse_controls()
        for name in stages.keys() & variants.keys():
            self._fault(self._entry("stages", name), f"{name!r} is also a variant", "choose another name", at_key=True)
        evaluated = self._evaluations(base, stages | variants, variants)
        search_map = self._section("search")
        if search_map is not None and search_map.content is None:
            search_map = None
        bases = self._search_bases(base, search_map)
        arms = variants | {name: steps for name, (steps, _) in evaluated.items()}
        cells = [steps for one in blueprints for steps in one.arms.values()]
        configs = [*stages.values(), *arms.values(), *cells, *bases.values()]
        used = self._command(configs)
        for steps in (*stages.values(), *arms.values(), *cells):
            self._check_config(steps)
        searches = self._searches(search_map, bases) if search_map is not None else ()
        designs = [owner.entries.get("designs") for owner in (self.root, self.part)]
        if not variants and search_map is None and not any(one and one.entries for one in designs):
            self._fault(self.root, "there is nothing to run", "add variants, designs or a search")
        name, question, metric = self._text("name"), self._text("question"), self._text("metric")
        self._check_name(name)
        if metric and metric not in table_metrics():
            self._fault(self._found("metric"), f"there is no metric {metric!r}", nearest(metric, table_metrics()))
        resources, verdict, decide = self._resources(), self._verdict(), self._decide()
        if decide is not None:
            seeds = self._until_decided(decide, seeds)
        if len(self.faults) == before:
            numbered = {f"design {number}": steps for number, steps in enumerate(cells)}
            self._check_weights({**stages, **arms, **numbered}, list(bases.values()), {*stages, *variants})
            self._check_search_seeds(searches, seeds)
        if len(self.faults) > before:
            return None
        raws: dict[str, Raw] = {name: steps[-1].plain() for name, steps in (stages | arms).items()}
        made: dict[str, Mapping[Cell, Raw]] = {
            one.name: {cell: steps[-1].plain() for cell, steps in one.arms.items()} for one in blueprints
        }
        designed, possible, placed = place(blueprints, made, {name: raws[name] for name in variants}, raws, self.faults)
        raws |= designed | possible
        asked = {name: node for name in variants if (node := self._asked(name))}
        own = {name: raws[name] for name in (*variants, *designed)}
        added, controls = expand(asked, own, raws, self.faults)
        raws |= added
        known: dict[str, Variant] = {}
        for one in raws:
            self._variant(one, raws, known, stages, {name: evaluation for name, (_, evaluation) in evaluated.items()})
        order = (*variants, *designed, *added, *evaluated)
        metric = metric or self._metric(tuple(known[one] for one in order), searches)
        self._check_metric(metric, tuple(known[one] for one in order))
        compared = self._comparisons(decide, metric, tuple(variants), controls) if decide else ()
        if len(self.faults) > before:
            return None
        return Study(
            name=name,
            profile=self.profile,
            question=question,
            metric=metric,
            variants=tuple(known[one] for one in order),
            stages=tuple(known[one] for one in stages),
            seeds=seeds,
            searches=searches,
            resources=resources,
            text=text,
            datasets={name: self.command.datasets.get(name) for name in used},
            verdict=verdict,
            controls=controls,
            decide=decide,
            comparisons=compared,
            designs=placed,
            candidates=tuple(known[one] for one in possible),
        )

    def _designs(self, base: list[Node], variants: Mapping[str, list[Node]], seeds: Sequence[int]) -> list[Blueprint]:
        """The designs that nothing is wrong with; their configs are not checked yet."""
        own = _map(self.root.entries.get("designs"), self.faults)
        over = _map(self.part.entries.get("designs"), self.faults)
        reader = DesignReader(base, variants, seeds, self.faults)
        found = [reader.blueprint(name, own.get(name), over.get(name)) for name in {**own, **over}]
        return [one for one in found if one is not None]

    def _asked(self, variant: str) -> Node | None:
        """The key `controls` of a variant, the profile's or else the file's."""
        found = [_map(owner.entries.get("variants"), []).get(variant) for owner in (self.part, self.root)]
        return next((node.entries["controls"] for node in found if node and "controls" in node.entries), None)

    def _refuse_controls(self) -> None:
        """Refuse controls of what is no variant."""
        for section in ("stages", "evaluations"):
            for owner in (self.root, self.part):
                for entry in _map(owner.entries.get(section), []).values():
                    if node := entry.entries.get("controls"):
                        self._fault(node, "only variants have controls", "write it in a variant", at_key=True)

    def _entry(self, section: str, name: str) -> Node:
        """A named entry of a section, of the profile or else of the file."""
        for owner in (self.part, self.root):
            found = owner.entries.get(section)
            if found is not None and name in found.entries:
                return found.entries[name]
        return self.root

    def _evaluations(
        self, base: list[Node], owners: Mapping[str, list[Node]], variants: Mapping[str, list[Node]]
    ) -> dict[str, tuple[list[Node], str]]:
        """Each evaluation of each variant (or of those that its `of` names), as the configs of one more variant."""
        own = _map(self.root.entries.get("evaluations"), self.faults)
        over = _map(self.part.entries.get("evaluations"), self.faults)
        found: dict[str, tuple[list[Node], str]] = {}
        for name in {**own, **over}:
            entry = self._entry("evaluations", name)
            if fault := _variant_name_fault(name):
                self._fault(entry, *fault, at_key=True)
            for owner in self._evaluated([own.get(name), over.get(name)], owners, variants):
                merged = [_without(node, keys(Evaluation)) for node in (own.get(name), over.get(name))]
                steps = self._steps(base[-1], [self._handed(entry, owner, owners[owner][-1]), *merged])
                found[f"{owner}{ARROW}{name}"] = [*base, *steps], name
        return found

    def _evaluated(self, nodes: list[Node | None], owners: Mapping[str, Any], variants: Mapping[str, Any]) -> list[str]:
        listed = next((node.entries["of"] for node in reversed(nodes) if node and "of" in node.entries), None)
        if listed is None:
            return list(variants)
        if not isinstance(listed.content, list) or not listed.content:
            self._fault(
                listed, f"should be a list of variants or stages, not {listed.plain()!r}", "write e.g. of: [SL]"
            )
            return []
        found = []
        for item in listed.content:
            if isinstance(item.content, str) and item.content in owners:
                found.append(item.content)
            else:
                self._fault(item, f"there is no variant or stage {item.plain()!r}", nearest(item.plain(), owners))
        return found

    def _handed(self, entry: Node, owner: str, config: Node) -> Node:
        """What an evaluation takes from the trial that it looks at: the model, and its weights."""
        model = config.entries.get("model")
        weights = replace(entry, content=f"trial:{owner}")
        own = {key: node for key, node in model.entries.items() if key in ("backbone", "pose_head")} if model else {}
        return replace(
            entry,
            content={
                "model": replace(entry, content={**own, "weights": weights}),
                "pretext": replace(entry, content={}),
            },
        )

    def _check_weights(self, arms: Mapping[str, list[Node]], bases: list[list[Node]], names: set[str]) -> None:
        """Refuse weights of a trial that the study does not have, and trials that wait for one another."""
        needs: dict[str, set[str]] = {}
        for owner, steps in (*arms.items(), *(("", steps) for steps in bases)):
            needs.setdefault(owner, set())
            nodes = {path: node for path, node in steps[-1].walk() if path}
            for path, source in parse_config(steps[-1].plain()).weight_sources.items():
                name = source.removeprefix("trial:")
                if not source.startswith("trial:"):
                    continue
                if name in names:
                    needs[owner].add(name)
                elif not _TRIAL.fullmatch(name):
                    self._fault(
                        nodes.get(path, self.root),
                        f"there is no stage or variant {name!r}, nor is it a trial_id",
                        nearest(name, names),
                    )
        while ready := [owner for owner, below in needs.items() if not below & needs.keys()]:
            for owner in ready:
                del needs[owner]
        for owner in sorted(needs):
            self._fault(
                self._entry(
                    "variants" if owner in (self.root.entries.get("variants") or self.root).entries else "stages", owner
                ),
                f"{owner!r} depends on its own weights, through " + ", ".join(sorted(needs[owner])),
                "start one of them from other weights",
                at_key=True,
            )

    def _variant(
        self,
        name: str,
        arms: Mapping[str, Raw],
        known: dict[str, Variant],
        stages: Mapping[str, Any],
        evaluations: Mapping[str, str],
    ) -> Variant:
        """The variant or stage of this name, with its sources; each is made once."""
        if name not in known:
            raw = arms[name]
            named = {source.removeprefix("trial:") for source in parse_config(raw).weight_sources.values()}
            sources = {one: self._variant(one, arms, known, stages, evaluations) for one in sorted(named & arms.keys())}
            known[name] = Variant(name, raw, sources, evaluations.get(name, ""), name in stages)
        return known[name]

    def _metric(self, variants: tuple[Variant, ...], searches: tuple[Search, ...]) -> str:
        """The metric that selects the weights of the first variant that has one."""
        configs = [variant.config(0) for variant in variants]
        configs += [parse_config(dict(search.base)) for search in searches]
        return next((f"test/{next(iter(config.metrics))}" for config in configs if config.metrics), table_metrics()[0])

    def _check_metric(self, metric: str, variants: tuple[Variant, ...]) -> None:
        own = metric.removeprefix("test/").removeprefix("best/val/")
        for variant in variants:
            measured = variant.config(0).metrics
            if measured and own not in measured:
                self._fault(
                    self._found("metric"), f"{variant.name!r} is not measured by {metric}", nearest(own, measured)
                )
                return

    def _fault(self, node: Node, what: str, hint: str = "", at_key: bool = False) -> None:
        self.faults.append(StudyFault(node.key if at_key else node.place, node.path, what, hint))

    def _section(self, key: str) -> Node | None:
        """A key of the study: the file's, the profile's over it, the command's over both."""
        own, over = self.root.entries.get(key), self.part.entries.get(key)
        node = merge(own, over, replaced_maps() if key == "search" else ()) if own and over else over or own
        for name, value in self.command.keys:
            first, *rest = name.split(".")
            if name == key == "search" and value.content is not None:
                self._fault(
                    value, "a search can't be set as a whole", "set its keys, e.g. search.trials=8, or search=null"
                )
            elif rest and first == key == "search" and (node is None or node.content is None):
                self._fault(value, "the study has no search")
            elif first == key:
                if rest[:1] == ["space"] and len(rest) > 2:
                    rest = ["space", ".".join(rest[1:])]
                if rest[:1] == ["arms"]:
                    self._fault(
                        value, "the arms of a search can't be set", "set an option of all arms, or edit the file"
                    )
                elif rest[:1] != ["base"]:
                    node = put(node or replace(value, content={}), rest, value, self.faults)
        return node

    def _found(self, key: str) -> Node:
        return self._section(key) or self.root

    def _text(self, key: str) -> str:
        node = self._section(key)
        if node is None or node.content is None:
            return ""
        if not isinstance(node.content, str):
            self._fault(node, f"should be text, not {node.plain()!r}", "put it in quotes")
            return "" if key == "metric" else "text"
        return node.content

    def _check_name(self, name: str) -> None:
        if not name:
            self._fault(self._found("name"), "the study has no name", "write e.g. name: puzzling")
        elif not accepts(StudyName, name):
            self._fault(
                self._found("name"),
                f"{name!r} is not a valid study name",
                "use up to 64 letters, digits, - and _, the first a letter or digit",
            )

    def _seeds(self) -> tuple[int, ...]:
        node = self._section("seeds")
        if node is None:
            return tuple(default(StudyFile, "seeds"))
        if not isinstance(node.content, list) or not node.content:
            self._fault(node, f"should be a list of whole numbers, not {node.plain()!r}", "write e.g. seeds: [0, 1, 2]")
            return ()
        seen: list[int] = []
        for entry in node.content:
            seed = entry.content
            if not accepts(Seed, seed):
                self._fault(
                    entry, f"should be a whole number, 0 or more, not {entry.plain()!r}", f"use 0 to {MAX_SEED}"
                )
                continue
            if seed in seen:
                self._fault(entry, f"the seed {seed} appears twice", "each seed is one repetition")
            seen.append(seed)
        return tuple(seen)

    def _resources(self) -> Resources:
        node = self._section("resources")
        if node is None or node.content is None:
            return Resources()
        _map(node, self.faults)
        if not node.is_map:
            return Resources()
        raw = self._numbers(Resources, node)
        gpus = node.entries.get("gpus")
        if raw is not None and gpus and isinstance(gpus.content, float) and gpus.content > 1 and gpus.content % 1:
            self._fault(
                gpus, f"{gpus.content:g} GPUs can't be assigned", "use a whole number, or a share of one below 1"
            )
        resources = Resources() if raw is None else Resources.model_validate(raw)
        if gpus and 0 < resources.gpus < 1 < resources.workers:  # NCCL, which joins them, wants a GPU for each
            self._fault(
                gpus,
                f"{resources.workers} workers can't have {resources.gpus:g} of a GPU each",
                "use a whole number, or workers: 1",
            )
        return resources

    def _verdict(self) -> Verdict:
        node = self.root.entries.get("verdict")
        if not _map(node, self.faults) or node is None:
            return Verdict()
        raw = self._numbers(Verdict, node)
        return Verdict() if raw is None else Verdict.model_validate(raw)

    def _decide(self) -> Decide | None:
        """How seeds are added; an empty map takes the defaults, null is none."""
        node = self.root.entries.get("decide")
        if node is None or node.content is None:
            return None
        _map(node, self.faults)
        raw = self._numbers(Decide, node) if node.is_map else {}
        for key, why in (
            ("verdict", "decide has a smallest and an alpha of its own, by which verdicts are given too"),
            ("search", "a search has no comparison that seeds could decide"),
            ("evaluations", "evaluations have no comparison that seeds could decide"),
            ("designs", "the effects of a design are no comparison that seeds could decide"),
        ):
            found = self.root.entries.get(key) or self.part.entries.get(key)
            if found is not None and found.content is not None:
                self._fault(found, why, "remove it, or decide", at_key=True)
        return None if raw is None else Decide.model_validate(raw)

    def _until_decided(self, decide: Decide, listed: tuple[int, ...]) -> tuple[int, ...]:
        """All seeds that comparisons may use."""
        seeds = all_seeds(listed, decide.seeds)
        if len(listed) > decide.seeds:
            what = f"{len(listed)} seeds are listed, and decide.seeds allows {decide.seeds}"
            self._fault(self._found("seeds"), what, "list fewer, or allow more before the study begins")
        elif not accepts(Seed, seeds[-1]):
            what = f"there are not {decide.seeds - len(listed)} more seeds above {max(listed)}"
            self._fault(self._found("seeds"), what, f"use smaller ones; the largest is {MAX_SEED}")
        return seeds

    def _comparisons(
        self, decide: Decide, metric: str, own: tuple[str, ...], controls: Mapping[str, Controls]
    ) -> tuple[Comparison, ...]:
        """What a study with `decide` decides."""
        node = self.root.entries["decide"]
        found = comparisons(own, controls)
        if not found:
            self._fault(node, "there is nothing to decide between", "add a second variant", at_key=True)
        if not metric_info(metric).unit and not decide.changed("smallest"):
            what = f"{metric} has no unit that smallest: {decide.smallest:g} could be in"
            self._fault(node, what, "state a smallest of its own", at_key=True)
        return found

    def _numbers(self, model: type[BaseModel], node: Node) -> dict[str, Any] | None:
        """The data of a section whose values are numbers, true or false; None when it does not fit its model."""
        raw: dict[str, Any] = node.plain()
        faults = model_faults(model, raw)
        for fault in faults:
            self._fault_in(node, fault)
        for key, entry in node.entries.items():
            if faults or key not in model.model_fields:
                continue
            if model.model_fields[key].annotation is bool:
                if not isinstance(entry.content, bool):
                    self._fault(entry, f"should be true or false, not {entry.plain()!r}")
            elif isinstance(entry.content, str | bool):
                self._fault(entry, f"should be a number, not {entry.plain()!r}")
        return None if faults else raw

    def _fault_in(self, node: Node, fault: Fault) -> None:
        entry = node.entries.get(str(fault.path[0])) if fault.path else None
        self._fault(entry or node, fault.what, fault.hint, at_key=_at_key(fault))

    def _base(self) -> list[Node]:
        """The base's configs: nothing, the file's, the profile's on top; later configs build on the last."""
        return self._steps(
            Node({}, self.root.place, self.root.place), [self.root.entries.get("base"), self.part.entries.get("base")]
        )

    def _steps(self, config: Node, changes: Iterable[Node | None]) -> list[Node]:
        steps = []
        for change in changes:
            if change is not None and _map(change, self.faults):
                config = override(config, change, self.faults)
            steps.append(config)
        return steps

    def _named(self, section: str, base: Node) -> dict[str, list[Node]]:
        """Variants or stages: the steps from the base to each one's config."""
        own = _map(self.root.entries.get(section), self.faults)
        over = _map(self.part.entries.get(section), self.faults)
        for name, node in [*own.items(), *over.items()]:
            if fault := _variant_name_fault(name):
                self._fault(node, *fault, at_key=True)
        return {
            name: self._steps(base, [_without(node, ()) for node in (own.get(name), over.get(name))])
            for name in {**own, **over}
        }

    def _search_base(self, base: Node) -> list[Node]:
        found = [
            section.entries.get("base") for owner in (self.root, self.part) if (section := owner.entries.get("search"))
        ]
        steps = self._steps(base, found)
        for name, value in self.command.keys:
            first, *rest = name.split(".")
            if first == "search" and rest[:1] == ["base"]:
                change = replace(value, content={".".join(rest[1:]): value}) if rest[1:] else value
                steps += self._steps(steps[-1] if steps else base, [change])
        return steps

    def _search_bases(self, base: list[Node], section: Node | None) -> dict[str, list[Node]]:
        """The steps to the config from which each arm's trials start; of a search without arms, under ""."""
        if section is None:
            return {}
        steps = [*base, *self._search_base(base[-1])]
        arms = self._arms(section)
        changes: dict[str, list[Node | None]] = {name: [] for name in arms}
        for owner in (self.root, self.part):
            declared = _map(_below(owner, "search", "arms"), [])
            for name, entry in declared.items():
                if name in changes:
                    changes[name].append(_below(entry, "base"))
        return {name: [*steps, *self._steps(steps[-1], found)] for name, found in changes.items()} or {"": steps}

    def _arms(self, section: Node) -> dict[str, Node]:
        """Arm → its map in the merged `search`."""
        arms = _map(section.entries.get("arms"), self.faults)
        for name, node in arms.items():
            if fault := _variant_name_fault(name):
                self._fault(node, *fault, at_key=True)
            _map(node, self.faults)
            _check_keys(node, keys(SearchArm), "an arm of a search", self.faults)
        return arms

    def _searches(self, section: Node, bases: Mapping[str, list[Node]]) -> tuple[Search, ...]:
        """The search of each arm; () after a fault."""
        arms = _map(section.entries.get("arms"), [])
        if not arms:
            one = self._search(section, bases[""])
            return () if one is None else (one,)
        left = {key: node for key, node in section.entries.items() if key not in ("arms", "space")}
        shared = _map(section.entries.get("space"), self.faults)
        found = []
        for name, arm in arms.items():
            own = _map(_below(arm, "space"), self.faults)
            space = replace(_below(arm, "space") or section.entries.get("space") or arm, content={**shared, **own})
            content = left | ({"space": space} if shared or own else {})
            found.append(self._search(replace(arm, content=content), bases[name], name))
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            return ()
        starts = _below(section, "start")
        for entry in starts.content if starts is not None and isinstance(starts.content, list) else []:
            if not entry.is_map or not any(one.fits(entry.plain()) for one in known):
                self._fault(
                    entry, "fits the space of no arm", "give each searched option of an arm a value of its range"
                )
        return tuple(known)

    def _check_search_seeds(self, searches: tuple[Search, ...], seeds: tuple[int, ...]) -> None:
        for search in searches[:1]:
            if max(seeds) + search.racing - 1 > MAX_SEED:
                self._fault(self._found("seeds"), "above the largest seed there is no room for those of the search")

    def _command(self, configs: list[list[Node]]) -> list[str]:
        """Add what the command line changes to every config, as a last step; the names of the datasets in use."""
        replaced = self._replaced_dataset({_dataset(steps[-1]) for steps in configs})
        for steps in configs:
            config = steps[-1]
            if replaced is not None:
                config = put(config, ["data", "name"], replaced, self.faults)
                data = config.entries["data"]
                if data.is_map and replaced.content != "rendered":
                    others = {key: node for key, node in data.entries.items() if key != "images"}
                    config = put(config, ["data"], replace(data, content=others), self.faults)
            for key, node in self.command.options:
                config = override(config, replace(node, content={key: node}), self.faults, only_present=True)
            steps.append(config)
        for key, node in self.command.options:
            task = key.split(".")[1] if key.startswith("pretext.") else ""
            if task and not any(task in tasks(steps[-1]) for steps in configs):
                known = {name for steps in configs for name in tasks(steps[-1])}
                self._fault(
                    node,
                    f"no variant has the pretext task {task!r}",
                    nearest(task, known) if task in PRETEXT_OPTIONS else nearest_registered(task, PRETEXT_OPTIONS),
                )
        return list(dict.fromkeys(_dataset(steps[-1]) for steps in configs))

    def _replaced_dataset(self, used: set[str]) -> Node | None:
        named = self.command.datasets
        foreign = [name for name in named if name not in used]
        if foreign and len(used) > 1:
            self.faults.append(
                StudyFault(
                    Place(f"--data {foreign[0]}"),
                    (),
                    f"the study uses {', '.join(sorted(used))}: {foreign[0]!r} can't replace several",
                    nearest(foreign[0], used),
                )
            )
            return None
        if len(named) > 1 and foreign:
            self.faults.append(
                StudyFault(
                    Place(f"--data {foreign[0]}"),
                    (),
                    f"the study uses {', '.join(sorted(used))}; only one other dataset can replace it",
                    "keep one --data",
                )
            )
        return command_node(f"--data {foreign[0]}", foreign[0], ("data", "name")) if foreign else None

    def _search(self, node: Node, steps: list[Node], arm: str = "") -> Search | None:
        if not node.is_map:
            _map(node, self.faults)
            return None
        space = node.entries.get("space")
        fixed = {key: value for key, value in self.command.options if space and key in space.entries}
        if space and fixed:
            entries = {**space.entries, **{key: _fixed(space.entries[key], value) for key, value in fixed.items()}}
            node = put(node, ["space"], replace(space, content=entries), self.faults)
        search, check_values = read_search(node, steps[-1], self.faults, arm)
        # How values go together, a drawn value can still fix; a value that is invalid by itself, it can't.
        own = [fault for fault in config_faults(steps[-1].plain()) if own_fault(fault)]
        if search is None or own:
            self._check_config(steps, own)
            return None
        faults = impossible(search)
        concerned = {".".join(map(str, fault.path)) for fault in faults} & set(search.keys)
        if faults and not concerned:
            self._check_config(steps, faults)
        else:
            check_values(concerned or set(search.keys))
        return search

    def _check_config(self, steps: list[Node], faults: list[Fault] | None = None) -> None:
        """Note a config's faults at the nodes that caused them; each step builds on the one before it."""
        config = steps[-1]
        if faults is None:
            faults = config_faults(config.plain())
        if not faults:
            return
        nodes = {path: node for path, node in config.walk() if path}
        earlier = [{(fault.path, fault.what) for fault in config_faults(step.plain())} for step in steps]
        for fault in faults:
            first = next((n for n, found in enumerate(earlier) if (fault.path, fault.what) in found), len(steps) - 1)
            before = {(node.place, node.path) for _, node in steps[first - 1].walk()} if first else set()
            path, node = _offender(fault, nodes, before)
            if (node.place, node.path, fault.path) in self.seen:
                continue
            self.seen.add((node.place, node.path, fault.path))
            what = fault.what if path == fault.path else f"{'.'.join(map(str, fault.path))}: {fault.what}"
            self._fault(node, what, fault.hint, at_key=_at_key(fault))


def _offender(
    fault: Fault, nodes: Mapping[tuple[str | int, ...], Node], before: set[tuple[Place, tuple[str | int, ...]]]
) -> tuple[tuple[str | int, ...], Node]:
    """The node to point at: the faulty one, or, where it stood before the fault did, the newer one that concerns it."""
    exact = nodes.get(fault.path)
    if exact is not None and (exact.place, exact.path) not in before:
        return fault.path, exact
    newer = {
        path: node for path, node in nodes.items() if (node.place, node.path) not in before and not node.is_map
    } or nodes

    def concerns(path: tuple[str | int, ...]) -> tuple[bool, int]:
        common = next(
            (n for n, pair in enumerate(zip(path, fault.path, strict=False)) if pair[0] != pair[1]),
            min(len(path), len(fault.path)),
        )
        return ".".join(map(str, path)) in fault.what, common

    best = max(newer, key=concerns)
    return best, newer[best]


def _below(node: Node | None, *path: str) -> Node | None:
    """The node under these keys, or None."""
    for key in path:
        node = node.entries.get(key) if node is not None else None
    return node


def _at_key(fault: Fault) -> bool:
    """Is the key the offender, not its value?"""
    return fault.what.startswith("there is no ") or fault.path == ("seed",)


def _fixed(entry: Node, value: Node) -> Node:
    """A parameter of one value: what `--set` makes of a searched option."""
    when = {"when": entry.entries["when"]} if "when" in entry.entries else {}
    return replace(value, content={"choice": replace(value, content=[value]), **when})


def _dataset(config: Node) -> str:
    data = config.entries.get("data")
    name = data.entries.get("name") if data else None
    return name.content if name and isinstance(name.content, str) else "rendered"


def _variant_name_fault(name: str) -> tuple[str, str] | None:
    if not name.strip():
        return "a variant needs a name", "write e.g. SL"
    if not name.isprintable():
        return f"{name!r} has characters that can't be printed", "use one line of text"
    if len(name) > MAX_NAME:
        return f"a name of {len(name)} characters is too long for a table", f"use at most {MAX_NAME}"
    if name.strip().lower().partition(",")[0] in RESERVED:
        return f"{name!r} is a name that results use for the search", "use another"
    return None
