"""Sampling error over seeds and images, and McNemar's test, against hand-worked cases, SciPy and statsmodels."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as by_statsmodels

from hmtl_ablate.reporting.sampling import crossed, mcnemar


def test_two_seeds_and_four_images_by_hand() -> None:
    """Seeds' means 0.75 and 0.25: standard error 0.25, t(0.975, 1) = 12.7062. Images' means 1, 0, 0.5, 0.5: sd
    √(0.5 / 3), standard error 0.204124, t(0.975, 3) = 3.18245."""
    found = crossed(np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]))
    assert (found.n_seeds, found.n_images, found.mean) == (2, 4, 0.5)
    assert found.over_seeds == pytest.approx(12.7062 * 0.25, rel=1e-5)
    assert found.se_images == pytest.approx(0.204124, rel=1e-5)
    assert found.over_images == pytest.approx(3.18245 * 0.204124, rel=1e-5)
    assert found.over_both == pytest.approx(math.sqrt(3.17655**2 + 0.649614**2), rel=1e-5)
    assert found.images_interval == pytest.approx((0.5 - 0.649614, 0.5 + 0.649614), rel=1e-5)


def test_one_seed_says_nothing_of_training() -> None:
    found = crossed(np.array([[1.0, 0.0, 0.5, 0.5]]))
    assert (found.over_seeds, found.over_both, found.both_interval) == (None, None, (None, None))
    assert found.se_images == pytest.approx(0.204124, rel=1e-5)


def test_one_image_says_nothing_of_images() -> None:
    found = crossed(np.array([[1.0], [0.0]]))
    assert (found.se_images, found.over_images, found.over_both) == (None, None, None)


def test_scipy_agrees() -> None:
    """Its t interval over the seeds' means, and its bootstrap of images, each drawn with all its seeds."""
    scores = np.random.default_rng(0).normal(size=(5, 200)) + np.linspace(0, 1, 200)
    found = crossed(scores)
    interval = stats.ttest_1samp(scores.mean(axis=1), 0.0).confidence_interval(0.95)
    assert found.interval(found.over_seeds) == pytest.approx((interval.low, interval.high))
    by_images = stats.bootstrap(
        (scores.mean(axis=0),), np.mean, n_resamples=4000, rng=np.random.default_rng(1), method="percentile"
    )
    assert found.se_images == pytest.approx(by_images.standard_error, rel=0.05)
    ends = by_images.confidence_interval
    assert found.images_interval == pytest.approx((ends.low, ends.high), abs=0.01)


@pytest.mark.parametrize(("seeds", "images", "both"), [(0.0, 0.2, 0.1), (0.01, 0.0, 0.2), (0.02, 0.1, 0.1)])
def test_the_interval_over_both_holds_what_it_says(seeds: float, images: float, both: float) -> None:
    """3 seeds × 300 images, drawn 200 times with seeds', images' and their interaction's variances: at least 95 % of
    intervals have the true mean, 0; those over seeds alone have it less often where images matter."""
    rng = np.random.default_rng(0)
    hits = narrow = 0
    for _ in range(200):
        scores = seeds * rng.normal(size=(3, 1)) + rng.normal(size=(1, 300)) * math.sqrt(images)
        found = crossed(scores + rng.normal(size=(3, 300)) * math.sqrt(both))
        assert found.over_both is not None
        assert found.over_seeds is not None
        hits += abs(found.mean) <= found.over_both
        narrow += abs(found.mean) <= found.over_seeds
    assert hits >= 190
    assert narrow <= hits


def test_mcnemar_by_hand_and_by_statsmodels() -> None:
    """One image that ours alone gets right, six that theirs alone does: p = 2 (1 + 7) / 2⁷ = 0.125."""
    ours = np.array([True] + [False] * 6 + [True] * 9 + [False] * 4)
    theirs = np.array([False] + [True] * 6 + [True] * 9 + [False] * 4)
    assert mcnemar(ours, theirs) == pytest.approx(0.125)
    assert mcnemar(theirs, ours) == pytest.approx(0.125)
    assert mcnemar(ours, ours) == 1.0
    assert mcnemar(np.array([True, False]), np.array([False, True])) == 1.0
    rng = np.random.default_rng(0)
    for _ in range(20):
        ours, theirs = rng.random((2, 60)) < np.array([[0.8], [0.6]])
        table = [[np.sum(ours & theirs), np.sum(ours & ~theirs)], [np.sum(~ours & theirs), np.sum(~ours & ~theirs)]]
        assert mcnemar(ours, theirs) == pytest.approx(by_statsmodels(table, exact=True).pvalue)
