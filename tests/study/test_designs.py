"""The arms that `designs` adds to a study, and the path through them: hand-worked cases and counts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_ablate.errors import StudyError
from hmtl_ablate.study import (
    Arm,
    Design,
    Study,
    Walk,
    data_configs,
    load_study,
    path_bound,
    path_in_words,
    planned,
    walk,
)
from hmtl_ablate.study.designs import cells, path_trials, size

PUZZLING: dict[str, Any] = {"pretext": {"puzzling": {"grid": 3}}}
ROTATION: dict[str, Any] = {"pretext": {"rotation": {}}}
VIEWS: dict[str, Any] = {"data.views": 2}
CLIP: dict[str, Any] = {"training": {"clip": 1.0}}
THREE = {"puzzling": PUZZLING, "rotation": ROTATION, "clip": CLIP}


def study(designs: dict[str, Any], variants: dict[str, Any] | None = None, **given: Any) -> Study:
    raw = {"name": "d", "base": {"data": {"size": 48}}, "designs": designs, **given.pop("study", {})}
    return load_study(raw | ({"variants": variants} if variants is not None else {}), **given)


def one(kind: str, components: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    return {"d": {"kind": kind, "components": THREE if components is None else components, **rest}}


def changes(found: Study) -> dict[str, dict[str, Any]]:
    return {variant.name: variant.config(0).declared() for variant in found.variants}


def refusal(designs: dict[str, Any], variants: dict[str, Any] | None = None, **given: Any) -> str:
    with pytest.raises(StudyError) as caught:
        study(designs, variants, **given)
    return str(caught.value)


P: dict[str, Any] = {"puzzling": {"grid": 3}}
R: dict[str, Any] = {"rotation": {}}
C: dict[str, Any] = {"training": {"clip": 1.0}}


def test_leave_one_out_is_the_baseline_the_full_model_and_each_component_left_out() -> None:
    found = study(one("leave_one_out"))
    configs = changes(found)
    assert list(configs) == ["base", "full", "full − puzzling", "full − rotation", "full − clip"]
    assert configs["base"] == {}
    assert set(configs["full"]["pretext"]) == {"puzzling", "rotation"}
    assert set(configs["full − puzzling"]["pretext"]) == {"rotation"}
    assert "clip" in configs["full − rotation"]["training"]
    assert "training" not in configs["full − clip"]
    assert found.designs["d"].arms[2] == Arm("full − puzzling", {"rotation": "on", "clip": "on"})


def test_the_arms_of_the_other_kinds() -> None:
    names = {
        kind: [variant.name for variant in study(one(kind), {"SL": {}}).variants]
        for kind in ("add_one_in", "pairwise", "full_factorial", "path")
    }
    alone = ["SL", "SL + puzzling", "SL + rotation", "SL + clip"]
    assert names == {
        "add_one_in": alone,
        "pairwise": [*alone, "SL + puzzling + rotation", "SL + puzzling + clip", "SL + rotation + clip"],
        "full_factorial": [*alone, "full − clip", "full − rotation", "full − puzzling", "full"],
        "path": ["SL", "full"],
    }


def test_factors_with_levels() -> None:
    components = {"views": {"levels": {"two": VIEWS, "three": {"data.views": 3}}}, "clip": CLIP}
    found = study(one("one_factor_at_a_time", components))
    assert list(changes(found)) == ["base", "base + views=two", "base + views=three", "base + clip"]
    assert changes(found)["base + views=three"] == {"data": {"views": 3}}
    crossed = study(one("full_factorial", components))
    assert len(crossed.variants) == 3 * 2
    assert changes(crossed)["base + views=two + clip"] == {"data": {"views": 2}, "training": {"clip": 1.0}}


def test_a_level_that_equals_the_baseline_is_the_baseline_s() -> None:
    components = {"views": {"levels": {"one": {"data.views": 1}, "two": VIEWS}}, "clip": CLIP}
    found = study(one("full_factorial", components), {"SL": {}})
    assert [variant.name for variant in found.variants] == [
        "SL",
        "SL + views=two",
        "SL + clip",
        "SL + views=two + clip",
    ]
    assert found.designs["d"].factors == {"views": ("two",), "clip": ("on",)}
    assert len(found.designs["d"].arms) == 4


def test_arms_are_trained_at_every_seed_in_whole_pairs() -> None:
    found = study(one("add_one_in", {"clip": CLIP}), seeds=[4, 7])
    assert [(variant.name, seed) for variant, seed, _ in planned(found)] == [
        ("base", 4),
        ("base + clip", 4),
        ("base", 7),
        ("base + clip", 7),
    ]


def test_equal_configs_are_one_variant_whatever_their_names() -> None:
    """With an arm of another design, a variant, and a control."""
    both = one("leave_one_out", {"puzzling": PUZZLING, "clip": CLIP}) | {
        "e": {"kind": "add_one_in", "components": {"p": PUZZLING, "clip": CLIP}}
    }
    found = study(both, {"SL": {}, "HMTL": {**PUZZLING, "controls": []}, "short": CLIP})
    assert [one.name for one in found.variants] == [
        *("SL", "HMTL", "short", "full"),
        *("HMTL: whole views", "HMTL: distortion", "HMTL: random answers"),
    ]
    assert [arm.variant for arm in found.designs["d"].arms] == ["SL", "full", "short", "HMTL"]
    assert [arm.variant for arm in found.designs["e"].arms] == ["SL", "HMTL", "short"]
    crossed = study(one("add_one_in", {"views": VIEWS}), {"HMTL": {**PUZZLING, "controls": []}})
    assert crossed.controls["HMTL"].views == "base + views"


def test_a_baseline_is_a_variant_or_a_change_of_the_base() -> None:
    named = study(one("add_one_in", {"clip": CLIP}, baseline="HMTL"), {"SL": {}, "HMTL": PUZZLING})
    assert changes(named)["HMTL + clip"] == {"pretext": P, **C}
    changed = study(one("add_one_in", {"clip": CLIP}, baseline={"data.views": 2}), {"SL": {}})
    assert list(changes(changed)) == ["SL", "base", "base + clip"]
    assert changes(changed)["base + clip"] == {"data": {"views": 2}, **C}


def test_designs_whose_arms_would_have_one_name_put_theirs_in_front() -> None:
    found = study(
        {
            "a": {"kind": "leave_one_out", "components": {"p": PUZZLING, "r": ROTATION}},
            "b": {"kind": "leave_one_out", "baseline": VIEWS, "components": {"p": PUZZLING, "r": ROTATION}},
        }
    )
    assert list(changes(found)) == [
        *("base", "full", "full − p", "full − r"),
        *("b: base", "b: full", "b: full − p", "b: full − r"),
    ]
    assert changes(found)["b: full − p"] == {"data": {"views": 2}, "pretext": R}


def test_a_nested_pretext_of_a_component_adds_its_tasks() -> None:
    found = study(one("add_one_in", {"rotation": ROTATION}, baseline=PUZZLING))
    assert changes(found)["base + rotation"]["pretext"] == {**P, **R}


def test_set_and_profiles_reach_the_arms(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text(
        """\
name: d
designs:
  parts:
    kind: leave_one_out
    components: {puzzling: {pretext: {puzzling: {grid: 2}}}, views: {data.views: 2}}
profiles:
  quick: {base: {data.size: 48}}
  other:
    designs:
      parts: {kind: pairwise, components: {puzzling: {pretext.puzzling.grid: 3}, clip: {training.clip: 1.0}}}
      more: {kind: add_one_in, components: {stretch: {training.epochs: 9}}}
"""
    )
    quick = load_study(path, sets=["training.epochs=4", "pretext.puzzling.grid=4"])
    assert {variant.config(0).training.epochs for variant in quick.variants} == {4}
    assert quick.source("full").config(0).declared()["pretext"] == {"puzzling": {"grid": 4}}  # type: ignore[union-attr]
    other = load_study(path, profile="other")
    assert list(other.designs) == ["parts", "more"]
    assert [variant.name for variant in other.variants] == [
        *("base", "base + puzzling", "base + views", "base + clip"),
        *("base + puzzling + views", "base + puzzling + clip", "base + views + clip", "base + stretch"),
    ]
    assert changes(other)["base + puzzling"]["pretext"] == P


def test_a_path_to_a_variant_has_a_component_for_each_option_that_differs() -> None:
    winner = {"pretext": {"puzzling": {"grid": 3}}, "training": {"lr": 0.01, "epochs": 20}}
    found = study({"way": {"kind": "path", "baseline": "SL", "target": "winner"}}, {"SL": {}, "winner": winner})
    design = found.designs["way"]
    assert list(design.factors) == ["pretext.puzzling", "training.lr"], "its 20 epochs are the default"
    assert [arm.variant for arm in design.arms][:2] == ["SL", "winner"]
    assert [one.name for one in found.candidates] == ["SL + pretext.puzzling", "SL + training.lr"]
    assert found.candidates[0].config(0).declared() == {"pretext": {"puzzling": {"grid": 3}}}
    assert [variant.name for variant in found.variants] == ["SL", "winner"]


def test_the_data_of_a_path_s_candidates_is_known_before_it_runs() -> None:
    found = study(one("path", {"small": {"data.size": 32}, "clip": CLIP, "views": VIEWS}))
    assert {data.size for data in data_configs(found)} == {32, 48}
    assert len(found.candidates) == 2**3 - 2


NAMES = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=6, unique=True)


@settings(max_examples=40, deadline=None)
@given(NAMES, st.sampled_from(["leave_one_out", "add_one_in", "pairwise", "full_factorial", "path"]))
def test_the_number_of_arms_is_that_of_combinatorics(names: list[str], kind: Any) -> None:
    factors = dict.fromkeys(names, ("on",))
    found, n = cells(kind, factors), len(names)
    expected = {
        "leave_one_out": n + 2,
        "add_one_in": n + 1,
        "pairwise": 1 + n + math.comb(n, 2),
        "full_factorial": 2**n,
        "path": 2**n,
    }[kind]
    assert len(found) == len(set(found)) == expected == size(kind, [1] * n)
    assert found[0] == ()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.booleans())
def test_the_number_of_arms_with_levels(counts: list[int], crossed: bool) -> None:
    factors = {f"f{number}": tuple(f"l{level}" for level in range(count)) for number, count in enumerate(counts)}
    kind: Any = "full_factorial" if crossed else "one_factor_at_a_time"
    found = cells(kind, factors)
    expected = math.prod(count + 1 for count in counts) if crossed else 1 + sum(counts)
    assert len(found) == len(set(found)) == expected == size(kind, counts)


OPTIONS = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([1, 2, 3, 4]), min_size=2, max_size=4)


@settings(max_examples=25, deadline=None)
@given(OPTIONS, st.sampled_from(["add_one_in", "one_factor_at_a_time"]), st.booleans())
def test_every_distinct_config_is_one_variant(views: dict[str, int], kind: str, declared: bool) -> None:
    """Components that set one option to any of four values, one of which is the baseline's."""
    components = {name: {"data.views": count} for name, count in views.items()}
    found = study(one(kind, components), {"two": VIEWS} if declared else None)
    counts = {*views.values(), 1} | ({2} if declared else set())
    assert len({variant.key for variant in found.variants}) == len(found.variants) == len(counts)
    assert {variant.config(0).data.views for variant in found.variants} == counts


SCORES = {"base": 0.0, "base + a": 3.0, "base + b": 5.0, "base + c": 5.0, "full − a": 1.0, "full − c": 2.0, "full": 0.0}


def path_design() -> Design:
    components = {"a": {"training.clip": 1.0}, "b": VIEWS, "c": {"training.lr": 0.01}}
    return study(one("path", components)).designs["d"]


def test_the_path_takes_what_gains_most_and_the_first_of_equals() -> None:
    design = path_design()
    whole = walk(design, SCORES.get)
    assert [arm.variant for arm in whole.steps] == ["base", "base + b", "full − c", "full"]
    assert (whole.order, whole.is_whole(design), whole.waiting) == (("b", "a", "c"), True, ())
    assert path_bound(3) == 6


def test_a_path_s_trials_are_bounded_before_it_runs() -> None:
    """Three in the first round and two in the second with the first seed; two steps in between with two others. What
    the study trains anyway is not counted."""
    found = study(one("path"))
    assert path_trials(found.designs["d"], 2) == 3 + 2 + 2 * 2
    assert path_in_words(found.designs["d"], (5, 6, 7), "test/accuracy") == (
        "a path through 3 components by best/val/accuracy: at most 6 configurations with seed 5, then its steps with "
        "seeds 6, 7; at most 9 trials more"
    )
    assert path_trials(study(one("path") | {"e": one("leave_one_out")["d"]}).designs["d"], 2) == 3 + 2
    assert path_trials(study(one("path") | {"e": one("full_factorial")["d"]}).designs["d"], 2) == 0


def test_a_path_waits_for_its_round_and_never_picks_what_failed() -> None:
    design = path_design()
    begun = walk(design, lambda name: None)
    assert begun == Walk((design.arms[0],), tuple(arm for arm in design.arms if len(arm.levels) == 1))
    second = walk(design, lambda name: SCORES[name] if name.startswith("base + ") else None)
    assert [arm.variant for arm in second.waiting] == ["full − c", "full − a"]
    failed = walk(design, lambda name: -math.inf if name == "base + b" else SCORES.get(name, -9.0))
    assert failed.order == ("c", "b", "a")
    stuck = walk(design, lambda name: -math.inf)
    assert (stuck.order, stuck.waiting, stuck.is_whole(design)) == ((), (), False)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"d": None}, "designs.d: the design has no kind; write kind: and one of leave_one_out"),
    ({"d": 5}, "designs.d: should be a map, not 5"),
    ({"d": {"kind": "leave_one"}}, "designs.d.kind: there is no kind of design 'leave_one'; did you mean"),
    ({"d": {"kind": "path", "component": {}}}, "designs.d.component: there is no key 'component' in a design; did you"),
    (one("add_one_in", {}), "designs.d.components: add_one_in needs at least 1 component, and has 0; add components"),
    (one("pairwise", {"a": CLIP}), "designs.d.components: pairwise needs at least 2 components, and has 1"),
    (one("add_one_in", {"a": {}}), "designs.d.components.a: changes nothing; write options"),
    (one("add_one_in", {"a": 3}), "designs.d.components.a: should be a map of options, not 3"),
    (one("add_one_in", {"a": {"data.viewz": 2}}), "designs.d.components.a.data.viewz: "),
    (one("add_one_in", {" ": CLIP}), "designs.d.components. : a component needs a name"),
    (one("add_one_in", baseline="SLL"), "designs.d.baseline: there is no variant 'SLL'; did you mean 'SL'?"),
    (one("add_one_in", baseline=[1]), "designs.d.baseline: should be the name of a variant or a map, not [1]"),
    (
        one("leave_one_out", {"a": VIEWS, "b": {"data": {"views": 3}}}),
        "designs.d.components.b.data.views: sets data.views, as the component 'a' does, and leave_one_out combines",
    ),
    (
        one("pairwise", {"a": PUZZLING, "b": {"pretext.puzzling.grid": 3}}),
        "designs.d.components.b.pretext.puzzling.grid: sets pretext.puzzling.grid, as the component 'a' does",
    ),
    (
        one("pairwise", {"a": {"levels": {"x": VIEWS}}, "b": CLIP}),
        "designs.d.components.a.levels.x: pairwise has no factors with levels, and 'a' is one",
    ),
    (
        one("full_factorial", {"a": {"levels": {"x": VIEWS}, "data.size": 32}}),
        "designs.d.components.a.data.size: 'data.size' can't be next to levels",
    ),
    (one("full_factorial", {"a": {"levels": {}}}), "designs.d.components.a: has no levels"),
    (
        one("full_factorial", {f"c{n}": {"levels": {f"l{m}": CLIP for m in range(3)}} for n in range(6)}),
        "designs.d.components: a full factorial would have 4,096 arms; use at most 256",
    ),
    (
        one("path", {f"c{n}": CLIP for n in range(9)}),
        "designs.d.components: a path through 9 components has 512 sets of them; use at most 256, with fewer",
    ),
    (one("add_one_in", selection=1), "designs.d.selection: only a path has a selection, not add_one_in; remove it"),
    (one("add_one_in", target="SL"), "designs.d.target: only a path has a target, not add_one_in"),
    (one("path", target="SL"), "designs.d.target: a path has components or a target, not both"),
    (one("path", selection=0), "designs.d.selection: should be a whole number, 1 or more, not 0"),
    (
        one("path", selection=2),
        "designs.d.selection: a path that is chosen with 2 seeds is estimated with the others, 2 or more, and the "
        "study has 3 in all; give it 4 seeds or more",
    ),
    ({"d": {"kind": "path", "target": "no"}}, "designs.d.target: there is no variant 'no'"),
    (
        {"d": {"kind": "path", "baseline": PUZZLING, "target": "SL"}},
        "designs.d.target: the baseline has the pretext task",
    ),
    (one("leave_one_out", {"x" * 79: CLIP, "b": VIEWS}), "designs.d: its arm 'full − xxx"),
    (one("leave_one_out", {"b" * 81: VIEWS}), "a name of 81 characters is too long for a table"),
    (
        one("leave_one_out", {"a": {"pretext": {"inpainting": {"joins": "puzzling"}}}, "b": PUZZLING}),
        "designs.d.components.a.pretext.inpainting.joins: ",
    ),
]


@pytest.mark.parametrize(("designs", "words"), REFUSED, ids=lambda part: part[:70] if isinstance(part, str) else "")
def test_what_makes_no_sense_is_refused_with_its_place(designs: dict[str, Any], words: str) -> None:
    assert words in refusal(designs, {"SL": {}})


def test_a_path_of_too_few_seeds_is_refused_wherever_they_come_from() -> None:
    assert "designs.d: a path that is chosen with 1 seed is" in refusal(one("path"), seeds=[0, 1])


@pytest.mark.parametrize("name", ["full", "base + clip"])
def test_a_variant_can_t_have_the_name_of_an_arm(name: str) -> None:
    kind = "leave_one_out" if name == "full" else "add_one_in"
    found = refusal(one(kind), {name: {"training.epochs": 3}})
    assert f"designs.d: its arm would be named {name!r}, as another one is; rename that one" in found


def test_a_fault_has_the_line_of_the_file_and_comes_once(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text(
        "name: d\ndesigns:\n  parts:\n    kind: full_factorial\n    components:\n      a: {data.views: 99}\n"
        "      b: {training.clip: 1.0}\n"
    )
    with pytest.raises(StudyError) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"{path}:6:23: designs.parts.components.a.data.views: ")
    assert "\n" not in str(caught.value)
