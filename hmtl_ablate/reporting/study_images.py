"""The test images' part in a study's comparisons: their sampling error, McNemar's test, and the majority class."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.comparison import ALPHA, Comparison
from hmtl_ablate.reporting.image_scores import ImageScores, image_scores, split_of
from hmtl_ablate.reporting.results import Results
from hmtl_ablate.reporting.sampling import Sampling, crossed, mcnemar
from hmtl_ablate.reporting.wording import count_text, label, number_text, plural, unit_text

NAMED = 4
"""Most comparisons whose half-widths a note names one by one."""
TOLERANCE = 1e-3
"""Relative difference, beyond that of two images, from which predictions are not those of the recorded score."""


class StudyImages:
    """Scores per image of a study's finished trials, each read when it is first asked for."""

    def __init__(self, results: Results, done: Sequence[Mapping[Hashable, Any]], metric: str) -> None:
        self._results, self._metric = results, metric
        self._trials = {(str(trial["variant"]), int(trial["seed"])): trial for trial in done}
        self._read: dict[tuple[str, int], ImageScores | None] = {}

    def of(self, variant: str, seed: int) -> ImageScores | None:
        """None where this machine has no predictions of the trial."""
        place = (variant, seed)
        if place not in self._read:
            folder = self._results.folder(str(self._trials[place]["trial_id"])) if place in self._trials else None
            arrays = {} if folder is None else folder.predictions(split_of(self._metric))
            self._read[place] = image_scores(arrays, self._metric)
        return self._read[place]

    def as_recorded(self, variant: str, seed: int) -> bool:
        """Whether the predictions give the score that was recorded."""
        known, recorded = self.of(variant, seed), self._trials[variant, seed][f"metrics.{self._metric}"]
        assert known is not None
        assert known.scores is not None
        scale = max(1.0, float(np.ptp(known.scores)))
        apart = abs(float(known.scores.mean()) - recorded)
        return bool(apart <= 2 * scale / len(known.scores) + TOLERANCE * abs(recorded))


@dataclass(frozen=True)
class Sampled:
    """A table's comparisons with what their test images say."""

    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


def sampled(compared: Sequence[Comparison], metric: str, images: StudyImages) -> Sampled:
    """Add to each comparison the sampling error over its test images and McNemar's p of each seed.

    Only where both arms were tested on the same images at all of its seeds; a note names the others, unless this
    machine has no predictions at all.
    """
    found: list[Comparison] = []
    missing: dict[str, list[str]] = {}
    for one in compared:
        more, reason = _of_pair(one, images)
        found.append(more)
        if reason:
            missing.setdefault(reason, []).append(f"{one.variant} − {one.minus}")
    if all(one.images is None and not one.mcnemar for one in found) and set(missing) <= {NO_PREDICTIONS}:
        return Sampled(tuple(found), ())
    notes = _pair_notes(found, metric)
    notes += [
        f"Sampling error of the test images unknown: {reason.format(metric=label(metric).partition(',')[0])} "
        f"({', '.join(names)})"
        for reason, names in missing.items()
    ]
    return Sampled(tuple(found), tuple(notes))


NO_PREDICTIONS = "a trial has no predictions on this machine"
OTHER_IMAGES = "the arms were not tested on the same images with the same labels"
NOT_RECORDED = "the predictions kept do not give the recorded score"
NO_SCORES = "{metric} is no mean over images, nor one of the metrics whose influences are known"


def _of_pair(one: Comparison, images: StudyImages) -> tuple[Comparison, str]:
    """The comparison with what is known, and why the sampling error is not."""
    if not one.values:
        return one, ""
    pairs = [(images.of(one.variant, seed), images.of(one.minus, seed)) for seed in one.values]
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    if len(known) < len(pairs):
        return one, NO_PREDICTIONS
    first = known[0][0]
    if not all(first.same_images(scores) for pair in known for scores in pair):
        return one, OTHER_IMAGES
    one = replace(
        one,
        mcnemar={
            seed: mcnemar(ours.correct, theirs.correct)
            for seed, (ours, theirs) in zip(one.values, known, strict=True)
            if ours.correct is not None and theirs.correct is not None
        },
    )
    differences = [
        ours.scores - theirs.scores for ours, theirs in known if ours.scores is not None and theirs.scores is not None
    ]
    if len(differences) < len(known):
        return one, NO_SCORES
    if not all(images.as_recorded(name, seed) for seed in one.values for name in (one.variant, one.minus)):
        return replace(one, mcnemar={}), NOT_RECORDED
    return replace(one, images=crossed(np.stack(differences))), ""


def _pair_notes(compared: Iterable[Comparison], metric: str) -> list[str]:
    """The half-widths of the intervals over seeds, over test images, and over both, and what McNemar's test says: one
    line a comparison, or the range of many."""
    known = [one for one in compared if one.images is not None or one.mcnemar]
    groups = [[one] for one in known] if len(known) <= NAMED else [known]
    return [
        f"{f'{own[0].variant} − {own[0].minus}' if len(own) == 1 else plural(len(own), 'difference')}: "
        + "; ".join(words for words in (_widths(own, metric), _mcnemar(own)) if words)
        for own in groups
    ]


def _widths(compared: Sequence[Comparison], metric: str) -> str:
    found = [one.images for one in compared if one.images is not None]
    if not found:
        return ""
    images = ", ".join(dict.fromkeys(count_text(one.n_images) for one in found))
    return f"95 % interval {_each(found, images, metric)}{unit_text(metric)}"


def _each(found: Sequence[Sampling], images: str, metric: str) -> str:
    parts = {
        "over seeds": [one.over_seeds for one in found],
        f"over {images} test images": [one.over_images for one in found],
        "over both": [one.over_both for one in found],
    }
    texts = []
    for words, halves in parts.items():
        known = [half for half in halves if half is not None]
        if known:
            ends = dict.fromkeys(f"±{number_text(half, in_percent(metric))}" for half in (min(known), max(known)))
            texts.append(f"{words} {' to '.join(ends)}")
    return ", ".join(texts)


def _mcnemar(compared: Sequence[Comparison]) -> str:
    tested = [p for one in compared for p in one.mcnemar.values()]
    what = "seeds" if len(compared) == 1 else "pairs of trials"
    below = sum(p < ALPHA for p in tested)
    return f"McNemar's p < {ALPHA} with {below} of {len(tested)} {what}" if tested else ""


def mcnemar_text(one: Comparison) -> str:
    """`2 of 3` seeds with p < 0.05, not adjusted for their number."""
    return f"{sum(value < ALPHA for value in one.mcnemar.values())} of {len(one.mcnemar)}"


def majority_notes(scores: Mapping[str, Mapping[int, float]], arms: Iterable[str], images: StudyImages) -> list[str]:
    """The share of the most frequent class among the test images, and the arms that are not shown to be right more
    often; nothing for a task without classes.

    scores: variant → seed → score. arms: those to mark: whose 95 % interval of the accuracy, over seeds and test images
    (over test images alone with one seed), has its lower end at or below that share.
    """
    every = ((variant, seed) for variant, own in scores.items() for seed in list(own)[:1])
    first = next((known for place in every if (known := images.of(*place)) is not None), None)
    if first is None or first.majority is None:
        return []
    text = f"Majority class: {number_text(first.majority, True)} % of the {count_text(len(first.labels))} test images"
    near = [words for name in arms if (words := _near(name, list(scores[name]), images))]
    return [f"{text}. Accuracy within noise of it or below: {'; '.join(near)}" if near else text]


def _near(variant: str, seeds: Sequence[int], images: StudyImages) -> str:
    """`SL 25.10 % [23.00, 27.20]`; "" for an arm above the majority class, or without predictions."""
    known = [own for seed in seeds if (own := images.of(variant, seed)) is not None]
    right = [own.correct.astype(np.float64) for own in known if own.correct is not None and known[0].same_images(own)]
    majority = known[0].majority if known else None
    if not right or majority is None:
        return ""
    found = crossed(np.stack(right))
    low, high = found.images_interval if found.over_both is None else found.both_interval
    if low is None or low > majority:
        return ""
    return f"{variant} {number_text(found.mean, True)} % [{number_text(low, True)}, {number_text(high, True)}]"
