"""The scripts in analysis/: their `main` called in this process; one call as people make it, marked slow."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hmtl_ablate.reporting.answer import answers
from hmtl_ablate.reporting.decisions import STOPPING, study_decisions
from hmtl_ablate.reporting.paper_tables import PAPER_TABLES
from hmtl_ablate.reporting.render import render
from tests.reporting.example import controlled, example, study  # type: ignore[import-not-found]

ANALYSIS = Path(__file__).parents[2] / "analysis"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ANALYSIS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for their own annotations
    spec.loader.exec_module(module)
    return module


def test_claims_table(store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("table").main(["claims", "--runs", str(tmp_path / "none")]) == 0
    assert "No runs yet" in capsys.readouterr().out
    parent = store.study({"SL": "a"}, [0])
    store.trial(parent, "SL", "a", 0, 0.5)
    target = tmp_path / "claims.md"
    assert (
        script("table").main(["claims", "--runs", str(store.path), "--format", "markdown", "--output", str(target)])
        == 0
    )
    text = target.read_text(encoding="utf-8")
    assert text.count("| AffectNet |") == 8
    assert "Studies" not in text


def test_low_data_figure(store: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "figure.png"
    arguments = ["--runs", str(store.path), "--output", str(target)]
    assert script("low_data_figure").main(arguments) == 2
    assert "low_data.yaml" in capsys.readouterr().err
    parent = store.study({"SL": "a"}, [0], name="low_data")
    store.trial(parent, "SL", "a", 0, 0.5)
    assert script("low_data_figure").main(arguments) == 0
    assert target.read_bytes().startswith(b"\x89PNG")


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["claims", "--runs", str(tmp_path), "--output", str(tmp_path / "no folder" / "claims.md")]
    assert script("table").main(arguments) == 2
    assert "no folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", PAPER_TABLES)
def test_a_table(store: Any, capsys: pytest.CaptureFixture[str], name: str) -> None:
    arguments = [name, "--runs", str(store.path), "--format", "markdown"]
    assert script("table").main(arguments) == 2
    assert f"search_spaces/{name}.yaml" in capsys.readouterr().err
    parent = store.study({"SL, a": "x", "HMTL, a": "y"}, [0, 1], name=name)
    for variant, key, score in (("SL, a", "x", 0.6), ("HMTL, a", "y", 0.7)):
        for seed in (0, 1):
            store.trial(parent, variant, key, seed, score)
    assert script("table").main(arguments) == 0
    out = capsys.readouterr().out
    assert PAPER_TABLES[name].heading in out
    assert "70.00" in out or "30.00 ± 0.00 | +25.00" in out  # an error of 40 % down to 30 % is a quarter less


def test_every_table_has_its_study() -> None:
    assert [name for name in PAPER_TABLES if not (ANALYSIS.parent / "search_spaces" / f"{name}.yaml").exists()] == []


def test_help_lists_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        script("table").main(["--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [
        name for name in ("claims", *PAPER_TABLES) if not any(line.startswith(f"  {name} ") for line in lines)
    ] == []


def test_csv_and_json_are_for_the_claims(store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("table").main(["claims", "--runs", str(store.path), "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("claims,") == 9
    parent = store.study({"SL": "x"}, [0], name="gender")
    store.trial(parent, "SL", "x", 0, 0.6)
    assert script("table").main(["gender", "--runs", str(store.path), "--format", "csv"]) == 2
    assert "can't be written as 'csv'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_as_people_print_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "analysis/table.py", "claims", "--runs", str(tmp_path)],
        cwd=ANALYSIS.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "No runs yet" in done.stdout


COSTS = """\
name: costs
base:
  data: {size: 32}
  model: {backbone: test_resnet, weights: null}
variants:
  SL: {}
  SL + puzzling: {pretext: {puzzling: {}}}
  SL + rotation: {pretext: {rotation: {}}}
seeds: [0]
evaluations:
  probe: {probe: {kind: linear}}
"""


@pytest.mark.slow
def test_inference_cost_is_that_of_sl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "costs.yaml"
    file.write_text(COSTS)
    assert script("inference_cost").main([str(file), "--format", "markdown"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| SL")]
    assert len(rows) == 3
    assert len({tuple(row[2:]) for row in rows}) == 1
    assert len({row[1] for row in rows}) == 3  # the heads do cost while training


def test_inference_cost_of_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script("inference_cost").main([str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err


def written(folder: Path, *tables: Any) -> Path:
    """A folder of reports, one per study's first table."""
    reports = folder / "reports"
    reports.mkdir()
    (reports / f"{tables[0].name}.json").write_text(render(replace(example(), tables=tables), "json"))
    return reports


def of_forest(text: str) -> str:
    """The alternative text of the page's first figure."""
    return text.partition("![")[2].partition("](results/forest.svg)")[0]


def test_results_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # By hand: rotation minus SL is 4.0, 4.2, 4.4 points: mean 4.2, half 4.3027 · 0.2 / √3 = 0.50.
    rows = {
        "SL": {0: 0.6, 1: 0.6, 2: 0.6},
        "SL + puzzling": {0: 0.55, 1: 0.6, 2: 0.65},
        "SL + rotation": {0: 0.64, 1: 0.642, 2: 0.644},
    }
    table = replace(study(rows, name="pretext", data="ferplus", notes=("1 of 12 trials failed",)), profile="standin")
    page = tmp_path / "page.md"
    assert script("results_page").main([str(tmp_path), str(page)]) == 2
    reports = written(tmp_path, table, replace(table, evaluation="k-NN", data="csv"))
    assert script("results_page").main([str(reports), str(page)]) == 0
    text = page.read_text()
    assert "\n    hmtl-ablate run search_spaces/pretext.yaml --profile standin --data ferplus=PATH\n" in text
    assert "Commit f6480f8, cpu, torch 2.15.0; 2 minutes of training in total." in text
    assert "| SL + rotation | 3 | 64.20 ± 0.20 | +4.20 [+3.70, +4.70] | 3 | better | 1,234,567 |" in text
    assert (
        "\nAgainst SL, in points: better: SL + rotation (+4.20 [+3.70, +4.70]); "
        "not shown to differ: SL + puzzling (+0.00 [−12.42, +12.42]).\n"
    ) in text
    assert "- 1 of 12 trials failed\n" in text
    assert "### pretext: k-NN\n\nOn csv.\n" in text
    assert text.count("(results/pretext.svg)") == text.count("(results/forest.svg)") == 1
    forest = of_forest(text)
    assert "pretext: SL + rotation minus SL: +4.20 [+3.70, +4.70], better" in forest
    assert "pretext, k-NN: SL + rotation minus SL" in forest
    assert all((reports / f"{name}.svg").read_text().startswith("<?xml") for name in ("forest", "pretext"))


def test_the_results_page_of_an_error_calls_less_better(tmp_path: Path) -> None:
    rows = {"SL": {0: 4.0, 1: 4.1, 2: 4.2}, "HMTL": {0: 3.0, 1: 3.1, 2: 3.2001}, "worse": {0: 5.0, 1: 5.1, 2: 5.2001}}
    table = study(rows, name="head_pose", data="csv", metric="test/pose/mae")
    text = script("results_page").page(written(tmp_path, table))
    assert "better: HMTL (−1.000 [−1.000, −1.000]); worse: worse (+1.000 [+1.000, +1.000])" in text


def test_the_results_page_where_seeds_were_added_has_the_declared_comparisons_alone(tmp_path: Path) -> None:
    scores = {
        "SL, 2 views": dict.fromkeys(range(4), 0.6),
        "SL": {seed: 0.5 + seed / 1000 for seed in range(4)},
        "SL + puzzling": {0: 0.62, 1: 0.61},
    }
    pairs = [["SL", "SL, 2 views"]]
    row = {
        "decide": {"comparisons": pairs},
        "metric": "test/accuracy",
        "seeds": range(12),
        "registered": {},
        "file": "",
    }
    asked = {name: list(range(4)) for name in scores}
    over = [(name, seed) for name in scores for seed in range(4)]
    decisions = study_decisions(row | {"asked": asked}, scores, over)
    table = replace(study(scores, name="decide"), decisions=decisions, notes=(STOPPING, "2 trials failed"))
    text = script("results_page").page(written(tmp_path, table))
    # By hand: mean −9.85, sd 0.129, half 5.92 · 0.129 / √4 = 0.38.
    assert "\nAgainst SL, 2 views, in points: worse: SL (−9.85 [−10.23, −9.47]).\n" in text
    assert "| SL | 4 | 50.15 ± 0.13 | −9.85 [−10.23, −9.47] | 4 | worse |" in text
    assert "| SL + puzzling | 2 | 61.50 ± 0.71 | +1.50 | 2 |  |" in text
    assert STOPPING not in text
    assert "- 2 trials failed\n" in text


def test_the_results_page_of_controls_has_the_verdict(tmp_path: Path) -> None:
    table = controlled()
    text = script("results_page").page(written(tmp_path, table))
    assert f"\n{' '.join(answers(table)[-2:])}\n" in text


def test_a_study_at_two_profiles_has_a_section_and_a_figure_of_each(tmp_path: Path) -> None:
    scores = {"SL": {0: 0.5, 1: 0.5, 2: 0.51}, "HMTL": {0: 0.6, 1: 0.61, 2: 0.6}}
    quick, real = study(scores, name="gender"), replace(study(scores, name="gender", data="utkface"), profile="standin")
    page = script("results_page")
    folder = written(tmp_path, quick, real)
    text = page.page(folder)
    for title, file in (
        ("gender (quick, rendered)", "gender-quick-rendered"),
        ("gender (standin, utkface)", "gender-standin-utkface"),
    ):
        assert f"\n## {title}\n" in text
        assert f"](results/{file}.svg)" in text
        assert file in page.figures(folder)
    assert len(page.figures(folder)) == 3  # and the forest


def test_the_forest_has_differences_at_equal_image_passes(tmp_path: Path) -> None:
    rows = {"SL": {0: 0.6, 1: 0.6, 2: 0.61}, "twice": {0: 0.7, 1: 0.71, 2: 0.7}, "same": {0: 0.7, 1: 0.7, 2: 0.71}}
    table = study(rows, name="pretext")
    passes = {"twice": 2e6}
    table = replace(table, rows=tuple(replace(row, image_passes=passes.get(row.variant, 1e6)) for row in table.rows))
    forest = of_forest(script("results_page").page(written(tmp_path, table)))
    assert "same minus SL" in forest
    assert "twice" not in forest


def test_the_page_in_docs_is_that_of_its_reports() -> None:
    docs = ANALYSIS.parent / "docs"
    assert script("results_page").page(docs / "results") == (docs / "results.md").read_text(encoding="utf-8")


def test_the_numbers_in_the_readme_are_those_of_the_report() -> None:
    root = ANALYSIS.parent
    result = (root / "README.md").read_text("utf-8").partition("## A real result")[2].partition("\n## ")[0]
    page = script("results_page")
    (study,) = json.loads((root / "docs/results/ferplus_attribution.json").read_text("utf-8"))["studies"]
    assert "\n".join(page._comparisons(study)) in result
    assert page._answer(study) in result


def test_contact_sheet_has_a_row_per_emotion() -> None:
    sheet = script("contact_sheet").contact_sheet(columns=2, size=40)
    assert sheet.shape == (8 * 40, 90 + 2 * 40, 3)
    faces = sheet[:, 90:].reshape(8, 40, 80, 3)
    assert all(row.std() > 5 for row in faces)


def test_views_sheet(tmp_path: Path) -> None:
    target = tmp_path / "views.jpg"
    sheet = script("views_sheet")
    sheet.main(str(target))
    assert target.stat().st_size > 10_000
    rows = sheet.sheet(columns=4).reshape(6, 96, 4 * 96, 3)
    for image_by_image, at_once in zip(rows[::2], rows[1::2], strict=True):
        assert abs(image_by_image.mean() - at_once.mean()) < 25
