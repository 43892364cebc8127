"""The variants that `controls` adds to a study: hand-worked cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate import register_pretext_task
from hmtl_ablate.config import PretextOptions, parse_config
from hmtl_ablate.errors import StudyError
from hmtl_ablate.pretext.rotation import Rotation
from hmtl_ablate.study import Controls, Study, load_study, planned
from hmtl_ablate.study.controls import control_configs

PUZZLING = {"puzzling": {"grid": 3}}


def study(variants: dict[str, Any], **given: Any) -> Study:
    base = {"data": {"size": 48}, "training": {"epochs": 5}}
    raw = {"name": "c", "base": base, "variants": variants, "seeds": [4, 7], **given.pop("study", {})}
    return load_study(raw, **given)


def refusal(variants: dict[str, Any], **given: Any) -> str:
    with pytest.raises(StudyError) as caught:
        study(variants, **given)
    return str(caught.value)


def changes(found: Study) -> dict[str, dict[str, Any]]:
    """What each variant has apart from the base."""
    return {one.name: one.config(0).declared() for one in found.variants}


def test_the_four_of_the_sum_and_more_epochs() -> None:
    found = study({"SL": {}, "HMTL": {"pretext": PUZZLING, "controls": True}})
    base = {"training": {"epochs": 5}}
    assert changes(found) == {
        "SL": base,
        "HMTL": {**base, "pretext": {"puzzling": {"grid": 3}}},
        "HMTL: whole views": {**base, "data": {"views": 2}},
        "HMTL: distortion": {**base, "pretext": {"puzzling": {"grid": 3, "answers": "ignored"}}},
        "HMTL: random answers": {**base, "pretext": {"puzzling": {"grid": 3, "answers": "random"}}},
        "HMTL: more epochs": {"training": {"epochs": 10}},
    }
    assert found.controls == {
        "HMTL": Controls(
            sl="SL",
            views="HMTL: whole views",
            distortion="HMTL: distortion",
            random_answers="HMTL: random answers",
            arm="HMTL",
            epochs="HMTL: more epochs",
        )
    }
    assert [(variant.name, seed) for variant, seed, _ in planned(found)][:7] == [
        *((name, 4) for name in changes(found)),
        ("SL", 7),
    ]


def test_a_study_without_controls_has_none() -> None:
    for none in ({}, {"controls": False}, {"controls": None}):
        found = study({"SL": none, "HMTL": {"pretext": PUZZLING, **none}})
        assert (len(found.variants), found.controls) == (2, {})


def test_without_sl_its_one_view_is_added() -> None:
    found = study({"HMTL": {"pretext": PUZZLING, "controls": []}})
    assert list(changes(found)) == [
        "HMTL",
        "HMTL: one view",
        "HMTL: whole views",
        "HMTL: distortion",
        "HMTL: random answers",
    ]
    assert changes(found)["HMTL: one view"] == {"training": {"epochs": 5}}
    assert (found.controls["HMTL"].sl, found.controls["HMTL"].epochs) == ("HMTL: one view", "")


@pytest.mark.parametrize("feed", ["shared", "mixed"])
def test_a_feed_of_one_view_has_one_sl_for_all(feed: str) -> None:
    """k = 1: A0, A1 and more epochs are the same variant."""
    found = study({"SL": {}, "HMTL": {"pretext": {"rotation": {"feed": feed}}, "controls": True}})
    own = found.controls["HMTL"]
    assert (own.sl, own.views, own.epochs) == ("SL", "SL", "SL")
    assert [one.name for one in found.variants] == ["SL", "HMTL", "HMTL: distortion", "HMTL: random answers"]


def test_views_are_the_arms_whole_and_changed_ones() -> None:
    """Two whole views and three changed ones are k = 5; SL with three views is no control of it."""
    options = {"feed": "siamese", "changed_views": [[1, 1], [0.5, 1], [1, 1.5]]}
    arm = {"data.views": 2, "pretext": {"puzzling": options}, "controls": True}
    found = study({"SL": {}, "SL, 3 views": {"data.views": 3}, "HMTL": arm})
    configs = {one.name: one.config(0) for one in found.variants}
    own = found.controls["HMTL"]
    assert own.sl == "SL"
    assert configs[own.views].data.views == configs["HMTL"].passes_per_image == 5
    assert configs[own.epochs].training.epochs == 25
    assert {configs[name].passes_per_image for name in (own.views, own.distortion, own.random_answers)} == {5}


def test_equal_variants_are_one_whatever_their_names() -> None:
    """Two arms of two views share SL, the whole views and more epochs; one that is declared is not added."""
    arms = {name: {"pretext": {task: {}}, "controls": True} for name, task in (("P", "puzzling"), ("R", "rotation"))}
    found = study({"SL": {}, **arms, "my distortion": {"pretext": {"rotation": {"answers": "ignored", "grid": 1}}}})
    first, second = found.controls["P"], found.controls["R"]
    assert (second.sl, second.views, second.epochs) == (first.sl, first.views, first.epochs)
    assert first.views == "P: whole views"
    assert second.distortion == "my distortion"
    assert list(found.controls) == ["P", "R"]
    names = [one.name for one in found.variants]
    assert names[4:] == [
        "P: whole views",
        "P: distortion",
        "P: random answers",
        "P: more epochs",
        "R: random answers",
    ]
    assert len({one.key for one in found.variants}) == len(names)


def test_options_that_do_nothing_in_sl_make_no_other_variant() -> None:
    """PCGrad of one loss, and the mean over one view; focused squares a lone loss, so that SL is another one."""

    def sl(loss: dict[str, Any], task: Any = "emotion") -> str:
        arm = {"pretext": PUZZLING, "loss": loss, "controls": []}
        return study({"SL": {}, "HMTL": arm}, study={"base": {"task": task}}).controls["HMTL"].sl

    assert [sl({"combine": how}) for how in ("sum", "dwa", "pcgrad", "geometric")] == ["SL"] * 4
    assert [sl({"combine": how}) for how in ("focused", "uncertainty")] == ["HMTL: one view"] * 2
    assert sl({"views": "geometric"}) == "SL"
    assert sl({"combine": "pcgrad"}, ["emotion", "gender"]) == "HMTL: one view"
    assert sl({"combine": "geometric", "emotion_weight": 2.0}) == "HMTL: one view"
    kept = study({"HMTL": {"pretext": PUZZLING, "loss": {"views": "geometric"}, "controls": True}})
    losses = {one.name: one.config(0).loss.views for one in kept.variants}
    assert losses["HMTL: one view"] == losses["HMTL: more epochs"] == "mean"
    assert losses["HMTL: whole views"] == losses["HMTL: distortion"] == "geometric"


def test_several_tasks_have_a_pair_of_controls_each() -> None:
    pretext = {"puzzling": {}, "inpainting": {"joins": "puzzling", "weight": 2}}
    found = study({"SL": {}, "HMTL": {"pretext": pretext, "controls": ["supervision_off", "epochs"]}})
    own = found.controls["HMTL"]
    assert own.tasks == {
        "puzzling": ("HMTL: puzzling distortion", "HMTL: puzzling random answers"),
        "inpainting": ("HMTL: inpainting distortion", "HMTL: inpainting random answers"),
    }
    configs = {one.name: one.config(0).pretext for one in found.variants}
    answers = {name: {task: one.answers for task, one in tasks.items()} for name, tasks in configs.items()}
    assert answers[own.distortion] == {"puzzling": "ignored", "inpainting": "ignored"}
    assert answers[own.random_answers] == {"puzzling": "random", "inpainting": "random"}
    assert answers["HMTL: puzzling distortion"] == {"puzzling": "ignored", "inpainting": "own"}
    assert answers["HMTL: inpainting random answers"] == {"puzzling": "own", "inpainting": "random"}
    off = configs["HMTL: supervision off"]
    assert own.supervision_off == "HMTL: supervision off"
    assert (off["puzzling"].supervised_weight, off["inpainting"].joins, off["inpainting"].weight) == (0, "puzzling", 2)
    assert len(found.variants) == 2 + 1 + 2 + 2 + 4


def test_supervision_that_is_off_already_is_the_arm() -> None:
    arm = {"pretext": {"rotation": {"supervised_weight": 0}}, "controls": ["supervision_off"]}
    assert study({"HMTL": arm}).controls["HMTL"].supervision_off == "HMTL"


@pytest.mark.parametrize(
    ("epochs", "warmup", "expected"), [(5, None, 3), (2, None, 2), (2, 0, 0), (5, 1.5, 1.5), (1, None, 1)]
)
def test_the_warm_up_stays(epochs: int, warmup: float | None, expected: float) -> None:
    raw = {"training": {"epochs": epochs, "warmup_epochs": warmup}, "pretext": {"puzzling": {}}}
    longer = parse_config(control_configs(raw, ["epochs"])["", "epochs"]).training
    assert (longer.epochs, longer.warmup) == (2 * epochs, expected)


def test_a_registered_task_has_controls(registries: None) -> None:
    register_pretext_task("turning", PretextOptions, Rotation)
    found = study({"HMTL": {"pretext": {"turning": {"weight": 2}}, "controls": True}})
    assert changes(found)["HMTL: distortion"]["pretext"] == {"turning": {"weight": 2, "answers": "ignored"}}


def test_set_profiles_and_stages_reach_the_controls(tmp_path: Path) -> None:
    text = """\
name: c
stages: {first: {pretext: {rotation: {}}, training.supervised: false}}
variants:
  HMTL: {pretext: {puzzling: {}}, model.weights: "trial:first", controls: true}
evaluations: {probe: {probe.kind: knn}}
profiles:
  quick: {base: {training.epochs: 4}}
  off: {variants: {HMTL: {controls: false}}}
  list: {variants: {HMTL: {controls: [supervision_off]}}}
"""
    path = tmp_path / "c.yaml"
    path.write_text(text)
    found = load_study(path, sets=["pretext.puzzling.grid=4", "data.size=32", "training.epochs=6"])
    configs = {one.name: one.config(0) for one in found.variants}
    assert {config.data.size for config in configs.values()} == {32}
    assert configs["HMTL: more epochs"].training.epochs == 12
    assert getattr(configs["HMTL: distortion"].pretext["puzzling"], "grid", 0) == 4
    own = [one for one in found.variants if not one.evaluation]
    assert {one.config(0).model.weights for one in own} == {"trial:first"}
    assert all(list(one.sources) == ["first"] for one in own)
    assert [one.name for one in found.variants][-1] == "HMTL → probe", "evaluations are of the declared variants"
    assert load_study(path, profile="off").controls == {}
    assert load_study(path, profile="list").controls["HMTL"].supervision_off == "HMTL: supervision off"
    assert load_study(path, profile="list").controls["HMTL"].epochs == ""


HMTL: dict[str, Any] = {"pretext": {"puzzling": {}}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"SL": {"controls": True}}, "variants.SL.controls: controls are of pretext tasks, and this variant has none; rem"),
    ({"A": {**HMTL, "controls": "yes"}}, "variants.A.controls: should be true or a list, not 'yes'; write true, or a"),
    (
        {"A": {**HMTL, "controls": ["epoch"]}},
        "variants.A.controls.0: there is no control 'epoch'; did you mean 'epochs'",
    ),
    ({"A": {**HMTL, "controls": [3]}}, "variants.A.controls.0: there is no control 3"),
    (
        {"A": {**HMTL, "training.supervised": False, "controls": True}},
        "variants.A.controls: pre-training has no supervised score that a control could have too; remove it",
    ),
    (
        {"A": {"pretext": {"puzzling": {"answers": "random"}}, "controls": True}},
        "variants.A.controls: puzzling has answers: random, so this variant is a control itself; remove it",
    ),
    (
        {"A": {"pretext": {"rotation": {"feed": "mixed"}}, "controls": ["supervision_off"]}},
        "variants.A.controls.0: supervision_off leaves whole views to the supervised loss, which feed: mixed of",
    ),
    (
        {"A": {**HMTL, "controls": True}, "A: distortion": {}},
        "variants.A.controls: its control would be named 'A: distortion', as another one is; rename that one",
    ),
    ({"A" * 70: {**HMTL, "controls": True}}, "would have a name of 83 characters; shorten the variant's name"),
    (
        {"A": {**HMTL, "data.views": 8, "controls": True}},
        "variants.A.controls: its control 'whole views' can't be trained: data.views: ",
    ),
]


@pytest.mark.parametrize(("variants", "words"), REFUSED, ids=lambda part: part[:60] if isinstance(part, str) else "")
def test_what_makes_no_sense_is_refused_with_its_place(variants: dict[str, Any], words: str) -> None:
    assert words in refusal(variants).splitlines()[0]


@pytest.mark.parametrize("section", ["stages", "evaluations"])
def test_controls_elsewhere_are_refused_once(section: str) -> None:
    found = refusal({"SL": {}}, study={section: {"x": {"controls": True, "data.size": 64}}})
    assert found == f"study: {section}.x.controls: only variants have controls; write it in a variant"


def test_a_fault_has_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: c\nvariants:\n  SL: {}\n  A: {controls: true}\n")
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"{path}:4:7: variants.A.controls: controls are of pretext tasks")
