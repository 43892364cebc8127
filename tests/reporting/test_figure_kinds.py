"""Each figure against numbers worked out by hand, from tables and results without a store."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hmtl_ablate.config import TrialConfig
from hmtl_ablate.errors import HmtlError
from hmtl_ablate.reporting.figures import FIGURES, drawings
from hmtl_ablate.reporting.figures.confusion import mean_confusion
from hmtl_ablate.reporting.figures.curves import curve
from hmtl_ablate.reporting.figures.files import write_figures
from hmtl_ablate.reporting.figures.history import best_so_far
from hmtl_ablate.reporting.figures.parallel import Scale, scale_of
from hmtl_ablate.reporting.figures.style import png, svg, wrapped
from hmtl_ablate.reporting.importance import importances
from hmtl_ablate.reporting.results import results_of
from hmtl_ablate.reporting.search import Configuration
from hmtl_ablate.reporting.tables import study_tables
from hmtl_ablate.training.folder import TrialFolder, TrialResult
from tests.reporting.example import BY_HAND, controlled, study  # type: ignore[import-not-found]
from tests.reporting.test_search import results as search_results  # type: ignore[import-not-found]

NOTHING = results_of([], [])


def drawn(table: Any, results: Any = NOTHING) -> dict[str, Any]:
    return {kind.key: drawing for kind, drawing in drawings(table, results)}


def test_differences_have_the_intervals_of_the_table() -> None:
    table = study({"SL": {0: 0.50, 1: 0.52, 2: 0.51}, "HMTL": {0: 0.53, 1: 0.54, 2: 0.55}, "none": {}})
    drawing = drawn(table)["differences"]
    (axes,) = drawing.figure.axes
    interval, point = axes.lines[:2]
    assert list(point.get_xdata()) == pytest.approx([3.0])  # +3, +2, +4 points
    assert list(interval.get_xdata()) == pytest.approx([3 - 2.4841, 3 + 2.4841], abs=1e-3)  # 4.3027 · 1 / √3
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["HMTL"]
    assert "HMTL: +3.00 [+0.52, +5.48], 3 seeds" in drawing.alt


def test_the_decomposition_is_a_waterfall() -> None:
    axes = drawn(controlled())["decomposition"].figure.axes[0]
    bars = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
    total = 100 * (0.06 + 0.06 + 0.073) / 3
    starts = np.array([0, 4 / 3, 7 / 3, 7 / 3, 0])  # A1 − A0: 1, 2, 1; A2 − A1: 1, 0, 2; A3 − A2: 0, 1, −1 points
    assert [start for start, _ in bars] == pytest.approx(list(starts))
    assert [width for _, width in bars] == pytest.approx([4 / 3, 1, 0, total - 7 / 3, total])
    assert [tick.get_text().replace("\n", " ") for tick in axes.get_yticklabels()][-1] == "in all"


def test_of_an_error_the_decomposition_shows_a_decrease_as_the_gain() -> None:
    table = controlled()
    drawing = drawn(replace(table, metric="test/mae"))["decomposition"]
    gains, losses = (
        {bar.get_facecolor()[:3] for bar in drawing.figure.axes[0].patches if sign * bar.get_width() > 0.01}
        for sign in (-1, 1)
    )
    higher = {bar.get_facecolor()[:3] for bar in drawn(table)["decomposition"].figure.axes[0].patches[:2]}
    assert "lower is better" in drawing.alt
    assert "lower is better" in drawing.figure.axes[-1].get_xlabel()
    assert not gains & losses
    assert not higher & {bar.get_facecolor()[:3] for bar in drawing.figure.axes[0].patches[:2]}


def test_a_study_without_data_has_no_figures() -> None:
    assert drawn(study({})) == {}
    assert list(drawn(study({"SL": {0: 0.5}}))) == []


def test_curves_are_means_over_the_seeds(tmp_path: Path) -> None:
    for seed, values in enumerate(([0.2, 0.4], [0.3, 0.6], [0.4])):
        folder = TrialFolder(tmp_path / str(seed))
        folder.path.mkdir()
        folder.write_history([{"val/accuracy": value} for value in values])
    found = curve({seed: TrialFolder(tmp_path / str(seed)) for seed in range(3)}, "val/accuracy")
    assert [(epoch, one.n) for epoch, one in found.items()] == [(1, 3), (2, 2)]
    assert [one.mean for one in found.values()] == pytest.approx([0.3, 0.5])
    assert found[1].high == pytest.approx(0.3 + 0.24841, abs=1e-4)


def trained(records: Any, folder: Path, **study: Any) -> Any:
    """Two arms of two seeds with folders: val accuracy 20, 40 % and 30, 60 % over the epochs."""
    parent = records.study({"SL": "a", "HMTL": "b"}, [0, 1], **study)
    for key, variant in (("a", "SL"), ("b", "HMTL")):
        for seed, values in enumerate(([0.2, 0.4], [0.3, 0.6])):
            records.trial(parent, variant, key, seed, 0.5 + seed / 10, trial_id=f"{key}{seed}")
            own = TrialFolder(folder / "trials" / f"{key}{seed}")
            own.write_config(TrialConfig())
            own.write_history([{"val/accuracy": value} for value in values])
            own.write_result(
                TrialResult(
                    trial_id=f"{key}{seed}",
                    status="finished",
                    epochs=2,
                    best_epoch=2,
                    image_passes=1,
                    seconds=1.0,
                    classes=["joy", "fear"],
                    confusion={"test": [[3 + seed, 1], [0, 2]]},
                )
            )
    return replace(records.results(), store=folder)


def test_figures_of_trials_read_their_folders(records: Any, tmp_path: Path) -> None:
    results = trained(records, tmp_path)
    found = drawn(study_tables(results)[0], results)
    axes = found["curves"].figure.axes[0]
    assert list(axes.lines[0].get_ydata()) == pytest.approx([25, 50])
    assert len(axes.collections) == 2  # a band each
    assert "SL: 50.00 after epoch 2; HMTL: 50.00 after epoch 2" in found["curves"].alt
    assert "SL: recall joy 78 %, fear 100 %." in found["confusion"].alt  # (3/4 + 4/5) / 2
    assert [axes.get_title().split("\n")[0] for axes in found["confusion"].figure.axes] == ["SL", "HMTL"]


def test_adaptive_seeds_have_no_bands(records: Any, tmp_path: Path) -> None:
    rule = {"smallest": 0.5, "seeds": 4, "alpha": 0.05, "comparisons": [["HMTL", "SL"]]}
    results = trained(records, tmp_path, decide=rule, asked={"SL": [0, 1], "HMTL": [0, 1]})
    found = drawn(study_tables(results)[0], results)
    assert len(found["curves"].figure.axes[0].collections) == 0
    assert "no intervals: seeds were added until decided" in found["curves"].alt
    assert len(found["differences"].figure.axes[0].lines) == 2  # the point and 0: no interval before the fourth pair
    assert found["differences"].figure.axes[0].get_title() == "Paired by seed, sequential 95 % intervals"


def test_confusion_is_the_mean_of_the_seeds_rows() -> None:
    found = mean_confusion([[[3, 1], [0, 0]], [[1, 1], [0, 0]]])
    assert found[0].tolist() == [0.625, 0.375]  # (3/4 + 1/2) / 2
    assert np.isnan(found[1]).all()  # a class without images


def test_the_best_so_far_follows_the_ranking() -> None:
    """Number 4 has the best mean, of two seeds, and raced no further; number 2 diverged with its second seed."""
    scores = [{0: 0.4}, {0: 0.9}, {0: 0.6, 1: 0.5, 2: 0.52, 3: 0.54}, {0: 0.7, 1: 0.6}, {}]
    configurations = [Configuration("", number, {}, {}, own) for number, own in enumerate(scores, 1)]
    found = best_so_far(configurations, {3: 1, 4: 2, 1: 3})
    assert [number for number, _ in found] == [1, 3, 4]
    assert [best for _, best in found] == pytest.approx([0.4, 0.54, 0.54])


def test_figures_of_a_race_name_the_best_of_the_ranking() -> None:
    """A configuration of two lucky seeds has a better mean than the one that won the race with six."""
    results = search_results(lucky=0.99)
    table = study_tables(results)[0]
    found = drawn(table, results)
    assert (
        "A: 4 configurations, 1 stopped early or failed; the best is number 1 with 85.00" in found["search-history"].alt
    )
    assert "with training.lr 0.01" in found["parallel"].alt


def test_a_search_is_drawn_configuration_by_configuration() -> None:
    results = search_results()
    found = drawn(study_tables(results)[0], results)
    axes = found["search-history"].figure.axes[0]
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3]
    assert list(axes.lines[0].get_ydata()) == pytest.approx([85, 70, 65])  # means over the seeds of arm A
    assert list(axes.lines[1].get_ydata()) == pytest.approx([85, 85, 85])
    assert list(axes.lines[2].get_xdata()) == [4]  # it diverged
    assert (
        "A: 4 configurations, 1 stopped early or failed; the best is number 1 with 85.00" in found["search-history"].alt
    )
    assert "with training.lr 0.01" in found["parallel"].alt
    assert "importance" not in found  # one option alone has nothing to be compared with


def test_axes_of_options() -> None:
    assert scale_of([0.1, 10.0, 1.0]) == Scale((0.1, 10.0), True, True)
    assert scale_of([0.1, 10.0]).place(1.0) == pytest.approx(0.5)
    assert scale_of([2, 3, 4]).place(3) == 0.5
    assert [scale_of(["shared", "mixed"]).place(value) for value in ("mixed", "shared")] == [0.0, 1.0]
    assert scale_of([2, 2]).place(2) == 0.5


def test_the_option_that_decides_is_the_most_important() -> None:
    tried = [({"lr": (n % 10) / 10 + 0.1, "grid": n % 2}, (n % 10) / 10) for n in range(40)]
    found = importances(tried)
    assert list(found) == ["lr", "grid"]
    assert found["lr"] > 0.8
    assert sum(found.values()) == pytest.approx(1)
    assert importances([]) == importances(tried[:3]) == {}


@pytest.mark.parametrize("seed", range(4))
def test_whole_numbers_are_a_range(seed: int) -> None:
    """As unordered values 40 numbers of epochs say little, and an option without effect takes their share."""
    random = np.random.default_rng(seed)
    tried = [
        ({"epochs": int(epochs), "lr": float(lr)}, epochs / 200 + noise)
        for epochs, lr, noise in zip(
            random.integers(10, 201, 40), random.random(40), random.normal(0, 0.03, 40), strict=True
        )
    ]
    epochs = {"kind": "int", "low": 10, "high": 200, "step": 1}
    assert importances(tried, space={"epochs": epochs, "lr": {"kind": "uniform", "low": 0, "high": 1}})["epochs"] > 0.8


def test_low_data_is_drawn_for_a_study_of_any_name(records: Any) -> None:
    parent = records.study({"SL 5 %": "a", "SL 100 %": "b"}, [0], name="mine")
    for variant, key, share, score in (("SL 5 %", "a", "0.05", 0.4), ("SL 100 %", "b", "1.0", 0.7)):
        records.trial(parent, variant, key, 0, score, params={"data.fraction": share})
    results = records.results()
    drawing = drawn(study_tables(results)[0], results)["low-data"]
    assert drawing.figure.axes[0].get_lines()[0].get_ydata() == pytest.approx([40, 70])
    assert "SL: 40.00 at 5 %, 70.00 at 100 %" in drawing.alt


def test_names_are_no_formulas_and_bytes_are_the_same_twice() -> None:
    table = study({"$\\frac": {0: 0.5, 1: 0.6}, "a $b$ <c>": {0: 0.5, 1: 0.7}})
    first, second = (drawn(table)["differences"].figure for _ in range(2))
    assert first.axes[0].get_yticklabels()[0].get_text() == "a $b$ <c>"
    assert svg(first) == svg(second)
    assert png(first) == png(second)
    assert "<dc:date>" not in svg(first)


def test_long_names_wrap_into_three_lines_at_most() -> None:
    lines = wrapped("SL + puzzling with a name so long that nobody wants to read it", 20).split("\n")
    assert len(lines) == 3
    assert max(map(len, lines)) <= 20


def test_files_stay_in_their_folder_and_apart(tmp_path: Path) -> None:
    table = study(BY_HAND, name="../../etc/passwd")
    paths = write_figures([table, table, replace(table, name="..")], NOTHING, tmp_path / "new" / "figures")
    assert [path.name for path in paths] == [
        "etc_passwd-quick-differences.png",
        "etc_passwd-quick-differences.svg",
        "etc_passwd-quick-2-differences.png",
        "etc_passwd-quick-2-differences.svg",
        "_-quick-differences.png",
        "_-quick-differences.svg",
    ]
    assert {path.parent for path in paths} == {tmp_path / "new" / "figures"}
    assert paths[0].read_bytes()[:4] == b"\x89PNG"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HmtlError, match=r"--figures: .*file"):
        write_figures([study(BY_HAND)], NOTHING, tmp_path / "file")


def test_keys_are_unique() -> None:
    assert len({kind.key for kind in FIGURES}) == len(FIGURES)
