"""The HTML page in headless Chromium: the values are those of the JSON format, and it fits a phone and a desk."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from hmtl_ablate.reporting.columns import difference_text, score_text
from hmtl_ablate.reporting.render import render
from hmtl_ablate.reporting.results import results_of
from hmtl_ablate.reporting.statistics import Estimate
from tests.reporting.example import example  # type: ignore[import-not-found]

pytestmark = pytest.mark.slow

CELLS = """return [...document.querySelectorAll('section.study')].filter(one => one.id != 'claims').map(one => {
  const table = one.querySelector('table');
  if (!table || table.caption.textContent != 'Results') return {};
  const keys = [...table.tHead.rows[0].cells].map(cell => cell.dataset.column);
  return Object.fromEntries([...table.tBodies[0].rows].map(
    row => [row.cells[0].textContent, Object.fromEntries([...row.cells].map((cell, i) => [keys[i], cell.textContent]))]
  ));
});"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    page = tmp_path_factory.mktemp("page") / "report.html"
    page.write_text(render(replace(example(), results=results_of([], [])), "html"), encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = next(path for name in ("chromium", "google-chrome") if (path := shutil.which(name)))
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()


def test_cells_are_those_of_the_json_format(browser: Any) -> None:
    shown = browser.execute_script(CELLS)
    studies = json.loads(render(example(), "json"))["studies"]
    assert len(shown) == len(studies)
    compared = 0
    for cells, one in zip(shown, studies, strict=True):
        percent = not one["metric"].startswith("test/mae")
        for row in one["rows"]:
            own = next(cells[name] for name in cells if name.split() == _printable(row["variant"]).split())
            score = Estimate(row["n_seeds"], row["mean"], row["sd"])
            assert own["mean"] == score_text(score, percent)
            if row["difference"] is not None:
                found = Estimate(row["n_seeds"], row["difference"], None, row["ci95_low"], row["ci95_high"])
                assert own["difference"] == difference_text(found, percent)
            compared += 1
    assert compared > 15


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in name)


def test_figures_are_there_and_have_a_size(browser: Any) -> None:
    script = "return [...document.images].map(one => [one.complete, one.naturalWidth, one.width, one.alt.length])"
    pictures = browser.execute_script(script)
    assert len(pictures) >= 5
    for complete, natural, width, words in pictures:
        assert complete
        assert min(natural, width) > 200
        assert words > 40


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_runs_over_the_page(browser: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    found = browser.execute_script("return [document.scrollingElement.scrollWidth, window.innerWidth]")
    assert found[0] <= found[1] == width


def test_dark_and_light(browser: Any) -> None:
    colours = {}
    for scheme in ("dark", "light"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        script = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
        colours[scheme] = [_brightness(colour) for colour in browser.execute_script(script)]
    assert colours["dark"][0] < 60 < 180 < colours["dark"][1]
    assert colours["light"][1] < 60 < 180 < colours["light"][0]


def _brightness(colour: str) -> float:
    return sum(float(part) for part in colour.split("(")[1].rstrip(")").split(",")[:3]) / 3


def test_the_contents_lead_to_the_studies(browser: Any) -> None:
    links = browser.execute_script(
        "return [...document.querySelectorAll('nav a')].map(one => !!document.querySelector(one.hash))"
    )
    assert len(links) == 7
    assert all(links)


def test_the_console_is_silent(browser: Any) -> None:
    assert [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []
