"""The HTML page as text: what users named is escaped, and nothing is loaded from elsewhere."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image

from hmtl_ablate.cli import main
from hmtl_ablate.reporting import results as results_module
from hmtl_ablate.reporting.choosing import ReportOptions
from hmtl_ablate.reporting.render import Report, build_report, render
from tests.reporting.example import BY_HAND, controlled, example, study  # type: ignore[import-not-found]

SCRIPT = "<script>alert(1)</script>"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        found = {key: value or "" for key, value in attributes}
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[key] for key in ("src", "href") if key in found]
        self.alts += [found.get("alt", "")] if tag == "img" else []


def test_all_that_users_name_is_escaped() -> None:
    table = replace(
        study(BY_HAND, name=SCRIPT, data=SCRIPT, question=SCRIPT, notes=(SCRIPT,), protocol=SCRIPT, evaluation=SCRIPT),
        profile=SCRIPT,
        made={"commit": SCRIPT, "device": SCRIPT, "torch": SCRIPT, "seconds": 1.0},
    )
    rows = tuple(replace(row, variant=f"{SCRIPT}{row.variant}", failed={SCRIPT: 1}) for row in table.rows)
    text = render(Report((), (replace(table, rows=rows),), empty=False), "html")
    assert Tags(text).tags["script"] == 0
    assert text.count("&lt;script&gt;alert(1)") > 10


def test_alt_texts_are_escaped(records: Any) -> None:
    parent = records.study({"SL": "a", f'"{SCRIPT}': "b"}, [0, 1])
    for seed in (0, 1):
        records.trial(parent, "SL", "a", seed, 0.5)
        records.trial(parent, f'"{SCRIPT}', "b", seed, 0.6 + seed / 10)
    tags = Tags(render(build_report(records.results()), "html"))
    assert tags.tags["script"] == 0
    assert any(SCRIPT in alt for alt in tags.alts)


def test_nothing_comes_from_elsewhere_and_ids_are_unique() -> None:
    text = render(example(), "html")
    tags = Tags(text)
    assert all(link.startswith(("#", "data:")) for link in tags.links)
    assert not re.search(r"url\(|@import|<script", text)
    assert len(tags.ids) == len(set(tags.ids))
    assert {link[1:] for link in tags.links if link.startswith("#")} <= set(tags.ids)


def test_what_people_see_of_each_study() -> None:
    text = render(Report((), (controlled(),), empty=False), "html")
    assert "controls (quick), data: rendered" in text
    assert '<td class="right"><span class="one">61.00 ± 1.00</span></td>' in text  # SL: 60, 62, 61
    assert "1 min 14 s" in text  # its training time, 74.04 s
    assert text.count('<th scope="row"') >= 8


def test_no_line_break_parts_a_number_from_its_sign_name_or_unit() -> None:
    answer = "A beats SL by 1.60 points [0.90, 2.30], 5 seeds, p = 0.088 after Holm; I² = 38 %, <b>, [a < b]."
    text = render(Report((), (study(BY_HAND, question=answer),), empty=False), "html")
    found = re.search(r'<p class="question">(.*?)</p>', text)
    assert found is not None
    assert found[1] == (
        'A beats SL by <span class="one">1.60 points</span> <span class="one">[0.90, 2.30]</span>, '
        '<span class="one">5 seeds</span>, <span class="one">p = 0.088</span> after Holm; '
        '<span class="one">I² = 38 %</span>, &lt;b&gt;, <span class="one">[a &lt; b]</span>.'
    )
    assert ".one { white-space: nowrap; }" in text


def test_the_cost_and_the_failures_are_tables() -> None:
    plan = {"trials": 12, "image_passes": 3e6, "seconds": 90, "at_most": True}
    table = replace(
        study({"SL": {0: 0.5}}), plan={**plan, "actual": {"trials": 11, "image_passes": 2e6, "seconds": 75.0}}
    )
    rows = (replace(table.rows[0], failed={"diverged": 2}),)
    text = render(Report((), (replace(table, rows=rows),), empty=False), "html")
    assert '<td class="right">at most 3,000,000</td><td class="right">2,000,000</td>' in text
    assert '<th scope="row" class="left">SL</th><td class="left">diverged</td><td class="right">2</td>' in text


def test_faces_are_the_last_ones_of_the_first_seed_unless_left_out(records: Any, tmp_path: Path) -> None:
    parent = records.study({"SL": "a"}, [0, 1])
    for seed in (0, 1):
        records.trial(parent, "SL", "a", seed, 0.5, trial_id=f"a{seed}")
        folder = tmp_path / "trials" / f"a{seed}" / "pictures"
        folder.mkdir(parents=True)
        for name in ("puzzling-epoch-0001", "puzzling-epoch-0002", "inpainting-epoch-0002", "confusion-test"):
            Image.new("RGB", (8, 8), "red").save(folder / f"{name}.png")
    results = replace(records.results(), store=tmp_path)
    text = render(build_report(results), "html")
    assert [alt.split(",")[0] for alt in Tags(text).alts] == ["SL: inpainting", "SL: puzzling"]
    assert text.count("data:image/jpeg") == 2
    assert "seed 0" in Tags(text).alts[0]
    assert "data:image/jpeg" not in render(build_report(results, options=ReportOptions(pictures=False)), "html")


def test_the_command_line_writes_page_and_figures(store: Any, tmp_path: Path, capsys: Any) -> None:
    parent = store.study({"SL": "a", "HMTL": "b"}, [0])
    for key, variant in (("a", "SL"), ("b", "HMTL")):
        store.trial(parent, variant, key, 0, 0.5)
    command = ["report", "--runs", str(store.path), "--format", "html", "--no-pictures"]
    page, folder = tmp_path / "report.html", tmp_path / "figures"
    assert main([*command, "--output", str(page), "--figures", str(folder), "--rename", "HMTL=Ours"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "puzzling-quick-differences.png",
        "puzzling-quick-differences.svg",
    ]
    assert f"figure: {folder / 'puzzling-quick-differences.svg'}" in capsys.readouterr().err
    assert "Ours: +0.00, 1 seed" in page.read_text(encoding="utf-8")


def test_the_store_is_read_once_for_report_and_figures(store: Any, tmp_path: Path, monkeypatch: Any) -> None:
    parent = store.study({"SL": "a"}, [0])
    store.trial(parent, "SL", "a", 0, 0.5)
    read: list[Path] = []
    load = results_module.load_results

    def counted(address: str | None, folder: Path) -> Any:
        read.append(folder)
        return load(address, folder)

    monkeypatch.setattr(results_module, "load_results", counted)
    command = ["report", "--runs", str(store.path), "--output", str(tmp_path / "report.txt")]
    assert main([*command, "--figures", str(tmp_path / "figures")]) == 0
    assert read == [store.path]
    assert main(["report", "--runs", str(tmp_path / "none"), "--figures", str(tmp_path / "figures")]) == 2
