"""What is special to the engine in this process: threads, a second Ctrl-C, and errors of the conductor itself."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import ClusterError, HmtlError, RunLost, StoreError
from hmtl_ablate.running.listener import SilentListener
from hmtl_ablate.running.options import RunOptions
from hmtl_ablate.running.optuna_search import OptunaSearch
from hmtl_ablate.running.run import run_study
from hmtl_ablate.running.stop import stop_on_signal
from hmtl_ablate.running.summary import RunSummary
from hmtl_ablate.running.task import Report, TrialTask
from hmtl_ablate.study import Study
from hmtl_ablate.tracking import Tracking, open_tracking
from hmtl_ablate.training.folder import TrialFolder
from tests.running.conftest import Recorder, StubTrainer, packs_of, read_study  # type: ignore[import-not-found]

LOCAL = RunOptions(engine="local")
STUDY = """\
name: local
base: {data: {images: 64, size: 32}, training: {epochs: 3, warmup_epochs: 0}}
variants: {SL: {}, two views: {data.views: 2}}
seeds: [0]
"""
SEARCH = """\
search:
  base: {pretext: {puzzling: {}}}
  space: {pretext.puzzling.weight: {choice: [2.0, 3.0]}}
  sampler: grid
  trials: 2
  racing: null
  confirm: false
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(tmp_path, STUDY)


def run(study: Study, pack: Pack, store: Path, tracking: Tracking, **given: Any) -> RunSummary:
    return run_study(study, packs=packs_of(study, pack), store=store, tracking=tracking, options=LOCAL, **given)


def test_it_runs_in_a_thread_and_leaves_the_signal_handlers_alone(study: Study, pack: Pack, store: Path) -> None:
    found: list[RunSummary] = []
    thread = threading.Thread(
        target=lambda: found.append(run(study, pack, store, open_tracking(None, store), trainer=StubTrainer()))
    )
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    thread.start()
    while thread.is_alive():
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        time.sleep(0.01)
    assert found == [RunSummary(done=2)]


def test_a_second_signal_ends_the_run_at_once(study: Study, pack: Pack, store: Path, tracking: Tracking) -> None:
    def twice(config: TrialConfig, epoch: int) -> None:
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(study, pack, store, tracking, trainer=StubTrainer(before=twice))
    assert signal.getsignal(signal.SIGINT) == before
    assert not list(store.glob("trials/*/failure.txt"))
    assert run(study, pack, store, tracking, trainer=StubTrainer()) == RunSummary(done=2)


def test_an_error_of_the_conductor_stops_the_run_and_is_no_failure_of_the_trial(
    study: Study, pack: Pack, store: Path, tracking: Tracking
) -> None:
    class Broken(Recorder):
        def epoch(self, trial_id: str, metrics: Any) -> None:
            raise ZeroDivisionError("a display with a defect")

    recorder = Broken()
    with pytest.raises(ZeroDivisionError, match="a display with a defect"):
        run(study, pack, store, tracking, progress=recorder, trainer=StubTrainer())
    assert recorder.ended == [("SL · seed 0", "interrupted")]
    assert not list(store.glob("trials/*/failure.txt"))
    assert run(study, pack, store, tracking, trainer=StubTrainer()) == RunSummary(done=2)


def test_what_a_search_has_trained_before_is_counted_as_finished(
    pack: Pack, store: Path, tracking: Tracking, tmp_path: Path
) -> None:
    """Fault D: "finished before" left out the search's trials."""
    text = STUDY.partition("variants:")[0] + (
        "search:\n  base: {pretext: {puzzling: {}}}\n  space: {pretext.puzzling.weight: {choice: [0.5, 1, 2]}}\n"
        "  sampler: grid\n  trials: 2\n  racing: null\n"
    )
    small, large = read_study(tmp_path, text), read_study(tmp_path, text.replace("trials: 2", "trials: 3"))
    assert run(small, pack, store, tracking, trainer=StubTrainer()) == RunSummary(done=2)
    again = Recorder()
    assert run(small, pack, store, tracking, progress=again, trainer=StubTrainer()) == RunSummary(skipped=2)
    assert (again.expected, again.skipped, again.started) == (2, 2, [])
    more = Recorder()
    assert run(large, pack, store, tracking, progress=more, trainer=StubTrainer()) == RunSummary(done=1, skipped=2)
    assert (more.expected, more.skipped, len(more.started)) == (3, 2, 1)


def test_a_search_begins_anew_when_its_earlier_scores_mean_something_else(
    pack: Pack, store: Path, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault numerics, of the same kind: Optuna's trials of an older numerics version counted towards the total."""
    study = read_study(tmp_path, STUDY.partition("variants:")[0] + SEARCH)
    assert run(study, pack, store, tracking, trainer=StubTrainer()) == RunSummary(done=2)
    monkeypatch.setattr("hmtl_ablate.config.NUMERICS_VERSION", 10_000)
    assert run(study, pack, store, tracking, trainer=StubTrainer()) == RunSummary(done=2)
    assert run(study, pack, store, tracking, trainer=StubTrainer()) == RunSummary(skipped=2)


def test_two_runs_of_a_study_at_once_are_refused(study: Study, pack: Pack, store: Path, tracking: Tracking) -> None:
    refused: list[str] = []

    def nested(config: TrialConfig, epoch: int) -> None:
        with pytest.raises(StoreError) as error:
            run(study, pack, store, tracking, trainer=StubTrainer())
        refused.append(str(error.value))

    assert run(study, pack, store, tracking, trainer=StubTrainer(before=nested)).done == 2
    assert f"local (quick) is already running in {store}" in refused[0]


def test_workers_and_gpus_that_this_process_lacks_are_refused(
    pack: Pack, store: Path, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for resources, words in (("workers: 2", "2 workers per trial"), ("gpus: 1", "a trial needs 1 GPU")):
        study = read_study(store, STUDY + f"resources: {{{resources}}}\n")
        with pytest.raises(ClusterError, match=words):
            run(study, pack, store, tracking, trainer=StubTrainer())
    assert not (store / "trials").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"engine": "locl"}, "there is no engine 'locl'; did you mean 'local'?"),
        ({"engine": "local", "address": "10.0.0.1:6379"}, "can't use the Ray cluster at 10.0.0.1:6379"),
        ({"engine": "local", "max_concurrent": 2}, "one trial at a time, not 2"),
        ({"max_concurrent": 0}, "max_concurrent is 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(HmtlError) as error:
        RunOptions(**given)
    assert words in str(error.value)


def test_options_that_do_not_are_taken() -> None:
    assert RunOptions(engine="local", max_concurrent=1).max_concurrent == 1
    assert RunOptions(address="auto", max_concurrent=4).engine == "ray"


def test_the_stop_file_comes_with_the_first_signal_and_goes_with_the_block(tmp_path: Path) -> None:
    file = tmp_path / ".study.stop"
    file.touch()  # left by a killed run
    with stop_on_signal(file) as stop:
        assert (stop.requested, file.exists()) == (False, False)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.requested, file.exists()) == (True, True)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert not file.exists()


def test_a_stop_that_can_not_be_passed_on_ends_the_run(tmp_path: Path) -> None:
    with stop_on_signal(tmp_path / "gone" / ".study.stop") as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested


def test_the_stop_goes_to_the_trials_through_the_store(
    study: Study, pack: Pack, store: Path, tracking: Tracking
) -> None:
    """fault C4: trials on other machines see no folder of the driver's machine but the store."""
    seen: list[TrialTask] = []

    def trainer(task: TrialTask, report: Report) -> None:
        seen.append(task)
        os.kill(os.getpid(), signal.SIGINT)
        StubTrainer()(task, report)

    summary = run(study, pack, store, tracking, trainer=trainer)
    assert (summary.interrupted, summary.done) == (True, 0)
    assert seen[0].stop == (store / ".local@quick.stop").resolve()
    assert not seen[0].stop.exists()
    assert run(study, pack, store, tracking, trainer=StubTrainer()) == RunSummary(done=2)


def test_a_search_whose_database_stays_away_ends_the_run_and_resumes(
    study: Study, pack: Pack, store: Path, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fault C1: the variants are trained, and the error is one of ours, with an exit code of its own."""

    def away(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("server closed the connection"))

    study = read_study(store, STUDY + SEARCH)
    with monkeypatch.context() as patch:
        patch.setattr(OptunaSearch, "next", away)
        recorder = Recorder()
        with pytest.raises(RunLost, match="Optuna's database was lost: server closed the connection") as caught:
            run(study, pack, store, tracking, progress=recorder, trainer=StubTrainer())
    assert caught.value.exit_code == 75
    assert [status for _, status in recorder.ended] == ["finished", "finished"]
    (parent,) = tracking.client.search_runs(
        [tracking.client.get_experiment_by_name("hmtl-ablate").experiment_id], "tags.`hmtl.kind` = 'study'"
    )
    assert parent.info.status == "KILLED"
    summary = run(study, pack, store, tracking, trainer=StubTrainer())
    assert (summary.skipped, summary.done, summary.failed) == (2, 2, [])


def test_a_full_disk_fails_its_trial_and_no_more(
    study: Study, pack: Pack, store: Path, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrialFolder, "append_history", full)
    monkeypatch.setattr(TrialFolder, "write_failure", full)
    recorder = Recorder()
    summary = run(study, pack, store, tracking, progress=recorder, trainer=StubTrainer())
    assert [status for _, status in recorder.ended] == ["failed", "failed"]
    assert {reason for _, reason, _ in summary.failed} == {"OSError: [Errno 28] No space left on device"}


def test_the_silent_listener_prints_nothing_and_logs_warnings(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    listener = SilentListener()
    listener.expect(2)
    listener.skip()
    listener.say("hello")
    listener.start("id", "SL · seed 0", TrialConfig())
    listener.epoch("id", {"epoch": 1})
    listener.end("id", "finished", {}, 1.0)
    listener.warn("look at this: 100 %")
    assert capsys.readouterr() == ("", "")
    assert [record.getMessage() for record in caplog.records] == ["look at this: 100 %"]
