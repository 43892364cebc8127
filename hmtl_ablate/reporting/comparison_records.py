"""The comparisons of a study's table as records."""

from __future__ import annotations

from typing import Any

from hmtl_ablate.reporting.comparison import Comparison
from hmtl_ablate.reporting.tables import StudyTable


def comparison_records(table: StudyTable) -> list[dict[str, Any]]:
    """One record per comparison, in the metric's own unit (accuracy from 0 to 1)."""
    return [_record(one) for one in table.comparisons]


def _record(one: Comparison) -> dict[str, Any]:
    images = one.images
    images_low, images_high = (None, None) if images is None else images.images_interval
    both_low, both_high = (None, None) if images is None else images.both_interval
    return {
        "variant": one.variant,
        "minus": one.minus,
        "equal_passes": one.equal_passes,
        "n_seeds": one.estimate.n,
        "difference": one.estimate.mean,
        "sd": one.estimate.sd,
        "ci95_low": one.estimate.low,
        "ci95_high": one.estimate.high,
        "p": one.p_holm,
        "p_unadjusted": one.p,
        "p_wilcoxon": one.wilcoxon,
        "d_z": one.d_z,
        "simultaneous_low": one.low,
        "simultaneous_high": one.high,
        "seeds_needed": one.seeds_needed,
        "n_images": None if images is None else images.n_images,
        "images_se": None if images is None else images.se_images,
        "images_ci95_low": images_low,
        "images_ci95_high": images_high,
        "both_ci95_low": both_low,
        "both_ci95_high": both_high,
        "mcnemar": {str(seed): p for seed, p in one.mcnemar.items()},
        "values": {str(seed): value for seed, value in one.values.items()},
    }
