"""The search space: order, conditions, grids, resolving and identity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hmtl_ablate.errors import ConfigError, SearchError
from hmtl_ablate.study import Search, load_study

HEAD = "name: a\nsearch:\n  base: {pretext: {puzzling: {}}}\n  trials: 5\n"


def search(tmp_path: Path, space: str, more: str = "") -> Search:
    path = tmp_path / "study.yaml"
    path.write_text(f"{HEAD}  space: {{{space}}}\n{more}")
    found = load_study(path).search
    assert found is not None
    return found


FEED = (
    "pretext.puzzling.share: {uniform: [0.1, 0.9], when: {pretext.puzzling.feed: mixed}}, "
    "pretext.puzzling.feed: {choice: [shared, mixed]}"
)


def test_parameters_follow_those_they_wait_for(tmp_path: Path) -> None:
    found = search(tmp_path, FEED)
    assert found.keys == ("pretext.puzzling.feed", "pretext.puzzling.share")
    share = found.parameters[1]
    assert not share.active({})
    assert not share.active({"pretext.puzzling.feed": "shared"})
    assert share.active({"pretext.puzzling.feed": "mixed"})


def test_defaults(tmp_path: Path) -> None:
    found = search(tmp_path, FEED)
    assert (found.sampler, found.pruner.name, found.metric, found.direction, found.trials, found.confirm) == (
        "tpe",
        "none",
        "val/accuracy",
        "max",
        5,
        False,
    )


def test_resolve_sets_values_over_the_base_and_leaves_it_alone(tmp_path: Path) -> None:
    found = search(tmp_path, FEED)
    config = found.resolve({"pretext.puzzling.feed": "mixed", "pretext.puzzling.share": 0.5}, seed=7)
    assert (config.pretext["puzzling"].feed, config.pretext["puzzling"].share, config.seed) == ("mixed", 0.5, 7)
    assert found.resolve({"pretext.puzzling.feed": "shared"}, 0).pretext["puzzling"].feed == "shared"
    assert found.base == {"pretext": {"puzzling": {}}}
    with pytest.raises(ConfigError, match="only the mixed feed"):
        found.resolve({"pretext.puzzling.feed": "shared", "pretext.puzzling.share": 0.5}, 0)


def test_a_grid_has_every_combination_once_and_heeds_conditions(tmp_path: Path) -> None:
    found = search(
        tmp_path,
        "pretext.puzzling.feed: {choice: [shared, mixed]}, "
        "pretext.puzzling.share: {choice: [0.2, 0.4], when: {pretext.puzzling.feed: mixed}}, "
        "pretext.puzzling.grid: {int: [2, 6], step: 2}",
        "  sampler: grid\n",
    )
    grid = found.grid()
    assert len(grid) == 3 * (1 + 2)
    shared = [values for values in grid if values["pretext.puzzling.feed"] == "shared"]
    assert all("pretext.puzzling.share" not in values for values in shared)
    assert {values["pretext.puzzling.grid"] for values in grid} == {2, 4, 6}
    assert grid == found.grid()


def test_a_grid_of_a_continuous_range_or_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"pretext\.puzzling\.share is a continuous range"):
        search(tmp_path, FEED).grid()
    with pytest.raises(SearchError, match="more than 10000 combinations"):
        search(tmp_path, "training.batch_size: {int: [2, 60000]}").grid()


def test_space_hash_is_of_what_a_score_means(tmp_path: Path) -> None:
    found = search(tmp_path, FEED)
    other_order = search(
        tmp_path,
        ", ".join(reversed(FEED.split(", pretext.puzzling.feed: {"))).replace(
            "choice: [shared, mixed]}", "pretext.puzzling.feed: {choice: [shared, mixed]}"
        ),
    )
    assert found.space_hash == other_order.space_hash == replace(found, trials=9, sampler="random").space_hash
    assert (
        len(
            {
                found.space_hash,
                replace(found, metric="val/loss").space_hash,
                replace(found, base={}).space_hash,
                search(tmp_path, FEED.replace("0.9", "0.8")).space_hash,
                search(tmp_path, FEED.replace("shared, mixed", "shared, mixed, siamese")).space_hash,
            }
        )
        == 5
    )


def test_a_chain_of_conditions_that_contradict_is_refused(tmp_path: Path) -> None:
    space = (
        "pretext.puzzling.feed: {choice: [shared, mixed]}, "
        "pretext.puzzling.share: {choice: [0.2, 0.4], when: {pretext.puzzling.feed: mixed}}, "
        "training.lr: {loguniform: [1e-4, 1e-2], "
        "when: {pretext.puzzling.share: 0.2, pretext.puzzling.feed: shared}}"
    )
    with pytest.raises(Exception, match=r"training\.lr\.when: can never hold: pretext\.puzzling\.feed would need two"):
        search(tmp_path, space)


def test_a_value_is_possible_when_any_combination_allows_it(tmp_path: Path) -> None:
    """Grid 12 needs at least 48 px, which only one choice of the size gives."""
    assert search(tmp_path, "data.size: {choice: [32, 64]}, pretext.puzzling.grid: {choice: [2, 12]}")


def test_an_impossible_base_is_told_at_the_base(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: a\nbase: {training: {epochs: 2, warmup_epochs: 5}}\nsearch:\n  trials: 2\n"
        "  space: {training.lr: {uniform: [0.1, 0.2]}}\n"
    )
    with pytest.raises(Exception, match=r"^[^\n]*:2:45: base\.training\.warmup_epochs: 5 is more[^\n]*$"):
        load_study(path)
