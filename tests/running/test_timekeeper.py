"""What a run learns of time from its own trials."""

from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.config import parse_config
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.machine import this_machine
from hmtl_ablate.planning.calibration import read_calibration
from hmtl_ablate.running.job import Job
from hmtl_ablate.running.timekeeper import Timekeeper
from hmtl_ablate.study import Resources, Variant
from hmtl_ablate.training.folder import TrialFolder, TrialResult

TAGS = {"device": "cpu", "cpu": this_machine().cpu, "threads": "1", "workers": "1", "precision": "fp32"}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Trials:
    """Jobs of 4 epochs whose trials train at 100 image passes a second; the time of anything else is given."""

    def __init__(self, pack: Pack, store: Path) -> None:
        self.pack, self.store, self.clock = pack, store, Clock()
        self.time = Timekeeper(store, Resources(), "local", clock=self.clock)

    def job(self, name: str, **data: Any) -> Job:
        raw = {"data": {"images": 64, "size": 32, **data}, "training": {"epochs": 4, "warmup_epochs": 0}}
        folder = TrialFolder(self.store / "trials" / name)
        return Job(name, parse_config(raw), folder, self.pack, arms=[Variant(name, raw)])

    def epochs(self, job: Job, first: int, last: int) -> None:
        """Each epoch trains, and takes 1 s more."""
        job.folder.write_config(job.config)
        passes = self.time.work(job).passes / 4
        for number in range(first, last + 1):
            self.clock.now += passes / 100 + 1
            row = {
                "epoch": number,
                "image_passes": passes * number,
                "seconds": number * (passes / 100 + 1),
                "images_per_second": 100.0,
            }
            job.folder.append_history(row)
            self.time.epoch(job, job.folder.history())

    def finish(self, job: Job, rest: float, **tags: str) -> None:
        """The end of the trial; rest: seconds of everything that is not an epoch."""
        self.clock.now += rest
        result = TrialResult(
            trial_id=job.trial_id,
            status="finished",
            epochs=4,
            best_epoch=4,
            image_passes=self.time.work(job).passes,
            seconds=1.0,
            tags={**TAGS, "memory_mib": "700", **tags},
        )
        job.folder.write_result(result)
        self.time.end(job, result)


@pytest.fixture
def trials(pack: Pack, tmp_path: Path) -> Trials:
    return Trials(pack, tmp_path)


def test_a_finished_trial_is_a_measurement_and_the_first_one_says_what_loading_takes(trials: Trials) -> None:
    """Of the end of a trial, val and test with the best weights are evaluated at the measured rate: 12 images in 2 s.
    The first trial takes 9 s more than the second, which is the start of the run."""
    for name, rest in (("a", 12.0), ("b", 3.0)):
        job = trials.job(name)
        trials.time.start(job)
        trials.epochs(job, 1, 4)
        trials.finish(job, rest)
    known = read_calibration(trials.store)
    (one,) = known.known.values()
    assert one.train_rate == pytest.approx(100.0)
    assert (one.memory, one.count) == (700, 2)
    assert one.start is not None
    assert 0 < one.start < 2
    assert known.launch == {f"local on {this_machine().cpu}": pytest.approx(9.0)}
    again = trials.job("c")
    work, evaluation = trials.time.work(again), one.evaluation_rate
    assert evaluation is not None
    expected = one.start + (work.passes + work.measured) / 100 + work.evaluated / evaluation
    assert trials.time.seconds(again) == pytest.approx(expected)
    seconds = pytest.approx(trials.clock.now, abs=0.1)
    assert trials.time.actual() == {"trials": 2, "image_passes": 2 * work.passes, "seconds": seconds}


def test_a_trial_that_resumed_or_has_no_tags_is_none(trials: Trials) -> None:
    resumed = trials.job("a")
    trials.epochs(resumed, 1, 2)
    trials.time.start(resumed)
    trials.epochs(resumed, 3, 4)
    trials.finish(resumed, 1.0)
    assert read_calibration(trials.store).known == {}


def test_the_rest_of_a_trial_that_an_earlier_run_began(trials: Trials) -> None:
    """Two of four epochs are done: half of its work is left, after the start."""
    done = trials.job("a")
    trials.time.start(done)
    trials.epochs(done, 1, 4)
    trials.finish(done, 0.0)
    whole = trials.time.seconds(trials.job("b"))
    assert whole is not None
    begun = trials.job("c")
    begun.folder.write_config(begun.config)
    for number in (1, 2):
        begun.folder.append_history({"epoch": number})
    assert trials.time.seconds(begun) == pytest.approx(whole / 2)


def test_time_left_follows_the_epochs_of_the_trial_that_runs(trials: Trials) -> None:
    """Nothing is known before the first epoch. Then each takes passes / 100 + 1 s: two are left after the second, and
    another trial waits whose two views cost twice the passes."""
    job, other = trials.job("a"), trials.job("b", views=2)
    trials.time.start(job)
    assert trials.time.remaining([other]) is None
    trials.epochs(job, 1, 2)
    epoch = trials.time.work(job).passes / 400 + 1
    waiting = trials.time.seconds(other)
    assert waiting is not None  # of the same network and size
    assert trials.time.remaining([]) == pytest.approx(2 * epoch)
    assert trials.time.remaining([other]) == pytest.approx(2 * epoch + waiting)
    trials.clock.now += 0.5
    assert trials.time.remaining([]) == pytest.approx(2 * epoch - 0.5)
    trials.time.at_once = 2
    assert trials.time.remaining([other]) == pytest.approx(max(2 * epoch - 0.5, waiting))


def test_a_network_that_was_not_measured_counts_by_its_passes(trials: Trials) -> None:
    job = trials.job("a")
    trials.time.start(job)
    trials.epochs(job, 1, 2)
    strange = trials.job("b", size=48)
    own, passes = trials.time.seconds(job), trials.time.work(job).passes
    assert trials.time.seconds(strange) is None
    assert own is not None
    left = trials.time.remaining([])
    assert left is not None
    expected = left + own / passes * trials.time.work(strange).passes
    assert trials.time.remaining([strange]) == pytest.approx(expected)


def test_the_machine_of_a_cluster_s_node_is_the_one_that_counts(trials: Trials) -> None:
    job = trials.job("a")
    trials.time.start(job)
    trials.epochs(job, 1, 4)
    trials.finish(job, 0.0, cpu="Another, 64 cores")
    assert [one.key.device for one in read_calibration(trials.store).known.values()] == ["Another, 64 cores"]
    assert trials.time.seconds(trials.job("b")) is not None
