"""The columns of the report. To add a statistic, add one `Column` to `study_columns`: every format then has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hmtl_ablate.config import in_percent, metric_info
from hmtl_ablate.reporting.claims import ClaimRow
from hmtl_ablate.reporting.comparison import ALPHA, Comparison
from hmtl_ablate.reporting.decisions import Decision
from hmtl_ablate.reporting.decomposition import Part
from hmtl_ablate.reporting.document import DASH, Column, Row
from hmtl_ablate.reporting.effects import Effect
from hmtl_ablate.reporting.statistics import Estimate
from hmtl_ablate.reporting.study_images import mcnemar_text
from hmtl_ablate.reporting.tables import StudyRow
from hmtl_ablate.reporting.wording import count_text, label, number_text, smallest_text


@dataclass(frozen=True)
class ControlRow:
    """One difference of a controlled arm, or its verdict, which has no numbers."""

    arm: str
    name: str
    part: Part | None
    verdict: str
    sequential: bool = False
    """Whether seeds were added until decided, so that the interval is the sequential one."""


@dataclass(frozen=True)
class EffectRow:
    """One effect of a design."""

    design: str
    kind: str
    effect: Effect


def study_columns(metric: str) -> tuple[Column[StudyRow], ...]:
    """The columns of a study's table, in their order. metric: what `score` and `values` of its rows measure."""
    percent = in_percent(metric)
    return (
        Column("variant", lambda row: row.variant, "Variant", align="left"),
        Column("n_seeds", lambda row: row.score.n, "Seeds"),
        Column(
            "mean",
            lambda row: row.score.mean,
            label(metric),
            lambda row: score_text(row.score, percent),
            best=metric_info(metric).direction,
        ),
        Column("sd", lambda row: row.score.sd, "SD", lambda row: number_text(row.score.sd, percent), hidden=True),
        Column("mean_ci95_low", lambda row: row.score.low),
        Column("mean_ci95_high", lambda row: row.score.high),
        Column(
            "difference",
            lambda row: _difference(row).mean,
            "Difference [95 %]" + (", points" if percent else ""),
            lambda row: "baseline" if row.difference is None else difference_text(row.difference, percent),
            wrap=True,
        ),
        Column("n_pairs", lambda row: None if row.difference is None else row.difference.n),
        Column("ci95_low", lambda row: None if row.sequential else _difference(row).low),
        Column("ci95_high", lambda row: None if row.sequential else _difference(row).high),
        Column("sequential_low", lambda row: _difference(row).low if row.sequential else None),
        Column("sequential_high", lambda row: _difference(row).high if row.sequential else None),
        Column("p", lambda row: _test(row).p_holm, "p (Holm)", lambda row: p_text(_test(row).p_holm)),
        Column(
            "p_unadjusted",
            lambda row: _test(row).p,
            "p (t test)",
            lambda row: p_text(_test(row).p),
            hidden=True,
        ),
        Column(
            "p_wilcoxon",
            lambda row: _test(row).wilcoxon,
            "p (Wilcoxon)",
            lambda row: p_text(_test(row).wilcoxon),
            hidden=True,
        ),
        Column("d_z", lambda row: _test(row).d_z, "d_z", lambda row: number_text(_test(row).d_z, False), hidden=True),
        Column(
            "simultaneous_low",
            lambda row: _test(row).low,
            "Simultaneous 95 %, low",
            lambda row: number_text(_test(row).low, percent, sign=True),
            hidden=True,
        ),
        Column(
            "simultaneous_high",
            lambda row: _test(row).high,
            "Simultaneous 95 %, high",
            lambda row: number_text(_test(row).high, percent, sign=True),
            hidden=True,
        ),
        Column(
            "seeds_needed",
            lambda row: _test(row).seeds_needed,
            f"Seeds for ±{smallest_text(0.5 if metric_info(metric).unit else 0.005, metric)}",
            lambda row: count_text(_test(row).seeds_needed),
            hidden=True,
        ),
        *_image_columns(percent),
        *_fair_columns(percent),
        Column("image_passes", lambda row: row.image_passes, "Image passes", lambda row: count_text(row.image_passes)),
        Column("seconds", lambda row: row.seconds, "Seconds", lambda row: _seconds_text(row.seconds)),
        Column("failed", _failed_text, "Failed", lambda row: _failed_text(row) or DASH, align="left", hidden=True),
        Column("values", lambda row: {str(seed): value for seed, value in sorted(row.values.items())}, csv=""),
    )


def _image_columns(percent: bool) -> tuple[Column[StudyRow], ...]:
    """What the test images say of the difference from the baseline."""

    def ends(row: StudyRow, both: bool) -> tuple[float | None, float | None]:
        images = _test(row).images
        return (None, None) if images is None else images.both_interval if both else images.images_interval

    def text(row: StudyRow, both: bool) -> str:
        low, high = (number_text(value, percent, sign=True) for value in ends(row, both))
        return DASH if low == DASH else f"[{low}, {high}]"

    def interval(key: str, title: str, both: bool) -> tuple[Column[StudyRow], ...]:
        """One column for people, and both ends for programs."""
        return (
            Column(key, lambda row: None, title, lambda row: text(row, both), hidden=True, csv="", json=""),
            Column(f"{key}_low", lambda row: ends(row, both)[0]),
            Column(f"{key}_high", lambda row: ends(row, both)[1]),
        )

    def of_images(row: StudyRow, name: str) -> float | None:
        images = _test(row).images
        return None if images is None else getattr(images, name)

    return (
        Column("n_images", lambda row: of_images(row, "n_images"), "Test images", hidden=True),
        Column(
            "images_se",
            lambda row: of_images(row, "se_images"),
            "SE over test images",
            lambda row: number_text(of_images(row, "se_images"), percent),
            hidden=True,
        ),
        *interval("images_ci95", "95 % over test images", both=False),
        *interval("both_ci95", "95 % over seeds and test images", both=True),
        Column(
            "mcnemar",
            lambda row: mcnemar_text(_test(row)) if _test(row).mcnemar else "",
            f"Seeds with McNemar's p < {ALPHA}",
            lambda row: mcnemar_text(_test(row)) if _test(row).mcnemar else DASH,
            hidden=True,
        ),
    )


def _fair_columns(percent: bool) -> tuple[Column[StudyRow], ...]:
    """The comparison with SL at equal image passes."""

    def of(row: StudyRow) -> Comparison:
        return row.fair or Comparison(row.variant, "", True, {}, Estimate(0))

    return (
        Column(
            "fair_minus", lambda row: of(row).minus, "At equal passes", lambda row: of(row).minus or DASH, hidden=True
        ),
        Column(
            "fair_difference",
            lambda row: of(row).estimate.mean,
            "Difference from it [95 %]" + (", points" if percent else ""),
            lambda row: difference_text(of(row).estimate, percent),
            hidden=True,
        ),
        Column("fair_ci95_low", lambda row: of(row).estimate.low),
        Column("fair_ci95_high", lambda row: of(row).estimate.high),
        Column("fair_p", lambda row: of(row).p_holm, "its p (Holm)", lambda row: p_text(of(row).p_holm), hidden=True),
    )


def control_columns(metric: str) -> tuple[Column[ControlRow], ...]:
    """The columns of the table of a study's controls, in their order. metric: what its differences are of."""
    percent = in_percent(metric)
    return (
        Column("arm", lambda row: row.arm, csv="variant"),
        Column("part", lambda row: row.name, "Where from", _part_text, align="left"),
        Column("minuend", lambda row: row.part.variant if row.part else ""),
        Column("subtrahend", lambda row: row.part.minus if row.part else ""),
        Column("n_seeds", lambda row: row.part.estimate.n if row.part else None, "Seeds"),
        Column(
            "difference",
            lambda row: _estimate(row).mean,
            "Difference [95 %]" + (", points" if percent else ""),
            lambda row: _gain_text(row, percent),
            wrap=True,
        ),
        Column("sd", lambda row: _estimate(row).sd, "SD", lambda row: number_text(_estimate(row).sd, percent)),
        Column("ci95_low", lambda row: None if row.sequential else _estimate(row).low),
        Column("ci95_high", lambda row: None if row.sequential else _estimate(row).high),
        Column("sequential_low", lambda row: _estimate(row).low if row.sequential else None),
        Column("sequential_high", lambda row: _estimate(row).high if row.sequential else None),
        Column("status", lambda row: row.verdict),
    )


def decision_columns(metric: str) -> tuple[Column[Decision], ...]:
    """The columns of the table of a study's decisions, in their order. metric: what its differences are of."""
    percent = in_percent(metric)
    return (
        Column("comparison", lambda row: f"{row.variant} − {row.minus}", "Comparison", align="left", csv="", json=""),
        Column("minuend", lambda row: row.variant),
        Column("subtrahend", lambda row: row.minus),
        Column("n_seeds", lambda row: row.course.estimate.n, "Pairs"),
        Column(
            "difference",
            lambda row: row.course.estimate.mean,
            "Difference [95 %]" + (", points" if percent else ""),
            lambda row: difference_text(row.course.estimate, percent),
            wrap=True,
        ),
        Column(
            "sd", lambda row: row.course.estimate.sd, "SD", lambda row: number_text(row.course.estimate.sd, percent)
        ),
        Column("sequential_low", lambda row: row.course.estimate.low),
        Column("sequential_high", lambda row: row.course.estimate.high),
        Column("status", lambda row: row.course.state, "State", align="left"),
    )


def of_level(columns: Sequence[Column[Row]], level: float | None) -> tuple[Column[Row], ...]:
    """The columns with the level of sequential intervals, in percent, in the title of the difference; None: as they
    are."""
    if level is None:
        return tuple(columns)
    shown = f"[sequential {level:.4g} %]"
    return tuple(
        replace(column, title=column.title.replace("[95 %]", shown)) if column.key == "difference" else column
        for column in columns
    )


def effect_columns(metric: str, *, path: bool = False) -> tuple[Column[EffectRow], ...]:
    """The columns of the table of a design's effects, in their order. metric: what they are of. path: show people what
    each step gained when it was chosen."""
    percent = in_percent(metric)
    return (
        Column("design", lambda row: row.design, csv="variant"),
        Column("effect", lambda row: row.effect.name, "Step" if path else "Effect", align="left", csv="part"),
        Column("n_seeds", lambda row: row.effect.estimate.n, "Seeds"),
        Column(
            "difference",
            lambda row: row.effect.estimate.mean,
            ("Gain" if path else "Effect") + " [95 %]" + (", points" if percent else ""),
            lambda row: difference_text(row.effect.estimate, percent) if row.effect.weights else "0 (the same arm)",
            wrap=True,
        ),
        Column(
            "sd", lambda row: row.effect.estimate.sd, "SD", lambda row: number_text(row.effect.estimate.sd, percent)
        ),
        Column("ci95_low", lambda row: row.effect.estimate.low),
        Column("ci95_high", lambda row: row.effect.estimate.high),
        Column("p", lambda row: row.effect.p, "p (Holm)", lambda row: p_text(row.effect.p)),
        Column(
            "picked",
            lambda row: row.effect.picked,
            "When chosen" if path else "",
            lambda row: number_text(row.effect.picked, percent, sign=True),
        ),
        Column("status", lambda row: row.kind, json="kind"),
    )


def claim_columns(*, protocol: bool) -> tuple[Column[ClaimRow], ...]:
    """The columns of the table of claims, in percent or degrees. protocol: show people that column too."""
    return (
        Column("paper", lambda row: row.paper),
        Column("dataset", lambda row: row.dataset, "Dataset", align="left", csv="data"),
        Column("model", lambda row: row.model, "Model", align="left", csv="variant"),
        Column("metric", lambda row: row.metric, "Metric", align="left"),
        Column("unit", lambda row: row.unit),
        Column("claimed", lambda row: row.claimed, "Claimed", lambda row: f"{row.claimed:.2f}"),
        Column("verified", lambda row: row.verified, "Verified", _verified_text, csv="mean"),
        Column("sd", lambda row: row.sd),
        Column("mean_ci95_low", lambda row: row.low, json=""),
        Column("mean_ci95_high", lambda row: row.high, json=""),
        Column("n_seeds", lambda row: row.n_seeds),
        Column("status", lambda row: row.status, "Status", align="left"),
        Column(
            "protocol",
            lambda row: row.protocol,
            "Protocol" if protocol else "",
            lambda row: row.protocol or DASH,
            align="left",
        ),
    )


def score_text(score: Estimate, percent: bool) -> str:
    """Mean ± standard deviation; in percent when asked."""
    mean = number_text(score.mean, percent)
    return mean if score.sd is None else f"{mean} ± {number_text(score.sd, percent)}"


def difference_text(difference: Estimate, percent: bool) -> str:
    """Difference with its 95 % interval; in points when asked."""
    mean, low, high = (
        number_text(value, percent, sign=True) for value in (difference.mean, difference.low, difference.high)
    )
    return mean if difference.low is None else f"{mean} [{low}, {high}]"


def _estimate(row: ControlRow) -> Estimate:
    return row.part.estimate if row.part else Estimate(0)


def p_text(p: float | None) -> str:
    """A p value with three decimals."""
    return DASH if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _part_text(row: ControlRow) -> str:
    return f"{row.part.levels}: {row.name}" if row.part and row.part.levels else row.name


def _gain_text(row: ControlRow, percent: bool) -> str:
    same = row.part is not None and row.part.variant == row.part.minus
    return "0 (the same arm)" if same else difference_text(_estimate(row), percent)


def _test(row: StudyRow) -> Comparison:
    return row.comparison or Comparison(row.variant, "", False, {}, Estimate(0))


def _difference(row: StudyRow) -> Estimate:
    return row.difference or Estimate(0)


def _failed_text(row: StudyRow) -> str:
    return ", ".join(f"{count} {ending}" for ending, count in sorted(row.failed.items()))


def _verified_text(row: ClaimRow) -> str:
    if row.verified is None:
        return DASH
    sd = "" if row.sd is None else f" ± {row.sd:.2f}"
    return f"{row.verified:.2f}{sd} (n = {row.n_seeds})"


def _seconds_text(seconds: float | None) -> str:
    return f"{seconds:,.1f}" if seconds is not None and seconds < 100 else count_text(seconds)
