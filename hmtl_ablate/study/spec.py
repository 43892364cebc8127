"""A study: one YAML file at one profile, merged, checked and ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmtl_ablate.config import DataConfig, TrialConfig, parse_config, short_hash
from hmtl_ablate.study.controls import Controls
from hmtl_ablate.study.deciding import Comparison
from hmtl_ablate.study.declaration import FIRST_LOOK, Decide, Resources, Verdict
from hmtl_ablate.study.designs import Design
from hmtl_ablate.study.space import Search, combinations, resolved

_PACKED = ("data.size", "data.stored")
"""Options a search may draw that ask for another pack."""


@dataclass(frozen=True)
class Variant:
    """A named arm of an ablation, or a stage: a trial that others start from."""

    name: str
    raw: Mapping[str, Any]
    """The merged data of its TrialConfig, without a seed. Weights of another variant or stage are `trial:NAME`."""
    sources: Mapping[str, Variant] = field(default_factory=dict)
    """The variants and stages whose weights it names, by name."""
    evaluation: str = ""
    """Name of the evaluation that it is one of; "" for a variant of the study itself."""
    stage: bool = False
    """Whether it is a stage, and so in no table."""

    def config(self, seed: int) -> TrialConfig:
        """Its config for one seed."""
        return parse_config({**self.raw, "seed": seed})

    @property
    def key(self) -> str:
        """12 hexadecimal digits over the options that differ from their defaults, without the seed, and over those of
        its sources."""
        declared = self.config(0).declared()
        identity = [declared, {name: source.key for name, source in self.sources.items()}] if self.sources else declared
        return short_hash(identity)


@dataclass(frozen=True)
class Study:
    """A study at one profile. The first variant is the baseline; search trials use the first seed. The arms of designs
    follow the variants of the study itself, then the controls that are added; the evaluations come last; stages are
    trials that others start from."""

    name: str
    profile: str
    question: str
    metric: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    searches: tuple[Search, ...]
    """Its search: one for each of its arms, or one; () without a search."""
    resources: Resources
    text: str
    """The file, as it was read."""
    datasets: Mapping[str, Path | None] = field(default_factory=dict)
    """Every dataset its configs use → its path, None where it is not given."""
    stages: tuple[Variant, ...] = ()
    verdict: Verdict = field(default_factory=Verdict)
    """The rule of the verdict on arms with controls."""
    controls: Mapping[str, Controls] = field(default_factory=dict)
    """Variant that asks for controls → its controls, in the order of the variants."""
    decide: Decide | None = None
    """How seeds are added until all comparisons are decided; `seeds` are then all that there may be. None: every
    variant has every seed."""
    comparisons: tuple[Comparison, ...] = ()
    """What is decided, with `decide`."""
    designs: Mapping[str, Design] = field(default_factory=dict)
    candidates: tuple[Variant, ...] = ()
    """Arms of a path that a run may come by; which ones it trains depends on results."""

    @property
    def first_seeds(self) -> tuple[int, ...]:
        """The seeds that every variant has, whatever the results."""
        return self.seeds if self.decide is None else self.seeds[:FIRST_LOOK]

    @property
    def trainable(self) -> tuple[Variant, ...]:
        """All that a run may train, but for what a search draws."""
        return (*self.stages, *self.variants, *self.candidates)

    @property
    def search(self) -> Search | None:
        """Its search, or that of the first arm."""
        return self.searches[0] if self.searches else None

    def source(self, name: str) -> Variant | None:
        """The stage or variant of this name."""
        return next((one for one in (*self.stages, *self.variants) if one.name == name), None)


def planned(study: Study) -> list[tuple[Variant, int, TrialConfig]]:
    """The variants' trials in the order they run: all variants at the first seed, then at the next, so that a study
    stopped halfway has whole pairs. Of a study with `decide`, those before the first look."""
    return [(variant, seed, variant.config(seed)) for seed in study.first_seeds for variant in study.variants]


def needed(study: Study) -> list[tuple[Variant, int, TrialConfig]]:
    """The trials of `planned`, each after the stages that it starts from."""
    found: dict[tuple[str, int], Variant] = {}

    def add(variant: Variant, seed: int) -> None:
        for source in variant.sources.values():
            add(source, seed)
        found.setdefault((variant.name, seed), variant)

    for variant, seed, _ in planned(study):
        add(variant, seed)
    return [(variant, seed, variant.config(seed)) for (_, seed), variant in found.items()]


def data_configs(study: Study) -> list[DataConfig]:
    """The data of every config that the study may train, each once: variants, and what the search can draw."""
    found = [variant.config(study.seeds[0]).data for variant in study.trainable]
    for search in study.searches:
        sizes = tuple(parameter for parameter in search.parameters if parameter.key in _PACKED)
        for values in combinations(sizes):
            found.append(DataConfig.model_validate(resolved(search.base, values).get("data", {})))
    return list(dict.fromkeys(found))


def missing_data(study: Study) -> list[str]:
    """One line for each dataset without a path; the rendered faces need none."""
    return [
        f"the study {study.name!r} ({study.profile}) needs the dataset {name!r}; give its path, "
        f"--data {name}=PATH, or replace it with another dataset"
        for name, path in study.datasets.items()
        if path is None and name != "rendered"
    ]
