"""Whole runs through the command line, on real Ray, Optuna and MLflow, at the smallest size."""

import fcntl
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient

from tests.conftest import SPACES, Cli, start  # type: ignore[import-not-found]

pytestmark = pytest.mark.slow
SMALL = (
    "--set",
    "training.epochs=1",
    "--set",
    "training.warmup_epochs=0",
    "--set",
    "training.batch_size=32",
    "--set",
    "data.images=640",  # a tenth of the training split of which is trained on
    "--seeds",
    "0",
)


def results(store: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in (store / "trials").glob("*/result.json")}


def trial_runs(store: Path) -> list[Any]:
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("hmtl-ablate")
    return [
        run
        for run in client.search_runs([experiment.experiment_id], max_results=1000)
        if run.data.tags["hmtl.kind"] == "trial"
    ]


def test_a_study_file_runs_and_is_reported(cli: Cli, tmp_path: Path) -> None:
    """One study file on Ray, search and all; tests/running runs each of them with a stub in the trainer's place."""
    done = cli("run", SPACES / "puzzling.yaml", *SMALL, "--trials", 2, "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    ended = results(tmp_path / "runs")
    assert len(ended) == 5
    assert {result["status"] for result in ended.values()} <= {"finished", "pruned"}
    report = json.loads(cli("report", "--format", "json").stdout)
    (study,) = report["studies"]
    assert [row["variant"] for row in study["rows"]] == ["SL", "SL, 2 views", "SL + puzzling"]
    assert all(row["n_seeds"] == 1 and row["mean"] >= 0 and row["image_passes"] > 0 for row in study["rows"])
    assert {claim["status"] for claim in report["claims"]} == {"Unverified"}


SEVERAL = """
name: several
seeds: [0]
base:
  task: emotion
  data: {name: rendered, images: 128, size: 32}
  model: {backbone: test_resnet}
  training: {epochs: 2, batch_size: 32, optimizer: adamw, lookahead: false, warmup_epochs: 0}
search:
  base: {pretext: {puzzling: {}, inpainting: {}}}
  space:
    pretext.inpainting.mask_ratio: {uniform: [0.1, 0.6]}
    pretext.inpainting.weight: {loguniform: [0.1, 10.0]}
    pretext.puzzling.grid: {choice: [2, 3]}
    data.fraction: {choice: [0.5, 1.0]}
  sampler: nsga2
  pruner: {name: median, startup_trials: 1}
  trials: 4
  objective: {val/accuracy: max, cost/image_passes: min}
"""


def test_a_search_of_mask_ratio_weight_grid_and_fraction_for_two_objectives(cli: Cli, tmp_path: Path) -> None:
    """Through Ray; the front that the search ends with is that of its finished trials."""
    study = tmp_path / "several.yaml"
    study.write_text(SEVERAL)
    done = cli("run", study, "--quiet")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [run.data for run in trial_runs(tmp_path / "runs")]
    assert len(runs) == 4
    configs = [json.loads(run.tags["hmtl.config"]) for run in runs]
    drawn = {
        (
            config["data"]["fraction"],
            config["pretext"]["puzzling"]["grid"],
            config["pretext"]["inpainting"]["mask_ratio"],
            config["pretext"]["inpainting"]["weight"],
        )
        for config in configs
    }
    assert len(drawn) == 4
    [name] = [
        one for one in optuna.get_all_study_names(f"sqlite:///{tmp_path / 'runs' / 'optuna.db'}") if one[:5] != "proxy"
    ]
    search = optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path / 'runs' / 'optuna.db'}")
    passes = {run.metrics["image_passes"] for run in runs if run.tags["hmtl.status"] == "finished"}
    assert {trial.values[1] for trial in search.trials if trial.values} == passes
    assert search.best_trials


def test_the_local_engine_runs_a_study_and_the_same_command_skips_it(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    done = cli("run", tiny, "--engine", "local")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trials: 4 trained, 0 finished before" in done.stdout
    assert {result["status"] for result in results(tmp_path / "runs").values()} == {"finished"}
    assert {run.data.tags["hmtl.status"] for run in trial_runs(tmp_path / "runs")} == {"finished"}
    assert "trials: 0 trained, 4 finished before" in cli("run", tiny, "--engine", "local").stdout
    assert "trials: 0 trained, 4 finished before" in cli("run", tiny).stdout  # Ray agrees


def test_the_local_engine_refuses_what_it_can_not_do(cli: Cli, tiny: Path) -> None:
    for words, fault in (
        (("--address", "localhost:6379"), "can't use the Ray cluster at localhost:6379"),
        (("--max-concurrent", 2), "one trial at a time, not 2"),
        (("--set", "resources.workers=2"), "2 workers per trial"),
    ):
        done = cli("run", tiny, "--engine", "local", *words)
        assert done.returncode == 2
        assert fault in done.stderr


def test_kill_nine_and_the_same_command_again(tiny: Path, tmp_path: Path, cli: Cli) -> None:
    words = ["run", tiny, "--set", "training.epochs=6", "--max-concurrent", 1, "--set", "data.images=400"]
    store = tmp_path / "runs"
    driver = start(words, tmp_path)
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


def test_a_diverging_trial_fails_alone(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    text = tiny.read_text().replace(
        "  SL + puzzling: {pretext: {puzzling: {feed: siamese}}}",
        "  wild: {training.lr: 10, training.optimizer: sgd, training.clip: null,\n"
        "         training.weight_decay: 1, training.epochs: 40}",
    )
    tiny.write_text(text)
    done = cli("run", tiny, "--seeds", "0", "--engine", "local")
    assert done.returncode == 1
    assert "wild · seed 0: failed: the loss became NaN or infinite" in done.stdout
    statuses = sorted(result["status"] for result in results(tmp_path / "runs").values())
    assert statuses == ["failed", "finished"]


def stop_after_an_epoch(words: list[object], folder: Path, number: int) -> None:
    """Run, send the signal once a trial has trained an epoch, and see that the run ends cleanly."""
    driver = start(words, folder, subprocess.PIPE)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not any(p.read_text() for p in folder.glob("runs/trials/*/metrics.jsonl")):
        time.sleep(0.05)
    driver.send_signal(number)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 130, out + err
    assert "run the same command again to resume" in out
    assert "Traceback" not in out + err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_says_how_to_resume(tiny: Path, tmp_path: Path, number: signal.Signals) -> None:
    words = ["run", tiny, "--set", "training.epochs=200", "--set", "data.images=400", "--seeds", "0"]
    store = tmp_path / "runs"
    stop_after_an_epoch(words, tmp_path, number)
    assert not results(store)
    assert list(store.glob("trials/*/last.safetensors"))


def test_ctrl_c_stops_the_local_engine_and_the_same_command_resumes(tiny: Path, tmp_path: Path, cli: Cli) -> None:
    words = [
        "run",
        tiny,
        "--engine",
        "local",
        "--seeds",
        "0",
        "--set",
        "training.epochs=20",
        "--set",
        "data.images=400",
    ]
    store = tmp_path / "runs"
    stop_after_an_epoch(words, tmp_path, signal.SIGINT)
    assert len(results(store)) < 2
    assert list(store.glob("trials/*/last.safetensors"))
    done = cli(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(results(store)) == 2
    for name in results(store):  # every epoch once
        lines = (store / "trials" / name / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 21))
    assert any("resumes at epoch" in path.read_text() for path in store.glob("trials/*/log.txt"))


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


def test_a_machine_is_calibrated_before_anything_has_run(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    """Both precisions of both arms are measured; nothing of it is a trial of the store."""
    done = cli("plan", tiny, "--engine", "local", "--calibrate", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("image passes/s") == 4
    assert "unknown until calibrated" not in done.stdout
    assert "test_resnet at 32 px: bf16" in done.stdout
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [".calibration.json.lock", "calibration.json"]
