"""What `plan` says that seeds until decided can decide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hmtl_ablate.api.reach import reach_lines, spread_of
from hmtl_ablate.config import NUMERICS_VERSION, TrialConfig, trial_id
from hmtl_ablate.reporting.sequential import decidable
from hmtl_ablate.study import Study, load_study
from hmtl_ablate.training.folder import TrialFolder, TrialResult

FILE: dict[str, Any] = {"name": "a", "decide": {"seeds": 6}, "variants": {"SL": {}, "SL, 2 views": {"data.views": 2}}}


def finish(store: Path, config: TrialConfig, accuracy: float) -> None:
    name = trial_id(config, "f")
    folder = TrialFolder(store / "trials" / name)
    folder.path.mkdir(parents=True)
    folder.write_config(config)
    folder.write_result(
        TrialResult(
            trial_id=name,
            status="finished",
            epochs=1,
            best_epoch=1,
            image_passes=1,
            seconds=1.0,
            metrics={"test/accuracy": accuracy},
            tags={"numerics": str(NUMERICS_VERSION)},
        )
    )


@pytest.fixture
def study() -> Study:
    return load_study(FILE)


def test_a_study_of_fixed_seeds_has_nothing_to_say(tmp_path: Path) -> None:
    assert reach_lines(load_study({**FILE, "decide": None}), tmp_path) == []


def test_an_empty_store_knows_no_spread(study: Study, tmp_path: Path) -> None:
    assert spread_of(study, tmp_path)[0] == 0
    first, second = reach_lines(study, tmp_path)
    assert first == "decide 1 comparison, 4 to 6 seeds: 8 to 12 trials"
    assert f"a true difference of {decidable(1, 1, 6, 0.05, 1).detectable:.2f} standard deviations" in second


def test_the_spread_is_that_of_the_study_s_pairs(study: Study, tmp_path: Path) -> None:
    """Differences 0.02, 0.04, 0.06: standard deviation 0.02."""
    sl, views = (variant.config for variant in study.variants)
    for seed, apart in enumerate((0.02, 0.04, 0.06)):
        finish(tmp_path, sl(seed), 0.5 + seed / 10)
        finish(tmp_path, views(seed), 0.5 + seed / 10 + apart)
    spread, source = spread_of(study, tmp_path)
    assert spread == pytest.approx(0.02)
    assert source == "3 pairs of this study"
    reach = decidable(0.02, 0.005, 6, 0.05, 1)
    line = reach_lines(study, tmp_path)[1]
    assert "at a standard deviation of 2 points (3 pairs of this study), found with 80% probability: " in line
    assert f"a true difference of {100 * reach.detectable:.3g} points; one of 0.5 points with {reach.power:.0%}" in line


def test_without_pairs_it_is_that_between_seeds_of_trials_on_the_same_data(study: Study, tmp_path: Path) -> None:
    """0.5, 0.52, 0.54: sd 0.02 between seeds, so 0.02 · √2 of an unpaired difference."""
    other = load_study({"name": "b", "variants": {"other": {"training.lr": 0.1}}}).variants[0]
    for seed in range(3):
        finish(tmp_path, other.config(seed), 0.5 + seed / 50)
    assert spread_of(study, tmp_path)[0] == pytest.approx(0.02 * 2**0.5)
