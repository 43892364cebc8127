"""What a study will cost: its trials, and what is known of each, summed over arms and in all."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hmtl_ablate.config import TrialConfig, in_percent
from hmtl_ablate.planning.calibration import Calibration
from hmtl_ablate.planning.cost import Counts, Work, search_configs, work_of
from hmtl_ablate.planning.pace import Expected, elapsed, expected, key_of
from hmtl_ablate.planning.power import smallest_difference, spread
from hmtl_ablate.study import Resources, Search, Study
from hmtl_ablate.study.racing import FIRST, REDUCTION

FASTER = 1.1
"""A precision is called faster from this ratio of image passes per second on."""


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
class Place:
    """Where trials will run."""

    engine: str
    device: str
    """Name of the GPU or of the processor."""
    at_once: int
    """Trials at the same time; 0: not even one fits on this machine."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arm:
    """What is left to train of a variant or stage; None where it is not known."""

    name: str
    kind: Literal["variant", "stage", "evaluation"]
    start: int
    """Trials to start."""
    finished: int
    epochs: int
    passes_per_image: int
    image_passes: int | None
    """Of the trials to start; those that another arm is trained with count there."""
    seconds: float | None
    """Sum over the trials to start, each by itself."""
    gpu_hours: float | None
    memory: float | None
    """Peak of one trial's process, MiB."""
    gpu_memory: float | None
    """Peak of one trial on its GPU, MiB."""
    disk: float | None
    """Of the trials to start, MiB."""
    measured: bool
    """Whether seconds are of trials like these; otherwise of trials of the same network, size and precision."""
    smallest_difference: float | None
    """From the baseline that the declared seeds detect with power 0.8 at alpha 0.05, in the unit in which the metric is
    shown (points of a percentage); None before the spread of paired differences is known."""


@dataclass(frozen=True)
class SearchCost:
    """The most, and the least, that a search's trials cost; finished ones are not subtracted."""

    trials: int | None
    """At most; None when a budget of passes alone bounds them, and the images are not counted or a probe makes none."""
    image_passes: tuple[int, int] | None
    """Of all its trials, at the cheapest and at the costliest configuration; pruning makes it less."""
    seconds: tuple[float, float] | None
    confirmation: int
    """Trials that confirm its best configuration, at most."""
    confirmation_passes: int | None
    """Of them, at most."""
    confirmation_seconds: float | None


@dataclass(frozen=True)
class PackNeed:
    """A pack that the study reads."""

    dataset: str
    size: int
    """Side of its images, px."""
    state: Literal["ready", "to build", "missing"]
    disk: float | None
    """MiB."""
    how: str
    """How to get it, "" for one that is there."""


@dataclass(frozen=True)
class Precision:
    """Two precisions of one workload, measured on this machine."""

    network: str
    size: int
    ratio: float
    """Image passes per second with bf16, divided by those with fp32."""
    arms: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What follows from it."""
        what = f"{self.network} at {self.size} px"
        if self.ratio >= FASTER:
            return f"{what}: bf16 is {self.ratio:.1f} times as fast as fp32 here (training.precision: bf16)"
        if self.ratio <= 1 / FASTER:
            return f"{what}: bf16 has {self.ratio:.1f} times the speed of fp32 here: stay with fp32"
        return f"{what}: bf16 and fp32 are equally fast here"


@dataclass(frozen=True)
class Estimate:
    """What a run of a study would do, and what it would cost.

    Sums are None where one of their parts is not known. Those with a search are upper bounds, and lower ones with
    `at_least`.
    """

    study: str
    profile: str
    engine: str
    device: str
    at_once: int
    trials: tuple[PlannedTrial, ...]
    """In the order they would run."""
    arms: tuple[Arm, ...]
    search: SearchCost | None
    start: int
    """Trials to start, without a search's."""
    finished: int
    image_passes: int | None
    seconds: float | None
    """Until the last trial ends."""
    gpu_hours: float | None
    memory: float | None
    """Of all trials that run at once, MiB."""
    gpu_memory: float | None
    """Of one trial on its GPU, MiB."""
    disk: float | None
    """Trials and packs, MiB."""
    at_least: bool
    """Whether more trials may follow, which depend on the results of these: seeds until decided, a path of designs."""
    counted: bool
    """Whether the images were counted in packs; otherwise those of `data.images` were."""
    packs: tuple[PackNeed, ...]
    weights: tuple[str, ...]
    """Initial weights that are not on this machine, and how to get them."""
    precisions: tuple[Precision, ...]
    notes: tuple[str, ...] = field(default=())
    """What else there is to say."""

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """Arms to train whose seconds are not known."""
        return tuple(arm.name for arm in self.arms if arm.start and arm.seconds is None)

    def to_json(self) -> dict[str, Any]:
        """As plain data (docs/running.md); a trial's config is left out."""
        content = asdict(self)
        for trial in content["trials"]:
            del trial["config"]
        return content | {"precisions": [{**asdict(one), "sentence": one.sentence} for one in self.precisions]}


@dataclass(frozen=True)
class _Cost:
    work: Work
    expected: Expected | None


def estimate_of(
    study: Study,
    trials: Sequence[PlannedTrial],
    place: Place,
    calibration: Calibration,
    counts: Callable[[TrialConfig], Counts | None],
    scores: Mapping[str, Mapping[int, float]],
    packs: Sequence[PackNeed] = (),
    weights: Sequence[str] = (),
) -> Estimate:
    """The estimate of a study.

    trials: as a run would start them; counts: the images of a config's splits, None where unknown; scores: variant →
    seed → the study's metric, of finished trials.
    """

    def cost(config: TrialConfig, evaluate_test: bool) -> _Cost | None:
        known = counts(config)
        if known is None:
            return None
        work = work_of(config, known, evaluate_test)
        key = key_of(config, study.resources, place.device, place.at_once)
        return _Cost(work, expected(calibration, key, work))

    tested = {(one.variant, one.seed): cost(one.config, not one.stage) for one in trials}
    once = _once(trials)
    own = [one for one in trials if one.status == "start" and (one.variant, one.seed) in once]
    arms = _arms(study, trials, tested, once, scores)
    search = _sum([_search(study, one, cost) for one in study.searches])
    seconds = _elapsed(study, own, tested, search, place, calibration)
    passes = _total(None if (c := tested[o.variant, o.seed]) is None else c.work.passes for o in own)
    if search is not None:
        parts = (search.image_passes and search.image_passes[1], search.confirmation_passes)
        passes = _total((passes, *parts))
    known = [counts(one.config) for one in trials]
    return Estimate(
        study=study.name,
        profile=study.profile,
        engine=place.engine,
        device=place.device,
        at_once=place.at_once,
        trials=tuple(trials),
        arms=arms,
        search=search,
        start=len(own),
        finished=sum(one.status == "skip" for one in trials),
        image_passes=passes,
        seconds=seconds,
        gpu_hours=_gpu_hours(study.resources, _busy(own, tested, search)),
        memory=_times(max((a.memory for a in arms if a.memory), default=None), max(place.at_once, 1)),
        gpu_memory=max((a.gpu_memory for a in arms if a.gpu_memory), default=None),
        disk=_total((*(a.disk for a in arms if a.start), *(p.disk for p in packs if p.state != "ready"))),
        at_least=study.decide is not None or bool(study.candidates),
        counted=all(one is not None and one.exact for one in known),
        packs=tuple(packs),
        weights=tuple(weights),
        precisions=_precisions(study, trials, place, calibration),
        notes=place.notes,
    )


def _once(trials: Sequence[PlannedTrial]) -> set[tuple[str, int]]:
    """(variant, seed) of the first trial of each config: equal ones are trained once."""
    first: dict[str, tuple[str, int]] = {}
    for one in trials:
        first.setdefault(str(one.config.declared()) + f"/{one.seed}", (one.variant, one.seed))
    return set(first.values())


def _arms(
    study: Study,
    trials: Sequence[PlannedTrial],
    costs: Mapping[tuple[str, int], _Cost | None],
    once: set[tuple[str, int]],
    scores: Mapping[str, Mapping[int, float]],
) -> tuple[Arm, ...]:
    known_spreads = _spreads(study, scores)
    unit = 100.0 if in_percent(study.metric) else 1.0
    found = []
    for variant in (*study.stages, *study.variants):
        own = [one for one in trials if one.variant == variant.name]
        if not own:
            continue
        todo = [o for o in own if o.status == "start" and (o.variant, o.seed) in once]
        known = [costs[one.variant, one.seed] for one in todo]
        times = [None if one is None else one.expected for one in known]
        sd = known_spreads.get(variant.name)
        smallest = None if sd is None else smallest_difference(sd, len(study.seeds))
        config, seconds = own[0].config, _total(None if one is None else one.seconds for one in times)
        found.append(
            Arm(
                name=variant.name,
                kind="stage" if variant.stage else "evaluation" if variant.evaluation else "variant",
                start=len(todo),
                finished=sum(one.status == "skip" for one in own),
                epochs=config.training.epochs,
                passes_per_image=config.passes_per_image,
                image_passes=_total(None if one is None else one.work.passes for one in known),
                seconds=seconds,
                gpu_hours=_gpu_hours(study.resources, seconds),
                memory=max((t.memory for t in times if t is not None and t.memory), default=None),
                gpu_memory=max((t.gpu_memory for t in times if t is not None and t.gpu_memory), default=None),
                disk=_total(None if one is None else one.disk for one in times),
                measured=all(one is not None and one.measured for one in times),
                smallest_difference=None if smallest is None else unit * smallest,
            )
        )
    return tuple(found)


def _spreads(study: Study, scores: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Variant → standard deviation of its paired differences, as far as known, from the first variant of its table:
    an evaluation has a table of its own. Empty where seeds are added until decided, which no fixed number decides."""
    found: dict[str, float] = {}
    for evaluation in dict.fromkeys(variant.evaluation for variant in study.variants if study.decide is None):
        baseline, *others = (one.name for one in study.variants if one.evaluation == evaluation)
        own, pooled = spread({name: scores.get(name, {}) for name in (baseline, *others)}, baseline)
        found |= {name: sd for name in others if (sd := own.get(name, pooled)) is not None}
    return found


def _search(study: Study, search: Search, cost: Callable[[TrialConfig, bool], _Cost | None]) -> SearchCost:
    """Its trials at the cheapest and at the costliest of the configurations that it can draw, and the confirmation of
    the costliest, whose trials look at the test split too."""
    configs = search_configs(search, study.seeds[0])
    costs = [(one, config) for config in configs if (one := cost(config, False)) is not None]
    passes = [one.work.passes for one, _ in costs]
    times = [(one.expected.seconds, one.work.passes) for one, _ in costs if one.expected is not None]
    most = max(costs, key=lambda pair: pair[0].work.passes)[1] if costs else configs[0]
    confirming = [cost(one, True) for one in _confirmed(search, most)]
    seeds = len(study.seeds[1:] or study.seeds)
    runs = _runs(search, min(passes, default=None))
    low, high = runs or (0, None)
    costliest = _most_passes(search, high, max(passes, default=0))
    longest = _longest(search, high, costliest, times)
    return SearchCost(
        trials=high,
        image_passes=(low * min(passes), costliest) if len(passes) == len(configs) else None,
        seconds=(low * min(times)[0], longest) if longest is not None and len(times) == len(configs) else None,
        confirmation=seeds * len(confirming),
        confirmation_passes=_times(_total(None if one is None else one.work.passes for one in confirming), seeds),
        confirmation_seconds=_times(_total(_seconds(one) for one in confirming), seeds),
    )


def _most_passes(search: Search, runs: int | None, most: int) -> int:
    """Image passes of a search at most. runs: how many there are at most; None where only its budget bounds them; most:
    image passes of its costliest run."""
    bounds = [] if runs is None else [runs * most]
    if search.budget is not None and most:  # the last run starts before it is spent
        bounds.append(math.ceil(search.budget) + most)
    return min(bounds, default=0)


def _longest(search: Search, runs: int | None, passes: int, times: Sequence[tuple[float, int]]) -> float | None:
    """Seconds of a search at most, all its runs one after the other; None where neither the number of runs nor their
    passes bound them. passes: image passes at most; times: seconds and image passes of each kind of run."""
    bounds = [] if runs is None else [runs * max((took for took, _ in times), default=0.0)]
    if search.budget is not None and all(each for _, each in times):  # a probe takes time, and makes no pass
        bounds.append(passes * max((took / each for took, each in times), default=0.0))
    return min(bounds, default=None)


def _runs(search: Search, cheapest: int | None) -> tuple[int, int] | None:
    """Training runs of a search, at least and at most; None when only its budget bounds them, and `cheapest` is None
    or 0.

    cheapest: image passes of its cheapest configuration; a probe makes none.
    """
    if search.budget is not None and cheapest:
        most = max(math.ceil(search.budget / cheapest), 1)
        if search.trials is None:
            return 1, most
    elif search.trials is None:
        return None
    else:
        most = sys.maxsize
    trials, first = search.trials, min(FIRST, search.racing)
    further = max(math.ceil(trials / REDUCTION), min(trials, 2)) * (search.racing - first)
    return min(trials * first, most), min(trials * first + further, most)


def _sum(costs: Sequence[SearchCost]) -> SearchCost | None:
    """The cost of the searches of all arms."""
    if not costs:
        return None

    def pair(values: Sequence[tuple[Any, Any] | None]) -> tuple[Any, Any] | None:
        known = [value for value in values if value is not None]
        return (sum(low for low, _ in known), sum(high for _, high in known)) if len(known) == len(values) else None

    return SearchCost(
        trials=_total(one.trials for one in costs),
        image_passes=pair([one.image_passes for one in costs]),
        seconds=pair([one.seconds for one in costs]),
        confirmation=sum(one.confirmation for one in costs),
        confirmation_passes=_total(one.confirmation_passes for one in costs),
        confirmation_seconds=_total(one.confirmation_seconds for one in costs),
    )


def _confirmed(search: Search, best: TrialConfig) -> list[TrialConfig]:
    """What a search's confirmation trains with each seed, by cost (`running.continuing.Confirmation`): its best
    configurations and, without arms, what the best one is compared with: SL with one view, and with as many as it has.
    """
    found = [best] * search.confirm
    if not found or search.arm or not best.pretext or not best.training.supervised:
        return found
    alone = best.replaced({("pretext",): {}, ("loss", "combine"): "sum"})
    views = best.passes_per_image
    return [alone, *([alone.replaced({("data", "views"): views})] if views > best.data.views else []), *found]


def _busy(
    own: Sequence[PlannedTrial], costs: Mapping[tuple[str, int], _Cost | None], search: SearchCost | None
) -> float | None:
    """Seconds of all trials to start, one after the other."""
    arms = _total(_seconds(costs[one.variant, one.seed]) for one in own)
    if search is None:
        return arms
    return _total((arms, search.seconds and search.seconds[1], search.confirmation_seconds))


def _elapsed(
    study: Study,
    own: Sequence[PlannedTrial],
    costs: Mapping[tuple[str, int], _Cost | None],
    search: SearchCost | None,
    place: Place,
    calibration: Calibration,
) -> float | None:
    times = [_seconds(costs[one.variant, one.seed]) for one in own]
    if search is not None:
        trials = search.trials or 1
        times += [search.seconds and search.seconds[1] / trials] * trials
        if search.confirmation:
            each = search.confirmation_seconds
            times += [each and each / search.confirmation] * search.confirmation
    known = [one for one in times if one is not None]
    if len(known) < len(times):
        return None
    launch = calibration.launch.get(launch_name(place.engine, place.device), 0.0) if known else 0.0
    return launch + elapsed(known, place.at_once)


def launch_name(engine: str, device: str) -> str:
    """Name of the seconds that a run's first trials take longer than later ones, in `Calibration.launch`."""
    return f"{engine} on {device}"


def _precisions(
    study: Study, trials: Sequence[PlannedTrial], place: Place, calibration: Calibration
) -> tuple[Precision, ...]:
    """Workloads of which both precisions were measured on this device, by network and size."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for one in trials:
        if one.config.probe.kind != "none":
            continue
        own = key_of(one.config, study.resources, place.device, place.at_once)
        rates = {}
        for precision in ("fp32", "bf16"):
            known = calibration.find(own.model_copy(update={"precision": precision}))
            if known is not None and known[0].train_rate is not None:
                rates[precision] = known[0].train_rate
        if len(rates) == 2:
            network = one.config.model.backbone, one.config.data.size
            found.setdefault(network, {})[one.variant] = rates["bf16"] / rates["fp32"]
    return tuple(
        Precision(network, size, sum(ratios.values()) / len(ratios), tuple(ratios))
        for (network, size), ratios in found.items()
    )


def _seconds(cost: _Cost | None) -> float | None:
    return None if cost is None or cost.expected is None else cost.expected.seconds


def _gpu_hours(resources: Resources, seconds: float | None) -> float | None:
    return None if seconds is None else seconds * resources.gpus * resources.workers / 3600


def _times(value: Any, factor: int) -> Any:
    return None if value is None else value * factor


def _total(values: Iterable[Any]) -> Any:
    """Sum; None where one value is None."""
    found = list(values)
    return None if any(value is None for value in found) else sum(found)
