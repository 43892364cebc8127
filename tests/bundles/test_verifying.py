"""A bundle fits together, and each kind of tampering is named, also where its checksums were made to fit."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hmtl_ablate.bundles import writing
from hmtl_ablate.bundles.verifying import verify_file
from hmtl_ablate.bundles.writing import write_bundle
from hmtl_ablate.errors import StoreError, StudyError
from tests.bundles.conftest import HOST, Edit, Tamper, Tracked, contents, tracked  # type: ignore[import-not-found]


def as_json(change: Any) -> Edit:
    """Changes the object of a JSON file."""

    def edit(content: bytes) -> bytes:
        data = json.loads(content)
        change(data)
        return json.dumps(data).encode()

    return edit


def as_result(change: Any) -> Edit:
    """Changes result.json, its own checksum with it."""

    def edit(content: bytes) -> bytes:
        data = json.loads(content)
        data.pop("crc32")
        change(data)
        text = json.dumps(data, indent=2) + "\n"
        return json.dumps({**data, "crc32": zlib.crc32(text.encode())}).encode()

    return edit


def as_arrays(change: Any) -> Edit:
    def edit(content: bytes) -> bytes:
        with np.load(io.BytesIO(content)) as saved:
            arrays = {name: saved[name] for name in saved.files}
        change(arrays)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    return edit


def found(path: Path) -> str:
    verification = verify_file(path)
    assert not verification.consistent
    return "\n".join(map(str, verification.differences))


def test_a_sound_bundle(bundle: Path) -> None:
    verification = verify_file(bundle)
    assert verification.differences == ()
    assert verification.trials == 4
    assert verification.summary == f"{verification.cells} cells, 4 trials: all consistent"
    report = json.loads(contents(bundle)["report.json"])
    rows = {row["variant"]: row["mean"] for row in report["studies"][0]["rows"]}
    assert rows == pytest.approx({"SL": 7.5 / 20, "HMTL": 8.5 / 20})  # by construction of the predictions
    assert any("uncommitted" in note for note in verification.notes)


def test_what_is_in_it_and_what_is_not(bundle: Path, runs: Path, tmp_path: Path, first: str) -> None:
    files = contents(bundle)
    names = ("config.json", "metrics.jsonl", "predictions.npz", "result.json", "uncommitted.diff")
    assert {name for name in files if name.startswith(first)} == {f"{first}/{name}" for name in names}
    assert "numpy==" in files["requirements.lock"].decode()
    whole = b"\n".join(files.values())
    assert not [word for word in (HOST, "jane", str(tmp_path), "weights\n") if word.encode() in whole]
    assert files[f"{first}/uncommitted.diff"] == b'+DATA = "<path>"\n'
    again = tmp_path / "again.zip"
    write_bundle("small", runs, again)
    assert again.read_bytes() == bundle.read_bytes()


def test_arms_keep_their_names_and_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = tracked(tmp_path / "runs")
    names = {"SL": "SL@48px", "HMTL": "SL@64px"}
    (study,) = tracking.studies()
    variants = {names[name]: key for name, key in study.variants.items()}
    study = replace(study, variants=variants, asked={name: [0, 1] for name in variants})
    trials = [replace(trial, variant=names[trial.variant]) for trial in tracking.trials(study.run_id)]
    monkeypatch.setattr(writing, "open_tracking", lambda uri, store: Tracked([study], trials))
    assert write_bundle("small", tmp_path / "runs", tmp_path / "x.zip").consistent
    rows = json.loads(contents(tmp_path / "x.zip")["report.json"])["studies"][0]["rows"]
    assert [(row["variant"], row["n_seeds"]) for row in rows] == [("SL@48px", 2), ("SL@64px", 2)]


def test_a_study_or_trial_that_is_not_there(runs: Path, tmp_path: Path, first: str) -> None:
    with pytest.raises(StudyError, match="did you mean 'small'"):
        write_bundle("smal", runs, tmp_path / "x.zip")
    (runs / first / "predictions.npz").unlink()
    with pytest.raises(StoreError, match=r"damaged \(predictions.npz\)"):
        write_bundle("small", runs, tmp_path / "x.zip")
    for file in (runs / first).iterdir():
        file.unlink()
    with pytest.raises(StoreError, match=r"\(SL, seed 0\) has no result in this store"):
        write_bundle("small", runs, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize("manifest", [True, False])
def test_a_cell_of_a_table(tamper: Tamper, manifest: bool) -> None:
    def change(report: Any) -> None:
        report["studies"][0]["rows"][1]["mean"] = 0.9

    text = found(tamper({"report.json": as_json(change)}, manifest=manifest))
    assert "report.json: studies, row 'small, quick', rows, row 'HMTL', column mean: 0.9 in the report, 0.4249" in text
    assert ("not that of the manifest" in text) != manifest


def test_a_claim_s_status(tamper: Tamper) -> None:
    text = found(tamper({"report.json": as_json(lambda report: report["claims"][0].update(status="Reproduced"))}))
    assert "column status: 'Reproduced' in the report, 'Unverified' recomputed" in text


def test_the_table_that_people_read(tamper: Tamper) -> None:
    text = found(tamper({"report.md": lambda content: content.replace(b"42.50", b"92.50")}))
    assert "report.md: line" in text
    assert "92.50" in text


@pytest.mark.parametrize("manifest", [True, False])
def test_a_prediction(tamper: Tamper, first: str, manifest: bool) -> None:
    def change(arrays: Any) -> None:
        arrays["test_probability"][19] = np.eye(8)[arrays["test_label"][19]]

    text = found(tamper({f"{first}/predictions.npz": as_arrays(change)}, manifest=manifest))
    assert f"{first}/predictions.npz: test/accuracy: 0.4 recomputed from the predictions, 0.35 in result.json" in text
    assert "result.json has another checksum of it" in text


def test_a_label(tamper: Tamper, first: str) -> None:
    def change(arrays: Any) -> None:
        arrays["test_label"][:] = arrays["test_probability"].argmax(1)

    text = found(tamper({f"{first}/predictions.npz": as_arrays(change)}))
    assert "test_label: other labels of the same images" in text
    assert f"{first}/predictions.npz: test/accuracy: 1 recomputed" in text


@pytest.mark.parametrize("manifest", [True, False])
def test_a_config(tamper: Tamper, first: str, manifest: bool) -> None:
    def change(config: Any) -> None:
        config["training"]["lr"] = 0.5

    text = found(tamper({f"{first}/config.json": as_json(change)}, manifest=manifest))
    assert f"{first}/config.json: config, data and numerics version are those of trial" in text
    assert "is not the config of the variant 'SL'" in text


@pytest.mark.parametrize("manifest", [True, False])
def test_a_curve(tamper: Tamper, first: str, manifest: bool) -> None:
    def better(content: bytes) -> bytes:
        rows = [json.loads(line) for line in content.splitlines()]
        rows[0]["val/accuracy"] = 0.99
        return "".join(json.dumps(row) + "\n" for row in rows).encode()

    text = found(tamper({f"{first}/metrics.jsonl": better}, manifest=manifest))
    assert f"{first}/metrics.jsonl: best epoch: 1 of 2 by the curves, 2 of 2 in result.json" in text
    assert f"{first}/metrics.jsonl: was changed: result.json has another checksum of it" in text


def test_a_metric_of_a_result(tamper: Tamper, first: str) -> None:
    text = found(
        tamper({f"{first}/result.json": as_result(lambda result: result["metrics"].update({"test/accuracy": 0.9}))})
    )
    assert f"{first}/predictions.npz: test/accuracy: 0.35 recomputed from the predictions, 0.9 in result.json" in text
    assert "row 'SL', column mean: 0.375 in the report" in text


def test_a_metric_of_the_best_epoch(tamper: Tamper, first: str) -> None:
    text = found(
        tamper({f"{first}/result.json": as_result(lambda result: result["metrics"].update({"best/val/ece": 0.0}))})
    )
    assert "best/val/ece, epoch 2:" in text


def test_the_data_and_the_study_file(tamper: Tamper) -> None:
    text = found(
        tamper(
            {
                "records.json": lambda content: content.replace(b"f" * 16, b"e" * 16),
                "studies/1.yaml": lambda content: content + b"seeds: [0]\n",
            }
        )
    )
    assert "config, data and numerics version" in text
    assert "studies/1.yaml: is not the file that the study was last run with" in text


def test_a_trial_that_was_left_out(bundle: Path, tmp_path: Path, first: str) -> None:
    path = tmp_path / "less.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents(bundle).items():
            if not name.startswith(first):
                archive.writestr(name, content)
    text = found(path)
    assert f"{first}/config.json: is listed in the manifest, but missing" in text
    assert "is a trial whose folder is missing" in text
