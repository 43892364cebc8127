"""What each test image adds to a metric, from the predictions that a trial's folder keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hmtl_ablate.supervised import SUPERVISED_TASKS

Floats: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = Callable[[NDArray[Any], NDArray[Any]], Floats]
"""Labels [n] or [n, d] and outputs [n, K] → a score per image, [n], whose mean is the metric."""
OUTPUTS = ("probability", "angles", "prediction")
"""Names under which tasks save their outputs."""
CALIBRATION_BINS = 15
"""Of the calibration error, as training measures it."""


@dataclass(frozen=True)
class ImageScores:
    """The labelled images of a trial's split, in the order of their index in the pack."""

    index: NDArray[np.int64]
    """[n]."""
    labels: NDArray[Any]
    """[n] class indices, or [n, d] numbers."""
    scores: Floats | None
    """[n], their mean is the metric: of a metric that is no mean over images, its value plus each image's influence
    (the delta method). None for a metric that has neither here."""
    correct: NDArray[np.bool_] | None
    """[n]: whether the class is right; None for a task without classes."""

    @property
    def majority(self) -> float | None:
        """Share of the most frequent class, from 0 to 1; None for a task without classes."""
        return None if self.correct is None else float(np.bincount(self.labels).max() / len(self.labels))

    def same_images(self, other: ImageScores) -> bool:
        """Whether both have the same images with the same labels."""
        return np.array_equal(self.index, other.index) and np.array_equal(self.labels, other.labels)


def split_of(metric: str) -> str:
    """The split that a study's metric is of: `test` of test/accuracy."""
    return metric.removeprefix("best/").partition("/")[0]


def image_scores(arrays: Mapping[str, NDArray[Any]], metric: str) -> ImageScores | None:
    """Scores from the arrays of predictions.npz (`TrialFolder.predictions`); None where they are not of this metric's
    split and task. Images without a label are left out."""
    split, _, name = metric.removeprefix("best/").partition("/")
    task, _, rest = name.partition("/")
    prefix, name = (f"{split}_{task}", rest) if rest and task in SUPERVISED_TASKS else (split, name)
    index, labels = arrays.get(f"{split}_index"), arrays.get(f"{prefix}_label")
    kind = next((kind for kind in OUTPUTS if f"{prefix}_{kind}" in arrays), None)
    if index is None or labels is None or kind is None:
        return None
    outputs = arrays[f"{prefix}_{kind}"]
    if not _sound(index, labels, outputs):
        return None
    known = labels >= 0 if labels.ndim == 1 else ~np.isnan(labels).any(axis=1)
    order = np.argsort(index, kind="stable")
    order = order[known[order]]
    labels, outputs = labels[order], outputs[order]
    if not len(labels):
        return None
    classes = kind == "probability" and labels.ndim == 1
    score = SCORES.get((kind, name))
    return ImageScores(
        index[order],
        labels,
        score(labels, outputs) if score else None,
        outputs.argmax(axis=1) == labels if classes else None,
    )


def _sound(index: NDArray[Any], labels: NDArray[Any], outputs: NDArray[Any]) -> bool:
    """Whether the arrays are what tasks save: a damaged file is as none."""
    if index.ndim != 1 or outputs.ndim != 2 or not len(index) == len(labels) == len(outputs):
        return False
    if labels.ndim == 1:
        return labels.dtype.kind == "i" and int(labels.max(initial=-1)) < outputs.shape[1]
    return labels.shape == outputs.shape


# Metrics --------------------------------------------------------------------------------------------------------------


def _accuracy(labels: NDArray[Any], outputs: NDArray[Any]) -> Floats:
    return (outputs.argmax(axis=1) == labels).astype(np.float64)


def _cross_entropy(labels: NDArray[Any], outputs: NDArray[Any]) -> Floats:
    own = outputs[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(own, np.finfo(np.float32).tiny))


def _one_hot(labels: NDArray[Any], outputs: NDArray[Any]) -> tuple[Floats, Floats]:
    """[n, K] of the labels and of the predicted classes."""
    unit = np.eye(outputs.shape[1])
    return unit[labels], unit[outputs.argmax(axis=1)]


def _macro_f1(labels: NDArray[Any], outputs: NDArray[Any]) -> Floats:
    """F_k = 2 TP_k / (L_k + P_k) of L labels and P predictions of class k, over the classes that have any; with n
    images, image i has influence n (2 tp_ik − F_k (l_ik + p_ik)) / (L_k + P_k)."""
    true, predicted = _one_hot(labels, outputs)
    right, both = true * predicted, true + predicted
    total = both.sum(axis=0)
    seen = total > 0
    f1 = 2 * right.sum(axis=0)[seen] / total[seen]
    influence = len(labels) * (2 * right[:, seen] - f1 * both[:, seen]) / total[seen]
    return np.asarray((f1 + influence).mean(axis=1))


def _balanced_accuracy(labels: NDArray[Any], outputs: NDArray[Any]) -> Floats:
    """Recall R_k = TP_k / L_k, over the classes with labels; influence n (tp_ik − R_k l_ik) / L_k."""
    true, predicted = _one_hot(labels, outputs)
    total = true.sum(axis=0)
    seen = total > 0
    right, true, total = (true * predicted)[:, seen], true[:, seen], total[seen]
    recall = right.sum(axis=0) / total
    return np.asarray((recall + len(labels) * (right - recall * true) / total).mean(axis=1))


def _calibration_error(labels: NDArray[Any], outputs: NDArray[Any]) -> Floats:
    """Calibration error (`supervised.classification.calibration_error`): the sign of a bin's sum of correct −
    confidence times each of its images' own. Their mean is the metric; the influence is right as long as no sign
    changes, so not where a bin is calibrated."""
    confidence = outputs.max(axis=1).astype(np.float64)
    gap = (outputs.argmax(axis=1) == labels) - confidence
    place = np.searchsorted(np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], confidence)
    return np.asarray(np.sign(np.bincount(place, gap, CALIBRATION_BINS))[place] * gap)


def _auc(labels: NDArray[Any], outputs: NDArray[Any]) -> Floats:
    """Area A under the ROC curve of class 1, from placements: p_i is the share of the other class's images that image i
    is ranked right against, ties half. Influence n (p_i − A) / n_c of an image of class c, which n_c images have
    (DeLong, DeLong and Clarke-Pearson 1988). NaN where one class alone occurs."""
    of_one = outputs[:, 1].astype(np.float64)
    ones = labels == 1
    if ones.all() or not ones.any():
        return np.full(len(labels), np.nan)
    placed = np.empty(len(labels))
    for own, sign in ((ones, 1), (~ones, -1)):
        others = np.sort(sign * of_one[~own])
        below, up_to = (np.searchsorted(others, sign * of_one[own], side) for side in ("left", "right"))
        placed[own] = (below + up_to) / (2 * len(others))
    area = placed[ones].mean()
    own = np.where(ones, ones.sum(), (~ones).sum())
    return np.asarray(area + len(labels) * (placed - area) / own)


def _angles(axes: slice) -> Scores:
    """Absolute error of these of yaw, pitch and roll, in degrees; a full turn is no error."""

    def error(labels: NDArray[Any], outputs: NDArray[Any]) -> Floats:
        apart = np.abs(outputs[:, axes].astype(np.float64) - labels[:, axes]) % 360
        return np.asarray(np.minimum(apart, 360 - apart).mean(axis=1))

    return error


def _rmse(axes: slice) -> Scores:
    """Root of the mean squared error of these columns; influence (e² − MSE) / (2 RMSE)."""

    def error(labels: NDArray[Any], outputs: NDArray[Any]) -> Floats:
        squares = (outputs[:, axes].astype(np.float64) - labels[:, axes]) ** 2
        mean = squares.mean(axis=0)
        root = np.sqrt(mean)
        influence = np.divide(squares - mean, 2 * root, out=np.zeros_like(squares), where=root > 0)
        return np.asarray((root + influence).mean(axis=1))

    return error


def _ccc(axes: slice) -> Scores:
    """Concordance 2c / (v_x + v_y + (m_x − m_y)²) of these columns (`supervised.affect.concordance`), and the influence
    of each image by the derivatives of the moments."""

    def concordance(labels: NDArray[Any], outputs: NDArray[Any]) -> Floats:
        x, y = outputs[:, axes].astype(np.float64), labels[:, axes].astype(np.float64)
        apart = x.mean(axis=0) - y.mean(axis=0)
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        below = (x**2).mean(axis=0) + (y**2).mean(axis=0) + apart**2
        below = np.where(below > 0, below, np.inf)
        value = 2 * (x * y).mean(axis=0) / below
        # influences of 2c and of the denominator, each plus its own value, which cancel: 2c − value · below = 0
        influence = (2 * x * y - value * (x**2 + y**2 + apart**2 + 2 * apart * (x - y))) / below
        return np.asarray((value + influence).mean(axis=1))

    return concordance


YAW, PITCH, ROLL = (slice(k, k + 1) for k in range(3))
VALENCE, AROUSAL, ALL = slice(0, 1), slice(1, 2), slice(None)
SCORES: dict[tuple[str, str], Scores] = {
    ("probability", "accuracy"): _accuracy,
    ("probability", "loss"): _cross_entropy,
    ("probability", "macro_f1"): _macro_f1,
    ("probability", "balanced_accuracy"): _balanced_accuracy,
    ("probability", "ece"): _calibration_error,
    ("probability", "auc"): _auc,
    ("angles", "mae"): _angles(ALL),
    ("angles", "mae_yaw"): _angles(YAW),
    ("angles", "mae_pitch"): _angles(PITCH),
    ("angles", "mae_roll"): _angles(ROLL),
    ("prediction", "rmse"): _rmse(ALL),
    ("prediction", "rmse_valence"): _rmse(VALENCE),
    ("prediction", "rmse_arousal"): _rmse(AROUSAL),
    ("prediction", "ccc"): _ccc(ALL),
    ("prediction", "ccc_valence"): _ccc(VALENCE),
    ("prediction", "ccc_arousal"): _ccc(AROUSAL),
}
"""(Name of the outputs, metric) → its scores. A metric without an entry has no sampling error over images."""
