"""The evidence on a pretext task as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.columns import difference_text, p_text
from hmtl_ablate.reporting.document import DASH, Column, Section, Table
from hmtl_ablate.reporting.evidence import Evidence, EvidenceRow
from hmtl_ablate.reporting.statistics import Estimate
from hmtl_ablate.reporting.wording import label, lower_is_better, number_text, plural

READING = (
    "Gain: an arm with the task minus the arm without it, paired by seed, with a 95 % interval over the seeds; above 0 "
    "the task is better. SE: its standard error."
)


def evidence_columns(
    metric: str, weights: Mapping[EvidenceRow, float] | None = None
) -> tuple[Column[EvidenceRow], ...]:
    """The columns of the table, in their order. metric: what the gains are of. weights: of the rows in the mean."""
    percent, known = in_percent(metric), weights or {}
    points = ", points" if percent else ""
    return (
        Column("study", lambda row: row.study, "Study", align="left"),
        Column("profile", lambda row: row.profile),
        Column("data", lambda row: row.data, "Data", align="left"),
        Column("backbone", lambda row: row.backbone, "Backbone", align="left"),
        Column("fraction", lambda row: row.fraction, "Share", lambda row: f"{100 * row.fraction:g} %"),
        Column("feed", lambda row: row.feed, "Feed", align="left"),
        Column("comparison", _comparison, "Comparison", align="left", csv="", json=""),
        Column("minuend", lambda row: row.variant),
        Column("subtrahend", lambda row: row.minus),
        Column(
            "equal_passes",
            lambda row: "yes" if row.equal_passes else "no",
            "Equal passes",
            align="left",
            hidden=True,
        ),
        Column("n_seeds", lambda row: row.gain.n, "Pairs"),
        Column("gain", lambda row: row.gain.mean, f"Gain [95 %]{points}", lambda row: _gain(row, percent), wrap=True),
        Column("se", lambda row: row.se, "SE", lambda row: number_text(row.se, percent)),
        Column("ci95_low", lambda row: None if row.sequential else row.gain.low),
        Column("ci95_high", lambda row: None if row.sequential else row.gain.high),
        Column("sequential_low", lambda row: row.gain.low if row.sequential else None),
        Column("sequential_high", lambda row: row.gain.high if row.sequential else None),
        Column(
            "weight",
            lambda row: known.get(row),
            "Weight",
            lambda row: f"{100 * known[row]:.0f} %" if row in known else DASH,
            hidden=True,
        ),
        Column("left_out", lambda row: row.left_out),
    )


def evidence_table(one: Evidence) -> Table[EvidenceRow]:
    """The differences, those of the mean first, with the mean in the sentence above them."""
    weights = dict(zip(one.kept, one.pooled.weights, strict=True)) if one.pooled else {}
    return Table(
        title=f"{one.task}: {label(one.metric).removesuffix(', %')}",
        lead=pooled_text(one),
        columns=evidence_columns(one.metric, weights),
        rows=one.rows,
        notes=(
            *(["Lower is better: signs are turned, so that above 0 is a gain."] if lower_is_better(one.metric) else []),
            *_unequal(one),
            *_left_out(one),
            *(f"{note}." for note in one.notes),
        ),
        csv={
            "table": "evidence",
            "part": one.task,
            "metric": one.metric,
            "unit": "fraction" if in_percent(one.metric) else "",
        },
        json={"task": one.task, "metric": one.metric, "pooled": _record(one)},
        label=f"hmtl-evidence-{one.task}-{one.metric}".replace("/", "-").replace("_", "-"),
    )


def evidence_section(task: str, found: tuple[Evidence, ...]) -> Section:
    """The tables under a heading; without a difference it says so."""
    text = READING if any(one.rows for one in found) else f"No arm with {task} has been trained next to one without it."
    return Section(f"Evidence on {task}", text, tuple(evidence_table(one) for one in found))


def pooled_text(one: Evidence) -> str:
    """The mean and the heterogeneity in words."""
    mean, percent = one.pooled, in_percent(one.metric)
    unit = " points" if percent else ""
    if mean is None:
        return f"No mean: {plural(len(one.kept), 'effect')} can enter it, and it needs two."
    found = difference_text(Estimate(mean.k, mean.mean, None, mean.low, mean.high), percent)
    ahead = (
        "Two effects allow no prediction interval."
        if mean.predicted is None
        else "A further study's true effect is expected in ["
        + ", ".join(number_text(end, percent, sign=True) for end in mean.predicted)
        + f"]{unit} (95 % prediction interval)."
    )
    tau = number_text(mean.tau2**0.5, percent)
    return (
        f"Random-effects mean of {mean.k} effects: {found}{unit} (Hartung–Knapp). {ahead} Heterogeneity: "
        f"Q = {mean.q:.2f} ({mean.k - 1} df, p {_p(mean.p)}), I² = {100 * mean.i2:.0f} %, τ = {tau}{unit}."
    )


def _p(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def _gain(row: EvidenceRow, percent: bool) -> str:
    text = difference_text(row.gain, percent)
    return f"{text} (sequential)" if row.sequential and row.gain.low is not None else text


def _unequal(one: Evidence) -> list[str]:
    cheaper = [f"{row.variant} of {row.study} ({row.data})" for row in one.rows if not row.equal_passes]
    return [f"Against an arm with other image passes: {'; '.join(cheaper)}."] if cheaper else []


def _left_out(one: Evidence) -> list[str]:
    """One line per reason."""
    named: dict[str, list[str]] = {}
    for row in one.rows:
        if row.left_out:
            where = f"{row.study} ({row.profile}), {row.data}, {100 * row.fraction:g} %"
            named.setdefault(row.left_out, []).append(f"{_comparison(row)} in {where}")
    return [f"Not in the mean, {why}: {'; '.join(rows)}." for why, rows in named.items()]


def _comparison(row: EvidenceRow) -> str:
    return f"{row.variant} against {row.minus}"


def _record(one: Evidence) -> dict[str, Any] | None:
    mean = one.pooled
    if mean is None:
        return None
    return {
        "k": mean.k,
        "mean": mean.mean,
        "ci95_low": mean.low,
        "ci95_high": mean.high,
        "tau2": mean.tau2,
        "q": mean.q,
        "p_q": mean.p,
        "i2": mean.i2,
        "prediction_low": mean.predicted[0] if mean.predicted else None,
        "prediction_high": mean.predicted[1] if mean.predicted else None,
    }
