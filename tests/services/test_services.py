"""MLflow's server and PostgreSQL, stopped and started in the middle of a run."""

import json
import re
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from tests.conftest import PROGRAM, environment
from tests.services.conftest import EPOCHS, PASSWORD, TRIALS, Command, MlflowServer, Postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def running(words: list[object], folder: Path) -> Iterator[Command]:
    command = Command(words, folder)
    try:
        yield command
    finally:
        command.kill()


def check_delivered(address: str, store: Path) -> None:
    """Every trial has one run in MLflow, search trials included: finished, with every epoch and the result once."""
    results = {path.parent.name: json.loads(path.read_text()) for path in store.glob("trials/*/result.json")}
    assert len(results) == TRIALS
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("hmtl-ablate")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    trials = [run for run in runs if run.data.tags["hmtl.kind"] == "trial"]
    assert Counter(run.data.tags["hmtl.variant"] for run in trials) == {"SL": 2, "SL + puzzling": 2, "search": 2}
    assert Counter(run.data.tags["hmtl.trial_id"] for run in trials) == Counter(results.keys())
    for run in trials:
        assert (run.info.status, run.data.tags["hmtl.status"]) == ("FINISHED", "finished")
        points = client.get_metric_history(run.info.run_id, "val/accuracy")
        assert sorted(point.step for point in points) == list(range(1, EPOCHS + 1))
        for name, value in results[run.data.tags["hmtl.trial_id"]]["metrics"].items():
            assert run.data.metrics[name] == pytest.approx(value)
        if address.startswith("http"):
            files = {file.path for file in client.list_artifacts(run.info.run_id)}
        else:  # with a database they are in the store
            files = {path.name for path in (store / "artifacts/hmtl-ablate" / run.info.run_id / "artifacts").iterdir()}
        assert files >= {"result.json", "log.txt"}
    assert [run.info.status for run in runs if run.data.tags["hmtl.kind"] == "study"] == ["FINISHED"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_run_outlives_its_mlflow_server(
    mlflow_server: MlflowServer, study: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """Fault C5, C6: the server dies, or hangs, in the middle of a run. Training continues at once, one warning says so,
    and the same command delivers every trial once when the server is back."""
    words = ["run", study, "--engine", "local", "--tracking-uri", mlflow_server.address]
    with running(words, tmp_path) as command:
        command.wait_for(EPOCHS + 1)
        mlflow_server.send(how)
        pause = command.longest_pause()
        assert command.end() == 0, command.text()
    assert command.epochs() == TRIALS * EPOCHS
    assert command.text().count("MLflow can't be written") == 1
    assert "Traceback" not in command.text()
    assert pause < 60, command.text()  # a wait of 10 s, on a machine of whatever speed; it was 240 s and more
    if how == signal.SIGSTOP:
        mlflow_server.send(signal.SIGCONT)
    else:
        mlflow_server.start()
    with running(words, tmp_path) as again:
        assert again.end() == 0, again.text()
        assert f"0 trained, {TRIALS} finished before" in again.text()
    check_delivered(mlflow_server.address, tmp_path / "runs")


@pytest.mark.parametrize("back", ["while it runs", "afterwards"])
def test_a_run_outlives_its_postgresql(postgres: Postgres, study: Path, tmp_path: Path, back: str) -> None:
    """Fault C1, C11: Optuna's and MLflow's database goes down in the middle of a run. The run continues, or ends with
    one clear message; the same command completes the study, and the password is nowhere."""
    words = ["run", study, "--engine", "local", "--storage", postgres.url("optuna")]
    words += ["--tracking-uri", postgres.url("mlflow")]
    with running(words, tmp_path) as command:
        command.wait_for(EPOCHS + 1)
        postgres.stop()
        if back == "while it runs":
            postgres.start()
        code = command.end()
    assert code in (0, 1, 2, 75), command.text()
    assert "Traceback" not in command.text()
    assert "has a defect" not in command.text()
    if back == "afterwards":
        postgres.start()
    with running(words, tmp_path) as again:
        assert again.end() == 0, again.text()
    store = tmp_path / "runs"
    check_delivered(postgres.url("mlflow").replace("postgresql:", "postgresql+psycopg:"), store)
    storage = optuna.storages.RDBStorage(postgres.url("optuna").replace("postgresql:", "postgresql+psycopg:"))
    trials = [trial for one in storage.get_all_studies() for trial in storage.get_all_trials(one._study_id)]
    assert [trial.state.name for trial in trials if "repeats" not in trial.user_attrs] == ["COMPLETE"] * 2
    assert len({trial.user_attrs["trial_id"] for trial in trials}) == 2
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if _secrets(path.read_bytes())]


def _secrets(content: bytes) -> bool:
    return PASSWORD.encode() in content or PASSWORD.replace("!", "%21").encode() in content


def test_postgresql_is_found_by_its_own_variables(postgres: Postgres, study: Path, tmp_path: Path) -> None:
    """As in deploy/: the command line names databases alone, and host, user and password come from a Secret."""
    (port,) = re.findall(r":(\d+)/", postgres.url("mlflow"))
    variables = {"PGHOST": "127.0.0.1", "PGPORT": port, "PGUSER": "hmtl", "PGPASSWORD": PASSWORD}
    words = ["run", str(study), "--engine", "local", "--seeds", "0", "--set", "training.epochs=1"]
    words += ["--tracking-uri", "postgresql:///mlflow", "--storage", "postgresql:///optuna"]
    done = subprocess.run(
        [PROGRAM, *words], cwd=tmp_path, env=environment() | variables, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(postgres.url("mlflow").replace("postgresql:", "postgresql+psycopg:"))
    (experiment,) = [one for one in client.search_experiments() if one.name == "hmtl-ablate"]
    assert len(client.search_runs([experiment.experiment_id])) >= 3
    assert not list((tmp_path / "runs").glob("*.db"))


def test_two_studies_share_a_postgresql(postgres: Postgres, study: Path, tmp_path: Path) -> None:
    """At the same time, from two stores: neither sees the other's trials."""
    other = tmp_path / "other.yaml"
    other.write_text(study.read_text().replace("name: services", "name: others").replace("images: 96", "images: 128"))
    common = ["--engine", "local", "--storage", postgres.url("optuna"), "--tracking-uri", postgres.url("mlflow")]
    places = {name: tmp_path / name for name in ("one", "two")}
    for place in places.values():
        place.mkdir()
    with (
        running(["run", study, *common], places["one"]) as first,
        running(["run", other, *common], places["two"]) as second,
    ):
        assert (first.end(), second.end()) == (0, 0), first.text() + second.text()
    client = MlflowClient(postgres.url("mlflow").replace("postgresql:", "postgresql+psycopg:"))
    experiment = client.get_experiment_by_name("hmtl-ablate")
    runs = [run.data.tags for run in client.search_runs([experiment.experiment_id], max_results=1000)]
    for name, key in (("services", "one"), ("others", "two")):
        own = {path.parent.name for path in (places[key] / "runs").glob("trials/*/result.json")}
        logged = [tags["hmtl.trial_id"] for tags in runs if tags["hmtl.kind"] == "trial" and tags["hmtl.study"] == name]
        assert len(own) == TRIALS
        assert Counter(logged) == Counter(own)
    storage = optuna.storages.RDBStorage(postgres.url("optuna").replace("postgresql:", "postgresql+psycopg:"))
    searches = {one.study_name.partition("@")[0]: one._study_id for one in storage.get_all_studies()}
    assert sorted(searches) == ["others", "services"]
    for number in searches.values():
        own_trials = [one for one in storage.get_all_trials(number) if "repeats" not in one.user_attrs]
        assert [one.state.name for one in own_trials] == ["COMPLETE"] * 2


SHARED = """\
name: shared
base:
  data: {images: 96, size: 16}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 8, warmup_epochs: 0}
variants: {SL: {}}
seeds: [0, 1]
search:
  space: {training.lr: {loguniform: [0.001, 0.01]}}
  sampler: random
  trials: TOTAL
  racing: RACING
  confirm: 1
"""


DRIVERS = ".shared@quick.drivers/*.json"


def shared_trials(url: str) -> list[optuna.trial.FrozenTrial]:
    """The trials of the one search of an Optuna database; [] before it is made."""
    storage = optuna.storages.RDBStorage(url.replace("postgresql:", "postgresql+psycopg:"))
    return [trial for one in storage.get_all_studies() for trial in storage.get_all_trials(one._study_id)]


def wait_until(ready: Callable[[], bool], *commands: Command) -> None:
    deadline = time.monotonic() + 400
    while not ready():
        assert all(command.process.poll() is None for command in commands), [one.text() for one in commands]
        assert time.monotonic() < deadline, [one.text() for one in commands]
        time.sleep(0.05)


@pytest.mark.parametrize(("racing", "total"), [("null", 8), ("{seeds: 4}", 4)])
def test_two_drivers_share_a_search_and_one_is_killed(
    postgres: Postgres, tmp_path: Path, racing: str, total: int
) -> None:
    """Each draws and trains configurations of its own; the one that lives adopts the other's trials in the same run."""
    study, store = tmp_path / "shared.yaml", tmp_path / "runs"
    study.write_text(SHARED.replace("RACING", racing).replace("TOTAL", str(total)))
    words = ["run", study, "--engine", "local", "--storage", postgres.url("optuna")]
    words += ["--tracking-uri", postgres.url("mlflow")]

    def in_the_middle() -> bool:
        """Both have drawn, and a trial of the doomed one has some of its epochs."""
        trials = shared_trials(postgres.url("optuna")) if len(list(store.glob(DRIVERS))) == 2 else []
        if len({trial.user_attrs.get("driver") for trial in trials} - {None}) < 2:
            return False
        processes = {json.loads(path.read_text())["process"]: path.stem for path in store.glob(DRIVERS)}
        one = processes[doomed.process.pid]
        own = [trial for trial in trials if trial.state.name == "RUNNING" and trial.user_attrs.get("driver") == one]
        folders = [store / "trials" / trial.user_attrs.get("trial_id", "none yet") for trial in own]
        return any((one / "metrics.jsonl").exists() and not (one / "result.json").exists() for one in folders)

    with running([*words, "--join"], tmp_path) as doomed, running([*words, "--join"], tmp_path) as command:
        wait_until(in_the_middle, doomed, command)
        doomed.kill()
        command.longest_pause()  # waits for as long as something is trained
        assert command.end() == 0, command.text()
    assert "Traceback" not in doomed.text() + command.text()
    with running(words, tmp_path) as again:
        assert again.end() == 0, again.text()
        assert "trials: 0 trained" in again.text()
    check_shared(postgres, store, total)


def check_shared(postgres: Postgres, store: Path, total: int) -> None:
    """The search has its total; no trial is twice in Optuna, in the folders, or in MLflow."""
    trials = shared_trials(postgres.url("optuna"))
    counted = [trial for trial in trials if "repeats" not in trial.user_attrs and trial.state.name != "FAIL"]
    assert [trial.state.name for trial in counted] == ["COMPLETE"] * total
    assert len({trial.user_attrs["trial_id"] for trial in counted}) == total
    assert len({trial.user_attrs["driver"] for trial in counted}) == 2
    folders = [path for path in store.glob("trials/*") if path.is_dir()]
    for folder in folders:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == list(range(1, 9))
        assert json.loads((folder / "result.json").read_text())["status"] == "finished"
    client = MlflowClient(postgres.url("mlflow").replace("postgresql:", "postgresql+psycopg:"))
    experiment = client.get_experiment_by_name("hmtl-ablate")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert [run.info.status for run in runs if run.data.tags["hmtl.kind"] == "study"] == ["FINISHED"]
    logged = [run for run in runs if run.data.tags["hmtl.kind"] == "trial"]
    assert {run.info.status for run in logged} == {"FINISHED"}
    names = Counter((run.data.tags["hmtl.trial_id"], run.data.tags["hmtl.variant"]) for run in logged)
    assert set(names.values()) == {1}
    assert {trial for trial, _ in names} == {folder.name for folder in folders}
    for run in logged:
        points = client.get_metric_history(run.info.run_id, "val/accuracy")
        assert sorted(point.step for point in points) == list(range(1, 9))


def test_a_run_outlives_a_database_that_another_program_locks(study: Path, tmp_path: Path) -> None:
    """For half a minute, MLflow's and Optuna's; training waits for neither longer than it must, and nothing is lost."""
    store = tmp_path / "runs"
    with running(["run", study, "--engine", "local"], tmp_path) as command:
        command.wait_for(EPOCHS + 1)
        locks = [sqlite3.connect(store / name, isolation_level=None) for name in ("mlflow.db", "optuna.db")]
        for lock in locks:
            lock.execute("PRAGMA busy_timeout = 20000")
            lock.execute("BEGIN EXCLUSIVE")
        time.sleep(30)
        for lock in locks:
            lock.execute("ROLLBACK")
            lock.close()
        assert command.end() == 0, command.text()
    assert "Traceback" not in command.text()
    assert command.epochs() == TRIALS * EPOCHS
    with running(["run", study, "--engine", "local"], tmp_path) as again:  # delivers what is missing, if anything is
        assert again.end() == 0, again.text()
        assert f"0 trained, {TRIALS} finished before" in again.text()
    check_delivered(f"sqlite:///{store / 'mlflow.db'}", store)
