"""What a study logs to MLflow, and that a store which goes down costs one warning; without MLflow."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from hmtl_ablate.config import NUMERICS_VERSION, ProbeConfig, TrialConfig
from hmtl_ablate.errors import StudyError, TrackingError
from hmtl_ablate.running.failures import Ending, Failure
from hmtl_ablate.running.study_log import EVALUATIONS, StudyLog, registration
from hmtl_ablate.study import Study, Variant, load_study
from hmtl_ablate.tracking import Registration, StudyRecord, TrialRecord
from hmtl_ablate.training.folder import TrialFolder, TrialResult

TEXT = """\
name: p
question: Does it help?
base: {data: {images: 96, size: 32}}
variants:
  SL: {}
  SL + puzzling: {pretext: {puzzling: {}}}
seeds: [0, 1]
"""


class Recorder:
    """A `Tracking` that keeps what it is given, or is down."""

    def __init__(self) -> None:
        self.down = False
        self.studies: list[StudyRecord] = []
        self.opened: list[TrialRecord] = []
        self.epochs: list[tuple[str, int]] = []
        self.ended: dict[str, TrialRecord] = {}
        self.artifacts: dict[str, Path] = {}
        self.status = ""
        self.page = ""
        self.figures: dict[str, bytes] = {}
        self.registered: Registration | None = None

    def _up(self) -> None:
        if self.down:
            raise TrackingError("no route")

    def study_run(self, record: StudyRecord, study_text: str) -> str:
        self._up()
        assert study_text == TEXT
        self.studies.append(record)
        return "parent"

    def registration(self, record: StudyRecord) -> Registration | None:
        self._up()
        return self.registered

    def trial_run(self, record: TrialRecord) -> str:
        self._up()
        self.opened.append(record)
        return f"run of {record.variant}"

    def log_epochs(self, run_id: str, history: Sequence[Mapping[str, float]]) -> None:
        self._up()
        self.epochs.append((run_id, len(history)))

    def finish_trial(self, run_id: str, record: TrialRecord, artifacts: Mapping[str, Path]) -> None:
        self._up()
        self.ended[run_id] = record
        self.artifacts = dict(artifacts)

    def trials(self, parent: str) -> list[TrialRecord]:
        self._up()
        return [replace(record, parent=parent) for record in self.ended.values()]

    def describe_study(
        self, run_id: str, page: str, report: str, scores: Mapping[str, float], figures: Mapping[str, bytes]
    ) -> None:
        self._up()
        self.page, self.figures = page, dict(figures)

    def finish_study(self, run_id: str, status: str) -> None:
        self._up()
        self.status = f"{run_id}: {status}"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    file = tmp_path / "p.yaml"
    file.write_text(TEXT)
    return load_study(file)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def log(study: Study, recorder: Recorder, warnings: list[str]) -> StudyLog:
    log = StudyLog(recorder, study, pictures=False, warn=warnings.append)  # type: ignore[arg-type]
    log.open_study(study.variants, {})
    return log


def job(folder: Path, config: TrialConfig, arms: Sequence[Variant] = (), draws: int = 0) -> Any:
    return SimpleNamespace(
        trial_id="0123456789abcdef",
        config=config,
        folder=TrialFolder(folder),
        pack=SimpleNamespace(fingerprint="f0"),
        arms=list(arms),
        searches={"": "random"} if draws else {},
    )


def result(**changes: Any) -> TrialResult:
    known: dict[str, Any] = {
        "trial_id": "0123456789abcdef",
        "status": "finished",
        "epochs": 2,
        "best_epoch": 1,
        "image_passes": 10,
        "seconds": 1.0,
        "metrics": {"test/accuracy": 0.5},
        "tags": {"device": "cpu", "git_commit": "of the training", "numerics": "1"},
    }
    return TrialResult(**(known | changes))


def test_the_study_is_logged_with_its_variants(study: Study, log: StudyLog, recorder: Recorder) -> None:
    log.open_study([*study.variants, Variant("best of search", {"data": {"size": 32}}, evaluation="probe")], {})
    first, second = recorder.studies
    assert (first.name, first.profile, first.data, first.question) == ("p", study.profile, "rendered", "Does it help?")
    assert first.variants == {variant.name: variant.key for variant in study.variants}
    assert (first.seeds, first.evaluations) == ((0, 1), {})
    assert list(second.variants) == ["SL", "SL + puzzling", "best of search"]
    assert second.evaluations == {"best of search": "probe"}


def test_the_study_is_registered_as_it_is(study: Study, log: StudyLog, recorder: Recorder) -> None:
    log.open_study(study.variants, {}, trained=3)
    record = recorder.studies[-1]
    assert record.registered == replace(registration(study, 3), time=record.registered.time)  # type: ignore[union-attr]
    assert record.file == hashlib.sha256(TEXT.encode()).hexdigest()
    assert record.verdict == {"smallest": 0.5, "alpha": 0.05}
    assert recorder.studies[0].registered.trained == 0  # type: ignore[union-attr]


def test_a_registration_by_hand(study: Study) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    found = registration(study, 2)
    assert (found.metric, found.seeds, found.trained) == ("test/accuracy", (0, 1), 2)
    assert found.study == hashlib.sha256(TEXT.encode()).hexdigest()
    assert found.verdict == hashlib.sha256(b'{"alpha": 0.05, "smallest": 0.5}').hexdigest()
    assert before <= datetime.fromisoformat(found.time) <= datetime.now(UTC)


DECIDE: dict[str, Any] = {"smallest": 0.5, "seeds": 6, "alpha": 0.05, "comparisons": [["SL + puzzling", "SL"]]}


def deciding_log(recorder: Recorder, **decide: Any) -> StudyLog:
    """Of the study with `decide`, or without where it is empty."""
    recorder.study_run = lambda record, text: recorder.studies.append(record) or "parent"  # type: ignore[method-assign, assignment, func-returns-value]
    variants: dict[str, Any] = {"SL": {}, "SL + puzzling": {"pretext": {"puzzling": {}}}}
    found = load_study({"name": "p", "variants": variants, **({"decide": decide} if decide else {})})
    return StudyLog(recorder, found, pictures=False, warn=print)  # type: ignore[arg-type]


def test_how_seeds_are_added_is_logged_and_registered(recorder: Recorder) -> None:
    deciding_log(recorder, seeds=6).open_study((), {})
    (record,) = recorder.studies
    assert record.decide == DECIDE
    assert record.registered is not None
    assert (record.registered.decide, record.registered.seeds) == (DECIDE, (0, 1, 2, 3, 4, 5))


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"seeds": 7}, "smallest: 0.5, seeds: 7, alpha: 0.05"),
        ({"seeds": 5}, "seeds: 5"),
        ({"seeds": 6, "alpha": 0.1}, "alpha: 0.1"),
        ({"seeds": 6, "smallest": 1.0}, "smallest: 1"),
        ({}, "now {none}"),
    ],
)
def test_decide_can_t_change_once_the_study_has_begun(recorder: Recorder, now: dict[str, Any], words: str) -> None:
    recorder.registered = Registration(
        study="", verdict="", metric="", seeds=(), time="2026-11-26T00:30:00+00:00", decide=DECIDE
    )
    deciding_log(recorder, seeds=6).open_study((), {})
    with pytest.raises(StudyError, match="decide can't change once the study has begun") as error:
        deciding_log(recorder, **now).open_study((), {})
    assert words in str(error.value)
    assert "registered {smallest: 0.5, seeds: 6, alpha: 0.05} on 2026-11-26" in str(error.value)
    assert len(recorder.studies) == 1


def test_decide_may_be_added_to_a_study_that_was_registered_without(recorder: Recorder) -> None:
    """The report says that it was."""
    recorder.registered = Registration(study="", verdict="", metric="", seeds=(), time="")
    deciding_log(recorder, seeds=6).open_study((), {})
    assert recorder.studies[0].decide == DECIDE


def test_the_study_is_logged_with_its_controls(recorder: Recorder, warnings: list[str]) -> None:
    variants = {"SL": {}, "HMTL": {"pretext": {"puzzling": {}}, "controls": []}}
    found = load_study({"name": "p", "variants": variants})
    recorder.study_run = lambda record, text: recorder.studies.append(record) or "parent"  # type: ignore[method-assign, assignment, func-returns-value]
    StudyLog(recorder, found, pictures=False, warn=warnings.append).open_study(found.variants, {})  # type: ignore[arg-type]
    (record,) = recorder.studies
    assert record.controls == {
        "HMTL": {
            "sl": "SL",
            "views": "HMTL: whole views",
            "distortion": "HMTL: distortion",
            "random_answers": "HMTL: random answers",
            "arm": "HMTL",
            "epochs": "",
            "supervision_off": "",
            "tasks": {},
        }
    }


def test_a_job_has_a_run_for_each_arm_and_one_for_its_search(
    study: Study, log: StudyLog, recorder: Recorder, tmp_path: Path
) -> None:
    arm, stage = study.variants[0], Variant("pre", study.variants[0].raw, stage=True)
    one = job(tmp_path, arm.config(1), [arm, stage])
    log.open(one)
    log.open(one)
    assert [(record.variant, record.stage) for record in recorder.opened] == [("SL", False), ("pre", True)]
    record = recorder.opened[0]
    assert record.config == arm.config(1).model_dump(mode="json")
    assert (record.parent, record.trial_id, record.variant_key) == ("parent", "0123456789abcdef", arm.key)
    assert (record.seed, record.task, record.data, record.protocol) == (1, "emotion", "rendered", "selection")
    assert (record.fingerprint, record.numerics, record.evaluation) == ("f0", NUMERICS_VERSION, "")
    assert record.status == "running"

    one.searches["an arm"] = "sampler"  # a search has drawn the very same trial
    log.open(one)
    assert [(record.variant, record.variant_key) for record in recorder.opened[2:]] == [
        ("SL", arm.key),
        ("pre", stage.key),
        ("search", ""),
    ]
    assert (recorder.opened[-1].arm, recorder.opened[-1].draw) == ("an arm", "sampler")
    log.epochs(one, [{"epoch": 1}])
    assert recorder.epochs == [("run of SL", 1), ("run of pre", 1), ("run of search", 1)]


def test_a_result_ends_every_run_of_the_job(study: Study, log: StudyLog, recorder: Recorder, tmp_path: Path) -> None:
    one = job(tmp_path, study.variants[0].config(0), study.variants[:1], draws=1)
    for name in ("config.json", "log.txt", "best.safetensors", "pictures/confusion.png", "pictures/views.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    log.open(one)
    log.finish(one, result())
    assert set(recorder.ended) == {"run of SL", "run of search"}
    record = recorder.ended["run of SL"]
    assert (record.status, record.metrics, record.environment) == (
        "finished",
        {"test/accuracy": 0.5},
        {"device": "cpu"},
    )
    assert (record.commit, record.numerics) == ("of the training", 1)  # not of the driver that logs it
    # what does not exist is left out, and so are pictures of faces
    assert set(recorder.artifacts) == {"config.json", "log.txt", "best.safetensors", "pictures/confusion.png"}

    log.epochs(one, [{"epoch": 1}])  # over: nothing is open
    assert recorder.epochs == []


def test_weights_of_no_epoch_are_not_logged(study: Study, log: StudyLog, recorder: Recorder, tmp_path: Path) -> None:
    one = job(tmp_path, study.variants[0].config(0), study.variants[:1])
    (tmp_path / "best.safetensors").touch()
    log.open(one)
    log.finish(one, result(status="failed", best_epoch=0, reason="NaN"))
    assert (recorder.ended["run of SL"].status, recorder.ended["run of SL"].reason) == ("failed", "NaN")
    assert recorder.artifacts == {}


def test_a_failure_without_a_result(study: Study, log: StudyLog, recorder: Recorder, tmp_path: Path) -> None:
    one = job(tmp_path, study.variants[0].config(0), study.variants[:1])
    log.open(one)
    log.fail(one, Failure(Ending.HOST_MEMORY, "its machine ran out of memory"))
    record = recorder.ended["run of SL"]
    assert (record.status, record.reason) == ("failed", "its machine ran out of memory")
    assert (record.ending, record.metrics, record.environment) == ("out of memory (host)", {}, {})
    log.open(one)  # tried again
    assert len(recorder.opened) == 2


@pytest.mark.parametrize(
    ("failed", "interrupted", "status"),
    [(False, False, "FINISHED"), (True, False, "FAILED"), (False, True, "KILLED"), (True, True, "KILLED")],
)
def test_how_a_study_ends(log: StudyLog, recorder: Recorder, failed: bool, interrupted: bool, status: str) -> None:
    log.finish_study(failed=failed, interrupted=interrupted)
    assert recorder.status == f"parent: {status}"


def test_a_store_that_goes_down_costs_one_warning_and_gets_all_when_it_is_back(
    study: Study,
    log: StudyLog,
    recorder: Recorder,
    warnings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fault C5: a look a minute; then each trial is delivered once, from its folder."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    one = job(tmp_path, study.variants[0].config(0), study.variants[:1])
    other = job(tmp_path, study.variants[1].config(0), study.variants[1:])
    other.trial_id = "other"
    log.open(one)
    recorder.down = True
    log.epochs(one, [{"epoch": 1}])
    log.open(other)
    log.epochs(other, [{"epoch": 1}])
    log.finish(other, result())
    assert len(warnings) == 1
    assert "no route" in warnings[0]
    assert "run the same command again" in warnings[0]
    recorder.down = False
    one.folder.append_history({"epoch": 1})
    now += 59
    log.epochs(one, [{"epoch": 1}])
    assert (recorder.epochs, recorder.ended) == ([], {})
    now += 2
    log.epochs(one, [{"epoch": 1}])
    assert recorder.epochs == [("run of SL", 1), ("run of SL + puzzling", 1), ("run of SL", 1)]
    assert recorder.ended.keys() == {"run of SL + puzzling"}
    log.finish(one, result())
    log.finish_study(failed=False, interrupted=False)
    assert recorder.ended.keys() == {"run of SL", "run of SL + puzzling"}
    assert [record.variant for record in recorder.opened] == ["SL", "SL", "SL + puzzling"]  # SL's run was found again
    assert (len(warnings), recorder.status) == (1, "parent: FINISHED")


def test_a_store_that_is_back_at_the_end_gets_all(
    study: Study, log: StudyLog, recorder: Recorder, warnings: list[str], tmp_path: Path
) -> None:
    """Fault C5: the end of a run does not wait for the minute to pass."""
    one = job(tmp_path, study.variants[0].config(0), study.variants[:1])
    recorder.down = True
    log.open(one)
    log.open_study([*study.variants, Variant("best of search", {})], {})  # in the middle: no reason to stop
    log.fail(one, Failure(Ending.HOST_MEMORY, "out of memory"))
    recorder.down = False
    log.finish_study(failed=True, interrupted=False)
    assert recorder.ended["run of SL"].reason == "out of memory"
    assert list(recorder.studies[-1].variants) == ["SL", "SL + puzzling", "best of search"]
    assert (len(warnings), recorder.status) == (1, "parent: FAILED")


def test_trials_that_could_not_be_delivered_are_counted_at_the_end(
    study: Study, log: StudyLog, recorder: Recorder, warnings: list[str], tmp_path: Path
) -> None:
    one = job(tmp_path, study.variants[0].config(0), study.variants[:1])
    recorder.down = True
    log.open(one)
    log.finish(one, result())
    log.finish_study(failed=False, interrupted=False)
    assert "MLflow lacks 1 trials" in warnings[-1]


def test_a_store_that_hangs_holds_up_nothing(
    study: Study,
    recorder: Recorder,
    warnings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fault C5: no call is waited for longer than the limit, and none overtakes the one that hangs."""
    monkeypatch.setattr("hmtl_ablate.running.study_log.LIMIT", 0.05)
    monkeypatch.setattr("hmtl_ablate.running.study_log.PROBE_EVERY", 0.0)
    log = StudyLog(recorder, study, pictures=False, warn=warnings.append)  # type: ignore[arg-type]
    log.open_study(study.variants, {})
    answer = threading.Event()
    trial_run = recorder.trial_run
    recorder.trial_run = lambda record: trial_run(record) if answer.wait(10) else ""  # type: ignore[method-assign]
    one = job(tmp_path, study.variants[0].config(0), study.variants[:1])
    log.open(one)
    log.epochs(one, [{"epoch": 1}])
    log.finish(one, result())
    assert "does not answer within 0.05 s" in warnings[0]
    assert (len(warnings), recorder.opened, recorder.ended) == (1, [], {})
    answer.set()
    deadline = time.monotonic() + 10
    while not recorder.ended and time.monotonic() < deadline:
        log.finish(one, result())
        time.sleep(0.01)
    assert recorder.ended.keys() == {"run of SL"}
    assert len(warnings) == 1


def test_a_store_that_is_down_at_the_start_is_an_error(study: Study, recorder: Recorder) -> None:
    recorder.down = True
    log = StudyLog(recorder, study, pictures=True, warn=pytest.fail)  # type: ignore[arg-type]
    with pytest.raises(TrackingError, match="no route"):
        log.open_study(study.variants, {})


def test_every_kind_of_probe_has_its_evaluation() -> None:
    assert set(EVALUATIONS) == set(get_args(ProbeConfig.model_fields["kind"].annotation))
