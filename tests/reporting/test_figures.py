from pathlib import Path
from typing import Any

import cv2
import pytest

from hmtl_ablate.errors import StudyError
from hmtl_ablate.reporting.figures import low_data_figure, low_data_lines
from hmtl_ablate.reporting.results import load_results

METHODS: dict[str, dict[str, str]] = {
    "SL": {"data.views": "2"},
    "SL + puzzling": {"pretext.puzzling.grid": "2"},
    "SL + in-painting": {"pretext.inpainting.mask_ratio": "0.25"},
}


@pytest.fixture
def low_data(records: Any) -> Any:
    variants = {
        f"{method} {fraction}": f"{method}-{fraction}" for fraction in ("0.05", "0.2", "1.0") for method in METHODS
    }
    parent = records.study(variants, [0, 1, 2], name="low_data")
    for variant, key in variants.items():
        method, fraction = key.split("-0.") if "-0." in key else (key.removesuffix("-1.0"), "")
        share = f"0.{fraction}" if fraction else "1.0"
        for seed in range(3):
            score = 0.4 + 0.3 * float(share) ** 0.5 + 0.01 * seed + 0.01 * list(METHODS).index(method)
            records.trial(
                parent, variant, key, seed, score, params=METHODS[method] | {"data.fraction": share, "seed": str(seed)}
            )
    return records


def test_a_line_a_method(low_data: Any) -> None:
    results = low_data.results()
    lines = low_data_lines(results, results.studies.iloc[0]["run_id"], "test/accuracy")
    assert [line.method for line in lines] == ["SL, 2 views", "SL + puzzling", "SL + in-painting"]
    assert [fraction for fraction, _ in lines[1].points] == [0.05, 0.2, 1.0]
    fraction, score = lines[1].points[2]
    assert (fraction, score.n) == (1.0, 3)
    assert score.mean == pytest.approx(0.72)


def test_configurations_of_one_method_keep_lines_of_their_own(records: Any) -> None:
    parent = records.study({"grid 2": "a", "grid 3": "b"}, [0], name="low_data")
    for name, key in (("grid 2", "a"), ("grid 3", "b")):
        records.trial(parent, name, key, 0, 0.5, params={"pretext.puzzling.grid": name[-1]})
    results = records.results()
    lines = low_data_lines(results, parent, "test/accuracy")
    assert [(line.method, line.points[0][1].n) for line in lines] == [("grid 2", 1), ("grid 3", 1)]


def test_trials_that_start_from_an_arm_are_one_line(records: Any) -> None:
    """Each seed starts from another trial; two stages are two lines."""
    variants = {f"{stage} {share}": f"{stage}-{share}" for stage in ("long", "short") for share in (0.1, 0.2)}
    parent = records.study(variants, [0, 1, 2], name="low_data")
    for stage in ("long", "short"):
        for seed in range(3):
            records.trial(parent, stage, stage, seed, trial_id=f"{stage}{seed}", stage=True)
    for name, key in variants.items():
        stage, share = name.split()
        for seed in range(3):
            params = {"model.weights": f"'trial:{stage}{seed}'", "data.fraction": share, "seed": str(seed)}
            records.trial(parent, name, key, seed, 0.5 + seed / 100, params=params)
    lines = low_data_lines(records.results(), parent, "test/accuracy")
    assert [[score.n for _, score in line.points] for line in lines] == [[3, 3], [3, 3]]


def test_the_figure_shows_intervals_in_percent(low_data: Any, tmp_path: Path) -> None:
    figure: Any = low_data_figure(low_data.results())
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "SL, 2 views",
        "SL + puzzling",
        "SL + in-painting",
    ]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5 %", "20 %", "100 %"]
    assert axes.get_ylabel() == "test accuracy, %"
    assert len(axes.containers) == 3
    (_, _, bars) = axes.containers[1].lines
    low, high = bars[0].get_segments()[2][:, 1]
    assert (low, high) == pytest.approx((72 - 2.4841, 72 + 2.4841), abs=1e-3)  # 4.3027 · 1 / √3
    figure.savefig(tmp_path / "figure.png")
    picture = cv2.imread(str(tmp_path / "figure.png"))
    assert picture is not None
    assert picture.std() > 5


def test_no_study_no_figure(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"low_data.*\n?.*search_spaces/low_data\.yaml"):
        low_data_figure(load_results(None, tmp_path))


def test_one_panel_a_dataset(records: Any) -> None:
    for data in ("rendered", "ferplus"):
        parent = records.study({"SL": data}, [0], name="low_data", data=data)
        records.trial(parent, "SL", data, 0, 0.5, data=data)
    figure = low_data_figure(records.results())
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == [
        "low_data (quick), rendered",
        "low_data (quick), ferplus",
    ]
