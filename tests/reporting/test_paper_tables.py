"""The paper's arguments, by hand: errors, reductions, grids."""

from dataclasses import replace

import pytest

from hmtl_ablate.errors import StudyError
from hmtl_ablate.reporting.document import Table
from hmtl_ablate.reporting.paper_tables import (
    PAPER_TABLES,
    GridRow,
    error_reduction,
    error_table,
    grid_table,
    paper_section,
    transfer_table,
)
from hmtl_ablate.reporting.results import results_of
from tests.reporting.example import study  # type: ignore[import-not-found]


def titles(table: Table[GridRow]) -> list[str]:
    return [column.title for column in table.shown]


def test_the_error_of_an_accuracy_and_by_how_much_it_is_lower() -> None:
    # Errors 40 and 50 % against 30 and 40 %: reductions 1 − 30/40 = 25 % and 1 − 40/50 = 20 %; mean 22.5, sd 3.5355,
    # half 12.7062 · 3.5355 / √2 = 31.77.
    table = error_table(study({"SL": {0: 0.6, 1: 0.5}, "HMTL": {0: 0.7, 1: 0.6}, "none": {}}))
    assert [column.title for column in table.shown] == [
        "Variant",
        "Seeds",
        "1 − test accuracy, %",
        "Error reduction [95 %], %",
        "Image passes",
    ]
    assert table.cells() == [
        ["SL", "2", "45.00 ± 7.07", "—", "1,234,567"],
        ["HMTL", "2", "35.00 ± 7.07", "+22.50 [−9.27, +54.27]", "1,234,567"],
        ["none", "0", "—", "—", "—"],
    ]


def test_the_error_in_degrees_is_the_metric_itself() -> None:
    table = error_table(study({"SL": {0: 4.0}, "HMTL": {0: 3.0}, "worse": {0: 5.0}}, metric="test/mae"))
    assert [row[2:4] for row in table.cells()] == [["4.000", "—"], ["3.000", "+25.00"], ["5.000", "−25.00"]]
    assert table.shown[2].title == "test MAE, °"


@pytest.mark.parametrize(
    ("metric", "values", "title", "shown"),
    [
        ("test/ece", (0.2, 0.1), "test calibration error (ECE), %", ["20.00", "10.00"]),  # an error in percent
        ("test/ccc", (0.6, 0.8), "1 − test CCC", ["0.400", "0.200"]),  # a score without a unit
    ],
)
def test_an_error_is_known_by_its_direction_and_not_by_its_unit(
    metric: str, values: tuple[float, float], title: str, shown: list[str]
) -> None:
    """Half of the error each time: an improvement is a reduction."""
    table = error_table(study({"SL": {0: values[0]}, "HMTL": {0: values[1]}}, metric=metric))
    assert [row[2] for row in table.cells()] == shown
    assert table.cells()[1][3] == "+50.00"
    assert table.shown[2].title == title


def test_a_reduction_is_paired_and_skips_a_baseline_without_error() -> None:
    rows = study({"SL": {0: 0.5, 1: 1.0, 3: 0.9}, "HMTL": {0: 0.75, 1: 0.9, 2: 0.1}}).rows
    reduction = error_reduction(rows[1], rows[0], itself=False)
    assert (reduction.n, reduction.mean) == (1, 0.5)


def test_a_grid_of_variants() -> None:
    names = {"scratch, weak": {0: 0.4}, "scratch, strong": {0: 0.3}, "ImageNet, weak": {0: 0.6, 1: 0.7}}
    table = grid_table(study(names, name="augmentation"))
    assert titles(table) == ["test accuracy, %", "scratch", "ImageNet"]
    assert table.cells() == [["weak", "40.00", "65.00 ± 7.07"], ["strong", "30.00", "—"]]


def test_variants_against_evaluations() -> None:
    own = study({"SL": {0: 0.6}, "HMTL": {0: 0.7}}, name="transfer", data="ferplus")
    probed = study({"SL → k-NN": {0: 0.5}}, name="transfer", data="csv", evaluation="k-NN")
    table = transfer_table([own, probed])
    assert titles(table) == ["Variant", "trained on (ferplus)", "k-NN (csv)"]
    assert table.cells() == [["SL", "60.00", "50.00"], ["HMTL", "70.00", "—"]]
    assert table.title == "transfer (quick), data: ferplus"


def test_each_profile_has_a_transfer_table_of_its_own() -> None:
    quick, longer = (
        replace(study({"SL": {0: score}}, name="transfer"), profile=profile)
        for profile, score in (("quick", 0.5), ("long", 0.7))
    )
    probed = replace(longer, evaluation="k-NN")
    tables = PAPER_TABLES["transfer"].build([quick, longer, probed])
    assert [table.title for table in tables] == ["transfer (quick), data: rendered", "transfer (long), data: rendered"]
    assert [table.cells() for table in tables] == [[["SL", "50.00"]], [["SL", "70.00", "70.00"]]]


@pytest.mark.parametrize("name", PAPER_TABLES)
def test_every_table_is_built_from_its_study(name: str) -> None:
    tables = [study({"SL, a": {0: 0.5}, "HMTL, a": {0: 0.6}}, name=name), study({"SL, b": {0: 0.4}}, name=name)]
    built = PAPER_TABLES[name].build([replace(table, profile="paper") for table in tables])
    assert len(built) == (1 if name == "transfer" else 2)
    assert all(table.title.startswith(f"{name} (paper)") and table.rows for table in built)


def test_a_study_without_trials_is_named_with_its_file() -> None:
    with pytest.raises(StudyError, match=r"'gender'.*hmtl-ablate run search_spaces/gender\.yaml"):
        paper_section("gender", results_of([], []))
