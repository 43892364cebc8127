"""MLflow's pages of a study in headless Chromium: the table that `ui` opens, and what the runs' own pages show."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from hmtl_ablate.tracking import StudyRecord, TrialRecord, open_tracking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 240
"""Seconds for a page to show what is waited for; on an idle machine it takes 5."""
SERVE = (
    "import sys; from pathlib import Path; from hmtl_ablate.tracking import serve_ui; "
    "serve_ui(None, Path(sys.argv[1]), int(sys.argv[2]), lambda address: print(address, flush=True))"
)
CELLS = """const rows = {};
for (const cell of document.querySelectorAll('.ag-row [col-id]')) {
  const row = cell.closest('.ag-row').getAttribute('row-index');
  (rows[row] ??= {})[cell.getAttribute('col-id')] = cell.innerText.trim();
}
return JSON.stringify(Object.values(rows));"""
TRACES = """return [...document.querySelectorAll('.js-plotly-plot')].flatMap(one => one.data.map(
  trace => [trace.type, trace.x.length]
));"""


@dataclass(frozen=True)
class Served:
    """A study with two trials in MLflow's pages."""

    table: str
    """Address that `ui` prints."""
    study: str
    trial: str
    """run_ids."""

    def page(self, run_id: str, tab: str = "") -> str:
        return f"{self.table.partition('#')[0]}#/experiments/1/runs/{run_id}{tab}"


@pytest.fixture(scope="module")
def served(mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    store = tmp_path_factory.mktemp("pages")
    shutil.copyfile(mlflow_database, store / "mlflow.db")
    parent, trial = filled(store)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(store), str(port)], text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield Served(process.stdout.readline().strip(), parent, trial)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def filled(store: Path) -> tuple[str, str]:
    """Writes a study with two trials; run_ids of the study and of the last trial."""
    tracking = open_tracking(None, store)
    study = StudyRecord(name="faces", profile="quick", metric="test/accuracy", variants={"SL": "k"}, seeds=(0, 1))
    parent = tracking.study_run(study, "name: faces\n")
    child = ""
    for seed, accuracy in ((0, 0.625), (1, 0.75)):
        record = TrialRecord(
            parent=parent,
            study="faces",
            trial_id=f"{seed}a",
            variant="SL",
            variant_key="k",
            seed=seed,
            data="rendered",
            fingerprint="f0f1f2f3",
            config={"training": {"epochs": 2}},
        )
        child = tracking.trial_run(record)
        tracking.log_epochs(child, [{"epoch": epoch, "val/accuracy": epoch / 4, "seconds": 9.0} for epoch in (1, 2)])
        metrics = {"test/accuracy": accuracy, "best/val/accuracy": 0.5, "seconds": 18.0}
        tracking.finish_trial(child, replace(record, status="finished", metrics=metrics), {})
    tracking.describe_study(parent, "SL has **0.69**.", "# Report\n", {"test/accuracy": 0.6875})
    tracking.finish_study(parent, "FINISHED")
    tracking.client._tracking_client.store.engine.dispose()
    return parent, child


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = next(path for name in ("chromium", "google-chrome") if (path := shutil.which(name)))
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=2400,1200"):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(PATIENCE)
        yield driver
    finally:
        driver.quit()


def wait(browser: Any, condition: Callable[[], bool]) -> None:
    WebDriverWait(browser, PATIENCE).until(lambda _: condition(), "the page does not show what it should")


def text(browser: Any) -> str:
    return str(browser.execute_script("return document.body.innerText"))


def test_the_table_that_opens_has_a_row_per_run_with_its_values(served: Served, browser: Any) -> None:
    browser.get(served.table)

    def cells() -> list[dict[str, str]]:
        return json.loads(browser.execute_script(CELLS))

    def column(name: str) -> list[str]:
        return sorted(found for row in cells() for key, found in row.items() if f"`{name}`" in key)

    wait(browser, lambda: len(column("test/accuracy")) == 3)
    assert column("hmtl.study") == ["faces"] * 3
    assert column("hmtl.variant") == ["-", "SL", "SL"]  # the study's own run has none
    assert column("hmtl.seed") == ["-", "0", "1"]
    assert column("hmtl.status") == ["-", "finished", "finished"]
    assert [float(found) for found in column("test/accuracy")] == [0.625, 0.6875, 0.75]
    assert column("best/val/accuracy") == ["-", "0.5", "0.5"]
    assert column("seconds") == ["-", "18", "18"]


def test_a_study_has_its_answer_and_best_score(served: Served, browser: Any) -> None:
    browser.get(served.page(served.study))
    wait(browser, lambda: "SL has 0.69." in text(browser) and "0.6875" in text(browser))


def test_a_trial_has_its_result_its_data_and_its_changed_options(served: Served, browser: Any) -> None:
    browser.get(served.page(served.trial))
    wait(browser, lambda: "Finished: test accuracy 75.0 %" in text(browser))
    shown = text(browser)
    assert "rendered (f0f1f2f3)" in shown
    assert "Parameters (1)" in shown
    assert "training.epochs: 2" in shown


def test_final_values_are_bars_and_no_line_has_one_point(served: Served, browser: Any) -> None:
    browser.get(served.page(served.trial, "/model-metrics"))
    wait(browser, lambda: "bar" in {kind for kind, _ in browser.execute_script(TRACES)})
    assert not [kind for kind, points in browser.execute_script(TRACES) if kind != "bar" and points < 2]
