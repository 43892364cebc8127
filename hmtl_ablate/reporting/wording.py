"""The report's words: titles and units of metrics, numbers as text, and the sentences around the tables."""

from __future__ import annotations

from hmtl_ablate.config import metric_info
from hmtl_ablate.reporting.document import DASH
from hmtl_ablate.study.declaration import COSTS

NO_RUNS = "No runs yet. Start with: hmtl-ablate run search_spaces/puzzling.yaml"
PROTOCOLS = {
    "selection": "weights selected on a split separate from the test split",
    "paper": "weights selected on the official validation set, which is also the test split, as in published work",
}
"""Protocol → what it means for the weights that were measured."""
READING = (
    "Mean ± standard deviation over the seeds. Differences from a table's first row are paired by seed. Image "
    "passes and seconds are means per trial."
)
"""How to read the tables of studies."""


def label(metric: str) -> str:
    """`test/macro_f1` as `test macro F1, %`, `test/mae_yaw` as `test MAE yaw, °`, `cost/seconds` as `seconds`."""
    if metric in COSTS:
        return metric.removeprefix("cost/").replace("_", " ")
    info = metric_info(metric)
    split = [part for part in metric.split("/") if part in ("best", "train", "val", "test")]
    words = " ".join([*split, info.title])
    return f"{words}, {info.unit}" if info.unit else words


def lower_is_better(metric: str) -> bool:
    """Whether a metric is an error or a loss."""
    return metric_info(metric).direction == "min"


def unit_text(metric: str) -> str:
    """What follows the number of a difference: ` points`, `°`, or nothing."""
    return {"%": " points", "°": "°", "": ""}[metric_info(metric).unit]


def smallest_text(smallest: float, metric: str) -> str:
    """A smallest difference that matters with its unit: `0.5 points`, `2°`."""
    return f"{smallest:g}{unit_text(metric)}"


def number_text(value: float | None, percent: bool, *, sign: bool = False) -> str:
    """A score with a true minus sign: two decimals in percent, else three. sign: `+` in front of positive numbers."""
    if value is None:
        return DASH
    form = "+" if sign else ""
    text = format(100 * value, f"{form}.2f") if percent else format(value, f"{form}.3f")
    return text.replace("-", "−")


def count_text(value: float | None) -> str:
    """A large number without decimals: `1,234,567`."""
    return DASH if value is None else f"{value:,.0f}"


def bound_text(at_least: bool, at_most: bool) -> str:
    """What stands in front of a planned number: `at least `, `at most `, `about ` where it is both, or nothing."""
    return {(True, False): "at least ", (False, True): "at most ", (True, True): "about "}.get((at_least, at_most), "")


def plural(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def clock_text(seconds: float) -> str:
    """Seconds as a person writes them: 42 s, 3 min 05 s, 2 h 07 min, 3 d 04 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
