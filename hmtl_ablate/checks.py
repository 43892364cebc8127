"""The checks before a run, shared by the command line and the Python API.

Each check raises an HmtlError that says what is wrong, where, and what to do. Heavy imports wait inside the check that
needs them: planning a study imports no torch.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hmtl_ablate.config import NUMERICS_VERSION, TrialConfig, parse_config, trial_id
from hmtl_ablate.errors import ConfigError, DataError, HmtlError, StoreError
from hmtl_ablate.study import Study, combinations, data_configs, missing_data, needed, resolved
from hmtl_ablate.training.folder import TrialFolder

if TYPE_CHECKING:
    from hmtl_ablate.data.pack import Pack
    from hmtl_ablate.running.conductor import Packs
    from hmtl_ablate.tracking import Tracking

NETWORK_OPTIONS = ("model.backbone", "pretext.inpainting.perceptual")
"""Options that a search may draw and that name a network."""

PackProgress = Callable[[int, int, str], None]
"""Called while a pack is built with the rows done, their total, and a few words on the current step."""


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a study, and whether a run would start it."""

    variant: str
    """Name of the variant or stage."""
    seed: int
    stage: bool
    """Whether it is a stage: a trial that others start from."""
    status: Literal["start", "skip"]
    """start: a run would train it; skip: the store has it finished."""
    trial_id: str
    """Id of the finished trial; "" for one to start, whose id also depends on the content of the data."""
    config: TrialConfig


@dataclass(frozen=True)
class Prepared:
    """What a run needs and the checks have opened."""

    store: Path
    packs: Packs
    tracking: Tracking


def import_modules(names: Iterable[str]) -> None:
    """Import the modules that register a lab's own backbones, tasks or datasets; the working folder is searched first.

    Raises HmtlError for a module that can't be imported.
    """
    sys.path.insert(0, os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise HmtlError(f"--import {name}: {error}; name a module that Python finds from here") from error


def require_data(study: Study) -> None:
    """Raise DataError unless every dataset of the study has a path, or needs none."""
    missing = missing_data(study)
    if missing:
        raise DataError("\n".join(missing))


def open_store(store: Path) -> Path:
    """Create the store if it does not exist; raises StoreError when it can't be written."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=store):
            pass
    except OSError as error:
        raise StoreError(f"--runs {store}: can't be written: {error.strerror}; choose a folder that can") from error
    return store


def configs_of(study: Study) -> list[TrialConfig]:
    """One config for each stage, variant, and network that the search may draw: all that names weights or a network."""
    configs = [variant.config(0) for variant in (*study.stages, *study.variants)]
    if study.search is not None:
        networks = tuple(parameter for parameter in study.search.parameters if parameter.key in NETWORK_OPTIONS)
        for values in combinations(networks):
            with suppress(ConfigError):  # valid only in combination with other drawn values
                configs.append(parse_config(resolved(study.search.base, values)))
    return configs


def check_networks(configs: Iterable[TrialConfig]) -> None:
    """Check that every network exists and that its initial weights can be found.

    Raises ConfigError for an unknown network and CheckpointError for weights that can't be read.
    """
    from hmtl_ablate.weights import check_network, check_source

    sources = set()
    for config in configs:
        check_network(config.model.backbone, ("model", "backbone"))
        perceptual = {name: getattr(options, "perceptual", None) for name, options in config.pretext.items()}
        for name, network in perceptual.items():
            if network is not None:
                check_network(network, ("pretext", name, "perceptual"))
        trial_id(config, "")  # reads files of weights, and raises CheckpointError for a missing one
        for path, source in config.weight_sources.items():
            sources.add((config.model.backbone if path[0] == "model" else perceptual[path[1]] or "", source))
    for network, source in sorted(sources):
        check_source(network, source)


def open_packs(study: Study, store: Path, progress: PackProgress | None = None) -> Packs:
    """Open, and build where missing, the pack of every config that the study may train.

    Raises DataError for what is wrong with the data.
    """
    from hmtl_ablate.data.pack import open_pack
    from hmtl_ablate.running.conductor import Packs

    opened: dict[tuple[str, str], Pack] = {}
    for data in data_configs(study):
        if Packs.key(data) not in opened:
            opened[Packs.key(data)] = open_pack(data, study.datasets.get(data.name), store, progress)
    return Packs(opened)


def check_labels(config: TrialConfig, pack: Pack) -> None:
    """Raise DataError unless the pack has the labels, classes and subjects that a trial of this config needs."""
    from hmtl_ablate.data.splits import folds, labels_of, present, split

    if config.probe.folds:
        rows = present(labels_of(pack, config.data, config.tasks[0])[0]).nonzero()[0]
        folds(pack, rows, config.probe.folds, config.data.seed)
    else:
        split(pack, config.data, config.tasks, unlabelled=not config.training.supervised)


def check_objective(config: TrialConfig, pack: Pack, metric: str) -> None:
    """Raise DataError when no image of val has a label for the task that a search's objective measures."""
    from hmtl_ablate.data.splits import labels_of, present, split

    task, name = config.tasks[0], metric.removeprefix("val/")
    if len(config.tasks) > 1:
        task = name.partition("/")[0]
    if task in config.tasks and name in config.metrics:
        rows = split(pack, config.data, config.tasks, unlabelled=not config.training.supervised).val
        if not present(labels_of(pack, config.data, task)[0])[rows].any():
            raise DataError(
                f"search.objective {metric}: no image of val in dataset {pack.manifest.name!r} has a label for {task}; "
                "search by a task that val has labels for"
            )


def prepare(study: Study, store: Path, tracking_uri: str | None, progress: PackProgress | None = None) -> Prepared:
    """Everything that can be wrong before a trial starts, cheapest check first.

    tracking_uri: MLflow's store; None is the SQLite file in `store`. Raises HmtlError.
    """
    require_data(study)
    open_store(store)
    check_networks(configs_of(study))
    from hmtl_ablate.tracking import open_tracking

    if progress is not None:
        progress(0, 0, "opening the tracking store")
    tracking = open_tracking(tracking_uri, store)
    packs = open_packs(study, store, progress)
    for variant in (*study.stages, *study.variants):
        config = variant.config(study.seeds[0])
        check_labels(config, packs.of(config))
    if study.search is not None:
        with suppress(ConfigError):  # a base that is valid only with drawn values
            config = parse_config({**study.search.base, "seed": study.seeds[0]})
            check_labels(config, packs.of(config))
            check_objective(config, packs.of(config), study.search.metric)
    return Prepared(store, packs, tracking)


def finished_trials(store: Path) -> dict[str, TrialConfig]:
    """Id → config of the store's finished trials, without those that this version would train differently.

    Left out, too: trials with a damaged file, and those of a task or dataset that only an `--import` registers.
    """
    found = {}
    for path in sorted((store / "trials").glob("*/result.json")):
        folder = TrialFolder(path.parent)
        result = folder.sound_result()
        if result is not None and result.status == "finished" and result.tags.get("numerics") == str(NUMERICS_VERSION):
            with suppress(StoreError, ConfigError):
                found[path.parent.name] = folder.config()
    return found


def finished_as(study: Study, config: TrialConfig, finished: dict[str, TrialConfig]) -> str:
    """The id of a finished trial with this config, or "". The content of the data is not compared."""
    own = {}
    for path, source in config.weight_sources.items():
        variant = study.source(source.removeprefix("trial:")) if source.startswith("trial:") else None
        if variant is not None:
            own[path] = f"trial:{finished_as(study, variant.config(config.seed), finished) or 'none'}"
    named = config.replaced(own)
    return next((identity for identity, other in finished.items() if other == named), "")


def planned_trials(study: Study, store: Path) -> list[PlannedTrial]:
    """The trials of the variants and stages in the order they would run; a search draws its own while it runs."""
    finished = finished_trials(store)
    trials = []
    for variant, seed, config in needed(study):
        known = finished_as(study, config, finished)
        trials.append(PlannedTrial(variant.name, seed, variant.stage, "skip" if known else "start", known, config))
    return trials
