"""Loading a study: profiles, --set, --data, seeds, and the plan."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.errors import StudyError
from hmtl_ablate.study import Study, load_study, missing_data, planned

TEXT = """\
name: faces
question: Does it help?
base:
  data: {images: 600, size: 48}
  training: {epochs: 8}
variants:
  SL: {}
  SL, 2 views: {data.views: 2}
  SL + puzzling: {pretext: {puzzling: {grid: 2, feed: siamese}}}
seeds: [3, 4]
search:
  base: {pretext: {puzzling: {}}}
  space:
    pretext.puzzling.grid: {choice: [2, 3, 4]}
    pretext.puzzling.weight: {loguniform: [0.1, 10]}
  trials: 9
profiles:
  quick:
    base: {training.epochs: 5}
    variants:
      SL + puzzling: {pretext.puzzling.weight: 2}
      more: {data.fraction: 0.5}
    seeds: [1]
    search: {trials: 2, base: {data.size: 32}, space: {pretext.puzzling.grid: {int: [2, 3]}}}
    resources: {cpus: 2}
  whole: {}
  arms: {search: null}
resources: {gpus: 1}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(TEXT)
    return tmp_path / "study.yaml"


def raw(study: Study) -> dict[str, Any]:
    return {variant.name: variant.raw for variant in study.variants}


def test_quick_is_the_default_profile_and_merges_over_the_file(path: Path) -> None:
    study = load_study(path)
    assert (study.name, study.profile, study.question, study.seeds, study.metric) == (
        "faces",
        "quick",
        "Does it help?",
        (1,),
        "test/accuracy",
    )
    assert [variant.name for variant in study.variants] == ["SL", "SL, 2 views", "SL + puzzling", "more"]
    assert raw(study)["SL + puzzling"] == {
        "data": {"images": 600, "size": 48},
        "training": {"epochs": 5},
        "pretext": {"puzzling": {"grid": 2, "feed": "siamese", "weight": 2}},
    }
    assert (study.resources.cpus, study.resources.gpus, study.resources.workers) == (2, 1, 1)
    assert study.search is not None
    assert (study.search.trials, study.search.base["data"]["size"]) == (2, 32)
    assert [(p.key, p.kind) for p in study.search.parameters] == [
        ("pretext.puzzling.grid", "int"),
        ("pretext.puzzling.weight", "loguniform"),
    ]
    assert study.text == TEXT


def test_other_profiles(path: Path) -> None:
    whole = load_study(path, profile="whole")
    assert (whole.seeds, raw(whole)["SL"]["training"]["epochs"], len(whole.variants)) == ((3, 4), 8, 3)
    assert load_study(path, profile="arms").search is None


def test_a_file_without_profiles_runs_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("name: a\nvariants: {SL: }\n")
    study = load_study(tmp_path / "s.yaml")
    assert (raw(study), study.seeds, study.search) == ({"SL": {}}, (0, 1, 2), None)
    with pytest.raises(StudyError, match="has no profile 'paper'"):
        load_study(tmp_path / "s.yaml", profile="paper")


def test_the_plan_pairs_seeds_first(path: Path) -> None:
    study = load_study(path, profile="whole")
    assert [(variant.name, seed) for variant, seed, _ in planned(study)] == [
        (name, seed) for seed in (3, 4) for name in ("SL", "SL, 2 views", "SL + puzzling")
    ]
    assert all(config.seed == seed for _, seed, config in planned(study))
    assert planned(study)[1][2].data.views == 2


def test_set_comes_last_over_everything(path: Path) -> None:
    study = load_study(
        path,
        sets=[
            "training.epochs=4",
            "data.views=1",
            "data={size: 24}",
            "model.weights=null",
            "resources.workers=2",
            "seeds=[7, 8]",
            "search.trials=3",
            "metric=test/macro_f1",
        ],
    )
    for config in [*raw(study).values(), study.search.base if study.search else {}]:
        assert (config["training"]["epochs"], config["data"]["views"], config["data"]["size"]) == (4, 1, 24)
    assert (study.resources.workers, study.seeds, study.metric) == (2, (7, 8), "test/macro_f1")
    assert study.search is not None
    assert study.search.trials == 3


def test_set_of_a_pretext_option_goes_where_the_task_is(path: Path) -> None:
    study = load_study(path, sets=["pretext.puzzling.weight=0.5"])
    assert "pretext" not in raw(study)["SL"]
    assert raw(study)["SL + puzzling"]["pretext"]["puzzling"]["weight"] == 0.5
    assert study.search is not None
    weight = next(p for p in study.search.parameters if p.key == "pretext.puzzling.weight")
    assert (weight.kind, weight.choices) == ("choice", (0.5,)), "what is set is no longer searched"


def test_set_of_the_search(path: Path) -> None:
    study = load_study(
        path,
        sets=[
            "search.space.training.lr={loguniform: [1e-4, 1e-2]}",
            "search.base.data.size=24",
            "search.objective={val/loss: min}",
            "search.pruner=successive_halving",
        ],
    )
    assert study.search is not None
    assert "training.lr" in study.search.keys
    assert study.search.base["data"]["size"] == 24
    assert raw(study)["SL"]["data"]["size"] == 48
    assert (study.search.metric, study.search.direction, study.search.pruner.name) == (
        "val/loss",
        "min",
        "successive_halving",
    )
    assert load_study(path, sets=["search=null"]).search is None


def test_trials_and_seeds_of_the_command_line(path: Path) -> None:
    study = load_study(path, trials=4, seeds=(5, 6))
    assert study.search is not None
    assert (study.search.trials, study.seeds) == (4, (5, 6))


def test_data_of_another_name_takes_the_place_of_the_studys(path: Path) -> None:
    study = load_study(path, datasets=["ferplus=/data/ferplus"])
    assert study.datasets == {"ferplus": Path("/data/ferplus")}
    for config in [*raw(study).values(), study.search.base if study.search else {}]:
        assert config["data"]["name"] == "ferplus"
        assert "images" not in config["data"]
    assert missing_data(study) == []


def test_data_of_the_studys_own_name_says_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: a\nvariants:\n  x: {data.name: affectnet}\n  y: {data.name: ferplus}\n  z: {}\n")
    study = load_study(path, datasets=["ferplus=/f"])
    assert study.datasets == {"affectnet": None, "ferplus": Path("/f"), "rendered": None}
    (line,) = missing_data(study)
    assert "needs the dataset 'affectnet'" in line
    assert "--data affectnet=PATH" in line
    assert load_study(path, datasets=["rendered"]).datasets.keys() == {"affectnet", "ferplus", "rendered"}


def test_rendered_can_take_the_place_of_a_files_dataset(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("name: a\nbase: {data: {name: affectnet}}\nvariants: {SL: {}}\n")
    study = load_study(path, datasets=["rendered"], sets=["data.images=200"])
    assert study.datasets == {"rendered": None}
    assert missing_data(study) == []
    assert study.variants[0].config(0).data.images == 200


def test_a_variants_key_is_of_its_options_alone(path: Path) -> None:
    study = load_study(path)
    keys = [variant.key for variant in study.variants]
    assert len(set(keys)) == 4
    assert all(len(key) == 12 for key in keys)
    assert load_study(path, seeds=(9,)).variants[0].key == keys[0]
    assert load_study(path, sets=["model.dropout=0.3"]).variants[0].key == keys[0], "a default that is written out"
    assert load_study(path, sets=["model.dropout=0.4"]).variants[0].key != keys[0]


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").replace("epochs: 8", "epochs: 0").encode())
    with pytest.raises(StudyError, match=r":5:22: base\.training\.epochs: "):
        load_study(path, profile="whole")


@pytest.mark.slow
def test_importing_the_study_floor_is_light() -> None:
    code = (
        "import sys, hmtl_ablate.study; print(*{'torch', 'ray', 'mlflow', 'optuna', 'pandas', 'numpy', 'cv2'} & "
        "set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
