"""The checks before a run, one by one."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hmtl_ablate import checks
from hmtl_ablate.config import NUMERICS_VERSION, TrialConfig, parse_config
from hmtl_ablate.data.build import open_pack
from hmtl_ablate.data.pack import Pack
from hmtl_ablate.errors import CheckpointError, ConfigError, DataError, HmtlError, StoreError
from hmtl_ablate.machine import this_machine
from hmtl_ablate.planning.estimate import Place
from hmtl_ablate.running.options import Engine, RunOptions
from hmtl_ablate.study import Study, load_study
from hmtl_ablate.training.folder import TrialFolder, TrialResult

BASE: dict[str, Any] = {"data": {"images": 96, "size": 32}}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return open_pack(parse_config(BASE).data, None, tmp_path_factory.mktemp("store"))


def study_of(folder: Path, text: str) -> Study:
    path = folder / "study.yaml"
    path.write_text(f"name: s\nbase: {{data: {{images: 96, size: 32}}}}\n{text}")
    return load_study(path)


def finish(
    store: Path, name: str, config: TrialConfig, *, numerics: int = NUMERICS_VERSION, status: str = "finished"
) -> None:
    """A trial's folder as training leaves it."""
    folder = TrialFolder(store / "trials" / name)
    folder.write_config(config)
    tags = {"numerics": str(numerics)}
    values = {"trial_id": name, "status": status, "epochs": 1, "best_epoch": 1, "image_passes": 1, "seconds": 1.0}
    folder.write_result(TrialResult.model_validate({**values, "tags": tags}))


def test_a_module_from_the_working_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "of_a_lab.py").write_text("LOADED = True\n")
    monkeypatch.chdir(tmp_path)
    checks.import_modules(["of_a_lab"])
    assert sys.modules.pop("of_a_lab").LOADED
    with pytest.raises(HmtlError, match="--import no_such_module_here"):
        checks.import_modules(["no_such_module_here"])


def test_a_dataset_without_a_path_is_refused(tmp_path: Path) -> None:
    study = study_of(tmp_path, "variants: {SL: {}, real: {data.name: ferplus, data.images: null}}\n")
    with pytest.raises(DataError, match="--data ferplus=PATH"):
        checks.require_data(study)
    checks.require_data(study_of(tmp_path, "variants: {SL: {}}\n"))


def test_the_store_is_made_or_refused(tmp_path: Path) -> None:
    assert checks.open_store(tmp_path / "a" / "store").is_dir()
    assert not list((tmp_path / "a" / "store").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be written"):
        checks.open_store(tmp_path / "file" / "store")


def test_every_network_that_a_search_can_draw_is_checked(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        "variants: {SL: {}}\n"
        "search:\n  base: {}\n  space: {model.backbone: {choice: [test_resnet, resnet10]}}\n  trials: 1\n",
    )
    assert [config.model.backbone for config in checks.configs_of(study)] == ["test_resnet"] * 2 + ["resnet10"]
    with pytest.raises(ConfigError, match=r"model\.backbone: .*resnet10t"):
        checks.check_networks(checks.configs_of(study))


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"pretext": {"inpainting": {"perceptual": "vgg61", "perceptual_weights": None}}}, ConfigError, r"perceptual"),
        ({"model": {"weights": "file:/nowhere/at/all"}}, CheckpointError, "can't read /nowhere/at/all"),
    ],
)
def test_networks_and_weights_that_do_not_exist(config: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        checks.check_networks([parse_config(config)])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"data": {**BASE["data"], "leave_out": ["contemt"]}}, "did you mean 'contempt'"),
        ({**BASE, "probe": {"kind": "linear", "folds": 100}}, "too few for 100 folds"),
    ],
)
def test_labels_that_the_pack_does_not_have(pack: Pack, config: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        checks.check_labels(parse_config(config), pack)


def test_an_objective_that_val_has_no_labels_for(pack: Pack) -> None:
    """Fault C16: not a KeyError after the first epoch."""
    config = parse_config({**BASE, "task": ["emotion", "gender"]})
    for metric in ("val/emotion/accuracy", "val/gender/accuracy"):
        checks.check_objective(config, pack, metric)
    gender = pack.labels["gender"].copy()
    gender[pack.split == 1] = -1
    unlabelled = replace(pack, labels={**pack.labels, "gender": gender})
    checks.check_objective(config, unlabelled, "val/emotion/accuracy")
    with pytest.raises(DataError, match=r"search\.objective val/gender/accuracy: .* no image of val .* for gender"):
        checks.check_objective(config, unlabelled, "val/gender/accuracy")


def test_labels_that_the_pack_has(pack: Pack) -> None:
    for task in ("emotion", "gender", "pose"):
        checks.check_labels(parse_config({**BASE, "task": task}), pack)
    checks.check_labels(parse_config({**BASE, "probe": {"kind": "linear", "folds": 5}}), pack)


@pytest.mark.parametrize(
    ("valid", "objective", "refused"),
    [
        ("female", "auc", True),
        ("female", "accuracy", False),
        ("male", "balanced_accuracy", True),
        ("both", "auc", False),
    ],
)
def test_an_objective_that_val_cant_be_measured_by(valid: str, objective: str, refused: bool, tmp_path: Path) -> None:
    """Fault C16 and the case one_class_in_valid: every trial failed with a KeyError."""
    root = tmp_path / "set"
    root.mkdir()
    rows = ["image,gender,split"]
    for number in range(48):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 6), np.uint8)
        cv2.imwrite(str(root / f"{number}.png"), cv2.resize(pixels, (32, 32)))
        split = ("train", "valid", "test")[number // 16]
        gender = valid if split == "valid" and valid != "both" else ("female", "male")[number % 2]
        rows.append(f"{number}.png,{gender},{split}")
    (root / "labels.csv").write_text("\n".join(rows))
    (tmp_path / "study.yaml").write_text(
        "name: s\nbase: {task: gender, data: {name: csv, size: 32}}\nvariants: {SL: {}}\nseeds: [0]\n"
        f"search:\n  space: {{training.lr: {{loguniform: [0.001, 0.01]}}}}\n  trials: 2\n"
        f"  objective: {{val/{objective}: max}}\n"
    )
    study = load_study(tmp_path / "study.yaml", datasets=[f"csv={root}"])
    packs = checks.open_packs(study, tmp_path)
    if refused:
        with pytest.raises(DataError, match=rf"val/{objective}: .* 16 images .* of one class \({valid}\)"):
            checks.check_search(study, packs)
    else:
        checks.check_search(study, packs)


def test_a_finished_trial_is_skipped_and_no_other_one_is(tmp_path: Path) -> None:
    study = study_of(tmp_path, "variants: {SL: {}, two: {data.views: 2}}\nseeds: [0, 1]\n")
    one, two = study.variants
    finish(tmp_path, "a" * 16, one.config(0))
    finish(tmp_path, "b" * 16, one.config(1), numerics=NUMERICS_VERSION - 1)
    finish(tmp_path, "c" * 16, two.config(0), status="pruned")
    TrialFolder(tmp_path / "trials" / ("d" * 16)).write_config(two.config(1))
    planned = checks.planned_trials(study, tmp_path)
    assert [(trial.variant, trial.seed, trial.status, trial.trial_id) for trial in planned] == [
        ("SL", 0, "skip", "a" * 16),
        ("two", 0, "start", ""),
        ("SL", 1, "start", ""),
        ("two", 1, "start", ""),
    ]
    assert planned[1].config == two.config(0)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\x00\xff", b"[" * 9999, b'{"task": "of_a_lab"}', None])
def test_a_foreign_or_damaged_trial_does_not_stop_planning(tmp_path: Path, content: bytes | None) -> None:
    """Faults C9 and C14: the config of another trial is damaged, or of a lab's own task that is not imported here."""
    study = study_of(tmp_path, "variants: {SL: {}}\nseeds: [0]\n")
    finish(tmp_path, "a" * 16, study.variants[0].config(0))
    finish(tmp_path, "b" * 16, TrialConfig())
    file = tmp_path / "trials" / ("b" * 16) / "config.json"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert [trial.trial_id for trial in checks.planned_trials(study, tmp_path)] == ["a" * 16]
    (tmp_path / "trials" / ("a" * 16) / "result.json").write_bytes(content or b"")
    assert [trial.status for trial in checks.planned_trials(study, tmp_path)] == ["start"]


def test_a_trial_is_known_by_the_trial_it_starts_from(tmp_path: Path) -> None:
    """Stored configs name the source's trial_id; the study names the stage."""
    study = study_of(
        tmp_path,
        "stages: {first: {training.supervised: false, pretext: {rotation: {}}}}\n"
        'variants: {tuned: {model.weights: "trial:first"}}\nseeds: [0]\n',
    )
    stage, tuned = study.stages[0].config(0), study.variants[0].config(0)
    finish(tmp_path, "b" * 16, tuned.replaced({("model", "weights"): f"trial:{'a' * 16}"}))
    words = [(trial.variant, trial.stage, trial.status) for trial in checks.planned_trials(study, tmp_path)]
    assert words == [("first", True, "start"), ("tuned", False, "start")]  # of another stage's weights
    finish(tmp_path, "a" * 16, stage)
    assert [trial.trial_id for trial in checks.planned_trials(study, tmp_path)] == ["a" * 16, "b" * 16]


def test_planning_a_store_that_does_not_exist_makes_none(tmp_path: Path) -> None:
    study = study_of(tmp_path, "variants: {SL: {}}\nseeds: [0]\n")
    assert [trial.status for trial in checks.planned_trials(study, tmp_path / "runs")] == ["start"]
    assert not (tmp_path / "runs").exists()


def test_a_plan_has_as_many_trials_at_once_as_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: as many as asked for, however few this machine holds; a calibration measured so many at once, too."""
    study = study_of(tmp_path, "variants: {SL: {}}\nseeds: [0]\n")
    cores = this_machine().cores
    measured: list[Place] = []
    monkeypatch.setattr("hmtl_ablate.planning.measuring.calibrate", lambda *given: measured.append(given[2]))
    for asked, expected in ((None, cores), (1, 1), (cores + 6, cores)):
        assert checks.estimate_study(study, tmp_path, max_concurrent=asked).at_once == expected
        checks.calibrate_study(study, tmp_path, "ray", asked, (), print)
        assert measured[-1].at_once == expected == RunOptions(max_concurrent=asked).places(study.resources)
    large = study_of(tmp_path, f"variants: {{SL: {{}}}}\nseeds: [0]\nresources: {{cpus: {cores + 1}}}\n")
    found = checks.estimate_study(large, tmp_path, max_concurrent=2)
    assert (found.at_once, len(found.notes)) == (0, 1)


@pytest.mark.parametrize(
    ("engine", "asked", "words"), [("ray", 0, "at least one trial"), ("local", 2, "one trial at a time, not 2")]
)
def test_a_plan_refuses_the_places_that_a_run_does(tmp_path: Path, engine: Engine, asked: int, words: str) -> None:
    study = study_of(tmp_path, "variants: {SL: {}}\nseeds: [0]\n")
    with pytest.raises(HmtlError, match=words):
        checks.estimate_study(study, tmp_path, engine=engine, max_concurrent=asked)
