"""`hmtl-ablate evaluate`, in this process."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

import hmtl_ablate as ha
from hmtl_ablate.cli import main

CONFIG = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ha.TrainedTrial:
    return ha.train(CONFIG, store=tmp_path_factory.mktemp("evaluate") / "runs", progress=False)


@pytest.fixture
def trial(trained: ha.TrainedTrial, monkeypatch: pytest.MonkeyPatch) -> ha.TrainedTrial:
    monkeypatch.chdir(trained.folder.parents[2])
    return trained


def test_a_table(trial: ha.TrainedTrial, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", trial.trial_id[:8]]) == 0
    out = capsys.readouterr().out
    count = sum(map(sum, trial.result.confusion["test"]))
    assert out.startswith(f"{trial.trial_id} on rendered, test: {count} images\n")
    assert re.search(rf"^accuracy, % +{100 * trial.metrics['test/accuracy']:.2f}$", out, re.M)
    assert all(name in out for name in trial.result.classes)


def test_json_and_csv_have_every_digit(
    trial: ha.TrainedTrial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", trial.trial_id]
    assert main([*words, "--format", "json", "--output", str(tmp_path / "e.json")]) == 0
    own = json.loads((tmp_path / "e.json").read_text())["tasks"]["emotion"]
    assert {f"test/{k}": v for k, v in own["metrics"].items()} == {
        name: value for name, value in trial.metrics.items() if name.startswith("test/")
    }
    assert own["n"] == sum(one["n"] for one in own["classes"].values())
    capsys.readouterr()
    assert main([*words, "--format", "csv", "--split", "test"]) == 0
    rows = {row["metric"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert float(rows["loss"]["value"]) == trial.metrics["test/loss"]
    happy = rows.get("recall/happiness")
    assert happy is None or int(happy["n"]) == own["classes"]["happiness"]["n"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "=faces"], "write NAME=PATH"),
        (["--data", "folder=nowhere"], "nowhere"),
        (["--data", "foldr=nowhere"], "foldr"),
        (["--output", "nowhere/e.json"], "--output nowhere/e.json: can't be written"),
    ],
)
def test_what_can_t_be_done_is_one_message(
    trial: ha.TrainedTrial, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", trial.trial_id, *words]) == 2
    assert message in capsys.readouterr().err
