"""`hmtl-ablate predict`, in this process."""

import csv
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import hmtl_ablate as ha
from hmtl_ablate.cli import main

CONFIG = {"data": {"images": 96, "size": 32}, "training": {"epochs": 1, "warmup_epochs": 0}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a store of one trial, three images and a file that is none."""
    folder = tmp_path_factory.mktemp("predict")
    ha.train(CONFIG, store=folder / "runs", progress=False)
    (folder / "faces" / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.PNG", "more/c.png")):
        cv2.imwrite(str(folder / "faces" / name), np.full((40, 40, 3), 60 * number, np.uint8))
    (folder / "faces" / "notes.txt").write_text("no image")
    (folder / "bad.png").write_text("no image")
    return folder


@pytest.fixture
def trial(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(place)
    return next((place / "runs" / "trials").iterdir()).name


def test_a_folder_as_csv(trial: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", trial[:8], "faces"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["image"] for row in rows] == ["faces/a.png", "faces/b.PNG", "faces/more/c.png"]
    model = ha.load_model(trial)
    for row in rows:
        expected = model.predict(row["image"])["emotion"]
        assert row["emotion"] == expected.label
        values = {key.removeprefix("emotion/"): float(row[key]) for key in row if key.startswith("emotion/")}
        assert values == pytest.approx(expected.values, abs=1e-5)


def test_patterns_and_standard_input_as_json_into_a_file(
    trial: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("faces/a.png\n\nbad.png\n"))
    assert main(["predict", trial, "faces/*.PNG", "-", "--format", "json", "--output", str(tmp_path / "p.json")]) == 0
    rows = json.loads((tmp_path / "p.json").read_text())
    assert [row["image"] for row in rows] == ["faces/b.PNG", "faces/a.png"]
    assert sum(rows[0]["tasks"]["emotion"]["values"].values()) == pytest.approx(1)
    assert "not read: bad.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bad.png"], "none of the 1 images can be read"),
        (["nowhere/*.png"], "nowhere/*.png: there is no image"),
        (["faces/a.png", "--output", "nowhere/p.csv"], "--output nowhere/p.csv: can't be written"),
    ],
)
def test_what_can_t_be_done_is_one_message(
    trial: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", trial, *words]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_trial_is_refused(place: Path, trial: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "best:nothing", "faces"]) == 2
    assert "there is no such trial" in capsys.readouterr().err
