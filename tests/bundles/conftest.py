"""A store of four finished trials without training and without MLflow, its bundle, and a way to tamper with it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hmtl_ablate.bundles import writing
from hmtl_ablate.config import NUMERICS_VERSION, parse_config, trial_id
from hmtl_ablate.supervised.classification import classification_metrics, confusion_matrix
from hmtl_ablate.tracking.records import StudyRecord, TrialRecord, text_hash
from hmtl_ablate.training.folder import TrialFolder, TrialResult

CLASSES = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")
FINGERPRINT = "f" * 16
STUDY = "name: small\nquestion: Does it help?\n"
VARIANTS: dict[str, dict[str, Any]] = {"SL": {}, "HMTL": {"pretext": {"rotation": {}}}}
HOST = "lab-server-7"
Edit = Callable[[bytes], bytes]
Tamper = Callable[..., Path]


class Tracked:
    """What writing.py asks of a tracking store."""

    def __init__(self, studies: list[StudyRecord], trials: list[TrialRecord]) -> None:
        self._studies, self._trials = studies, trials

    def studies(self) -> list[StudyRecord]:
        return self._studies

    def trials(self, parent: str) -> list[TrialRecord]:
        return [trial for trial in self._trials if trial.parent == parent]

    def study_text(self, run_id: str) -> str:
        return STUDY


def variant_key(changes: Mapping[str, Any]) -> str:
    declared = parse_config({**BASE, **changes}).declared()
    return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()[:12]


BASE = {"data": {"images": 96, "size": 32}, "training": {"epochs": 2, "warmup_epochs": 0}}


def write_trial(trials: Path, changes: Mapping[str, Any], seed: int) -> str:
    """A finished trial's folder; gives its id. In its second epoch 7 + seed of 20 images of val and test are right."""
    config = parse_config({**BASE, **changes, "seed": seed})
    name = trial_id(config, FINGERPRINT)
    folder = TrialFolder(trials / name)
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(20) % 8
    logits = torch.randn(20, 8, generator=draw)
    logits[torch.arange(20), (labels + (torch.arange(20) >= 7 + seed + len(changes))) % 8] += 9
    metrics = classification_metrics(logits, labels, CLASSES)
    folder.write_config(config)
    rows = [{f"val/{key}": 0.0 if key == "accuracy" else value for key, value in metrics.items()}]
    rows.append({f"val/{key}": value for key, value in metrics.items()})
    history = [
        {"epoch": n, "train/loss": 1 / n, **row, "image_passes": 96 * n, "seconds": 1.5 * n}
        for n, row in enumerate(rows, 1)
    ]
    folder.write_history(history)
    arrays = {"index": np.arange(20), "label": labels.numpy(), "probability": logits.softmax(1).numpy()}
    folder.write_predictions({f"{part}_{key}": value for part in ("val", "test") for key, value in arrays.items()})
    (folder.path / "best.safetensors").write_bytes(b"weights")
    (folder.path / "log.txt").write_text("trained on " + HOST)
    folder.write_diff('+DATA = "/home/jane/faces"\n')
    folder.write_result(
        TrialResult(
            trial_id=name,
            status="finished",
            epochs=2,
            best_epoch=2,
            metrics={f"best/val/{key}": value for key, value in metrics.items()}
            | {f"test/{key}": value for key, value in metrics.items()},
            image_passes=192,
            seconds=3.0,
            tags={"device": "cpu", "host": HOST, "git_commit": "abc+dirty", "numerics": str(NUMERICS_VERSION)},
            classes=list(CLASSES),
            task_classes={"emotion": list(CLASSES)},
            confusion={part: confusion_matrix(logits, labels, CLASSES) for part in ("val", "test")},
        )
    )
    return name


def tracked(store: Path) -> Tracked:
    """The store's trials, written to it, and what MLflow would know of them."""
    study = StudyRecord(
        name="small",
        profile="quick",
        metric="test/accuracy",
        data="rendered",
        question="Does it help?",
        variants={name: variant_key(changes) for name, changes in VARIANTS.items()},
        seeds=(0, 1),
        asked={name: [0, 1] for name in VARIANTS},
        file=text_hash(STUDY),
        run_id="a" * 32,
        started=1,
    )
    trials = [
        TrialRecord(
            parent=study.run_id,
            study="small",
            trial_id=write_trial(store / "trials", changes, seed),
            variant=name,
            variant_key=variant_key(changes),
            seed=seed,
            fingerprint=FINGERPRINT,
            config={},
            status="finished",
            environment={"host": HOST},
            run_id=f"{name}-{seed}",
            started=2,
        )
        for name, changes in VARIANTS.items()
        for seed in (0, 1)
    ]
    return Tracked([study], trials)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store."""
    store = tmp_path / "runs"
    tracking = tracked(store)
    monkeypatch.setattr(writing, "open_tracking", lambda uri, store: tracking)
    return store


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The store's bundle; it takes a second to render and verify its report."""
    folder = tmp_path_factory.mktemp("made")
    tracking = tracked(folder / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "open_tracking", lambda uri, store: tracking)
        writing.write_bundle("small", folder / "runs", folder / "small.zip")
    return (folder / "small.zip").read_bytes()


@pytest.fixture
def bundle(made: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "small.hmtl.zip"
    path.write_bytes(made)
    return path


@pytest.fixture
def first() -> str:
    """The folder of the first trial in a bundle."""
    return f"trials/{trial_id(parse_config({**BASE, 'seed': 0}), FINGERPRINT)}"


@pytest.fixture
def tamper(bundle: Path, tmp_path: Path) -> Tamper:
    """Changes files of the bundle; with `manifest` their checksums in the manifest, too."""

    def change(edits: Mapping[str, Edit], *, manifest: bool = True) -> Path:
        files = contents(bundle)
        for name, edit in edits.items():
            files[name] = edit(files[name])
        if manifest:
            listed = json.loads(files["manifest.json"])
            listed["files"] = {n: hashlib.sha256(c).hexdigest() for n, c in files.items() if n != "manifest.json"}
            files["manifest.json"] = json.dumps(listed).encode()
        return written(tmp_path / "tampered.zip", files)

    return change


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
