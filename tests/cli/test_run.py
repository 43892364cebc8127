"""Whole runs on real Ray, Optuna and MLflow, at the smallest size."""

import fcntl
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.conftest import PROGRAM, SPACES, Cli, environment  # type: ignore[import-not-found]

SMALL = (
    "--set",
    "training.epochs=1",
    "--set",
    "training.warmup_epochs=0",
    "--set",
    "training.batch_size=32",
    "--set",
    "data.images=96",
    "--seeds",
    "0",
)


def results(store: Path) -> dict[str, dict[str, object]]:
    return {path.parent.name: json.loads(path.read_text()) for path in (store / "trials").glob("*/result.json")}


def trial_runs(store: Path) -> list[object]:
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("hmtl-ablate")
    return [
        run
        for run in client.search_runs([experiment.experiment_id], max_results=1000)
        if run.data.tags["hmtl.kind"] == "trial"
    ]


@pytest.mark.parametrize("name", sorted(path.name for path in SPACES.glob("*.yaml")))
def test_every_search_space_runs_and_is_reported(cli: Cli, tmp_path: Path, name: str) -> None:
    done = (
        cli("run", SPACES / name, *SMALL, "--trials", 2, "--quiet")
        if "search:" in (SPACES / name).read_text()
        else cli("run", SPACES / name, *SMALL, "--quiet")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ended = results(tmp_path / "runs")
    assert ended
    assert {result["status"] for result in ended.values()} <= {"finished", "pruned"}
    report = json.loads(cli("report", "--format", "json").stdout)
    assert report["studies"][0]["rows"]
    for study in report["studies"]:
        assert all(row["n_seeds"] == 1 and row["mean"] >= 0 and row["image_passes"] > 0 for row in study["rows"])
    assert {claim["status"] for claim in report["claims"]} == {"Unverified"}


def test_kill_nine_and_the_same_command_again(tiny: Path, tmp_path: Path, cli: Cli) -> None:
    words = ["run", tiny, "--set", "training.epochs=6", "--max-concurrent", 1, "--set", "data.images=400"]
    store = tmp_path / "runs"
    driver = subprocess.Popen(
        [PROGRAM, *map(str, words)],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:  # until one trial is over and another has finished an epoch
            if results(store) and any(
                len(path.read_text().splitlines()) in range(1, 6) for path in store.glob("trials/*/metrics.jsonl")
            ):
                break
            time.sleep(0.2)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    before = {name: (store / "trials" / name / "result.json").stat().st_mtime_ns for name in results(store)}
    assert before
    assert len(before) < 4
    done = cli(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    after = results(store)
    assert len(after) == 4
    for name, stamp in before.items():  # what was finished is not trained again
        assert (store / "trials" / name / "result.json").stat().st_mtime_ns == stamp
    for name in after:  # every epoch once, in the folder and in MLflow
        lines = (store / "trials" / name / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    runs = trial_runs(store)
    assert len(runs) == 4
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    for run in runs:
        assert run.data.tags["hmtl.status"] == "finished"
        curve = client.get_metric_history(run.info.run_id, "val/accuracy")
        assert sorted(point.step for point in curve) == [1, 2, 3, 4, 5, 6]


def test_successive_halving_stops_trials_early(cli: Cli, tmp_path: Path) -> None:
    study = tmp_path / "halving.yaml"
    study.write_text("""\
name: halving
base:
  data: {images: 96, size: 32}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 12, warmup_epochs: 0}
search:
  base: {pretext: {puzzling: {}}}
  space: {pretext.puzzling.weight: {loguniform: [0.1, 10.0]}}
  sampler: random
  pruner: {name: successive_halving, grace_epochs: 1}
  trials: 6
""")
    done = cli("run", study, "--max-concurrent", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    ended = results(tmp_path / "runs").values()
    stopped = [result for result in ended if result["status"] == "pruned"]
    assert len(ended) == 6
    assert stopped  # of six trials one at a time, a rung of one epoch keeps a third
    assert all(int(str(result["epochs"])) < 12 for result in stopped)
    assert f"{len(stopped)} stopped early" in done.stdout
    assert all(run.data.tags["hmtl.status"] in {"finished", "pruned"} for run in trial_runs(tmp_path / "runs"))


def test_search_reaches_its_total_over_two_runs_confirms_and_starts_nothing_twice(cli: Cli, tmp_path: Path) -> None:
    study = tmp_path / "search.yaml"
    study.write_text("""\
name: found
question: Which weight?
base:
  data: {images: 96, size: 32}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 2, warmup_epochs: 0}
seeds: [0, 1]
search:
  base: {pretext: {puzzling: {}}}
  space:
    pretext.puzzling.weight: {loguniform: [0.1, 10.0]}
    pretext.puzzling.feed: {choice: [shared, mixed]}
    pretext.puzzling.share: {uniform: [0.2, 0.8], when: {pretext.puzzling.feed: mixed}}
  sampler: tpe
  pruner: {name: successive_halving, grace_epochs: 1}
  trials: 2
  objective: {val/accuracy: max}
  confirm: true
""")
    first = cli("run", study)
    assert first.returncode == 0, first.stdout + first.stderr
    store = tmp_path / "runs"
    searched = [run for run in trial_runs(store) if run.data.tags["hmtl.variant"] == "search"]
    assert len(searched) == 2
    assert not any(name.startswith("test/") for run in searched for name in run.data.metrics)  # selection only
    confirmed = {
        run.data.tags["hmtl.variant"]: run for run in trial_runs(store) if run.data.tags["hmtl.variant"] != "search"
    }
    assert set(confirmed) == {"best of search", "best of search, SL alone"}
    for run in confirmed.values():  # with a seed that the search has not seen
        assert run.data.tags["hmtl.seed"] == "1"
        assert "test/accuracy" in run.data.metrics
    again = cli("run", study, "--trials", 3)
    assert again.returncode == 0, again.stdout + again.stderr
    searched = [run for run in trial_runs(store) if run.data.tags["hmtl.variant"] == "search"]
    assert len(searched) == 3
    assert {run.data.tags["hmtl.status"] for run in searched} <= {"finished", "pruned"}
    third = cli("run", study, "--trials", 3)
    assert "trials: 0 trained" in third.stdout


def test_a_diverging_trial_fails_alone(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    text = tiny.read_text().replace(
        "  SL + puzzling: {pretext: {puzzling: {feed: siamese}}}",
        "  wild: {training.lr: 10, training.optimizer: sgd, training.clip: null,\n"
        "         training.weight_decay: 1, training.epochs: 40}",
    )
    tiny.write_text(text)
    done = cli("run", tiny, "--seeds", "0")
    assert done.returncode == 1
    assert "wild · seed 0: failed: the loss became NaN or infinite" in done.stdout
    statuses = sorted(result["status"] for result in results(tmp_path / "runs").values())
    assert statuses == ["failed", "finished"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_says_how_to_resume(tiny: Path, tmp_path: Path, number: signal.Signals) -> None:
    words = ["run", tiny, "--set", "training.epochs=200", "--set", "data.images=400", "--seeds", "0"]
    driver = subprocess.Popen(
        [PROGRAM, *map(str, words)],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    store, deadline = tmp_path / "runs", time.monotonic() + 240
    while time.monotonic() < deadline and not any(p.read_text() for p in store.glob("trials/*/metrics.jsonl")):
        time.sleep(0.2)
    driver.send_signal(number)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 130, out + err
    assert "run the same command again to resume" in out
    assert "Traceback" not in out + err
    assert not results(store)
    assert list(store.glob("trials/*/last.safetensors"))


def test_a_second_run_of_a_study_is_refused_while_the_first_runs(tiny: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "runs").mkdir()
    with (tmp_path / "runs" / ".tiny@quick.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = cli("run", tiny)
    assert done.returncode == 2
    assert "tiny (quick) is already running" in done.stderr
    assert not results(tmp_path / "runs")


def test_two_workers_train_one_trial(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    done = cli("run", tiny, "--seeds", "0", "--set", "resources.workers=2", "--set", "training.epochs=1", timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    ended = results(tmp_path / "runs")
    assert [result["tags"]["workers"] for result in ended.values()] == ["2", "2"]
