from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.errors import TrackingError
from hmtl_ablate.report.results import load_results


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


def test_more_runs_than_a_page(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    parent = store.study({"SL": "k"}, [0, 1, 2])
    for seed in range(3):
        store.trial(parent, "SL", "k", seed, 0.5)
    search = MlflowClient.search_runs
    monkeypatch.setattr(
        MlflowClient,
        "search_runs",
        lambda self, *args, **options: search(self, *args, **(options | {"max_results": 2})),
    )
    assert sorted(load_results(None, store.path).trials["seed"]) == [0, 1, 2]


@pytest.mark.parametrize("value", ["not JSON", "[1]"])
def test_tags_of_another_hand_are_named(store: Any, value: str) -> None:
    parent = store.study({"SL": "k"}, [0])
    store.client.set_tag(parent, "hmtl.variants", value)
    with pytest.raises(TrackingError, match=rf"{parent}.*hmtl\.variants"):
        load_results(None, store.path)
