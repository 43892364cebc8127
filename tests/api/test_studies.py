"""Studies from Python: plan, run, results."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import hmtl_ablate as ha
from hmtl_ablate.errors import ClusterError, DataError, HmtlError, StudyError
from hmtl_ablate.running import run as running
from hmtl_ablate.running.summary import RunSummary

from .conftest import CONFIG

STUDY: dict[str, Any] = {
    "name": "api",
    "question": "Does it run?",
    "base": CONFIG,
    "variants": {"SL": {}, "SL, 2 views": {"data.views": 2}},
    "seeds": [0],
}


def test_a_trial_that_was_trained_alone_is_skipped(trial: ha.TrainedTrial, workplace: Path, tmp_path: Path) -> None:
    planned = ha.plan(STUDY, store=workplace / "runs")
    assert [(one.variant, one.seed, one.status) for one in planned] == [("SL", 0, "skip"), ("SL, 2 views", 0, "start")]
    assert planned[0].trial_id == trial.trial_id
    assert [one.status for one in ha.plan(STUDY, store=tmp_path)] == ["start", "start"]
    frame = pd.DataFrame(planned)
    assert frame["status"].tolist() == ["skip", "start"]


def test_a_file_a_mapping_and_a_study_are_planned_alike(tiny: Path, tmp_path: Path) -> None:
    study = ha.load_study(tiny)
    assert ha.plan(tiny, store=tmp_path) == ha.plan(str(tiny), store=tmp_path) == ha.plan(study, store=tmp_path)


def test_a_malformed_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="did you mean 'epochs'"):
        ha.plan({**STUDY, "base": {"training": {"epoch": 1}}}, store=tmp_path)


@pytest.mark.parametrize(
    ("study", "options", "error", "words"),
    [
        ({**STUDY, "base": {"data": {"name": "ferplus"}}}, {}, DataError, "ferplus"),
        (STUDY, {"engine": "rya"}, HmtlError, "did you mean 'ray'"),
        (STUDY, {"address": "head:1"}, HmtlError, "local engine"),
        (STUDY, {"store": "/proc/1/nowhere"}, HmtlError, "can't be written"),
    ],
)
def test_what_is_wrong_with_a_run_is_said_before_it(
    tmp_path: Path, study: dict[str, Any], options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ha.run(study, **({"store": tmp_path} | options))


def test_the_summary_and_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = RunSummary(done=1, skipped=2, pruned=3, failed=[("SL", "NaN", Path("log"))])
    monkeypatch.setattr("hmtl_ablate.api.studies.prepare", lambda study, store, uri: _Prepared())
    given: dict[str, Any] = {}

    def run_study(study: object, **options: Any) -> RunSummary:
        given.update(options)
        options["progress"].say("one line")
        return summary

    monkeypatch.setattr(running, "run_study", run_study)
    done = ha.run(STUDY, store=tmp_path, imports=["json"], pictures=False)
    assert (done.trained, done.skipped, done.pruned, done.failed) == (1, 2, 3, (("SL", "NaN", Path("log")),))
    assert (done.study.name, done.store) == ("api", tmp_path)
    assert capsys.readouterr().out == "one line\n"
    options = given["options"]
    assert (options.engine, options.imports, options.pictures) == ("local", ("json",), False)
    ha.run(STUDY, store=tmp_path, progress=False)
    assert capsys.readouterr().out == ""
    summary.interrupted = True
    with pytest.raises(KeyboardInterrupt, match="the same call resumes"):
        ha.run(STUDY, store=tmp_path, progress=False)


class _Prepared:
    packs = tracking = None


@pytest.mark.slow
def test_a_run_its_results_and_a_second_run(
    trial: ha.TrainedTrial, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = workplace / "runs"
    done = ha.run(STUDY, store=store)
    assert (done.trained, done.skipped, done.failed) == (1, 1, ())
    assert "[2/2] SL, 2 views · seed 0: finished" in capsys.readouterr().out
    results = done.results
    [run] = results.studies.query("study == 'api'")["run_id"]
    rows = results.declared(run)
    assert rows["variant"].tolist() == ["SL", "SL, 2 views"]
    own = rows.set_index("variant").loc["SL"]
    assert own["trial_id"] == trial.trial_id
    assert own["metrics.test/accuracy"] == pytest.approx(trial.metrics["test/accuracy"])
    table = ha.report(store, "csv", study="api")
    assert "SL, 2 views" in table
    assert "example" not in table
    with pytest.raises(StudyError, match="elsewhere"):
        ha.report(store, study="elsewhere")
    again = ha.run(ha.load_study(STUDY), store=store, progress=False)
    assert (again.trained, again.skipped) == (0, 2)
    assert ha.load_results(store).trials.shape == results.trials.shape


def test_a_report_in_a_format_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(HmtlError, match="did you mean 'markdown'"):
        ha.report(tmp_path, "markdwon")


@pytest.mark.slow
def test_the_local_engine_refuses_several_workers(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"resources\.workers=1"):
        ha.run({**STUDY, "resources": {"workers": 2}}, store=tmp_path)
