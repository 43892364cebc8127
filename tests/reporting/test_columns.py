"""The columns of the report, and the door for one more."""

import csv
import io
import json
import re
from typing import Any

import pytest

from hmtl_ablate.config import metric_info
from hmtl_ablate.reporting.columns import claim_columns, difference_text, score_text, study_columns
from hmtl_ablate.reporting.comparison import WIDTHS
from hmtl_ablate.reporting.document import Column
from hmtl_ablate.reporting.formats import format_names
from hmtl_ablate.reporting.render import Report, build_report, render
from hmtl_ablate.reporting.statistics import Estimate
from hmtl_ablate.reporting.tables import StudyRow
from tests.reporting.example import study  # type: ignore[import-not-found]

LOWEST = Column[StudyRow](
    "lowest",
    lambda row: min(row.values.values(), default=None),
    "Lowest, %",
    lambda row: f"{100 * min(row.values.values()):.1f}" if row.values else "none",
)


def with_lowest(metric: str) -> tuple[Column[StudyRow], ...]:
    return (*study_columns(metric), LOWEST)


def report() -> Report:
    return Report((), (study({"SL": {0: 0.75, 1: 0.625}, "HMTL": {}}),), empty=False)


def cells(text: str) -> dict[str, list[str]]:
    """Variant → cells of its line in Markdown."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in lines}


def test_a_new_statistic_is_one_column_in_all_formats() -> None:
    texts = {format: render(report(), format, columns=with_lowest) for format in format_names()}
    assert sorted(texts) == ["csv", "html", "json", "latex", "markdown", "terminal"]
    header, first, second = (cells(texts["markdown"])[name] for name in ("Variant", "SL", "HMTL"))
    assert (header[-1], first[-1], second[-1]) == ("Lowest, %", "62.5", "none")
    lines = texts["terminal"].splitlines()
    assert [line.split("  ")[-1].strip() for line in lines if line.startswith(("Variant", "SL ", "HMTL "))] == [
        "Lowest, %",
        "62.5",
        "none",
    ]
    assert r"& Seconds & Lowest, \% \\" in texts["latex"]
    assert r"& 62.5 \\" in texts["latex"]
    assert r"\begin{tabular}{l" + "r" * len(header) + "}" in texts["latex"]
    assert '<td class="right">62.5</td>' in texts["html"]
    rows = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert [row["lowest"] for row in rows] == ["0.625", ""]
    assert list(rows[0])[-5:] == ["lowest", "picked", "paper", "status", "protocol"]
    assert [row["lowest"] for row in json.loads(texts["json"])["studies"][0]["rows"]] == [0.625, None]


@pytest.mark.parametrize("format", format_names())
def test_without_the_new_column_nothing_of_it_is_there(format: str) -> None:
    assert "owest" not in render(report(), format)


def test_a_column_may_leave_formats_out() -> None:
    plain = Column[int]("n", lambda row: row)
    assert (plain.title, plain.csv_name, plain.json_name) == ("", "n", "n")
    renamed = Column[int]("n", lambda row: row, csv="count", json="")
    assert (renamed.csv_name, renamed.json_name) == ("count", "")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "—"), ("SL", "SL"), (3, "3"), (-1234.5, "−1,234.500"), (0.12345, "0.123")]
)
def test_a_cell_without_a_text_of_its_own(value: float | str | None, text: str) -> None:
    assert Column[None]("n", lambda row: value, "N").cell(None) == text


def test_titles_follow_the_metric() -> None:
    accuracy, angle = (
        {column.key: column.title for column in study_columns(m)} for m in ("test/accuracy", "test/mae_yaw")
    )
    assert (accuracy["mean"], accuracy["difference"]) == ("test accuracy, %", "Difference [95 %], points")
    assert (angle["mean"], angle["difference"]) == ("test MAE yaw, °", "Difference [95 %]")


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("test/accuracy", "Seeds for ±0.5 points"),
        ("test/mae_yaw", "Seeds for ±0.5°"),
        ("test/ccc", "Seeds for ±0.005"),
        ("test/loss", "Seeds for ±0.005"),
    ],
)
def test_the_seeds_needed_are_for_a_width_in_the_metrics_unit(metric: str, title: str) -> None:
    (column,) = (column for column in study_columns(metric) if column.key == "seeds_needed")
    assert column.title == title
    width = float(re.findall(r"0\.[05]+", title)[0]) / (100 if "points" in title else 1)
    assert WIDTHS[metric_info(metric).unit] == width


def test_csv_has_the_comparison_at_equal_image_passes(records: Any) -> None:
    """A − SL, 2 views: −0.02, −0.02, −0.05: mean −0.03, sd 0.0173205, half-width 4.302653 · 0.01."""
    scores = {"SL": (0.5, 0.5, 0.5), "SL, 2 views": (0.6, 0.61, 0.63), "A": (0.58, 0.59, 0.58)}
    parent = records.study({name: name for name in scores}, [0, 1, 2])
    more = {"SL": {}, "SL, 2 views": {"data.views": "2"}, "A": {"pretext.puzzling.grid": "2"}}
    for name, values in scores.items():
        for seed, value in enumerate(values):
            records.trial(parent, name, name, seed, value, passes=1000 if name == "SL" else 2000, params=more[name])
    text = render(build_report(records.results()), "csv")
    (row,) = (row for row in csv.DictReader(io.StringIO(text)) if row["variant"] == "A")
    assert row["fair_minus"] == "SL, 2 views"
    assert float(row["fair_difference"]) == pytest.approx(-0.03)
    assert float(row["fair_ci95_low"]) == pytest.approx(-0.03 - 0.0430265)
    assert float(row["fair_p"]) > float(row["p"])


def test_keys_are_unique_and_do_not_depend_on_the_metric() -> None:
    keys = [column.key for column in study_columns("test/accuracy")]
    assert len(set(keys)) == len(keys)
    assert keys == [column.key for column in study_columns("")]


def test_the_protocol_of_claims_is_shown_when_there_is_one() -> None:
    shown = [column.title for column in claim_columns(protocol=True) if column.title]
    assert shown == ["Dataset", "Model", "Metric", "Claimed", "Verified", "Status", "Protocol"]
    assert [column.title for column in claim_columns(protocol=False) if column.title] == shown[:-1]


@pytest.mark.parametrize(
    ("estimate", "percent", "score", "difference"),
    [
        (Estimate(0), True, "—", "—"),
        (Estimate(1, 0.5), True, "50.00", "+50.00"),
        (Estimate(1, -0.5), False, "−0.500", "−0.500"),
        (Estimate(3, 0.02, 0.01, -0.005, 0.045), True, "2.00 ± 1.00", "+2.00 [−0.50, +4.50]"),
        (Estimate(3, 2.0, 1.0, -0.5, 4.5), False, "2.000 ± 1.000", "+2.000 [−0.500, +4.500]"),
    ],
)
def test_estimates_as_text(estimate: Estimate, percent: bool, score: str, difference: str) -> None:
    assert score_text(estimate, percent) == score
    assert difference_text(estimate, percent) == difference


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "—"), (12.34, "12.3"), (99.94, "99.9"), (100.0, "100"), (86_400.0, "86,400")]
)
def test_seconds_lose_their_decimal_at_a_hundred(seconds: float | None, text: str) -> None:
    (row,) = study({"SL": {0: 0.5}}, seconds=seconds).rows
    (column,) = [column for column in study_columns("test/accuracy") if column.key == "seconds"]
    assert column.cell(row) == text
