"""What every engine must do: one suite over all of them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hmtl_ablate.config import DataConfig, TrialConfig
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.running.options import Engine, RunOptions
from hmtl_ablate.running.run import run_study
from hmtl_ablate.running.summary import RunSummary
from hmtl_ablate.running.task import Trainer
from hmtl_ablate.running.trainer import train_task
from hmtl_ablate.study import Study
from hmtl_ablate.tracking import open_tracking
from hmtl_ablate.training.folder import TrialFolder
from tests.running.conftest import (  # type: ignore[import-not-found]
    Recorder,
    StubTrainer,
    packs_of,
    read_study,
    trial_runs,
)

STUDY = """\
name: everything
base: {data: {images: 64, size: 32}, training: {epochs: 4, warmup_epochs: 0}}
stages:
  first: {training.supervised: false, pretext: {rotation: {}}}
variants:
  SL: {}
  pre-trained: {model.weights: "trial:first"}
  unlucky: {training.lr: 0.5}
seeds: [0, 1]
search:
  base: {pretext: {puzzling: {feed: shared}}}
  space: {pretext.puzzling.weight: {choice: [4.0, 0.5, 5.0]}}
  sampler: grid
  pruner: {name: successive_halving, grace_epochs: 1}
  trials: 3
  racing: null
  confirm: true
"""
UNLUCKY = [f"unlucky · seed {seed}" for seed in (0, 1)]
ORDER = [
    *("SL · seed 0", "first · seed 0", "pre-trained · seed 0", "unlucky · seed 0"),
    *("SL · seed 1", "first · seed 1", "pre-trained · seed 1", "unlucky · seed 1"),
    *(f"search {{'puzzling': {{'weight': {weight}, 'feed': 'shared'}}}}" for weight in (4.0, 0.5, 5.0)),
    "best of search · seed 1",
]


def curve(config: TrialConfig, epoch: int) -> float:
    """The higher the weight of puzzling, the better."""
    return 0.05 * epoch * (config.pretext["puzzling"].weight if "puzzling" in config.pretext else 1.0)


def bad_luck(config: TrialConfig, epoch: int) -> None:
    if config.training.lr == 0.5 and epoch == 2:
        raise RuntimeError("boom")


@dataclass(frozen=True)
class Signal:
    """Sends this process, the driver, a signal in the second epoch of every trial but SL's with seed 0."""

    driver: int
    number: int = signal.SIGINT

    def __call__(self, config: TrialConfig, epoch: int) -> None:
        if epoch == 2 and config.seed:
            os.kill(self.driver, self.number)
            time.sleep(0.5)  # the handler runs in the driver


@dataclass
class Run:
    """One run of a study, and what it left behind."""

    summary: RunSummary
    recorder: Recorder
    store: Path
    logs: list[str]
    """failure.txt of each failed trial: the next run removes it."""

    @property
    def folders(self) -> dict[str, TrialFolder]:
        return {path.name: TrialFolder(path) for path in sorted((self.store / "trials").iterdir())}


@dataclass
class Harness:
    """Runs studies on one engine."""

    engine: Engine
    pack: Pack

    def run(self, study: Study, store: Path, trainer: Trainer) -> Run:
        recorder = Recorder()
        summary = run_study(
            study,
            packs=packs_of(study, self.pack),
            store=store,
            tracking=open_tracking(None, store),
            progress=recorder,
            options=RunOptions(engine=self.engine, max_concurrent=1),
            trainer=trainer,
        )
        return Run(summary, recorder, store, [log.read_text() for _, _, log in summary.failed])


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def harness(request: pytest.FixtureRequest, pack: Pack) -> Iterator[Harness]:
    """Ray starts once for all of the tests."""
    if request.param == "local":
        yield Harness("local", pack)
        return
    import ray

    from hmtl_ablate.running import ray_engine

    for module in (sys.modules[__name__], sys.modules[StubTrainer.__module__]):
        ray.cloudpickle.register_pickle_by_value(module)  # a worker can't import the tests
    with ray_engine.joined(None):
        yield Harness("ray", pack)


def new_store(folder: Path, mlflow_database: Path) -> Path:
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    return folder


@pytest.fixture(scope="module")
def runs(harness: Harness, mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run, Run]:
    """The study of everything: with bad luck, again with more luck, and once more."""
    folder = tmp_path_factory.mktemp(harness.engine)
    study, store = read_study(folder, STUDY), new_store(folder / "runs", mlflow_database)
    first = harness.run(study, store, StubTrainer(curve, bad_luck))
    return first, harness.run(study, store, StubTrainer(curve)), harness.run(study, store, StubTrainer(curve))


def test_order_of_trials_with_stages_before_their_users(runs: tuple[Run, Run, Run]) -> None:
    assert runs[0].recorder.started == ORDER


def test_every_epoch_is_heard_in_order(runs: tuple[Run, Run, Run]) -> None:
    heard = [number for name, number in runs[0].recorder.epochs if name == "pre-trained · seed 1"]
    assert heard == [1, 2, 3, 4]


def test_the_pruner_stops_a_bad_trial_of_the_search_alone(runs: tuple[Run, Run, Run]) -> None:
    pruned = [name for name, status in runs[0].recorder.ended if status == "pruned"]
    assert pruned == ["search {'puzzling': {'weight': 0.5, 'feed': 'shared'}}"]
    (result,) = (r for f in runs[0].folders.values() if (r := f.result()) is not None and r.status == "pruned")
    assert result.epochs == 1
    assert runs[0].summary.pruned == 1


def test_one_failed_trial_stops_no_other_and_is_in_the_summary(runs: tuple[Run, Run, Run]) -> None:
    summary = runs[0].summary
    assert [(name, reason) for name, reason, _ in summary.failed] == [(name, "RuntimeError: boom") for name in UNLUCKY]
    assert all(log.startswith("code: RuntimeError: boom\n\nTraceback") for log in runs[0].logs)
    assert (summary.done, summary.skipped, summary.interrupted) == (9, 1, False)
    assert [name for name, status in runs[0].recorder.ended if status == "failed"] == UNLUCKY


def test_the_next_run_tries_failed_trials_again_from_where_they_were_and_no_other(runs: tuple[Run, Run, Run]) -> None:
    assert runs[1].recorder.started == UNLUCKY
    assert [number for name, number in runs[1].recorder.epochs if name == UNLUCKY[0]] == [2, 3, 4]
    assert (runs[1].summary.done, runs[1].summary.failed) == (2, [])
    assert (runs[2].recorder.started, runs[2].summary.done) == ([], 0)


def test_the_winner_is_confirmed_once_with_the_unseen_seed(runs: tuple[Run, Run, Run]) -> None:
    assert any(line.endswith("with seeds 1") for line in runs[0].recorder.said)
    own = [run for run in trial_runs(runs[2].store) if run.data.tags["hmtl.variant"].startswith("best of search")]
    assert {(run.data.tags["hmtl.variant"], run.data.tags["hmtl.seed"]) for run in own} == {
        ("best of search", "1"),
        ("best of search, SL alone", "1"),
    }
    (winner,) = (run for run in own if run.data.tags["hmtl.variant"] == "best of search")
    assert winner.data.metrics["test/accuracy"] == pytest.approx(0.05 * 4 * 5.0)


def test_mlflow_has_every_trial_as_it_ended(runs: tuple[Run, Run, Run]) -> None:
    runs_of = trial_runs(runs[2].store)
    ended = sorted((run.data.tags["hmtl.variant"], run.data.tags["hmtl.status"]) for run in runs_of)
    assert ended == sorted(
        [(name, "finished") for name in ("SL", "first", "pre-trained", "unlucky") for _ in range(2)]
        + [("search", "finished"), ("search", "finished"), ("search", "pruned")]
        + [("best of search", "finished"), ("best of search, SL alone", "finished")]
    )


def test_a_signal_stops_the_run_and_the_next_one_resumes(
    harness: Harness, mlflow_database: Path, tmp_path: Path
) -> None:
    text = STUDY[: STUDY.index("search:")].replace('  pre-trained: {model.weights: "trial:first"}\n', "")
    study, store = read_study(tmp_path, text), new_store(tmp_path / "runs", mlflow_database)
    before = signal.getsignal(signal.SIGINT)
    stopped = harness.run(study, store, StubTrainer(curve, Signal(os.getpid())))
    assert signal.getsignal(signal.SIGINT) == before
    assert stopped.summary.interrupted
    assert stopped.recorder.started == ["SL · seed 0", "unlucky · seed 0", "SL · seed 1"]
    assert stopped.recorder.ended[-1] == ("SL · seed 1", "interrupted")
    assert (stopped.summary.done, stopped.summary.failed) == (2, [])
    resumed = harness.run(study, store, StubTrainer(curve))
    assert resumed.recorder.started == ["SL · seed 1", "unlucky · seed 1"]
    assert resumed.recorder.epochs[:3] == [("SL · seed 1", number) for number in (2, 3, 4)]
    assert (resumed.summary.done, resumed.summary.skipped, resumed.summary.interrupted) == (2, 2, False)


DECIDED = """\
name: decided
decide: {smallest: 0.5, seeds: 5}
base: {data: {images: 64, size: 32}, training: {epochs: 1, warmup_epochs: 0}}
variants:
  SL: {}
  clear: {training.lr: 0.5}
  vague: {training.lr: 0.25}
seeds: [3]
"""


def noisy(config: TrialConfig, epoch: int) -> float:
    """`clear` is better by 0.5 ± 0.01 at every seed, so four seeds decide it; `vague` differs by 0.3 either way."""
    noise = (0.01 if config.seed % 2 else -0.01) if config.training.lr == 0.5 else 0.0
    apart = {0.5: 0.5 + noise, 0.25: 0.3 if config.seed % 2 else -0.3}
    return 0.4 + apart.get(config.training.lr, 0.0)


def test_seeds_are_added_to_open_comparisons_alone_and_a_stopped_run_adds_the_same(
    harness: Harness, mlflow_database: Path, tmp_path: Path
) -> None:
    study, store = read_study(tmp_path, DECIDED), new_store(tmp_path / "runs", mlflow_database)
    first = [f"{name} · seed {seed}" for seed in (3, 4, 5, 6) for name in ("SL", "clear", "vague")]
    then = ["SL · seed 7", "vague · seed 7"]
    stopped = harness.run(study, store, StubTrainer(noisy, SignalAt(os.getpid(), 7)))
    assert stopped.summary.interrupted
    assert stopped.recorder.started == [*first, then[0]]
    resumed = harness.run(study, store, StubTrainer(noisy))
    assert resumed.recorder.started == then
    assert resumed.recorder.said[-1] == "seed 7: after 4 seeds, 1 of 2 comparisons are open (vague − SL)"
    (record,) = open_tracking(None, store).studies()
    assert record.asked == {"SL": [3, 4, 5, 6, 7], "clear": [3, 4, 5, 6], "vague": [3, 4, 5, 6, 7]}


@dataclass(frozen=True)
class SignalAt:
    """Sends the driver SIGINT before the epoch of a trial with this seed."""

    driver: int
    seed: int

    def __call__(self, config: TrialConfig, epoch: int) -> None:
        if config.seed == self.seed:
            os.kill(self.driver, signal.SIGINT)
            time.sleep(0.5)  # the handler runs in the driver


@dataclass(frozen=True)
class Death:
    """Kills the process that trains SL in its third epoch, if it is not the driver's, as often as asked."""

    driver: int
    counter: Path
    times: int

    def __call__(self, config: TrialConfig, epoch: int) -> None:
        if os.getpid() != self.driver and config.training.lr != 0.5 and epoch == 3:
            before = len(self.counter.read_text()) if self.counter.exists() else 0
            if before < self.times:
                self.counter.write_text("x" * (before + 1))
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("harness", [pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize("times", [2, 3])
def test_a_worker_that_dies_resumes_twice_and_then_fails_alone(
    harness: Harness, mlflow_database: Path, tmp_path: Path, times: int
) -> None:
    """fault C1, C8: SIGKILL of an actor is a fault of the machine: the same run resumes its trial, from its epoch."""
    text = STUDY[: STUDY.index("search:")].replace('  pre-trained: {model.weights: "trial:first"}\n', "")
    study = read_study(tmp_path, text.replace("[0, 1]", "[0]"))
    death = Death(os.getpid(), tmp_path / "deaths", times)
    run = harness.run(study, new_store(tmp_path / "runs", mlflow_database), StubTrainer(curve, death))
    name, reason = "SL · seed 0", "the process that trained it was killed by a signal, or crashed"
    ends = [status for trial, status in run.recorder.ended if trial == name]
    assert ends == ["interrupted", "interrupted", "finished" if times == 2 else "failed"]
    assert run.recorder.ended[-1] == ("unlucky · seed 0", "finished")
    heard = [number for trial, number in run.recorder.epochs if trial == name]
    assert heard == ([1, 2, 3, 4] if times == 2 else [1, 2])
    again = [line for line in run.recorder.warned if "resumes from its last checkpoint" in line]
    assert [line.startswith(f"{name}: {reason}; it resumes") for line in again] == [True, True]
    assert [why for _, why, _ in run.summary.failed] == ([] if times == 2 else [reason])
    assert all("\n" not in line for line in run.recorder.warned)
    if times == 3:
        assert run.logs[0].startswith(f"crashed: {reason}\n")
        assert "ActorDiedError" in run.logs[0]
    tags = {run.data.tags["hmtl.variant"]: run.data.tags["hmtl.ending"] for run in trial_runs(run.store)}
    assert tags == {"SL": "finished" if times == 2 else "crashed", "unlucky": "finished"}


TRAINED = """\
name: trained
base:
  data: {images: 96, size: 32}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 2, warmup_epochs: 0}
variants:
  SL: {}
  SL + puzzling: {pretext: {puzzling: {feed: siamese}}}
seeds: [0]
"""


@pytest.mark.slow
def test_both_engines_leave_equal_folders_and_runs(mlflow_database: Path, tmp_path: Path) -> None:
    """The same study, trained for real: same ids, numbers, predictions and MLflow runs."""
    study = read_study(tmp_path, TRAINED)
    pack = open_pack(DataConfig(images=96, size=32), None, tmp_path)
    local, ray = (
        Harness(engine, pack).run(study, new_store(tmp_path / engine, mlflow_database), train_task)
        for engine in ("local", "ray")
    )
    assert local.summary == ray.summary == RunSummary(done=2)
    assert local.folders.keys() == ray.folders.keys()
    for name, mine in local.folders.items():
        other = ray.folders[name]
        assert json.loads((mine.path / "config.json").read_text()) == json.loads(
            (other.path / "config.json").read_text()
        )
        assert [_timeless(row) for row in mine.history()] == [_timeless(row) for row in other.history()]
        with np.load(mine.path / "predictions.npz") as left, np.load(other.path / "predictions.npz") as right:
            assert left.files == right.files
            for key in left.files:
                np.testing.assert_array_equal(left[key], right[key])
        (result, again) = (folder.result() for folder in (mine, other))
        assert result is not None
        assert again is not None
        # the history has seconds, too, and a Ray actor holds other libraries
        timed: Any = {"seconds": True, "files": {"metrics.jsonl"}, "tags": {"memory_mib"}}
        assert result.model_dump(exclude=timed) == again.model_dump(exclude=timed)
    assert _records(local.store) == _records(ray.store)


def _timeless(row: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}


def _records(store: Path) -> dict[str, tuple[dict[str, str], dict[str, str], dict[str, float]]]:
    """MLflow runs by variant: tags, parameters, metrics; without ids and times."""
    own = ("mlflow.parentRunId", "mlflow.user", "mlflow.source.name", "mlflow.runName", "hmtl.memory_mib")
    return {
        run.data.tags["hmtl.variant"]: (
            {key: value for key, value in run.data.tags.items() if key not in own},
            run.data.params,
            _timeless(run.data.metrics),
        )
        for run in trial_runs(store)
    }
