"""The study files that come with the project, and their schema."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from hmtl_ablate.config import InpaintingOptions
from hmtl_ablate.study import load_study, missing_data, planned, schema_text, study_schema

FOLDER = Path(__file__).parents[2] / "search_spaces"
FILES = sorted(FOLDER.glob("*.yaml"))


@cache
def validator() -> Any:
    return jsonschema.Draft202012Validator(study_schema())


STANDINS = [
    "augmentation",
    "controls",
    "decide",
    "designs",
    "gender",
    "head_pose",
    "loss_combination",
    "paper",
    "pretext",
    "pretraining",
    "transfer",
]
FERPLUS = ["ferplus", "ferplus_attribution", "ferplus_inpainting", "ferplus_puzzling", "ferplus_tuning"]


def test_all_are_there() -> None:
    assert [path.stem for path in FILES] == sorted(
        [*STANDINS, *FERPLUS, "equal_tuning", "inpainting", "low_data", "puzzling"]
    )


def test_ferplus_stands_in_at_a_fifth_of_train_with_paired_seeds() -> None:
    study = load_study(FOLDER / "ferplus.yaml", profile="standin")
    assert missing_data(study)
    assert len(study.seeds) == 3
    assert {variant.config(0).data.fraction for variant in study.variants} == {0.2}
    assert [variant.config(0).passes_per_image for variant in study.variants] == [1, 2, 2, 2]


@pytest.mark.parametrize("path", [path for path in FILES if path.stem not in FERPLUS], ids=lambda path: path.stem)
def test_every_file_runs_on_rendered_faces_and_at_the_papers_scale(path: Path) -> None:
    quick, paper = load_study(path), load_study(path, profile="paper")
    assert quick.name == path.stem
    assert quick.datasets.keys() == {"rendered"}
    assert missing_data(quick) == []
    assert len(missing_data(paper)) == len(paper.datasets) > 0
    assert paper.resources.gpus == 1
    for _, _, config in planned(quick):
        assert config.data.size == 48
        assert not any(source == "imagenet" for source in config.weight_sources.values())  # nothing is downloaded
    for variant, _, config in planned(paper):
        if not variant.evaluation and path.stem != "head_pose" and not variant.name.endswith(": more epochs"):
            epochs = 200 if path.stem == "paper" else 100  # the siamese script's, and the newer others'
            assert (config.training.epochs, config.training.optimizer) == (epochs, "adabelief")
    assert len({variant.key for variant in paper.variants}) == len(paper.variants)
    assert len({variant.key for variant in quick.variants}) == len(quick.variants)


@pytest.mark.parametrize("name", STANDINS)
def test_standins_have_real_faces_small_nets_and_paired_seeds_to_test(name: str) -> None:
    study = load_study(FOLDER / f"{name}.yaml", profile="standin")
    assert "rendered" not in study.datasets
    assert len(study.seeds) >= 3 if study.decide is None else len(study.seeds) == study.decide.seeds
    assert study.resources.gpus == 0
    for _, _, config in planned(study):
        assert config.data.size == 48


@pytest.mark.parametrize("name", ["pretraining", "transfer", "head_pose", "gender", "loss_combination", "pretext"])
def test_hmtl_stands_beside_sl_at_equal_epochs_and_at_equal_passes(name: str) -> None:
    study = load_study(FOLDER / f"{name}.yaml", profile="standin")
    own = [variant.config(0) for variant in study.variants if not variant.evaluation]
    plain = {config.passes_per_image for config in own if not config.pretext}
    assert plain == {1, 2}
    assert {config.passes_per_image for config in own if config.pretext} <= plain
    assert len({config.training.epochs for config in own}) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_names_the_schema_and_its_command(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# yaml-language-server: $schema=schema.json"
    assert any(f"hmtl-ablate run search_spaces/{path.name}" in line for line in lines[:20])


@pytest.mark.parametrize("name", ["puzzling", "inpainting"])
def test_siamese_stays_out_of_the_quick_search(name: str) -> None:
    for profile, feeds in (("quick", ("shared", "mixed")), ("paper", ("shared", "siamese", "mixed"))):
        search = load_study(FOLDER / f"{name}.yaml", profile=profile).search
        assert search is not None
        assert {p.key: p.choices for p in search.parameters}[f"pretext.{name}.feed"] == feeds


def test_puzzling_compares_at_equal_passes() -> None:
    study = load_study(FOLDER / "puzzling.yaml")
    passes = {variant.name: variant.config(0).passes_per_image for variant in study.variants}
    assert passes == {"SL": 1, "SL, 2 views": 2, "SL + puzzling": 2}


def test_controls_has_all_controls_of_two_arms() -> None:
    study = load_study(FOLDER / "controls.yaml")
    puzzling, inpainting = study.controls["SL + puzzling"], study.controls["SL + in-painting"]
    assert (puzzling.sl, puzzling.views, puzzling.epochs) == (inpainting.sl, inpainting.views, inpainting.epochs)
    assert puzzling.sl == "SL"
    assert inpainting.supervision_off == "SL + in-painting: supervision off"
    assert len(study.variants) == 3 + 2 + 2 + 2 + 1


def test_designs_shares_arms_and_leaves_two_steps_to_the_path() -> None:
    study = load_study(FOLDER / "designs.yaml")
    names = ["SL", "full", "full − puzzling", "full − in-painting", "full − rotation", "SL + puzzling", "SL + rotation"]
    assert [variant.name for variant in study.variants] == names
    assert [one.kind for one in study.designs.values()] == ["leave_one_out", "full_factorial", "path"]
    assert [one.name for one in study.candidates] == ["SL + in-painting"]


def test_decide_compares_puzzling_at_equal_passes() -> None:
    study = load_study(FOLDER / "decide.yaml")
    assert study.comparisons == (("SL", "SL, 2 views"), ("SL + puzzling", "SL, 2 views"))
    assert study.seeds == tuple(range(8))


def test_low_data_has_three_arms_of_equal_cost_at_each_fraction() -> None:
    study = load_study(FOLDER / "low_data.yaml")
    configs = [variant.config(0) for variant in study.variants]
    assert [config.data.fraction for config in configs] == [f for f in (0.05, 0.1, 0.2, 0.5, 1.0) for _ in range(3)]
    assert {config.passes_per_image for config in configs} == {2}
    assert [set(config.pretext) for config in configs[:3]] == [set(), {"puzzling"}, {"inpainting"}]


def test_paper_has_the_nine_rows() -> None:
    """Fault A4: puzzling was 2 × 2 at weight 1.2; the siamese script has 3 × 3, and 8.1 in our terms."""
    study = load_study(FOLDER / "paper.yaml", profile="paper")
    rows = [variant for variant in study.variants if not variant.evaluation and " views" not in variant.name]
    assert len(rows) == 8
    for variant in rows:
        config = variant.config(0)
        training = config.training
        assert (training.epochs, training.warmup, training.clip, training.weight_decay) == (200, 3, None, 0)
        assert config.model.backbone == ("efficientnet_b2" if "(B2)" in variant.name else "efficientnet_b0")
        assert config.data.fraction == (0.2 if "20% train" in variant.name else 1.0)
        assert set(config.pretext) == {
            name for name, word in (("puzzling", "puzzling"), ("inpainting", "in-painting")) if word in variant.name
        }
        assert (config.data.size, config.data.stored, config.data.protocol, config.loss.class_weights) == (
            112,
            200,
            "paper",
            "inverse",
        )
        if "puzzling" in config.pretext:
            own: Any = config.pretext["puzzling"]
            assert own.weight == pytest.approx(0.3 * own.grid**2 * len(own.changed_views)) == pytest.approx(8.1)
            assert (own.same_draw, own.same_augmentation, own.supervised_weight) == (True, True, 1.0)
            assert config.loss.views == "geometric"
        if "inpainting" in config.pretext:
            assert isinstance(config.pretext["inpainting"], InpaintingOptions)
            assert config.pretext["inpainting"].perceptual == "vgg16"
    probe = next(v for v in study.variants if v.name == "SL + SSL puzzling (B0) → non-linear probe").config(0)
    assert (probe.data.name, probe.probe.kind, probe.probe.folds) == ("ckplus", "nonlinear", 10)


def test_the_committed_schema_is_current() -> None:
    assert (FOLDER / "schema.json").read_text(encoding="utf-8") == schema_text(), (
        "run: hmtl-ablate schema > search_spaces/schema.json"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_suits_the_schema(path: Path) -> None:
    validator().validate(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))


def test_the_schema_refuses_what_the_loader_refuses() -> None:
    check = validator()
    good = {"name": "a", "variants": {"SL": {"data.views": 2, "pretext": {"puzzling": {"grid": 2}}}}}
    assert check.is_valid(good)
    change: dict[str, Any]
    for change in (
        {"nam": 1},
        {"name": "../a"},
        {"base": {"data.sise": 3}},
        {"base": {"data": {"size": 3}}},
        {"base": {"pretext": {"puzling": {}}}},
        {"variants": {"search": {}}},
        {"seeds": []},
        {"search": {"space": {"seed": {"choice": [1]}}}},
        {"search": {"sampler": "tpee"}},
        {"search": {"space": {"training.lr": {"choice": [1], "int": [1, 2]}}}},
        {"profiles": {"quick": {"sedes": [1]}}},
        {"resources": {"workers": 0}},
        {"evaluations": {"probe": {"fo": []}}},
        {"stages": {"a": {"data.sise": 3}}},
    ):
        assert not check.is_valid({**good, **change}), change


def test_every_option_is_described() -> None:
    options = study_schema()["$defs"]["config"]["properties"]
    for key in ("task", "data.size", "pretext.puzzling.grid", "pretext.inpainting.mask_ratio", "training.lr"):
        assert options[key]["description"]
