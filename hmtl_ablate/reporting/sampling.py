"""How well seeds and test images together know a mean, and McNemar's test. Arrays in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats


@dataclass(frozen=True)
class Sampling:
    """The mean of scores [S, n] of S seeds × n images, which are crossed: each image is predicted with each seed."""

    n_seeds: int
    n_images: int
    mean: float
    over_seeds: float | None
    """Half-width of the 95 % t interval over the seeds' means: the variance of training, on these images. None with
    one seed."""
    se_images: float | None
    """Standard error of the mean over images drawn anew, for these trained models: sd of the images' means over the
    seeds, divided by √n. None with one image."""
    over_images: float | None
    """Half-width of the 95 % t interval over images."""
    over_both: float | None
    """√(over_seeds² + over_images²): variances added, each with its own t quantile (Zou and Donner 2008). None where
    one of them is."""

    def interval(self, half: float | None) -> tuple[float | None, float | None]:
        """Ends of the interval of this half-width around the mean."""
        return (None, None) if half is None else (self.mean - half, self.mean + half)

    @property
    def images_interval(self) -> tuple[float | None, float | None]:
        """Ends of the 95 % interval over test images."""
        return self.interval(self.over_images)

    @property
    def both_interval(self) -> tuple[float | None, float | None]:
        """Ends of the 95 % interval over seeds and test images."""
        return self.interval(self.over_both)


def crossed(scores: NDArray[np.float64]) -> Sampling:
    """Sampling error of the mean of scores [S, n], S ≥ 1 seeds and n ≥ 1 images.

    Each of the two variances has the seeds' and images' interaction in it, so that the sum has it twice, and is at most
    twice too large (Owen 2007, *The pigeonhole bootstrap*, has a bootstrap with three times the interaction).
    """
    seeds, images = scores.shape
    over_seeds, _ = _half(scores.mean(axis=1))
    over_images, se_images = _half(scores.mean(axis=0))
    both = None if over_seeds is None or over_images is None else math.hypot(over_seeds, over_images)
    return Sampling(seeds, images, float(scores.mean()), over_seeds, se_images, over_images, both)


def _half(means: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Half-width of the 95 % t interval, and the standard error."""
    n = len(means)
    if n < 2:
        return None, None
    error = float(means.std(ddof=1)) / math.sqrt(n)
    return float(stats.t.ppf(0.975, n - 1)) * error, error


def mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    """Two-sided p of McNemar's test (1947) in its exact form, that two models are right equally often.

    ours, theirs: [n], whether each is right about the same images. Of the b + c images that one alone is right about, b
    is binomial with 1/2; 1 without such images.
    """
    first, second = int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours))
    return min(1.0, 2 * float(special.bdtr(min(first, second), first + second, 0.5)))
