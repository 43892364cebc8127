"""A study with designs on the local engine, and the rounds of a path: what is trained, with which seeds, and why."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.reporting.results import load_results
from hmtl_ablate.reporting.tables import study_tables
from hmtl_ablate.running.options import RunOptions
from hmtl_ablate.running.path import AblationPath
from hmtl_ablate.running.run import run_study
from hmtl_ablate.running.summary import RunSummary
from hmtl_ablate.study import Study
from hmtl_ablate.tracking import Tracking
from tests.running.conftest import Recorder, StubTrainer, packs_of, read_study  # type: ignore[import-not-found]

STUDY = """\
name: way
base: {data: {images: 64, size: 32}, training: {epochs: 1, warmup_epochs: 0}}
designs:
  way:
    kind: path
    components:
      clip: {training.clip: 1.0}
      views: {data.views: 2}
      fast: {training.lr: 0.01}
seeds: [5, 6, 7]
"""
GAINS = {"clip": 0.1, "views": 0.3, "fast": 0.2}


def curve(config: TrialConfig, epoch: int) -> float:
    """Each component gains its own; with seed 6, which is not for choosing, `fast` gains most."""
    on = {"clip": config.training.clip == 1.0, "views": config.data.views == 2, "fast": config.training.lr == 0.01}
    value = sum(GAINS[name] for name, is_on in on.items() if is_on)
    return value + (0.3 if on["fast"] and config.seed == 6 else 0.0)


def run(study: Study, pack: Pack, store: Path, tracking: Tracking, **given: Any) -> tuple[RunSummary, Recorder]:
    recorder = Recorder()
    trainer = given.pop("trainer", StubTrainer(curve))
    options = RunOptions(engine="local")
    packs = packs_of(study, pack)
    return run_study(
        study, packs=packs, store=store, tracking=tracking, options=options, progress=recorder, trainer=trainer
    ), recorder


ENDS = [f"{name} · seed {seed}" for seed in (5, 6, 7) for name in ("base", "full")]
ROUNDS = [
    *(f"base + {name} · seed 5" for name in ("clip", "views", "fast")),
    *("full − fast · seed 5", "full − clip · seed 5"),
]
STEPS = [f"{name} · seed {seed}" for seed in (6, 7) for name in ("base + views", "full − clip")]


def test_rounds_with_the_first_seed_then_the_steps_with_the_others(
    pack: Pack, store: Path, tracking: Tracking, tmp_path: Path
) -> None:
    study = read_study(tmp_path, STUDY)
    summary, recorder = run(study, pack, store, tracking)
    assert recorder.started == [*ENDS, *ROUNDS, *STEPS]
    assert summary == RunSummary(done=6 + 5 + 4)
    assert recorder.said == [
        "path way: round 1 of 2, seeds 5",
        "path way: round 2 of 2, seeds 5",
        "path way: views, fast, clip; its steps, seeds 6, 7",
    ]
    (record,) = tracking.studies()
    assert record.asked == {
        "base": [5, 6, 7],
        "full": [5, 6, 7],
        "base + clip": [5],
        "base + views": [5, 6, 7],
        "base + fast": [5],
        "full − fast": [5],
        "full − clip": [5, 6, 7],
    }
    assert record.designs["way"]["kind"] == "path"
    assert record.designs["way"]["factors"] == {name: ["on"] for name in GAINS}
    assert len(record.designs["way"]["arms"]) == 8


@pytest.mark.slow
def test_ray_takes_the_same_path(pack: Pack, store: Path, tracking: Tracking, tmp_path: Path) -> None:
    """And a second run, through the other engine, trains nothing."""
    import ray

    from hmtl_ablate.running import ray_engine

    for module in (sys.modules[__name__], sys.modules[StubTrainer.__module__]):
        ray.cloudpickle.register_pickle_by_value(module)  # a worker can't import the tests
    study, recorder = read_study(tmp_path, STUDY), Recorder()
    with ray_engine.joined(None):
        summary = run_study(
            study,
            packs=packs_of(study, pack),
            store=store,
            tracking=tracking,
            progress=recorder,
            options=RunOptions(engine="ray", max_concurrent=2),
            trainer=StubTrainer(curve),
        )
    assert (summary, sorted(recorder.started)) == (RunSummary(done=15), sorted([*ENDS, *ROUNDS, *STEPS]))
    again, said = run(study, pack, store, tracking)
    assert again == RunSummary(skipped=15)
    assert said.said == recorder.said


def test_a_second_run_asks_for_the_same_and_trains_nothing(
    pack: Pack, store: Path, tracking: Tracking, tmp_path: Path
) -> None:
    study = read_study(tmp_path, STUDY)
    run(study, pack, store, tracking)
    (before,) = tracking.studies()
    summary, recorder = run(study, pack, store, tracking)
    assert (summary, recorder.started) == (RunSummary(skipped=15), [])
    (after,) = tracking.studies()
    assert (after.asked, after.variants) == (before.asked, before.variants)


@pytest.mark.parametrize("stop", [len(ENDS) + 4, len(ENDS) + len(ROUNDS) + 1])
def test_a_run_that_is_stopped_resumes_on_the_same_path(
    stop: int, pack: Pack, store: Path, tracking: Tracking, tmp_path: Path
) -> None:
    """Within its second round, and within the estimate."""
    trained: list[int] = []

    def signal_once(config: TrialConfig, epoch: int) -> None:
        trained.append(config.seed)
        if len(trained) == stop:
            os.kill(os.getpid(), signal.SIGINT)

    study, order = read_study(tmp_path, STUDY), [*ENDS, *ROUNDS, *STEPS]
    summary, recorder = run(study, pack, store, tracking, trainer=StubTrainer(curve, signal_once))
    assert (summary.interrupted, recorder.started) == (True, order[:stop])
    summary, recorder = run(study, pack, store, tracking)
    assert (summary, recorder.started) == (
        RunSummary(done=len(order) - stop + 1, skipped=stop - 1),
        order[stop - 1 :],
    )
    assert recorder.said[-1] == "path way: views, fast, clip; its steps, seeds 6, 7"


def test_a_component_whose_trial_failed_is_not_picked(
    pack: Pack, store: Path, tracking: Tracking, tmp_path: Path
) -> None:
    def bad_luck(config: TrialConfig, epoch: int) -> None:
        if config.data.views == 2 and config.training.lr != 0.01:
            raise RuntimeError("boom")

    study = read_study(tmp_path, STUDY)
    summary, recorder = run(study, pack, store, tracking, trainer=StubTrainer(curve, bad_luck))
    assert [name for name, _, _ in summary.failed] == ["base + views · seed 5"]
    assert recorder.said[-1] == "path way: fast, views, clip; its steps, seeds 6, 7"


LOSSES = """\
name: losses
metric: test/loss
base: {data: {images: 64, size: 32}}
designs:
  way: {kind: path, selection: 2, components: {a: {data.views: 2}, b: {training.lr: 0.01}}}
seeds: [5, 6, 7, 8]
"""


def test_the_first_seeds_are_averaged_and_errors_are_better_when_lower(tmp_path: Path) -> None:
    study = read_study(tmp_path, LOSSES)
    path = AblationPath(study, "way")
    scores = {("base + a", 5): 0.1, ("base + a", 6): 0.9, ("base + b", 5): 0.4, ("base + b", 6): 0.4}
    asked: list[str] = []

    def score(variant: Any, seed: int, metric: str) -> float | None:
        asked.append(metric)
        return scores.get((variant.name, seed))

    first = path.more(score)
    assert first is not None
    assert [(variant.name, seed) for variant, seed in first.trials] == [
        *(("base + a", 5), ("base + b", 5)),
        *(("base + a", 6), ("base + b", 6)),
    ]
    second = path.more(score)
    assert second is not None
    assert [(variant.name, seed) for variant, seed in second.trials] == [("base + b", 7), ("base + b", 8)]
    assert path.more(score) is None
    assert set(asked) == {"best/val/loss"}


def test_the_report_walks_the_same_path_and_estimates_it_with_unseen_seeds(
    pack: Pack, store: Path, tracking: Tracking, tmp_path: Path
) -> None:
    """`fast` gains 0.2, and 0.5 with seed 6; the table of the study has the two ends alone."""
    run(read_study(tmp_path, STUDY), pack, store, tracking)
    results = load_results(None, store)
    effects = results.effects()
    assert list(effects["effect"]) == ["1. views", "2. fast", "3. clip", "in all"]
    assert effects["values"].tolist()[1] == {"6": pytest.approx(0.5), "7": pytest.approx(0.2)}
    assert effects["picked"].tolist()[:2] == [pytest.approx(0.3), pytest.approx(0.2)]
    (table,) = study_tables(results)
    assert [row.variant for row in table.rows] == ["base", "full"]
    assert table.notes[0] == "5 arms that only a path trains: see its steps"
    assert table.notes[-1].startswith(
        "Last run, planned: at least 6 trials, 468 image passes, time unknown; actual: 15 "
    )


def test_a_path_through_variants_of_the_study_asks_for_nothing_more(
    pack: Pack, store: Path, tracking: Tracking, tmp_path: Path
) -> None:
    """With both of its components as variants, which have all seeds, there is nothing left to train."""
    text = STUDY.replace("designs:", "variants: {SL: {}, a: {training.clip: 1.0}, b: {data.views: 2}}\ndesigns:")
    study = read_study(tmp_path, text.replace("      fast: {training.lr: 0.01}\n", ""))
    summary, recorder = run(study, pack, store, tracking)
    assert study.candidates == ()
    assert (summary, recorder.said) == (RunSummary(done=12), [])
