"""hmtl_ablate.train: one trial in this process."""

import json
import signal
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
import torch

import hmtl_ablate as ha
from hmtl_ablate.config import parse_config, trial_id
from hmtl_ablate.data.pack import load_pack
from hmtl_ablate.errors import ConfigError, DataError, StoreError

from .conftest import CONFIG

TWO_EPOCHS = {**CONFIG, "training": {**CONFIG["training"], "epochs": 2, "batch_size": 32}}
"""Two steps per epoch, so that a stop can come between them."""


def test_the_folder_has_the_name_that_a_study_would_give_it(trial: ha.TrainedTrial, workplace: Path) -> None:
    pack = load_pack(next((workplace / "runs" / "packs").iterdir()))
    assert trial.folder == workplace / "runs" / "trials" / trial_id(parse_config(CONFIG), pack.identity(("emotion",)))
    assert trial.trial_id == trial.folder.name
    stored = json.loads((trial.folder / "result.json").read_text())
    assert (stored["status"], stored["metrics"]) == (trial.status, trial.metrics) == ("finished", stored["metrics"])


def test_the_result_says_what_was_trained(trial: ha.TrainedTrial) -> None:
    assert trial.config == parse_config(CONFIG)
    assert [row["epoch"] for row in trial.history] == [1]
    assert {"best/val/accuracy", "test/accuracy"} <= trial.metrics.keys()
    accuracy = trial.metrics["test/accuracy"]
    assert repr(trial).startswith(f"TrainedTrial({trial.trial_id}, finished, best/val/accuracy=")
    assert f"test/accuracy={accuracy:.4g}" in repr(trial)


def test_the_history_as_a_frame(trial: ha.TrainedTrial) -> None:
    frame = trial.frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame.index.tolist() == [1]
    assert frame.loc[1, "train/loss"] == trial.history[0]["train/loss"]


def test_a_finished_trial_is_not_trained_again(trial: ha.TrainedTrial, workplace: Path) -> None:
    seen: list[Mapping[str, float]] = []
    stamp = (trial.folder / "result.json").stat().st_mtime_ns
    again = ha.train(trial.config, store=str(workplace / "runs"), progress=seen.append)
    assert again == trial
    assert not seen
    assert (trial.folder / "result.json").stat().st_mtime_ns == stamp


def test_stopped_by_a_callback_and_called_again_it_ends_as_if_never_stopped(workplace: Path, tmp_path: Path) -> None:
    def stop(row: Mapping[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ha.train(TWO_EPOCHS, store=workplace / "runs", progress=stop)
    epochs: list[float] = []
    resumed = ha.train(TWO_EPOCHS, store=workplace / "runs", progress=lambda row: epochs.append(row["epoch"]))
    assert epochs == [2]
    whole = ha.train(TWO_EPOCHS, store=tmp_path, data=next((workplace / "runs" / "packs").iterdir()))
    assert resumed.metrics == whole.metrics
    assert [row["train/loss"] for row in resumed.history] == [row["train/loss"] for row in whole.history]


def test_ctrl_c_saves_a_checkpoint_and_gives_its_handler_back(workplace: Path) -> None:
    epochs: list[float] = []

    def press(row: Mapping[str, float]) -> None:
        epochs.append(row["epoch"])
        signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="the same call resumes"):
        ha.train(TWO_EPOCHS, seed=21, store=workplace / "runs", progress=press)
    assert epochs == [1]
    assert signal.getsignal(signal.SIGINT) is handler
    [folder] = [
        path.parent for path in (workplace / "runs").glob("trials/*/config.json") if '"seed": 21' in path.read_text()
    ]
    assert (folder / "last.safetensors").exists()
    assert not (folder / "result.json").exists()


def test_torch_is_left_as_it_was(workplace: Path) -> None:
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    other = 1 if threads > 1 else 2
    state = torch.get_rng_state()
    ha.train(CONFIG, seed=2, store=workplace / "runs", threads=other)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_seed_replaces_the_configs(trial: ha.TrainedTrial, workplace: Path) -> None:
    same = ha.train({**CONFIG, "seed": 7}, seed=0, store=workplace / "runs")
    assert same.trial_id == trial.trial_id


@pytest.mark.usefixtures("trial")
def test_a_line_per_epoch_when_asked(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = ha.train(CONFIG, seed=3, store=workplace / "runs", progress=True)
    out, err = capsys.readouterr()
    [line] = out.splitlines()
    assert line.startswith(f"epoch 1/1: train/loss {result.history[0]['train/loss']:.4g}, val/accuracy ")
    assert err == ""


def test_a_bar_where_a_person_looks(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmtl_ablate.api.trials._watched", lambda: True)
    ha.train(CONFIG, seed=4, store=workplace / "runs")
    out, err = capsys.readouterr()
    assert out == ""
    assert "1/1" in err
    assert "val/accuracy" in err


@pytest.mark.parametrize(
    ("config", "options", "error", "words"),
    [
        ({"training": {"epoch": 3}}, {}, ConfigError, "did you mean 'epochs'"),
        ({"model": {"backbone": "resnet10"}}, {}, ConfigError, "resnet10t"),
        ({"data": {"name": "ferplus"}}, {"data": "/nowhere/at/all"}, DataError, "/nowhere/at/all"),
        ({"data": {"name": "ferplus"}}, {"data": {"ferpluss": "/x"}}, DataError, "did you mean 'ferpluss'"),
        ({"data": {"name": "ferplus"}}, {}, DataError, "needs its path"),
        ({"task": "pose", "data": {"leave_out": ["contemt"], "images": 96, "size": 32}}, {}, None, None),
        ({"data": {"leave_out": ["contemt"], "images": 96, "size": 32}}, {}, DataError, "did you mean 'contempt'"),
        ({}, {"store": "/proc/1/nowhere"}, StoreError, "can't be written"),
    ],
)
def test_what_is_wrong_is_said_before_training(
    workplace: Path,
    config: dict[str, object],
    options: dict[str, object],
    error: type[Exception] | None,
    words: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Trained(Exception):
        pass

    def no_training(*args: object, **kwargs: object) -> None:
        raise Trained

    monkeypatch.setattr("hmtl_ablate.training.loop.train", no_training)
    with pytest.raises(error or Trained, match=words):
        ha.train(config, **({"store": workplace / "runs"} | options))  # type: ignore[arg-type]
