"""Trials that others start from, evaluations of trained backbones, and trials from elsewhere; on real Ray, MLflow."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Cli, start  # type: ignore[import-not-found]

pytestmark = pytest.mark.slow
STAGED = """\
name: staged
question: Does it start from what came before?
base:
  data: {images: 200, size: 32}
  training: {optimizer: adamw, lookahead: false, lr: 0.004, batch_size: 32, epochs: 2, warmup_epochs: 0}
stages:
  first: {training.supervised: false, pretext: {rotation: {}}}
variants:
  SL: {}
  pre-trained: {model.weights: "trial:first", pretext: {puzzling: {feed: siamese}, rotation: {joins: puzzling}}}
evaluations:
  probe: {probe: {kind: linear, folds: 3}}
  k-NN: {probe: {kind: knn}, of: [first, SL]}
  tuned: {of: [pre-trained], data.seed: 1}
seeds: [0]
"""


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    path = tmp_path / "staged.yaml"
    path.write_text(STAGED)
    return path


def folders(store: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in (store / "trials").glob("*/config.json")}


def test_stages_run_once_and_first_and_evaluations_have_tables(cli: Cli, staged: Path, tmp_path: Path) -> None:
    plan = cli("plan", staged)
    assert "stage first · seed 0" in plan.stdout
    assert "trials: 8 to start" in plan.stdout
    done = cli("run", staged, "--max-concurrent", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    configs = folders(tmp_path / "runs")
    assert len(configs) == 8
    (stage,) = (name for name, config in configs.items() if not config["training"]["supervised"])
    starting = [name for name, config in configs.items() if config["model"]["weights"] == f"trial:{stage}"]
    assert len(starting) == 2  # the variant and the k-NN of the stage itself
    results = tmp_path / "runs" / "trials"
    ended = json.loads((results / stage / "result.json").read_text())
    assert not any(metric.startswith("test/") for metric in ended["metrics"])
    assert (results / stage / "result.json").stat().st_mtime < min(
        (results / name / "result.json").stat().st_mtime for name in starting
    )
    report = json.loads(cli("report", "--format", "json").stdout)
    assert [(study["evaluation"], [row["variant"] for row in study["rows"]]) for study in report["studies"]] == [
        ("", ["SL", "pre-trained"]),
        ("probe", ["SL → probe", "pre-trained → probe"]),
        ("k-NN", ["first → k-NN", "SL → k-NN"]),
        ("tuned", ["pre-trained → tuned"]),
    ]
    again = cli("run", staged)
    assert "trials: 0 trained, 8 finished before" in again.stdout
    assert "trials: 0 to start, 8 already finished" in cli("plan", staged).stdout

    # Trials that were trained elsewhere count here: nothing is trained again.
    shutil.move(tmp_path / "runs", tmp_path / "elsewhere")
    taken = cli("import", "elsewhere")
    assert "trials: 8 imported" in taken.stdout
    assert "trials: 0 trained, 8 finished before" in cli("run", staged).stdout
    assert "trials: 0 imported, 8 already finished here" in cli("import", "elsewhere").stdout


def test_killed_in_a_stage_the_same_command_resumes(cli: Cli, staged: Path, tmp_path: Path) -> None:
    words = ["run", staged, "--set", "training.epochs=6", "--set", "data.images=400", "--engine", "local"]
    store = tmp_path / "runs"
    driver = start(words, tmp_path)

    def in_stage() -> bool:
        return any(
            not config["training"]["supervised"]
            and (store / "trials" / name / "metrics.jsonl").exists()
            and (store / "trials" / name / "metrics.jsonl").read_text().count("\n") in range(1, 6)
            for name, config in folders(store).items()
        )

    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not in_stage():
            time.sleep(0.1)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert not all((store / "trials" / name / "result.json").exists() for name in folders(store))
    done = cli(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(store.glob("trials/*/result.json"))) == 8
    for name, config in folders(store).items():
        if config["probe"]["kind"] == "none":
            lines = (store / "trials" / name / "metrics.jsonl").read_text().splitlines()
            assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_who_starts_from_a_failed_trial_fails_with_that_reason(cli: Cli, staged: Path, tmp_path: Path) -> None:
    text = STAGED.replace(
        "first: {",
        "first: {training.lr: 10, training.optimizer: sgd, training.clip: null, "
        "training.weight_decay: 1, training.epochs: 60, ",
    )
    staged.write_text(text[: text.index("evaluations:")] + "seeds: [0]\n")
    done = cli("run", staged, "--engine", "local")
    assert done.returncode == 1
    assert "first · seed 0: failed: the loss became NaN or infinite" in done.stdout
    assert "pre-trained · seed 0: failed: the trial" in done.stdout
    assert "whose weights it starts from is not finished" in done.stdout
    assert "trials: 1 trained" in done.stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("trial:first", "trial:frist"), ["staged.yaml:10:32", "'frist'", "did you mean 'first'?"]),
        (("first: {training", "first: {model.weights: 'trial:pre-trained', training"), ["depends on its own weights"]),
        (("of: [first, SL]", "of: [first, SLL]"), ["'SLL'", "did you mean 'SL'?"]),
        (("kind: linear", "kind: linaer"), ["did you mean 'linear'?"]),
        (("trial:first", "file:nowhere.pth"), ["nowhere.pth", "No such file"]),
        (("rotation: {}", "rotation: {joins: puzzling}"), ["'puzzling' is no other pretext task here"]),
    ],
)
def test_faults_in_stages_are_told(cli: Cli, staged: Path, change: tuple[str, str], words: list[str]) -> None:
    assert change[0] in STAGED
    staged.write_text(STAGED.replace(*change, 1))
    done = cli("run", staged)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr


def test_import_says_what_it_can_not_use(cli: Cli, tmp_path: Path) -> None:
    assert cli("import", "nowhere").returncode == 2
    bad = tmp_path / "bad" / ("0" * 16)
    bad.mkdir(parents=True)
    (bad / "config.json").write_text("{}")
    (bad / "result.json").write_text("{}")
    done = cli("import", "bad")
    assert done.returncode == 2
    assert "result.json is damaged" in done.stderr
    assert "1 refused" in done.stdout
