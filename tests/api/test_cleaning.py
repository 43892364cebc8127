"""`clean` removes what a store can do without, and nothing that a study declares."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import hmtl_ablate as ha
from hmtl_ablate.api import cleaning
from hmtl_ablate.cli import main
from hmtl_ablate.errors import StoreError
from hmtl_ablate.tracking import StudyRecord, TrialRecord, open_tracking
from hmtl_ablate.training.folder import TrialFolder, TrialResult

DECLARED, OLD, SOURCE, PRUNED = ("a" * 16, "b" * 16, "c" * 16, "d" * 16)
WEIGHTS = b"w" * 5000


@pytest.fixture
def store(tmp_path: Path, mlflow_database: Path) -> Path:
    """A store with a declared trial, a superseded one, a superseded one that the declared one starts from, and a pruned
    one; each with a checkpoint and weights that MLflow has as a hard link."""
    place = tmp_path / "runs"
    place.mkdir()
    (place / "mlflow.db").write_bytes(mlflow_database.read_bytes())
    tracking = open_tracking(None, place)
    study = StudyRecord(name="s", profile="quick", metric="test/accuracy", variants={"SL": "k"}, seeds=(0,))
    parent = tracking.study_run(study, "name: s\n")
    for name, variant, key, status, starts in (
        (DECLARED, "SL", "k", "finished", f"trial:{SOURCE}"),
        (OLD, "old", "o", "finished", None),
        (SOURCE, "source", "o", "finished", None),
        (PRUNED, "search", "", "pruned", None),
    ):
        folder = TrialFolder(place / "trials" / name)
        folder.path.mkdir(parents=True)
        (folder.path / "config.json").write_text(json.dumps({"model": {"weights": starts}}))
        folder.write_history([{"epoch": 1}])
        (folder.path / "best.safetensors").write_bytes(WEIGHTS)
        (folder.path / "last.safetensors").write_bytes(2 * WEIGHTS)
        fields = {"trial_id": name, "status": status, "epochs": 1, "best_epoch": 1, "image_passes": 1, "seconds": 1}
        folder.write_result(TrialResult.model_validate(fields))
        record = TrialRecord(
            parent=parent,
            trial_id=name,
            variant=variant,
            variant_key=key,
            seed=0,
            config={"data": {"name": variant}},
            fingerprint=f"pack of {variant}",
            data="rendered",
        )
        run = tracking.trial_run(record)
        ended = TrialRecord(**{**vars(record), "status": status})  # type: ignore[arg-type]
        tracking.finish_trial(run, ended, {"best.safetensors": folder.path / "best.safetensors"})
    (place / "trials" / DECLARED / "best.safetensors.damaged").write_bytes(b"d" * 7)
    for pack in ("SL", "old"):
        (place / "packs" / pack).mkdir(parents=True)
        (place / "packs" / pack / "manifest.json").write_text(json.dumps({"fingerprint": f"pack of {pack}"}))
        (place / "packs" / pack / "images.npy").write_bytes(b"i" * 900)
    return place


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def declared(store: Path) -> dict[str, bytes]:
    """All that is declared or needed, without checkpoints, locks and damaged files."""
    found = {name: contents(store / "trials" / name) for name in (DECLARED, SOURCE)} | {
        "pack": contents(store / "packs" / "SL")
    }
    gone = ("last.safetensors", "best.safetensors.damaged", "lock")
    return {f"{a}/{b}": c for a, files in found.items() for b, c in files.items() if b not in gone}


def kinds(store: Path) -> dict[tuple[str, str], int]:
    return {(one.kind, one.folder.name): one.bytes for one in ha.clean(store).removals}


def test_the_plan_names_what_can_go_and_its_size(store: Path) -> None:
    found = kinds(store)
    folder = sum(path.stat().st_size for path in (store / "trials" / OLD).iterdir())
    assert found == {
        ("superseded", OLD): folder,
        ("pruned", PRUNED): 3 * len(WEIGHTS),  # the artifact is a hard link of the weights
        ("checkpoint", DECLARED): 2 * len(WEIGHTS),
        ("checkpoint", SOURCE): 2 * len(WEIGHTS),
        ("damaged", DECLARED): 7,
        ("pack", "old"): 900 + len((store / "packs" / "old" / "manifest.json").read_bytes()),
    }
    assert ha.clean(store).bytes == sum(found.values())


def test_what_a_study_declares_is_the_same_afterwards(store: Path) -> None:
    before = declared(store)
    assert ha.clean(store).apply() == ()
    assert declared(store) == before
    assert ha.clean(store).removals == ()
    assert not (store / "trials" / OLD).exists()
    assert not (store / "packs" / "old").exists()
    pruned = TrialFolder(store / "trials" / PRUNED)
    assert sorted(path.name for path in pruned.path.iterdir()) == [
        "config.json",
        "lock",
        "metrics.jsonl",
        "result.json",
    ]
    assert pruned.damage(whole=True) == ()
    assert len(list(store.glob("artifacts/*/*/artifacts/best.safetensors"))) == 2  # of the declared one and its source
    assert len(ha.load_results(store).trials) == 4


@pytest.mark.parametrize("after", range(1, 12))
def test_an_interrupted_removal_is_completed_by_the_next(
    store: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    before, real, calls = declared(store), os.unlink, iter(range(after))

    def killed(*args: object, **options: object) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        real(*args, **options)  # type: ignore[arg-type]

    plan = ha.clean(store)
    with monkeypatch.context() as patched:
        patched.setattr("os.unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            plan.apply()
    assert TrialFolder(store / "trials" / PRUNED).damage(whole=True) == ()
    assert ha.clean(store).apply() == ()
    assert declared(store) == before
    assert ha.clean(store).removals == ()
    assert not (store / "trials" / OLD).exists()


def test_a_trial_in_use_is_left_alone(store: Path) -> None:
    plan = ha.clean(store)
    with TrialFolder(store / "trials" / OLD).lock(), TrialFolder(store / "trials" / PRUNED).lock():
        before = contents(store / "trials" / OLD), contents(store / "trials" / PRUNED)
        assert {path.name for path in plan.apply()} == {OLD, PRUNED}
        assert (contents(store / "trials" / OLD), contents(store / "trials" / PRUNED)) == before


def test_a_running_study_refuses(store: Path) -> None:
    plan = ha.clean(store)
    lock = store / ".s@quick.lock"
    lock.touch()
    with cleaning._no_study_runs(store):
        for call in (lambda: ha.clean(store), plan.apply):
            with pytest.raises(StoreError, match="s@quick is running"):
                call()
    assert kinds(store)


def test_a_trial_that_is_declared_again_before_the_answer_stays(store: Path) -> None:
    plan = ha.clean(store)
    study = StudyRecord(name="s", profile="quick", metric="test/accuracy", variants={"SL": "k", "old": "o"}, seeds=(0,))
    open_tracking(None, store).study_run(study, "name: s\n")
    assert {path.name for path in plan.apply()} == {OLD, "old"}
    assert (store / "trials" / OLD / "best.safetensors").exists()


def test_a_pruned_trial_that_another_starts_from_keeps_its_weights(store: Path) -> None:
    config = {"model": {"weights": f"trial:{PRUNED}"}}
    (store / "trials" / DECLARED / "config.json").write_text(json.dumps(config))
    assert ("pruned", PRUNED) not in kinds(store)
    ha.clean(store).apply()
    assert (store / "trials" / PRUNED / "best.safetensors").read_bytes() == WEIGHTS


def test_a_kept_checkpoint_is_not_listed(store: Path) -> None:
    folder = TrialFolder(store / "trials" / DECLARED)
    result = folder.result()
    assert result is not None
    folder.write_result(result.model_copy(update={"tags": {"keep_last": "yes"}}))
    assert ("checkpoint", DECLARED) not in kinds(store)


def test_the_command_asks_and_without_a_terminal_needs_yes(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(store / "trials")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["clean", "--runs", str(store)]) == 0
    out, err = capsys.readouterr()
    assert "trials that their study no longer declares (1)" in out
    assert "nothing was removed: add --yes" in err
    assert main(["clean", "--runs", str(store), "--dry-run"]) == 0
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: "")
    assert main(["clean", "--runs", str(store)]) == 0
    assert contents(store / "trials") == before
    assert main(["clean", "--runs", str(store), "--yes"]) == 0
    assert main(["clean", "--runs", str(store)]) == 0
    assert "nothing to remove" in capsys.readouterr().out
