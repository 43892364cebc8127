"""Affect: valence and arousal, each from -1 to 1 (Russell 1980, *A Circumplex Model of Affect*)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hmtl_ablate.supervised.base import Metric, SupervisedTask
from hmtl_ablate.supervised.registry import register_supervised_task

if TYPE_CHECKING:
    from torch import Tensor

AXES = ("valence", "arousal")


class Affect(SupervisedTask):
    """Two linear outputs; labels float32 [N, 2], valence and arousal, NaN missing.

    The loss is the squared error, not 1 − CCC, although CCC selects the weights: CCC exists of a batch only, and a loss
    here is of each image, so that feeds can weight images and missing labels can be left out. A mirrored face has the
    same affect.
    """

    regression: ClassVar[bool] = True
    width = len(AXES)
    value_names = AXES

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Squared error, the mean of valence and arousal."""
        there = self.present(targets)
        error = (outputs - targets.nan_to_num(0.0)).square().mean(dim=1)
        return error.where(there, error.new_zeros(()))

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """ccc, rmse and pearson, each of valence, of arousal and as the mean of both; loss."""
        outputs, targets = outputs.double(), targets.double()
        found: dict[str, float] = {}
        for name, measure in (("ccc", concordance), ("rmse", root_mean_square_error), ("pearson", pearson)):
            values = measure(outputs, targets)
            found[name] = float(values.mean())
            found |= {f"{name}_{axis}": float(values[k]) for k, axis in enumerate(AXES)}
        return found | {"loss": float(self.loss(outputs, targets).mean())}

    def predictions(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """label and prediction: float32 [n, 2]. Not clipped to -1 … 1, so that the metrics follow from the arrays."""
        return super().predictions(outputs, targets)


def concordance(predicted: Tensor, targets: Tensor) -> Tensor:
    """Concordance correlation coefficient of each column, [d], from -1 to 1; predicted, targets: float [N, d].

    2 cov / (var_x + var_y + (mean_x − mean_y)²) with population moments (Lin 1989, *A Concordance Correlation
    Coefficient to Evaluate Reproducibility*). 0 where the predictions or the targets are constant.
    """
    covariance, variance, other = _moments(predicted, targets)
    return _ratio(2 * covariance, variance + other + (predicted.mean(dim=0) - targets.mean(dim=0)).square())


def pearson(predicted: Tensor, targets: Tensor) -> Tensor:
    """Pearson correlation of each column, [d], from -1 to 1; 0 where the predictions or the targets are constant."""
    covariance, variance, other = _moments(predicted, targets)
    return _ratio(covariance, (variance * other).sqrt())


def root_mean_square_error(predicted: Tensor, targets: Tensor) -> Tensor:
    """Root of the mean squared error of each column, [d]."""
    return (predicted - targets).square().mean(dim=0).sqrt()


def _moments(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Population covariance and both variances of each column, [d]."""
    left, right = _centred(one), _centred(other)
    return (left * right).mean(dim=0), left.square().mean(dim=0), right.square().mean(dim=0)


def _centred(values: Tensor) -> Tensor:
    """Deviations from the mean of each column, [N, d]; exactly 0 in a constant one, whose mean may be rounded."""
    varies = values.amax(dim=0) != values.amin(dim=0)
    return (values - values.mean(dim=0)).where(varies, values.new_zeros(()))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, and 0 where below is 0."""
    return (above / below).where(below != 0, below.new_zeros(()))


register_supervised_task(
    "affect",
    Affect,
    {
        "ccc": Metric("max", "CCC"),
        "ccc_valence": Metric("max", "CCC valence"),
        "ccc_arousal": Metric("max", "CCC arousal"),
        "rmse": Metric("min", "RMSE"),
        "rmse_valence": Metric("min", "RMSE valence"),
        "rmse_arousal": Metric("min", "RMSE arousal"),
        "pearson": Metric("max", "Pearson correlation"),
        "pearson_valence": Metric("max", "Pearson correlation valence"),
        "pearson_arousal": Metric("max", "Pearson correlation arousal"),
        "loss": Metric("min", "loss"),
    },
)
