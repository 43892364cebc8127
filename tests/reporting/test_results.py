import json
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.reporting.render import build_report, render
from hmtl_ablate.reporting.results import TRIAL_COLUMNS, load_results, results_of
from hmtl_ablate.reporting.tables import study_tables
from hmtl_ablate.tracking.records import RunData, StudyRecord, TrialRecord

OLD = json.loads((Path(__file__).parents[1] / "tracking" / "runs_at_5b007a3.json").read_text(encoding="utf-8"))


def test_a_store_without_runs_is_empty_and_stays_untouched(tmp_path: Path) -> None:
    for uri in (None, f"sqlite:///{tmp_path / 'other.db'}"):
        results = load_results(uri, tmp_path / "runs")
        assert results.empty
        assert results.trials.empty
    assert list(tmp_path.iterdir()) == []


def test_frames_are_tidy(store: Any) -> None:
    parent = store.study({"SL": "k1"}, [0])
    store.trial(parent, "SL", "k1", 0, 0.7, params={"data.fraction": "0.2"})
    results = load_results(None, store.path)
    study = results.studies.iloc[0]
    assert (study["study"], study["profile"], study["metric"], study["data"]) == (
        "puzzling",
        "quick",
        "test/accuracy",
        "rendered",
    )
    assert study["variants"] == {"SL": "k1"}
    trial = results.trials.iloc[0]
    assert (trial["parent"], trial["seed"], trial["status"], trial["classes"]) == (parent, 0, "finished", 8)
    assert trial["params.data.fraction"] == "0.2"
    assert (trial["options"]["data.fraction"], trial["options"]["data.stored"]) == (0.2, None)
    assert trial["metrics.test/accuracy"] == 0.7


def test_standing(store: Any) -> None:
    parent = store.study({"SL": "new"}, [0, 1])
    runs = {
        store.trial(parent, "SL", "old", 0, 0.1): "superseded",
        store.trial(parent, "dropped", "new", 0, 0.1): "superseded",
        store.trial(parent, "SL", "new", 7, 0.1): "superseded",
        store.trial(parent, "search", "s", 0): "search",
        store.trial(parent, "SL", "new", 0, 0.5, trial_id="numerics 1"): "superseded",
        store.trial(parent, "SL", "new", 0, 0.6, trial_id="numerics 2"): "declared",
        store.trial(parent, "SL", "new", 1, status="running"): "declared",
    }
    trials = load_results(None, store.path).trials
    assert dict(zip(trials["run_id"], trials["standing"], strict=True)) == runs


def test_trials_of_different_numerics_are_never_pooled(store: Any) -> None:
    """Fault numerics: after an upgrade, seeds that were not trained again stood in the same row as new ones."""
    parent, other = store.study({"SL": "a"}, [0, 1, 2]), store.study({"SL": "a"}, [0], name="older")
    runs = {
        store.trial(parent, "SL", "a", 0, 0.5, numerics=2): "superseded",
        store.trial(parent, "SL", "a", 1, 0.5, numerics=2): "superseded",
        store.trial(parent, "SL", "a", 2, 0.5): "superseded",
        store.trial(parent, "SL", "a", 0, 0.7, numerics=3): "declared",
        store.trial(other, "SL", "a", 0, 0.6, numerics=2): "declared",  # a study of older numerics alone can be read
    }
    results = load_results(None, store.path)
    assert dict(zip(results.trials["run_id"], results.trials["standing"], strict=True)) == runs
    (table,) = study_tables(results, "puzzling")
    assert (table.rows[0].score.n, table.rows[0].score.mean) == (1, 0.7)
    assert "3 trials left out: the study or the numerics version has changed since" in table.notes


def test_trials_on_older_content_of_the_same_data_are_set_apart(store: Any) -> None:
    parent = store.study({"SL": "a", "SL large": "b"}, [0, 1])
    large = {"data.size": "64"}
    runs = {
        store.trial(parent, "SL", "a", 0, 0.5, fingerprint="before"): "older data",
        store.trial(parent, "SL", "a", 1, 0.5, fingerprint="before"): "older data",
        store.trial(parent, "SL", "a", 0, 0.6, fingerprint="after"): "declared",
        # Another size is another pack: its fingerprint differs without any change of content.
        store.trial(parent, "SL large", "b", 0, 0.7, fingerprint="64 px", params=large): "declared",
    }
    trials = load_results(None, store.path).trials
    assert dict(zip(trials["run_id"], trials["standing"], strict=True)) == runs


def test_a_store_of_an_earlier_version(store: Any) -> None:
    study, trial = OLD["study"], OLD["trial"]
    parent = store.log(RunData(study["tags"]))
    store.log(RunData(trial["tags"] | {"mlflow.parentRunId": parent}, trial["params"], trial["metrics"]))
    # the same study went on with this version
    now = TrialRecord(
        parent=parent,
        trial_id="fedcba9876543210",
        variant="SL + puzzling",
        variant_key="b2",
        seed=0,
        data="rendered",
        fingerprint="f0",
        numerics=2,  # those of the old one: a newer version would supersede it
        config=OLD["config"] | {"seed": 0},
    )
    store.log(now.to_run())

    results = load_results(None, store.path)
    assert results.studies.iloc[0]["variants"] == {"SL": "a1", "SL + puzzling": "b2"}
    assert list(results.trials["standing"]) == ["declared", "declared"]
    old, new = results.trials.to_dict("records")
    assert (old["status"], old["classes"], old["torch"], old["commit"]) == ("finished", 2, "2.14.0", "5b007a3")
    assert {key: text for key, text in old.items() if str(key).startswith("params.")} == {
        f"params.{key}": text for key, text in trial["params"].items()
    }
    assert old["options"] | {"seed": 0} == new["options"]
    assert new["params.data.leave_out"] == old["params.data.leave_out"] == "['contempt']"


def test_frames_of_records_need_no_store() -> None:
    study = StudyRecord(name="s", profile="quick", metric="test/accuracy", variants={"SL": "k"}, seeds=(0,), run_id="p")
    trial = TrialRecord(parent="p", trial_id="t", variant="SL", variant_key="k", seed=0, config={"data": {"size": 48}})
    results = results_of(
        [study], [trial, TrialRecord(parent="p", trial_id="u", variant="S", seed=0, config={}, stage=True)]
    )
    assert list(results.trials["standing"]) == ["declared", "stage"]
    assert list(results.trials.columns) == [*TRIAL_COLUMNS, "params.data.size"]
    assert len(results.declared("p")) == 1
    assert results.declared("other").empty
    assert results_of([study], []).trials.empty


def test_size_is_what_is_stored_when_nothing_else_is_said() -> None:
    def trial(seed: int, fingerprint: str, **data: int | None) -> TrialRecord:
        return TrialRecord(
            parent="p",
            trial_id=f"{seed}",
            variant="SL",
            variant_key="k",
            seed=seed,
            fingerprint=fingerprint,
            config={"data": data},
            started=seed,
        )

    study = StudyRecord(name="s", profile="q", metric="m", variants={"SL": "k"}, seeds=(0, 1, 2, 3), run_id="p")
    trials = [
        trial(0, "old", size=48, stored=None),
        trial(1, "new", size=32, stored=48),  # the same pack as seed 0's, with newer content
        trial(2, "64 px", size=32, stored=64),
        trial(3, "new", size=48),
    ]
    standings = results_of([study], trials).trials["standing"]
    assert list(standings) == ["older data", "declared", "declared", "declared"]


@pytest.mark.parametrize(
    ("shares", "left_out"),
    [
        (["batch", "batch", "1/2 of a batch"], [2]),
        (["1/4 of a batch", "batch", "1/4 of a batch", "1/2 of a batch"], [1, 3]),
        (["1/2 of a batch", "batch"], [0]),  # none is of most: whole batches count
        (["none", "batch", "", "batch"], []),  # no batch norm, and none recorded
        (["1/2 of a batch", "1/2 of a batch", "none"], []),
    ],
)
def test_trials_whose_batch_norm_saw_other_batches_are_never_pooled(shares: list[str], left_out: list[int]) -> None:
    """Fault B9: `workers` changes batch norm, not the id."""
    study = StudyRecord(
        name="s", profile="q", metric="test/accuracy", variants={"SL": "k"}, seeds=tuple(range(9)), run_id="p"
    )
    trials = [
        TrialRecord(
            parent="p",
            trial_id=f"{seed}",
            variant="SL",
            variant_key="k",
            seed=seed,
            config={},
            status="finished",
            started=seed,
            metrics={"test/accuracy": 0.5},
            environment={"batch_norm": share} if share else {},
        )
        for seed, share in enumerate(shares)
    ]
    results = results_of([study], trials)
    apart = [place for place, standing in enumerate(results.trials["standing"]) if standing == "other batch norm"]
    assert apart == left_out
    (table,) = study_tables(results)
    assert table.rows[0].score.n == len(shares) - len(left_out)
    assert any("batch norm saw another share" in note for note in table.notes) == bool(left_out)


@pytest.mark.parametrize("value", ["not JSON", "[1]", '{"SL": 3}', "[" * 5000])
def test_tags_of_another_hand_hide_no_other_study(store: Any, value: str, caplog: pytest.LogCaptureFixture) -> None:
    """Fault C16: one bad run never blocks the other tables."""
    bad, good = store.study({"SL": "k"}, [0]), store.study({"SL": "k"}, [0], name="other")
    for parent in (bad, good):
        store.trial(parent, "SL", "k", 0, 0.5)
    store.client.set_tag(bad, "hmtl.variants", value)
    results = load_results(None, store.path)
    assert list(results.studies["run_id"]) == [good]
    assert list(results.trials["parent"]) == [bad, good]
    assert list(results.declared()["parent"]) == [good]
    [warning] = caplog.messages
    assert bad in warning
    assert "hmtl.variants" in warning
    assert "other" in render(build_report(results, None), "terminal")
