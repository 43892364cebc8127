"""The conductor without any engine: what it hands out, and what it writes to MLflow and Optuna."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from hmtl_ablate.config import parse_config
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import RunLost, TrackingError
from hmtl_ablate.reporting.results import load_results
from hmtl_ablate.reporting.tables import study_tables
from hmtl_ablate.running.conductor import Conductor
from hmtl_ablate.running.continuing import continuations
from hmtl_ablate.running.drivers import Drivers
from hmtl_ablate.running.failures import RETRIED, Ending, Failure, failure_of
from hmtl_ablate.running.job import Job
from hmtl_ablate.running.optuna_search import OptunaSearch
from hmtl_ablate.running.racing import Racer
from hmtl_ablate.running.resolver import Resolver
from hmtl_ablate.running.search_database import PAUSE
from hmtl_ablate.running.task import PRUNE
from hmtl_ablate.study import Study
from hmtl_ablate.study.racing import search_seeds
from hmtl_ablate.tracking import StudyRecord, Tracking, open_tracking
from hmtl_ablate.tracking.records import text_hash
from hmtl_ablate.training.folder import TrialFolder
from tests.running.conftest import (  # type: ignore[import-not-found]
    Recorder,
    StubTrainer,
    packs_of,
    read_study,
    trial_runs,
    write_result,
)

BASE = "base: {data: {images: 64, size: 32}, training: {epochs: 3, warmup_epochs: 0}}\n"
PLAIN = f"name: plain\n{BASE}variants: {{SL: {{}}, two views: {{data.views: 2}}}}\nseeds: [0, 1]\n"
STAGED = f"""\
name: staged
{BASE}stages: {{first: {{training.supervised: false, pretext: {{rotation: {{}}}}}}}}
variants: {{pre-trained: {{model.weights: "trial:first"}}}}
seeds: [0]
"""
SEARCH = f"""\
name: searched
{BASE}VARIANTS
seeds: [0, 1]
search:
  base: {{pretext: {{puzzling: {{feed: shared}}}}}}
  space: {{pretext.puzzling.weight: {{choice: [2.0, 3.0, 4.0]}}}}
  sampler: grid
  pruner: {{name: successive_halving, grace_epochs: 1}}
  trials: 3
  racing: null
  confirm: CONFIRM
"""


def searched(variants: str = "", confirm: str = "false") -> str:
    return SEARCH.replace("VARIANTS", variants).replace("CONFIRM", confirm)


class Bench:
    """A study whose conductor is made anew for each run; Optuna's storage and MLflow outlive it."""

    def __init__(self, study: Study, pack: Pack, store: Path, tracking: Tracking) -> None:
        self.study, self.packs, self.store, self.tracking = study, packs_of(study, pack), store, tracking
        self.storage = optuna.storages.InMemoryStorage()
        self.recorder = Recorder()

    def conductor(self, pictures: bool = True, drivers: Drivers | None = None) -> Conductor:
        self.recorder, searches, drivers = Recorder(), [], drivers or Drivers()
        identify = Resolver(self.study, self.packs).identify
        for search in self.study.searches:
            seeds = search_seeds(self.study.seeds, search.racing)
            with drivers.turn():
                one = OptunaSearch(search, "prefix", seeds, self.storage, identify, {}, drivers.id, drivers.offset)
                searches.append(Racer(one, self.store, drivers))
        return Conductor(
            self.study, self.packs, self.store, self.tracking, searches, self.recorder, pictures, drivers=drivers
        )

    def optuna_trials(self) -> list[optuna.trial.FrozenTrial]:
        (summary,) = optuna.get_all_study_summaries(self.storage)
        return optuna.load_study(study_name=summary.study_name, storage=self.storage).get_trials()

    def runs(self) -> dict[tuple[str, str], Any]:
        """(variant, seed) → its MLflow run."""
        runs = trial_runs(self.store, self.study.name)
        found = {(run.data.tags["hmtl.variant"], run.data.tags["hmtl.seed"]): run for run in runs}
        assert len(found) == len(runs) or self.study.search is not None
        return found


@pytest.fixture(scope="module")
def shared(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tracking]:
    """One MLflow store for this module; every test has a trials folder of its own."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    return folder, open_tracking(None, folder)


@pytest.fixture
def bench(shared: tuple[Path, Tracking], pack: Pack, tmp_path: Path, request: pytest.FixtureRequest):
    """Bench of a study file's text."""

    def make(text: str) -> Bench:
        name = f"{request.node.name[:60]}".replace("[", "-").replace("]", "")
        study = read_study(tmp_path, text.replace(text.split("\n")[0], f"name: {name}", 1))
        made = Bench(study, pack, tmp_path / "runs", shared[1])
        made.store.mkdir()
        made.store.joinpath("mlflow.db").symlink_to(shared[0] / "mlflow.db")
        return made

    return make


def train(conductor: Conductor, job: Job, trainer: StubTrainer = StubTrainer()) -> None:
    """Train a job with the conductor listening, and end it."""
    trainer(conductor.task(job, Path("no-stop")), lambda row: conductor.epoch(job, int(row["epoch"])))
    conductor.end(job)


def take(conductor: Conductor) -> Job:
    job = conductor.next()
    assert job is not None
    return job


def names(jobs: list[Job]) -> list[str]:
    return [job.name for job in jobs]


# What comes next ----------------------------------------------------------------------------------------------


def test_whole_pairs_of_a_seed_come_before_the_next_seed(bench) -> None:
    conductor = bench(PLAIN).conductor()
    jobs = [take(conductor) for _ in range(4)]
    assert names(jobs) == ["SL · seed 0", "two views · seed 0", "SL · seed 1", "two views · seed 1"]
    assert conductor.next() is None
    assert conductor.running.keys() == {job.trial_id for job in jobs}


def test_a_study_is_registered_before_its_first_trial_and_once(bench) -> None:
    made = bench(PLAIN)
    conductor = made.conductor()

    def record() -> StudyRecord:
        return next(one for one in made.tracking.studies() if one.name == made.study.name)

    first = record()  # nothing is trained yet
    assert first.registered is not None
    assert (first.registered.study, first.registered.trained) == (first.file, 0)
    train(conductor, take(conductor))
    made.study = replace(made.study, text="another text", metric="test/macro_f1")
    made.conductor()
    assert record().registered == first.registered
    assert (record().file, record().metric) == (text_hash("another text"), "test/macro_f1")


def test_trials_that_are_complete_before_the_registration_are_counted(bench) -> None:
    made = bench(PLAIN)
    conductor = made.conductor()
    for _ in range(3):
        train(conductor, take(conductor))
    made.study = replace(made.study, name=f"{made.study.name[:50]}-again")  # the same trials in a study of its own
    made.conductor()
    [record] = [one for one in made.tracking.studies() if one.name == made.study.name]
    assert record.registered is not None
    assert record.registered.trained == 3


def test_equal_variants_are_one_job_with_a_run_each(bench) -> None:
    made = bench(f"name: x\n{BASE}variants: {{SL: {{}}, same: {{data.views: 1}}}}\nseeds: [0]\n")
    conductor = made.conductor()
    job = take(conductor)
    assert job.name == "SL = same · seed 0"
    assert conductor.next() is None
    train(conductor, job)
    assert {key: run.data.tags["hmtl.status"] for key, run in made.runs().items()} == {
        ("SL", "0"): "finished",
        ("same", "0"): "finished",
    }


def test_a_trial_waits_for_the_stage_it_starts_from(bench) -> None:
    conductor = bench(STAGED).conductor()
    stage = take(conductor)
    assert (stage.name, stage.evaluate_test) == ("first · seed 0", False)
    assert conductor.next() is None  # for now
    train(conductor, stage)
    user = take(conductor)
    assert (user.name, user.needs, user.evaluate_test) == ("pre-trained · seed 0", frozenset({stage.trial_id}), True)
    assert user.config.model.weights == f"trial:{stage.trial_id}"


def test_a_search_waits_until_no_stage_is_under_way(bench) -> None:
    text = searched("stages: {first: {training.supervised: false, pretext: {rotation: {}}}}").replace(
        "puzzling: {feed: shared}}}", "puzzling: {feed: shared}}, model.weights: 'trial:first'}"
    )
    conductor = bench(text).conductor()
    stage = take(conductor)
    assert stage.name == "first · seed 0"
    assert conductor.next() is None
    train(conductor, stage)
    assert take(conductor).config.model.weights == f"trial:{stage.trial_id}"


def test_who_starts_from_a_failed_trial_fails_and_both_are_tried_again(bench) -> None:
    made = bench(STAGED)
    conductor = made.conductor()
    stage = take(conductor)
    stage.folder.write_failure("Traceback …\nRuntimeError: boom\n")
    conductor.end(stage)
    assert conductor.next() is None
    assert not conductor.queue
    reason = f"the trial {stage.trial_id} whose weights it starts from is not finished"
    assert [(name, why) for name, why, _ in conductor.summary.failed] == [
        ("first · seed 0", "RuntimeError: boom"),
        ("pre-trained · seed 0", reason),
    ]
    run = made.runs()["pre-trained", "0"]
    assert (run.info.status, run.data.tags["hmtl.reason"]) == ("FAILED", reason)
    again = made.conductor()
    assert again.progress.expected == 2
    train(again, take(again))
    train(again, take(again))
    assert (again.summary.done, again.summary.failed) == (2, [])
    assert made.runs()["pre-trained", "0"].info.status == "FINISHED"


# What is known already ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_last", [False, True])
def test_a_checkpoint_that_a_finished_trial_still_has_is_removed_unless_it_is_kept(bench, keep_last: bool) -> None:
    """A crash after result.json has left it, or an older version."""
    made = bench(PLAIN + f"resources: {{keep_last: {str(keep_last).lower()}}}\n")
    conductor = made.conductor()
    jobs = [take(conductor) for _ in range(4)]
    for job in jobs:
        StubTrainer()(conductor.task(job, Path("no-stop")), lambda row: None)
        (job.folder.path / "last.safetensors").write_bytes(b"weights")
    with jobs[0].folder.lock():  # of another run, which may read it
        assert made.conductor().queue == []
    assert [(job.folder.path / "last.safetensors").exists() for job in jobs] == [True, *[keep_last] * 3]
    made.conductor()
    assert [(job.folder.path / "last.safetensors").exists() for job in jobs] == [keep_last] * 4


def test_finished_trials_are_skipped_and_their_runs_completed(bench) -> None:
    made = bench(PLAIN)
    conductor = made.conductor()
    for _ in range(4):  # finished by a driver that was killed before it wrote MLflow
        job = take(conductor)
        StubTrainer()(conductor.task(job, Path("no-stop")), lambda row: None)
    again = made.conductor()
    assert again.queue == []
    assert again.next() is None
    assert (again.summary.skipped, again.summary.done) == (4, 0)
    assert (made.recorder.expected, made.recorder.skipped, made.recorder.started) == (4, 4, [])
    run = made.runs()["two views", "1"]
    assert run.data.tags["hmtl.status"] == "finished"
    assert run.data.metrics["test/accuracy"] == pytest.approx(0.3)
    curve = MlflowClient(made.tracking.client.tracking_uri).get_metric_history(run.info.run_id, "val/accuracy")
    assert [(point.step, point.value) for point in curve] == [
        (1, pytest.approx(0.1)),
        (2, pytest.approx(0.2)),
        (3, pytest.approx(0.3)),
    ]


@pytest.mark.parametrize(("status", "evaluated"), [("pruned", True), ("finished", False)])
def test_what_a_search_ended_with_is_not_enough_for_a_variant(bench, status: str, evaluated: bool) -> None:
    """A variant's trial runs to its end, and measures the test split."""
    made = bench(PLAIN)
    conductor = made.conductor()
    job = take(conductor)
    task = conductor.task(job, Path("no-stop"))
    StubTrainer()(task, lambda row: None)
    write_result(replace(task, evaluate_test=evaluated), job.config, status)
    assert names(made.conductor().queue)[0] == "SL · seed 0"
    write_result(task, job.config, "finished")
    assert names(made.conductor().queue)[0] == "two views · seed 0"


def test_a_diverged_trial_is_failed_for_good(bench) -> None:
    made = bench(PLAIN)
    conductor = made.conductor()
    job = take(conductor)
    write_result(conductor.task(job, Path("no-stop")), job.config, "failed", "the loss became NaN")
    conductor.end(job)
    assert [(name, reason) for name, reason, _ in conductor.summary.failed] == [("SL · seed 0", "the loss became NaN")]
    again = made.conductor()
    assert len(again.queue) == 3  # and not tried again: it would diverge again
    assert [name for name, _, _ in again.summary.failed] == ["SL · seed 0"]


@pytest.mark.slow
@pytest.mark.parametrize("content", [b'{"status"', None])
@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl", "best.safetensors", "config.json"])
def test_a_finished_trial_with_a_damaged_file_is_trained_again(bench, name: str, content: bytes | None) -> None:
    """Fault C9. config.json is only written again: the study knows what was in it."""
    made = bench(PLAIN.replace("seeds: [0, 1]", "seeds: [0]"))
    conductor = made.conductor()
    for _ in range(2):
        job = take(conductor)
        job.folder.path.mkdir(parents=True)
        (job.folder.path / "best.safetensors").write_bytes(b"weights")
        train(conductor, job)
    file = job.folder.path / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    again = made.conductor()
    if name == "config.json":
        assert (again.next(), again.summary.skipped) == (None, 2)
        assert job.folder.config() == job.config
    else:
        job = take(again)
        assert job.name == "two views · seed 0"
        job.folder.path.joinpath("best.safetensors").write_bytes(b"weights")
        train(again, job)
        assert (again.summary.skipped, again.summary.done, again.summary.failed) == (1, 1, [])
    warned = made.recorder.warned
    assert len(warned) == (name == "config.json" or content is not None or name != "result.json")
    assert all(name in line and str(job.folder.path) in line for line in warned)
    assert made.conductor().queue == []


def test_a_stage_is_compared_whole_before_others_start_from_it(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault C9: a size alone does not say that weights are those that were trained."""
    monkeypatch.setattr("hmtl_ablate.training.folder.SMALL", 0)
    made = bench(STAGED)
    conductor = made.conductor()
    stage = take(conductor)
    stage.folder.path.mkdir(parents=True)
    (stage.folder.path / "best.safetensors").write_bytes(b"weights")
    train(conductor, stage)
    (stage.folder.path / "best.safetensors").write_bytes(b"weIghts")
    assert stage.folder.damage() == ()
    assert take(made.conductor()).name == "first · seed 0"


def test_a_trial_that_another_study_s_run_trains_is_waited_for(bench) -> None:
    """Fault C7: the user reads why there are no epochs, and the other's result is taken."""
    made = bench(PLAIN)
    conductor = made.conductor()
    job = conductor.queue[0]
    with job.folder.lock():
        assert take(conductor) is job
        StubTrainer()(conductor.task(job, Path("no-stop")), lambda row: None)  # the other's
    assert [line for line in made.recorder.said if "another run trains the same trial" in line]
    conductor.end(job)
    assert (conductor.summary.done, made.recorder.warned) == (1, [])


# How a job ends -----------------------------------------------------------------------------------------------


LOST = Failure(Ending.NODE_LOST, "the machine that trained it was lost", "a page of Ray's text")
CODE = Failure(Ending.CODE, "KeyError: 'x'", "Traceback …")


@pytest.mark.parametrize("ending", sorted(RETRIED), ids=lambda ending: ending.name)
def test_after_a_fault_of_the_machine_a_trial_is_started_again_twice(bench, ending: Ending) -> None:
    """fault C8: a dead actor or node costs its trial at most the time since the last checkpoint."""
    made = bench(PLAIN)
    conductor = made.conductor()
    for attempt in (1, 2):
        job = take(conductor)
        assert job.name == "SL · seed 0"  # first in line again
        conductor.end(job, Failure(ending, "its machine stumbled", "a page of Ray's text"))
        assert conductor.summary.failed == []
        line = made.recorder.warned[-1]
        assert line.startswith("SL · seed 0: its machine stumbled; it resumes from its last checkpoint")
        assert f"({ending}, retry {attempt} of 2;" in line
        (job.folder.path / PRUNE).touch()
    job = take(conductor)
    assert not (job.folder.path / PRUNE).exists()
    assert (job.folder.path / "log.txt").read_text().count("a page of Ray's text") == 2
    conductor.end(job, Failure(ending, "its machine stumbled"))
    assert conductor.summary.failed == [("SL · seed 0", "its machine stumbled", job.folder.path / "failure.txt")]
    run = made.runs()["SL", "0"]
    assert (run.data.tags["hmtl.status"], run.data.tags["hmtl.ending"]) == ("failed", ending)
    assert take(conductor).name == "two views · seed 0"


@pytest.mark.parametrize(
    "ending", sorted(set(Ending) - RETRIED - {Ending.FINISHED, Ending.STOPPED_EARLY}), ids=lambda ending: ending.name
)
def test_what_would_happen_again_is_not_started_again(bench, ending: Ending) -> None:
    """fault C8: an error of the code or the data fails its trial at once, and the next run tries it again."""
    made = bench(PLAIN)
    conductor = made.conductor()
    job = take(conductor)
    conductor.end(job, Failure(ending, "boom", "Traceback …"))
    assert take(conductor).name == "two views · seed 0"
    assert [(name, reason) for name, reason, _ in conductor.summary.failed] == [("SL · seed 0", "boom")]
    assert job.folder.failure() == f"{ending}: boom\n\nTraceback …\n"
    assert made.runs()["SL", "0"].data.tags["hmtl.ending"] == ending
    again = take(made.conductor())
    assert again.name == "SL · seed 0"
    assert again.folder.failure() is None


def test_the_class_that_a_worker_has_written_counts_more_than_the_engine_s(bench) -> None:
    conductor = bench(PLAIN).conductor()
    job = take(conductor)
    job.folder.write_failure(str(CODE))
    conductor.end(job, LOST)
    assert [reason for _, reason, _ in conductor.summary.failed] == ["KeyError: 'x'"]


def test_a_process_that_died_after_its_last_word_has_finished(bench) -> None:
    conductor = bench(PLAIN).conductor()
    job = take(conductor)
    StubTrainer()(conductor.task(job, Path("no-stop")), lambda row: None)
    conductor.end(job, LOST)
    assert (conductor.summary.done, conductor.summary.failed) == (1, [])


def test_a_search_s_trial_that_lost_its_machine_counts_once(bench) -> None:
    """fault C8: the draw stays the same one, so that the search's total is exact."""
    made = bench(searched())
    conductor = made.conductor()
    first = take(conductor)
    conductor.end(first, LOST)
    again = take(conductor)
    assert again.draws == first.draws
    train(conductor, again)
    train(conductor, take(conductor))
    train(conductor, take(conductor))
    assert conductor.next() is None
    assert [trial.state.name for trial in made.optuna_trials()] == ["COMPLETE"] * 3


def test_the_disk_that_is_full_does_not_end_the_run(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    conductor = bench(PLAIN).conductor()
    job = take(conductor)
    monkeypatch.setattr(TrialFolder, "write_failure", full)
    conductor.end(job, failure_of(OSError(28, "No space left on device")))
    assert [reason for _, reason, _ in conductor.summary.failed] == ["OSError: [Errno 28] No space left on device"]


class Outage:
    """Makes every question to Optuna's database fail while it lasts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.lasts = 0.0, False
        for name in ("next", "report", "tell", "counted"):
            monkeypatch.setattr(OptunaSearch, name, self._guarded(getattr(OptunaSearch, name)))

    def _guarded(self, call: Any) -> Any:
        def guarded(*given: Any) -> Any:
            if self.lasts:
                raise OperationalError("SELECT 1", {}, Exception("server closed the connection"))
            return call(*given)

        return guarded

    def watch(self, conductor: Conductor) -> None:
        conductor.database._clock = lambda: self.now


def test_a_lost_database_of_the_search_stops_no_trial(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """fault C1: PostgreSQL goes away in the middle, and comes back: nothing is lost, and nothing counts twice."""
    outage = Outage(monkeypatch)
    made = bench(searched("variants: {SL: {}}"))
    conductor = made.conductor()
    outage.watch(conductor)
    arms = [take(conductor), take(conductor)]
    draw = take(conductor)
    outage.lasts = True
    train(conductor, draw)
    assert conductor.summary.done == 1
    (line,) = made.recorder.warned
    assert line.startswith("Optuna's database was lost: server closed the connection; start it again")
    assert conductor.next() is None
    for arm in arms:
        train(conductor, arm)
    with pytest.raises(RunLost, match="the same command resumes"):
        conductor.database.close()
    outage.lasts = False
    assert conductor.next() is None  # it is not asked again at once
    outage.now = PAUSE
    train(conductor, take(conductor))
    assert made.recorder.said == ["Optuna's database answers again"]
    train(conductor, take(conductor))
    assert conductor.next() is None
    conductor.database.close()
    trials = made.optuna_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert list(trials[0].intermediate_values) == [1, 2, 3]  # what was missed is delivered


def test_a_run_that_has_nothing_left_but_its_search_asks_the_database_once_more(
    bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(monkeypatch)
    conductor = bench(searched()).conductor()
    outage.watch(conductor)
    outage.lasts = True
    assert conductor.next() is None
    assert not conductor.database.recovered()
    outage.lasts = False
    assert conductor.database.recovered()
    assert not conductor.database.recovered()  # it was not away since
    assert conductor.next() is not None


def test_a_trial_without_an_end_was_interrupted(bench) -> None:
    made = bench(PLAIN)
    conductor = made.conductor()
    conductor.end(take(conductor))
    assert made.recorder.ended == [("SL · seed 0", "interrupted")]
    assert conductor.summary.failed == []
    assert made.runs()["SL", "0"].info.status == "RUNNING"


def test_an_epoch_reaches_the_listener_and_mlflow(bench) -> None:
    made = bench(PLAIN)
    conductor = made.conductor()
    job = take(conductor)
    job.folder.write_config(job.config)
    job.folder.append_history({"epoch": 1, "val/accuracy": 0.25})
    conductor.epoch(job, 2)  # not in the folder: ignored
    assert made.recorder.epochs == []
    conductor.epoch(job, 1)
    assert made.recorder.epochs == [("SL · seed 0", 1)]
    assert made.runs()["SL", "0"].data.metrics["val/accuracy"] == 0.25


@pytest.mark.parametrize(
    ("failed", "interrupted", "status"),
    [(False, False, "FINISHED"), (True, False, "FAILED"), (True, True, "KILLED")],
)
def test_the_study_s_run_ends_as_the_run_did(bench, failed: bool, interrupted: bool, status: str) -> None:
    conductor = bench(PLAIN).conductor()
    if failed:
        conductor.end(take(conductor), CODE)
    conductor.summary.interrupted = interrupted
    conductor.finish_study()
    assert conductor.log.tracking.client.get_run(conductor.log.parent).info.status == status


def test_an_mlflow_that_goes_down_warns_once_and_stops_no_trial(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(PLAIN)
    conductor = made.conductor()

    def down(*args: object, **options: object) -> None:
        raise TrackingError("no answer")

    with monkeypatch.context() as patch:
        for method in ("trial_run", "log_epochs", "finish_trial"):
            patch.setattr(made.tracking, method, down)
        train(conductor, take(conductor))
        train(conductor, take(conductor))
    assert conductor.summary.done == 2
    assert len(made.recorder.warned) == 1
    assert "no answer" in made.recorder.warned[0]
    made.conductor()  # the next run delivers what is missing
    assert made.runs()["SL", "0"].data.metrics["test/accuracy"] == pytest.approx(0.3)


def test_faces_stay_in_the_folder_when_pictures_are_off(bench) -> None:
    made = bench(PLAIN)
    copied = {}
    for number, pictures in enumerate((True, False)):
        conductor = made.conductor(pictures)
        job = take(conductor)
        folder = job.folder.path / "pictures"
        folder.mkdir(parents=True)
        for name in ("confusion-val.png", "puzzling-epoch-0001.png"):
            (folder / name).write_bytes(b"png")
        train(conductor, job)
        run = trial_runs(made.store, made.study.name)
        assert len(run) == number + 1
        place = Path(made.tracking.store) / "artifacts"
        copied[pictures] = {path.name for path in place.rglob(f"{_run_id(made, job)}/**/*.png")}
    assert copied == {True: {"confusion-val.png", "puzzling-epoch-0001.png"}, False: {"confusion-val.png"}}


def _run_id(made: Bench, job: Job) -> str:
    (run,) = (run for run in made.runs().values() if run.data.tags["hmtl.trial_id"] == job.trial_id)
    return run.info.run_id


# The search ---------------------------------------------------------------------------------------------------


def weights(jobs: list[Job]) -> list[float]:
    return [job.config.pretext["puzzling"].weight for job in jobs]


def test_draws_come_after_the_variants_and_end_in_optuna(bench) -> None:
    made = bench(searched("variants: {SL: {}}"))
    conductor = made.conductor()
    assert names([take(conductor), take(conductor)]) == ["SL · seed 0", "SL · seed 1"]
    jobs = []
    for _ in range(3):
        jobs.append(take(conductor))
        train(conductor, jobs[-1], StubTrainer(lambda config, epoch: config.pretext["puzzling"].weight * epoch / 100))
    assert conductor.next() is None
    assert weights(jobs) == [2.0, 3.0, 4.0]
    assert [(trial.state, trial.value) for trial in made.optuna_trials()] == [
        (TrialState.COMPLETE, pytest.approx(value)) for value in (0.06, 0.09, 0.12)
    ]
    assert made.optuna_trials()[0].intermediate_values == {
        epoch: pytest.approx(value) for epoch, value in ((1, 0.02), (2, 0.04), (3, 0.06))
    }
    run = made.runs()["search", "0"]
    assert not any(name.startswith("test/") for name in run.data.metrics)


def test_a_bad_draw_is_asked_to_end_and_counts_as_pruned(bench) -> None:
    made = bench(searched())
    conductor = made.conductor()
    trainer = StubTrainer(lambda config, epoch: 1 / config.pretext["puzzling"].weight)
    good, bad = take(conductor), take(conductor)
    train(conductor, good, trainer)
    assert not (good.folder.path / PRUNE).exists()
    train(conductor, bad, trainer)
    assert (bad.folder.path / PRUNE).exists()
    result = bad.folder.result()
    assert result is not None
    assert (result.status, result.epochs) == ("pruned", 1)
    assert (conductor.summary.done, conductor.summary.pruned) == (1, 1)
    assert [trial.state for trial in made.optuna_trials()] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert made.optuna_trials()[1].intermediate_values == {1: pytest.approx(1 / 3)}


def test_a_draw_that_is_a_running_variant_shares_its_trial_and_never_cuts_it_short(bench) -> None:
    made = bench(
        searched("variants: {two: {pretext: {puzzling: {feed: shared, weight: 3.0}}}}").replace(
            "seeds: [0, 1]", "seeds: [0]"
        )
    )
    conductor = made.conductor()
    variant = take(conductor)
    first = take(conductor)
    assert weights([variant, first]) == [3.0, 2.0]
    train(conductor, first)
    third = take(conductor)  # 3.0 joined the variant on the way
    assert weights([third]) == [4.0]
    assert [draw.trial_id for draw in variant.draws] == [variant.trial_id]
    train(conductor, variant, StubTrainer(lambda config, epoch: 0.01))  # the pruner would stop it
    assert not (variant.folder.path / PRUNE).exists()
    assert [(trial.state, trial.value) for trial in made.optuna_trials()][:2] == [
        (TrialState.COMPLETE, pytest.approx(0.3)),
        (TrialState.COMPLETE, pytest.approx(0.01)),
    ]
    own = [run for run in trial_runs(made.store, made.study.name) if run.data.tags["hmtl.trial_id"] == variant.trial_id]
    assert {run.data.tags["hmtl.variant"] for run in own} == {"two", "search"}
    assert {run.info.status for run in own} == {"FINISHED"}


def test_a_draw_that_is_finished_already_is_told_and_not_started(bench) -> None:
    made = bench(
        searched("variants: {two: {pretext: {puzzling: {feed: shared, weight: 2.0}}}}").replace(
            "seeds: [0, 1]", "seeds: [0]"
        )
    )
    conductor = made.conductor()
    train(conductor, take(conductor))
    assert weights([take(conductor)]) == [3.0]
    assert made.optuna_trials()[0].value == pytest.approx(0.3)
    assert conductor.summary.skipped == 1


@pytest.mark.parametrize("failed", [True, False])
def test_a_draw_without_an_end_is_adopted_by_the_next_run(bench, failed: bool) -> None:
    made = bench(searched())
    conductor = made.conductor()
    job = take(conductor)
    conductor.end(job, CODE if failed else None)
    assert [trial.state for trial in made.optuna_trials()] == [TrialState.RUNNING]
    again = made.conductor()
    adopted = take(again)
    assert (adopted.trial_id, adopted.draws[0].trial.number) == (job.trial_id, 0)
    train(again, adopted)
    assert made.optuna_trials()[0].state == TrialState.COMPLETE


def test_a_diverged_draw_is_told_as_failed_and_counts(bench) -> None:
    made = bench(searched())
    conductor = made.conductor()
    job = take(conductor)
    write_result(conductor.task(job, Path("no-stop")), job.config, "failed", "the loss became NaN")
    conductor.end(job)
    assert made.optuna_trials()[0].state == TrialState.FAIL
    again = made.conductor()
    assert weights([take(again), take(again)]) == [3.0, 4.0]
    assert again.next() is None


def test_a_larger_total_starts_the_difference(bench) -> None:
    made = bench(searched().replace("trials: 3", "trials: 2"))
    conductor = made.conductor()
    for _ in range(2):
        train(conductor, take(conductor))
    assert conductor.next() is None
    assert made.conductor().next() is None
    made.study = read_study(made.store, made.study.text.replace("trials: 2", "trials: 3"))
    larger = made.conductor()
    assert weights([take(larger)]) == [4.0]
    assert larger.next() is None


def test_another_space_takes_over_what_it_shares_and_the_report_leaves_the_rest_out(bench) -> None:
    made = bench(searched())
    by_weight = StubTrainer(lambda config, epoch: config.pretext["puzzling"].weight / 10)
    for choices, drawn in (("[2.0, 3.0, 4.0]", [2.0, 3.0, 4.0]), ("[1.0, 2.0, 3.0]", [1.0])):
        made.study = read_study(made.store, made.study.text.replace("[2.0, 3.0, 4.0]", choices))
        conductor, found = made.conductor(), []
        while (job := conductor.next()) is not None:
            found.append(job)
            train(conductor, job, by_weight)
        assert weights(found) == drawn
    results = load_results(None, made.store)
    rows = results.trials[results.trials["parent"] == conductor.log.parent]
    standings = {row["options"]["pretext.puzzling.weight"]: row["standing"] for row in rows.to_dict("records")}
    assert standings == {1.0: "search", 2.0: "search", 3.0: "search", 4.0: "superseded"}
    (table,) = study_tables(results, made.study.name)
    assert table.search is not None
    assert [one.changes["pretext.puzzling.weight"] for one in table.search.found] == [3.0, 2.0, 1.0]


def test_the_winner_is_confirmed_with_unseen_seeds_against_sl(bench) -> None:
    made = bench(searched(confirm="true"))
    conductor = made.conductor()
    conductor.more()
    assert conductor.queue == []  # nothing to confirm yet
    for _ in range(3):
        train(conductor, take(conductor), StubTrainer(lambda config, epoch: config.pretext["puzzling"].weight / 10))
    assert conductor.next() is None
    conductor.more()
    assert names(conductor.queue) == ["best of search, SL alone · seed 1", "best of search · seed 1"]
    assert weights(conductor.queue[1:]) == [4.0]
    assert made.recorder.said[0].endswith("with seeds 1")
    tags = conductor.log.tracking.client.get_run(conductor.log.parent).data.tags
    assert json.loads(tags["hmtl.variants"]).keys() == {"best of search", "best of search, SL alone"}
    assert json.loads(tags["hmtl.asked"]) == {"best of search, SL alone": [1], "best of search": [1]}
    train(conductor, take(conductor))
    winner = take(conductor)
    assert winner.evaluate_test
    train(conductor, winner)
    assert "test/accuracy" in made.runs()["best of search", "1"].data.metrics


def test_a_lone_seed_confirms_with_itself_and_confirm_false_with_none(bench) -> None:
    text = searched(confirm="true").replace("seeds: [0, 1]", "seeds: [7]").replace("[2.0, 3.0, 4.0]", "[2.0]")
    conductor = bench(text).conductor()
    train(conductor, take(conductor))
    conductor.more()
    # The winner's trial of this seed is there, but it has not seen the test split.
    assert names(conductor.queue) == ["best of search, SL alone · seed 7", "best of search · seed 7"]
    assert not conductor.more()
    unconfirmed = read_study(conductor.store, text.replace("confirm: true", "confirm: false"))
    assert continuations(unconfirmed, tuple(conductor.searches.values())) == ()


def test_a_search_s_trials_return_to_a_new_mlflow(bench, mlflow_database: Path, tmp_path: Path) -> None:
    """Fault C6: whatever became of its database, every ended trial of the study is logged again, and only once."""
    made = bench(searched("variants: {SL: {}}"))
    conductor = made.conductor()
    ended = [take(conductor) for _ in range(5)]
    for job in ended[:4]:
        train(conductor, job)
    job = ended[4]
    write_result(conductor.task(job, Path("no-stop")), job.config, "pruned")
    conductor.end(job)
    assert conductor.next() is None
    made.store.joinpath("mlflow.db").unlink()
    shutil.copy(mlflow_database, made.store / "mlflow.db")
    made.tracking = open_tracking(None, made.store)
    for _ in range(2):
        again = made.conductor()
        assert (again.queue, again.next(), again.summary.skipped) == ([], None, 2)
        runs = trial_runs(made.store)
        variants = [run.data.tags["hmtl.variant"] for run in runs]
        assert sorted(variants) == ["SL", "SL", "search", "search", "search"]
        assert sorted(run.data.tags["hmtl.status"] for run in runs) == [*["finished"] * 4, "pruned"]
        [pruned] = [run for run in runs if run.data.tags.get("hmtl.status") == "pruned"]
        assert (pruned.data.tags["hmtl.trial_id"], pruned.info.status) == (job.trial_id, "FINISHED")


def test_a_search_s_trial_with_a_damaged_file_is_trained_again(bench) -> None:
    """Fault C9."""
    made = bench(searched())
    conductor = made.conductor()
    for _ in range(3):
        job = take(conductor)
        train(conductor, job)
    (job.folder.path / "result.json").write_bytes(b"")
    again = made.conductor()
    assert again.queue == []
    train(again, take(again))
    assert (again.summary.done, again.next()) == (1, None)
    assert "result.json damaged" in made.recorder.warned[0]
    assert [trial.state for trial in made.optuna_trials()] == [TrialState.COMPLETE] * 3


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_draw_whose_objective_is_not_measured_is_failed_for_the_search(bench, value: float | None) -> None:
    """Fault C16: neither a KeyError nor a NaN in Optuna."""
    made = bench(searched())
    conductor = made.conductor()
    job = take(conductor)
    job.folder.write_config(job.config)
    job.folder.append_history({"epoch": 1} if value is None else {"epoch": 1, "val/accuracy": value})
    conductor.epoch(job, 1)
    job.folder.write_history([{"epoch": 1}])
    write_result(conductor.task(job, Path("no-stop")), job.config, "finished")
    conductor.end(job)
    assert [trial.state for trial in made.optuna_trials()] == [TrialState.FAIL]
    assert "val/accuracy could not be measured" in made.recorder.warned[0]
    assert (conductor.summary.done, conductor.summary.failed) == (1, [])


# The worker's task --------------------------------------------------------------------------------------------


def test_a_task_is_plain_data_with_all_that_a_worker_needs(bench, tmp_path: Path) -> None:
    made = bench(PLAIN + "resources: {cpus: 2.5, workers: 3, gpus: 2, keep_last: true}\n")
    conductor = made.conductor()
    job = take(conductor)
    task = pickle.loads(pickle.dumps(conductor.task(job, tmp_path / "stop")))  # noqa: S301
    assert parse_config(json.loads(json.dumps(task.config))) == job.config
    assert (task.folder, task.pack) == (job.folder.path.resolve(), job.pack.folder.resolve())
    assert (task.threads, task.cpus, task.workers, task.gpus, task.keep_last) == (2, 2.5, 3, 2, True)
    assert (task.evaluate_test, task.stop, task.imports) == (True, tmp_path / "stop", ())
    assert TrialFolder(task.folder).path.name == job.trial_id
