"""Runs in a real MLflow store on SQLite: found again, never doubled, read back as records."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.errors import TrackingError
from hmtl_ablate.storage.files import write_atomically
from hmtl_ablate.tracking import Registration, Tracking, TrialRecord, open_tracking

Maker = Callable[..., Any]
Steps = Callable[[Tracking, str, str], list[int]]


def epochs(count: int) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "val/loss": 1 / epoch, "val/recall/a(b)": 0.5, "seconds": 2.0 * epoch}
        for epoch in range(1, count + 1)
    ]


def test_parent_is_found_again_and_brought_up_to_date(tracking: Tracking, store: Path, study: Maker) -> None:
    parent = tracking.study_run(study(), "name: p\n")
    tracking.finish_study(parent, "FAILED")
    assert tracking.client.get_run(parent).info.status == "FAILED"

    again = open_tracking(None, store)
    changed = study(question="Really?", variants={f"variant {number}": "k" for number in range(1000)})
    assert again.study_run(changed, "name: q\n") == parent
    run = again.client.get_run(parent)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "it's (quick, rendered)"
    assert [file.read_text() for file in store.rglob("study.yaml")] == ["name: q\n"]
    assert again.study_run(study(data="ferplus"), "") != parent
    [found] = [one for one in again.studies() if one.run_id == parent]
    assert replace(found, run_id="", started=0) == changed

    # back to few variants: the tags that the long text has left are not read
    again.study_run(study(), "")
    assert {one.run_id: one for one in again.studies()}[parent].variants == {"SL": "k1"}


def test_a_registration_is_written_when_the_run_is_created_and_never_again(
    tracking: Tracking, store: Path, study: Maker
) -> None:
    first = Registration(study="a", verdict="b", metric="test/accuracy", seeds=tuple(range(3000)), time="2026-11-26")
    parent = tracking.study_run(study(registered=first, file="a"), "")
    later = replace(first, study="c", time="2026-11-27", seeds=(0,))
    assert open_tracking(None, store).study_run(study(registered=later, file="c"), "") == parent
    [found] = tracking.studies()
    assert (found.registered, found.file) == (first, "c")

    unregistered = tracking.study_run(study(data="older"), "")
    assert tracking.study_run(study(data="older", registered=later), "") == unregistered
    assert {one.run_id: one.registered for one in tracking.studies()}[unregistered] is None


def test_child_is_found_again_by_parent_trial_and_variant(tracking: Tracking, study: Maker, trial: Maker) -> None:
    parent = tracking.study_run(study(), "")
    child = tracking.trial_run(trial(parent))
    assert tracking.trial_run(trial(parent, commit="c2")) == child
    long = trial(parent, variant="it's \n `long` " + "x" * 9000)
    other = tracking.trial_run(long)
    assert other != child
    assert tracking.trial_run(long) == other
    assert tracking.trial_run(trial(tracking.study_run(study(data="ferplus"), ""))) != child

    found = {record.run_id: record for record in tracking.trials()}
    assert len(found) == 3
    assert replace(found[child], run_id="", started=0) == trial(parent, commit="c2")
    assert replace(found[other], run_id="", started=0) == long
    run = tracking.client.get_run(child)
    assert run.info.run_name == "sl · seed 0"
    assert run.data.params == {"training.epochs": "2", "model.long": "x" * 500}


def test_a_trial_keeps_its_status_until_it_ends(tracking: Tracking, study: Maker, trial: Maker) -> None:
    record = trial(tracking.study_run(study(), ""))
    child = tracking.trial_run(record)
    assert tracking.trials()[0].status == "running"
    tracking.finish_trial(child, replace(record, status="failed", reason="NaN"), {})
    tracking.trial_run(record)  # tried again
    [found] = tracking.trials()
    assert (found.status, found.reason) == ("failed", "NaN")
    tracking.finish_trial(child, replace(record, status="finished"), {})
    [found] = tracking.trials()
    assert (found.status, found.reason) == ("finished", "")


def test_a_run_of_an_earlier_version_gets_its_config(tracking: Tracking, study: Maker, trial: Maker) -> None:
    record = trial(tracking.study_run(study(), ""), config={"data": {"fraction": 0.2}})
    child = tracking.trial_run(record)
    tracking.client.delete_tag(child, "hmtl.config")
    assert tracking.trials()[0].config == {"data": {"fraction": 0.2}}  # of its parameters
    assert tracking.trial_run(record) == child
    assert "hmtl.config" in tracking.client.get_run(child).data.tags


def test_a_run_is_there_with_its_tags_or_not_at_all(
    tracking: Tracking, trial: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking.client, "log_batch", killed)  # what follows a run's creation
    with pytest.raises(KeyboardInterrupt):
        tracking.trial_run(trial("parent"))
    [record] = tracking.trials()
    assert replace(record, run_id="", started=0) == trial("parent")


def test_epochs_are_written_once(tracking: Tracking, store: Path, trial: Maker, steps: Steps) -> None:
    child = tracking.trial_run(trial("parent"))
    tracking.log_epochs(child, epochs(1))
    tracking.log_epochs(child, epochs(2))
    again = open_tracking(None, store)
    again.log_epochs(child, epochs(3))
    again.log_epochs(child, epochs(3))
    assert steps(again, child, "val/loss") == [1, 2, 3]
    assert steps(again, child, "val/recall/a_b_") == [1, 2, 3]


def test_values_that_are_not_finite_are_left_out(tracking: Tracking, trial: Maker, steps: Steps) -> None:
    child = tracking.trial_run(trial("parent"))
    tracking.log_epochs(child, [{"epoch": 1, "val/loss": float("nan"), "lr": 0.1}])
    tracking.log_epochs(child, [{"epoch": 1, "val/loss": 1.0, "lr": 0.1}])
    assert tracking.client.get_run(child).data.metrics == {"epoch": 1, "lr": 0.1}
    assert steps(tracking, child, "lr") == [1]


@pytest.mark.parametrize(("status", "end"), [("finished", "FINISHED"), ("pruned", "FINISHED"), ("failed", "FAILED")])
def test_finishing_twice_writes_nothing_twice(
    tracking: Tracking, tmp_path: Path, trial: Maker, steps: Steps, status: str, end: str
) -> None:
    child = tracking.trial_run(trial("parent"))
    tracking.log_epochs(child, epochs(2))
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"png")
    values = {"test/accuracy": 0.7, "seconds": 5.0, "best/val/loss": float("inf")}
    record: TrialRecord = trial("parent", status=status, metrics=values, environment={"device": "cpu"})
    for _ in range(2):
        tracking.finish_trial(child, record, {"pictures/first.png": picture})

    run = tracking.client.get_run(child)
    assert run.info.status == end
    [found] = tracking.trials()
    assert (found.status, found.environment) == (status, {"device": "cpu"})
    assert run.data.metrics["seconds"] == 5.0
    assert "best/val/loss" not in run.data.metrics
    assert steps(tracking, child, "test/accuracy") == [0]  # MLflow draws it as a bar, not as a line of one point
    assert steps(tracking, child, "seconds") == [1, 2, 2]

    tracking.finish_trial(child, replace(record, metrics=values | {"test/accuracy": 0.6}), {})
    assert tracking.client.get_run(child).data.metrics["test/accuracy"] == 0.6


def test_a_final_value_that_an_earlier_version_wrote_at_the_last_epoch_is_replaced(
    tracking: Tracking, trial: Maker, steps: Steps
) -> None:
    child = tracking.trial_run(trial("parent"))
    tracking.log_epochs(child, [{"epoch": 2, "test/accuracy": 0.7}])
    tracking.finish_trial(child, trial("parent", status="finished", metrics={"test/accuracy": 0.6}), {})
    assert tracking.client.get_run(child).data.metrics["test/accuracy"] == 0.6


def test_a_pruned_trial_of_an_earlier_version_has_ended(tracking: Tracking, trial: Maker) -> None:
    running, ended = (tracking.trial_run(trial("parent", trial_id=name)) for name in ("a", "b"))
    tracking.client.set_terminated(ended, status="KILLED")
    assert tracking.ended_trials("parent") == {("b", "sl", "")}
    tracking.finish_trial(running, trial("parent", trial_id="a", status="pruned"), {})
    assert tracking.ended_trials("parent") == {("a", "sl", ""), ("b", "sl", "")}


def test_a_trial_names_its_data_once(tracking: Tracking, trial: Maker) -> None:
    for fingerprint in ("f0", "f0", "f1"):  # the data has changed in between
        child = tracking.trial_run(trial("parent", data="rendered", fingerprint=fingerprint))
    inputs = tracking.client.get_run(child).inputs.dataset_inputs
    assert sorted((one.dataset.name, one.dataset.digest) for one in inputs) == [("rendered", "f0"), ("rendered", "f1")]
    assert [[(tag.key, tag.value) for tag in one.tags] for one in inputs] == [[("mlflow.data.context", "training")]] * 2
    assert not tracking.client.get_run(tracking.trial_run(trial("parent", variant="b"))).inputs.dataset_inputs


def test_the_environment_of_another_run_does_not_leak_in(
    store: Path, study: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracking = open_tracking(None, store)
    parent = tracking.study_run(study(), "")
    assert parent != "0" * 32
    assert tracking.client.get_experiment(tracking.client.get_run(parent).info.experiment_id).name == "hmtl-ablate"


@pytest.mark.slow
def test_a_new_store_is_made_quietly_and_holds_no_absolute_path(
    tmp_path: Path, study: Maker, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tracking = open_tracking(None, tmp_path / "deep" / "runs")
    tracking.study_run(study(), "")
    assert logging.getLogger("mlflow").level == logging.WARNING
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    for experiment in tracking.client.search_experiments():
        assert experiment.artifact_location.startswith("mlflow-artifacts:/")


def test_a_dead_server_is_reported(tmp_path: Path, free_port: int) -> None:
    with pytest.raises(TrackingError, match="can't be used"):
        open_tracking(f"http://127.0.0.1:{free_port}", tmp_path)


def test_what_mlflow_refuses_becomes_a_tracking_error(
    tracking: Tracking, study: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrackingError, match="no-such-run"):
        tracking.log_epochs("no-such-run", epochs(1))
    tracking.client.delete_experiment(tracking.experiment_id)
    with pytest.raises(TrackingError, match="does not take the results"):
        tracking.study_run(study(), "")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(tracking.client, "search_runs", refuse)
    with pytest.raises(TrackingError, match=r"can't be read from MLflow at sqlite.*no route"):
        tracking.trials()


def test_a_deleted_experiment_is_reported(tracking: Tracking, store: Path) -> None:
    tracking.client.delete_experiment(tracking.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore"):
        open_tracking(None, store)


def test_more_runs_than_a_page(tracking: Tracking, trial: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmtl_ablate.tracking.store.PAGE", 2)
    first = tracking.trial_run(trial("parent"))
    for variant in ("b", "c", "d", "e"):
        tracking.trial_run(trial("parent", variant=variant))
    assert sorted(record.variant for record in tracking.trials()) == ["b", "c", "d", "e", "sl"]
    assert tracking.trial_run(trial("parent")) == first


def test_a_study_s_page_has_its_answer_report_and_best_score(tracking: Tracking, store: Path, study: Maker) -> None:
    parent = tracking.study_run(study(), "name: p\n")
    for _ in range(2):
        page, figures = "- It helps.\n" + "x" * 9000, {"figures/curves.png": b"png"}
        tracking.describe_study(parent, page, "# Report\n", {"test/accuracy": 0.7}, figures)
    run = tracking.client.get_run(parent)
    assert run.data.tags["mlflow.note.content"] == "- It helps."
    assert run.data.metrics == {"test/accuracy": 0.7}
    assert [file.read_text() for file in store.rglob("report.md")] == ["# Report\n"]
    assert [file.read_bytes() for file in store.rglob("artifacts/figures/curves.png")] == [b"png"]


def ended(tracking: Tracking, trial: Maker, files: dict[str, Path]) -> dict[str, Path]:
    """Name → artifact of a trial that has ended with these files."""
    run = tracking.trial_run(trial("parent"))
    tracking.finish_trial(run, trial("parent", status="finished", metrics={"test/accuracy": 0.5}), files)
    return {path.name: path for path in tracking.store.rglob(f"artifacts/**/{run}/**/*") if path.is_file()}


def test_artifacts_are_hard_links_but_what_grows_is_copied(tracking: Tracking, trial: Maker, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("best.safetensors", "log.txt")}
    for name, file in files.items():
        file.write_text(name)
    found = ended(tracking, trial, files)
    assert found["best.safetensors"].samefile(files["best.safetensors"])
    assert not found["log.txt"].samefile(files["log.txt"])
    with files["log.txt"].open("a") as log:
        log.write(", longer")
    write_atomically(files["best.safetensors"], b"others")
    assert (found["best.safetensors"].read_text(), found["log.txt"].read_text()) == ("best.safetensors", "log.txt")
    again = ended(tracking, trial, files)
    assert (again["best.safetensors"].read_text(), again["log.txt"].read_text()) == ("others", "log.txt, longer")
    assert sorted(again) == ["best.safetensors", "log.txt"]  # nothing unfinished is left


def test_where_there_are_no_hard_links_artifacts_are_copies_and_links_later(
    tracking: Tracking, trial: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "best.safetensors"
    file.write_text("weights")

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    with monkeypatch.context() as patched:
        patched.setattr("hmtl_ablate.tracking.store.os.link", refuse)
        for _ in range(2):
            copy = ended(tracking, trial, {file.name: file})[file.name]
            assert (copy.read_text(), copy.samefile(file)) == ("weights", False)
    assert ended(tracking, trial, {file.name: file})[file.name].samefile(file)


def test_the_table_of_runs_shows_the_metrics_of_each_study(tracking: Tracking, study: Maker) -> None:
    for metric in ("test/accuracy", "test/mae", "test/accuracy"):
        tracking.study_run(study(metric=metric), "")
    tags = tracking.client.get_experiment(tracking.experiment_id).tags
    view = json.loads(tags["mlflow.sharedViewState.hmtl"])
    assert (view["orderByKey"], view["orderByAsc"]) == ("attributes.end_time", False)
    assert view["selectedColumns"] == [
        "tags.`hmtl.study`",
        "tags.`hmtl.variant`",
        "tags.`hmtl.seed`",
        "tags.`hmtl.status`",
        "metrics.`best/val/accuracy`",
        "metrics.`test/accuracy`",
        "metrics.`best/val/mae`",
        "metrics.`test/mae`",
        "metrics.`seconds`",
    ]
