"""Studies with controls on the local engine: what is trained, logged and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.data.build import open_pack
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.running.options import RunOptions
from hmtl_ablate.running.run import run_study
from hmtl_ablate.running.summary import RunSummary
from hmtl_ablate.running.trainer import train_task
from hmtl_ablate.study import Study, data_configs
from hmtl_ablate.tracking import Tracking
from hmtl_ablate.training.folder import TrialFolder
from tests.running.conftest import (  # type: ignore[import-not-found]
    Recorder,
    StubTrainer,
    packs_of,
    read_study,
    trial_runs,
)

STUDY = """\
name: controlled
base: {data: {images: 64, size: 32}, training: {epochs: 1, batch_size: 16, optimizer: adamw, warmup_epochs: 0}}
variants:
  SL: {}
  HMTL: {pretext: {puzzling: {}, inpainting: {joins: puzzling}}, controls: [epochs, supervision_off]}
seeds: [4]
"""
NAMES = (
    "SL",
    "HMTL",
    "HMTL: whole views",
    "HMTL: distortion",
    "HMTL: random answers",
    "HMTL: more epochs",
    "HMTL: supervision off",
    "HMTL: puzzling distortion",
    "HMTL: puzzling random answers",
    "HMTL: inpainting distortion",
    "HMTL: inpainting random answers",
)


def run(study: Study, pack: Pack, store: Path, tracking: Tracking, **given: Any) -> RunSummary:
    options = RunOptions(engine="local")
    return run_study(study, packs=packs_of(study, pack), store=store, tracking=tracking, options=options, **given)


def test_every_control_is_trained_and_logged_as_a_variant(
    pack: Pack, store: Path, tracking: Tracking, tmp_path: Path
) -> None:
    study, recorder = read_study(tmp_path, STUDY), Recorder()
    assert tuple(one.name for one in study.variants) == NAMES
    summary = run(study, pack, store, tracking, trainer=StubTrainer(), progress=recorder)
    assert summary == RunSummary(done=len(NAMES))
    assert recorder.started == [f"{name} · seed 4" for name in NAMES]
    (record,) = tracking.studies()
    assert tuple(record.variants) == NAMES
    assert record.controls == {
        "HMTL": {
            "sl": "SL",
            "views": "HMTL: whole views",
            "distortion": "HMTL: distortion",
            "random_answers": "HMTL: random answers",
            "arm": "HMTL",
            "epochs": "HMTL: more epochs",
            "supervision_off": "HMTL: supervision off",
            "tasks": {
                "puzzling": ["HMTL: puzzling distortion", "HMTL: puzzling random answers"],
                "inpainting": ["HMTL: inpainting distortion", "HMTL: inpainting random answers"],
            },
        }
    }
    tags = [one.data.tags for one in trial_runs(store)]
    assert sorted((tag["hmtl.variant"], tag["hmtl.seed"]) for tag in tags) == sorted((name, "4") for name in NAMES)


def test_controls_that_are_asked_for_later_are_all_that_is_trained(
    pack: Pack, store: Path, tracking: Tracking, tmp_path: Path
) -> None:
    """The study's run then has them; without them again it has none."""
    text = "name: later\nbase: {data: {images: 64, size: 32}}\nseeds: [0]\nvariants:\n  HMTL: {pretext: {rotation: {}}"
    plain, more = (read_study(tmp_path, f"{text}{end}}}\n") for end in ("", ", controls: []"))
    assert run(plain, pack, store, tracking, trainer=StubTrainer()) == RunSummary(done=1)
    assert [record.controls for record in tracking.studies()] == [{}]
    assert run(more, pack, store, tracking, trainer=StubTrainer()) == RunSummary(done=4, skipped=1)
    assert [list(record.controls) for record in tracking.studies()] == [["HMTL"]]
    run(plain, pack, store, tracking, trainer=StubTrainer())
    assert [record.controls for record in tracking.studies()] == [{}]


@pytest.mark.slow
def test_a_real_study_with_controls(store: Path, tracking: Tracking, tmp_path: Path) -> None:
    """Every arm has a score; the arm and its controls with its images start from equal numbers."""
    study = read_study(tmp_path, STUDY)
    (data,) = {one.model_copy(update={"views": 1}) for one in data_configs(study)}
    pack = open_pack(data, None, tmp_path / "packs")
    assert run(study, pack, store, tracking, trainer=train_task) == RunSummary(done=len(NAMES))
    records = {one.data.tags["hmtl.variant"]: one for one in trial_runs(store)}
    assert all("test/accuracy" in records[name].data.metrics for name in NAMES)
    rows = {
        name: TrialFolder(store / "trials" / records[name].data.tags["hmtl.trial_id"]).history()[0] for name in NAMES
    }
    arms = [name for name in NAMES if "train/puzzling" in rows[name]]
    assert len(arms) == 8
    passes = {name: rows[name]["image_passes"] for name in NAMES}
    assert {passes[name] for name in (*arms, "HMTL: whole views")} == {2 * passes["SL"]}
    assert "train/cosine/puzzling" not in rows["HMTL: puzzling distortion"]
    assert "train/cosine/inpainting" in rows["HMTL: puzzling distortion"]
