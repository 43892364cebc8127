"""`run --budget`: a clock that the trainer moves, and trials whose length is known."""

from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.machine import this_machine
from hmtl_ablate.planning.calibration import Measurement, read_calibration, record
from hmtl_ablate.planning.cost import counts_in, work_of
from hmtl_ablate.planning.pace import key_of
from hmtl_ablate.running.options import Engine, RunOptions
from hmtl_ablate.running.run import run_study
from hmtl_ablate.running.summary import RunSummary
from hmtl_ablate.study import Study
from hmtl_ablate.tracking import open_tracking
from tests.running.conftest import (  # type: ignore[import-not-found]
    Recorder,
    StubTrainer,
    packs_of,
    read_study,
)

STUDY = """\
name: timed
base: {data: {images: 64, size: 32}, training: {epochs: 2, warmup_epochs: 0}}
variants:
  SL: {}
  rotation: {pretext: {rotation: {feed: shared}}}
  two: {data.views: 2}
seeds: [0, 1, 2]
"""
SECONDS = {"SL": 10.0, "rotation": 10.0, "two": 20.0}
SEARCH = """\
search:
  base: {pretext: {rotation: {feed: shared}}}
  space: {training.lr: {choice: [0.1, 0.2, 0.3]}}
  sampler: grid
  pruner: none
  racing: null
  trials: 3
"""


def name_of(config: TrialConfig) -> str:
    return "rotation" if config.pretext else "two" if config.data.views == 2 else "SL"


class Bench:
    """A store in which the length of each variant's trials is known, and a clock."""

    def __init__(self, study: Study, pack: Pack, store: Path, known: bool = True) -> None:
        self.study, self.pack, self.store, self.now = study, pack, store, 0.0
        for variant in study.variants if known else ():
            config = variant.config(0)
            work = work_of(config, counts_in(pack, config), True)
            rate = (work.passes + work.measured) / SECONDS[variant.name]
            key = key_of(config, study.resources, this_machine().cpu, 1)
            record(store, [Measurement(key=key, train_rate=rate, evaluation_rate=1e12)])

    def run(self, budget: float | None, curve: Any = lambda config, epoch: 0.1 * epoch) -> tuple[RunSummary, list[str]]:
        """One run: its summary, and the trials that it started, e.g. "SL 0"."""

        def train(config: TrialConfig, epoch: int) -> None:
            self.now += SECONDS[name_of(config)] / config.training.epochs

        recorder = Recorder()
        summary = run_study(
            self.study,
            packs=packs_of(self.study, self.pack),
            store=self.store,
            tracking=open_tracking(None, self.store),
            progress=recorder,
            options=RunOptions("local", budget=budget),
            trainer=StubTrainer(curve=curve, before=train),
            clock=lambda: self.now,
        )
        return summary, [name.replace(" · seed", "") for name in recorder.started]


@pytest.fixture
def bench(mlflow_database: Path, pack: Pack, tmp_path: Path) -> Any:
    def make(text: str = STUDY, known: bool = True) -> Bench:
        store = tmp_path / "runs"
        store.mkdir()
        (store / "mlflow.db").write_bytes(mlflow_database.read_bytes())
        return Bench(read_study(tmp_path, text), pack, store, known)

    return make


def test_a_stop_leaves_whole_pairs_and_a_new_budget_resumes(bench: Any) -> None:
    """A seed takes 40 s. Of 55 s the last 15 would do for a baseline alone, which is compared with nothing."""
    made = bench()
    summary, started = made.run(55)
    assert started == ["SL 0", "rotation 0", "two 0"]
    assert (summary.done, summary.interrupted, made.now) == (3, False, 40.0)
    assert summary.left.trials[:2] == ("SL · seed 1", "rotation · seed 1")
    assert (len(summary.left.trials), summary.left.seconds) == (6, pytest.approx(80.0, abs=0.1))
    assert summary.left.sentence == (
        "stopped at the budget of 55 s; left to do: 6 trials, about 1 min 20 s (SL · seed 1, rotation · seed 1, "
        "two · seed 1 and 3 more); run the same command again to resume"
    )
    tracking = open_tracking(None, made.store)
    (study,) = tracking.studies()
    assert tracking.client.get_run(study.run_id).info.status == "KILLED"
    assert study.plan["trials"] == 9
    assert study.plan["seconds"] == pytest.approx(120.0, abs=0.1)
    assert (study.plan["actual"]["trials"], study.plan["actual"]["seconds"]) == (3, 40.0)
    summary, started = made.run(25)
    assert started == ["SL 1", "rotation 1"]
    summary, started = made.run(None)
    assert started == ["two 1", "SL 2", "rotation 2", "two 2"]
    assert (summary.skipped, summary.left) == (5, None)


def test_the_widest_interval_first_where_only_some_arms_fit(bench: Any) -> None:
    """After two seeds "two" differs from SL by 0.1 and 0.5, rotation by 0.2 twice: of the third seed's 30 s the
    baseline and "two" get all, although rotation is declared first."""

    def curve(config: TrialConfig, epoch: int) -> float:
        gains = {"SL": (0.0, 0.0, 0.0), "rotation": (0.2, 0.21, 0.2), "two": (0.1, 0.5, 0.1)}
        return 0.1 + gains[name_of(config)][config.seed]

    summary, started = bench().run(111, curve)
    assert started[6:] == ["SL 2", "two 2"]
    assert summary.left.trials == ("rotation · seed 2",)


def test_trials_of_unknown_length_start_while_time_is_left(bench: Any) -> None:
    summary, started = bench(known=False).run(25)
    assert started == ["SL 0", "rotation 0", "two 0"]  # the last one starts at 20 s
    assert (len(summary.left.trials), summary.left.seconds) == (6, None)
    assert "of unknown length" in summary.left.sentence


def test_a_search_starts_no_trial_that_may_not_fit(bench: Any) -> None:
    made = bench(STUDY.replace("[0, 1, 2]", "[0]") + SEARCH)
    summary, started = made.run(62)
    assert started[:3] == ["SL 0", "rotation 0", "two 0"]
    assert len(started) == 5  # two of its trials, 10 s each
    assert (summary.left.trials, summary.left.searched) == ((), 1)
    assert summary.left.seconds == pytest.approx(10.0, abs=0.1)
    summary, started = made.run(12)
    assert (len(started), summary.left) == (1, None)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_every_engine_stops_at_the_budget_and_resumes(pack: Pack, tmp_path: Path, engine: Engine) -> None:
    """Trials of unknown length: the first one starts, and measures the others. A whole seed is left or trained."""
    study = read_study(tmp_path, STUDY.replace("[0, 1, 2]", "[0, 1]"))
    store = tmp_path / "runs"
    store.mkdir()

    def run(budget: float | None) -> RunSummary:
        options = RunOptions(engine, max_concurrent=1, budget=budget)
        tracking = open_tracking(None, store)
        return run_study(study, packs=packs_of(study, pack), store=store, tracking=tracking, options=options)

    assert run(0.001).left is not None
    assert not list((store / "trials").glob("*/result.json"))
    summary = run(600)
    assert (summary.done, summary.left, summary.failed) == (6, None, [])
    known = read_calibration(store).known.values()
    assert len(known) == 3
    assert all(one.train_rate and one.memory and one.disk for one in known)
