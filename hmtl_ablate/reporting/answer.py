"""The answer to a study's question, in one sentence per comparison."""

from __future__ import annotations

from hmtl_ablate.config import in_percent
from hmtl_ablate.reporting.columns import difference_text, p_text
from hmtl_ablate.reporting.comparison import ALPHA, Comparison, same_passes
from hmtl_ablate.reporting.decisions import Decision
from hmtl_ablate.reporting.decomposition import PARTS, TOTAL, Decomposition
from hmtl_ablate.reporting.statistics import SEEDS_TO_TEST, Estimate
from hmtl_ablate.reporting.tables import StudyTable
from hmtl_ablate.reporting.wording import lower_is_better, number_text, plural, unit_text

SHORT = ("views", "distortion", "a random gradient", "the task")
"""`PARTS` in a sentence."""


def answers(table: StudyTable) -> tuple[str, ...]:
    """One sentence for each arm that is compared with the baseline, in the table's order, then one for the verdict on
    each controlled arm.

    An arm that has SL at equal image passes in its table is compared with that first. Where seeds were added until
    decided, each sentence has the state and the sequential interval of one declared comparison.
    """
    if table.decisions is not None:
        return (*(_decided(one, table) for one in table.decisions.comparisons), *_verdicts(table))
    fair = {one.variant: one for one in table.comparisons if one.equal_passes}
    found = []
    for one in table.comparisons:
        if one.equal_passes or not one.estimate.n:
            continue
        equal = fair.get(one.variant)
        if equal is None or not equal.estimate.n:
            found.append(f"{one.variant} {_clause(one, table.metric)}.")
        else:
            first, then = (_clause(each, table.metric, _passes(each, table)) for each in (equal, one))
            found.append(f"{one.variant} {first}; it {then}.")
    return (*found, *_verdicts(table))


def _clause(one: Comparison, metric: str, at: str = "") -> str:
    """`beats SL by 1.60 points [0.90, 2.30], 5 seeds, p = 0.003 after Holm`. at: words after the other arm's name."""
    seeds = plural(one.estimate.n, "seed")
    if one.p_holm is None:
        difference = f"{_signed(one.estimate, metric)}, {seeds}"
        return f"is not tested against {one.minus}{at}: fewer than {SEEDS_TO_TEST} seeds ({difference})"
    p = f"p {_equals(one.p_holm)} after Holm"
    assert one.estimate.mean is not None
    if one.p_holm > ALPHA:
        if one.p is not None and one.p <= ALPHA:  # its interval, which is not adjusted, leaves 0 out
            p = f"p {_equals(one.p)} alone, {p_text(one.p_holm)} after Holm"
        return f"is not shown to differ from {one.minus}{at}: {_signed(one.estimate, metric)}, {seeds}, {p}"
    gain = (one.estimate.mean > 0) != lower_is_better(metric)
    return f"{'beats' if gain else 'is worse than'} {one.minus}{at} by {_size(one.estimate, metric)}, {seeds}, {p}"


def _passes(one: Comparison, table: StudyTable) -> str:
    """How many image passes the arm that is subtracted has, next to the variant; "" where that is not known."""
    passes = {row.variant: row.image_passes for row in table.rows}
    own, other = passes[one.variant], passes[one.minus]
    if own is None or other is None:
        return ""
    return f" ({'equal' if same_passes(own, other) else 'fewer' if other < own else 'more'} image passes)"


def _equals(p: float) -> str:
    return f"{'' if p < 0.001 else '= '}{p_text(p)}"


def _decided(one: Decision, table: StudyTable) -> str:
    course = one.course
    words = {"better": "is better than", "worse": "is worse than"}
    pairs, interval = plural(course.estimate.n, "pair"), _signed(course.estimate, table.metric)
    if course.state in words and course.estimate.mean is not None:
        return (
            f"{one.variant} {words[course.state]} {one.minus} by {_size(course.estimate, table.metric)}, {pairs}, "
            "sequential interval."
        )
    return f"{one.variant} against {one.minus}: {course.state}: {interval}, {pairs}, sequential interval."


def _verdicts(table: StudyTable) -> tuple[str, ...]:
    controls = table.controls
    return () if controls is None else tuple(_verdict(arm, controls.metric) for arm in controls.arms)


def _verdict(arm: Decomposition, metric: str) -> str:
    """The verdict, and the points of the sum as gains; these are no answers of their own."""
    if arm.refused or arm.unjudged:
        return f"The verdict on {arm.arm} is undecided: {arm.refused or arm.unjudged}."
    parts = {part.name: part for part in arm.parts}
    head = (
        f"{arm.arm} {arm.finding.kind}" if arm.finding.kind != "undecided" else f"The verdict on {arm.arm} is undecided"
    )
    whole = parts[TOTAL.name]
    of = [f"{_gain(parts[step.name].estimate, metric)} is {words}" for step, words in zip(PARTS, SHORT, strict=True)]
    shares = f"{', '.join(of[::-1][:-1])} and {of[0]}"
    said = f"point estimates, {plural(whole.estimate.n, 'seed')}"
    return f"{head}: of {_gain(whole.estimate, metric)}{unit_text(metric)} over {whole.minus}, {shares} ({said})."


def _gain(found: Estimate, metric: str) -> str:
    mean = found.mean if found.mean is None or not lower_is_better(metric) else -found.mean
    return number_text(mean, in_percent(metric))


def _signed(found: Estimate, metric: str) -> str:
    """The difference with its interval as it is: variant minus the other."""
    text = f"{difference_text(found, in_percent(metric))}{unit_text(metric)}"
    if found.low is not None:  # the unit belongs to the number in front of the interval
        mean, _, interval = difference_text(found, in_percent(metric)).partition(" [")
        text = f"{mean}{unit_text(metric)} [{interval}"
    return text + (", lower is better" if lower_is_better(metric) else "")


def _size(found: Estimate, metric: str) -> str:
    """The difference and its interval turned so that the point is positive."""
    assert found.mean is not None
    sign = -1 if found.mean < 0 else 1
    percent = in_percent(metric)
    point = f"{number_text(abs(found.mean), percent)}{unit_text(metric)}"
    if found.low is None or found.high is None:
        return point
    low, high = sorted((sign * found.low, sign * found.high))
    return f"{point} [{number_text(low, percent)}, {number_text(high, percent)}]"
